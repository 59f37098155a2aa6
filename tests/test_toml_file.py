"""TOML that nobody can have meant is refused in one line, by every reader of TOML."""

import os

import pytest

from dlbench.errors import BadInput
from dlbench.launch.sites import load_site
from dlbench.report.analysis.projection import read_prices
from dlbench.suites.suite import load_suite


def cases_of(file):
    return load_suite(file).cases()


READERS = (cases_of, load_site, read_prices)
BAD = {
    "nested arrays": b"axes = " + b"[" * 100_000,
    "nested tables": b"axes = " + b"{a=" * 100_000,
    "dotted keys": b".".join([b"axes"] * 20_000) + b" = 1",
    "nested in an axis": b"[axes]\nmodel = " + b"[" * 200 + b"]" * 200,
    "too large": b"# a\n" * 1_000_000,
    "a long value": b"name = '" + b"x" * 900_000 + b"'\ncurrency = 7\n",
    "a huge number": b"version = 0x" + b"f" * 100_000,
    "not UTF-8": b"name = '\xff'",
    "binary": os.urandom(1000),
    "NUL": b"name = '\0'",
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_bad_toml_is_one_short_line(tmp_path, read, content):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read(file)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_and_a_folder_are_no_toml_files(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for name in ("pipe.toml", "folder.toml"):
        with pytest.raises(BadInput):
            read(tmp_path / name)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".toml", "x" * 300 + "/y.toml", "y/" * 3000 + "z.toml"])
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, read, name):
    with pytest.raises(BadInput) as caught:
        read(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
