"""The commands in the documentation: options, suites and axes that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dlbench.cli import build_parser
from dlbench.suites.suite import load_suite
from dlbench.suites.training import load_trainings

DOCS = Path(__file__).parents[1] / "docs"


def commands(path):
    for block in re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
        lines = block.replace("\\\n", " ").splitlines()
        yield from (shlex.split(line, comments=True)[1:] for line in lines if line.startswith("dlbench "))


ALL = [(path.name, words) for path in sorted(DOCS.rglob("*.md")) for words in commands(path)]


@pytest.mark.parametrize(("name", "words"), ALL, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_each_command_of_the_documentation_is_understood(name, words):
    options = build_parser([words[0]]).parse_args(words)
    loaders = {"run": load_suite, "train": load_trainings}
    if words[0] in loaders:
        loaders[words[0]](options.suite, options.overrides)
