"""A test file lies where the code it tests lies: every folder of tests is one of the package."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "dlbench"
#: What needs a machine of its own, and what tests share.
OTHERS = {"browser", "cluster", "fakes", "golden", "gpu", "integrations"}


def test_each_folder_of_tests_is_a_folder_of_the_package():
    for folder in {file.parent for file in TESTS.rglob("test_*.py")} - {TESTS}:
        place = folder.relative_to(TESTS)
        if place.parts[0] not in OTHERS:
            assert (PACKAGE / place).is_dir(), folder


def test_each_folder_of_the_package_has_tests_but_those_of_wrappers():
    for room in sorted(path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")):
        if room.name not in ("doctor",):
            assert list((TESTS / room).glob("test_*.py")), room
