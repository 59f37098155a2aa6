"""TOML that nobody can have meant is refused in one line, by every reader of TOML."""

import os

import pytest

from dlbench.errors import BadInput
from dlbench.launch.sites import load_site
from dlbench.report.analysis.projection import read_prices
from dlbench.suites.suite import load_suite
from dlbench.toml_file import read_toml


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


WRONG = {
    load_suite: {
        "nmae = 'x'\n": r"unknown key 'nmae' in .*x\.toml:1; did you mean 'name'",
        "[axes]\nmodell = ['lenet5']\n": r"unknown axis 'modell' in .*x\.toml:2; did you mean 'model'",
        "version = 'one'\naxes.model = 'lenet5'\n": r"x\.toml:1: version is 'one'; it must be a whole number",
        "name = 'x'\naxes = 3\n": r"x\.toml:2: axes is 3; it must be a table",
    },
    load_site: {
        "nmae = 'x'\n": r"unknown key 'nmae' in .*x\.toml:1; did you mean 'name'",
        "[slurm]\npartion = 'gpu'\n": r"unknown key in \[slurm\] 'partion' in .*x\.toml:2; did you mean 'partition'",
        "[slurm]\nexclusive = 'yes'\n": r"x\.toml:2: slurm\.exclusive is 'yes'; it must be true or false",
        "name = 'x'\nslurm = 3\n": r"x\.toml:2: slurm is 3; it must be a table",
    },
    read_prices: {
        "currecy = 'EUR'\n": r"unknown price key 'currecy' in .*x\.toml:1; did you mean 'currency'",
        "currency = 'EUR'\nper_kwh = 'cheap'\n": r"x\.toml: per_kwh is 'cheap'; it must be a number",
    },
}


@pytest.mark.parametrize(
    ("read", "text", "message"), [(read, text, words) for read, cases in WRONG.items() for text, words in cases.items()]
)
def test_unknown_keys_and_wrong_types_are_one_line_with_file_and_key(tmp_path, read, text, message):
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_a_key_is_found_in_its_own_table(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text("name = 'x'\n[a]\nkey = 1\n[b]\nkey = 2\n[[c]]\nkey = 3\n")
    found = read_toml(file, "a file")
    assert [found.file_and_line("key", table).rpartition(":")[2] for table in ("a", "b", "c")] == ["3", "5", "7"]
    assert found.file_and_line("c") == f"{file}:6"
    assert found.file_and_line("key", "none") == str(file)
