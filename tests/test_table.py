import csv
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from dlbench.table import Column, Table, render, seconds_text, text_table, with_shared_unit
from dlbench.units import GROUP_SEPARATOR

ROOT = Path(__file__).parents[1]
LONG = "my_package.my_networks.variants:a_network_with_a_very_long_name_of_its_own"
WIDE = Table(
    [Column("model"), Column("note"), *(Column(f"number {i}") for i in range(4))],
    [[LONG, "a sentence that goes on and on and says little", 1, 2, 3, 4], ["lenet5", None, 12_345, 6, 7, 8]],
    "Wide",
)


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_a_table_fits_the_terminal_and_keeps_every_name_whole(width):
    printed = text_table(WIDE, width)
    table, _, notes = printed.partition("\n\nColumns not shown: ")
    assert max(map(len, table.splitlines())) <= width
    if not notes:
        assert "number 3" in table
    else:
        assert "number 3" in notes
        assert "less -S" in notes
    rule = next(line for line in table.splitlines() if line.startswith("─"))
    column = len(rule.split("  ")[0])
    assert LONG in "".join(line[:column].strip() for line in table.splitlines())


@pytest.mark.parametrize("width", [40, 80, 120])
def test_title_and_notes_follow_the_width_of_the_terminal_word_by_word(width):
    note = "¹ The rate is a lower bound: some operations are not counted. " * 4
    table = Table(
        [Column("model")], [["lenet5"]], "The largest batch that fits is found by test runs. " * 3, [note, LONG]
    )
    lines = text_table(table, width).splitlines()
    assert max(len(line) for line in lines if line != LONG) <= width
    assert LONG in lines
    assert " ".join(" ".join(lines).split()).count(" ".join(note.split())) == 1
    assert len(text_table(table).splitlines()) == 8


def test_a_file_gets_all_columns_however_wide():
    assert text_table(WIDE).splitlines()[4].startswith(LONG)
    assert render(WIDE, "text") == text_table(WIDE)


def test_a_terminal_gets_a_table_of_its_width():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 72, 0, 0))
    command = [sys.executable, "-m", "dlbench", "layers", "lenet5"]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(command, stdout=theirs, cwd=ROOT, check=True, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    lines = os.read(ours, 65536).decode().splitlines()
    assert done.stderr == b""
    rule = next(line for line in lines if line.startswith("─"))
    assert len(rule) <= 72
    assert any(line.startswith("Columns not shown: ") for line in lines)


def test_machines_get_neither_sums_nor_narrow_spaces():
    table = Table(
        [Column("name"), Column("count")],
        [[f"10{GROUP_SEPARATOR}000 images", 10_000], [f"a{GROUP_SEPARATOR}b", 1]],
        f"12{GROUP_SEPARATOR}345 in all",
        [f"{GROUP_SEPARATOR}note 1{GROUP_SEPARATOR}000"],
        ["total", 10_001],
    )
    rows = list(csv.reader(io.StringIO(render(table, "csv"))))
    assert rows == [["name", "count"], ["10000 images", "10000"], ["a b", "1"]]
    found = json.loads(render(table, "json"))
    assert found == {
        "title": "12345 in all",
        "rows": [{"name": "10000 images", "count": 10_000}, {"name": "a b", "count": 1}],
        "notes": [" note 1000"],
    }
    for form in ("text", "markdown", "latex"):
        assert "total" in render(table, form)


@pytest.mark.parametrize("arguments", [["table"], ["layers", "vgg16"], ["plan", "classic"], ["models"]])
@pytest.mark.parametrize("form", ["csv", "json"])
def test_no_command_prints_a_narrow_space_to_a_machine(arguments, form):
    command = [sys.executable, "-m", "dlbench", *arguments, "--format", form]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert GROUP_SEPARATOR not in printed
    assert '"total"' not in printed


@pytest.mark.parametrize("arguments", [["table"], ["layers", "googlenet", "--auxiliary"], ["plan", "quick"]])
def test_what_is_known_of_the_catalogue_is_listed_without_torch(arguments):
    code = (
        "import sys\nfrom dlbench.__main__ import main\n"
        f"main({arguments})\nprint([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_durations_of_several_columns_are_shown_in_the_unit_of_the_shortest_and_kept_in_seconds():
    columns = [Column("name"), Column("time_s", show=seconds_text), Column("high_s", show=seconds_text)]
    table = with_shared_unit(Table(columns, [["a", 3600.0, 90_000.0], ["b", 864_000.0, None]]), "time_s", "high_s")
    shown = [
        [column.show(cell) for column, cell in zip(table.columns, row, strict=True) if column.show]
        for row in table.rows
    ]
    assert shown == [["60.0 min", "1500 min"], [f"14{GROUP_SEPARATOR}400 min", "–"]]
    assert table.records()[0] == {"name": "a", "time_s": 3600.0, "high_s": 90_000.0}
