"""Tables on paper, and as LaTeX: widths, cuts, and what LaTeX must not read."""

import re

import pytest

from dlbench.report.document import Block, Section
from dlbench.report.forms import latex
from dlbench.report.forms.table_layout import MAX_LINES, notes_with_omitted_rows, split_into_sheets
from dlbench.table import Column, Table, escape_latex, latex_row


def table(columns, rows, word="word"):
    return Table(
        [Column(f"c{i}") for i in range(columns)], [[f"{word} {r} {c}" for c in range(columns)] for r in range(rows)]
    )


def test_a_table_that_fits_is_one_sheet_as_wide_as_its_texts():
    (sheet,) = split_into_sheets(table(3, 2), 100, 10)
    assert list(sheet.widths) == [8, 8, 8]
    assert not any(sheet.wrapped)


def test_texts_give_way_before_a_table_is_cut():
    (sheet,) = split_into_sheets(table(4, 2, "a long text of many words"), 80, 10)
    assert sum(sheet.widths) <= 80 + 1e-9
    assert all(sheet.wrapped)


def test_a_table_with_too_many_columns_is_cut_and_repeats_its_first_column():
    parts = split_into_sheets(table(40, 2), 100, 10)
    assert len(parts) > 1
    assert all(part.headings[0] == "c0" for part in parts)
    assert [h for part in parts for h in part.headings[1:]] == [f"c{i}" for i in range(1, 40)]
    assert all(sum(part.widths) <= 100 + 1e-9 for part in parts)


def test_no_cell_is_longer_than_a_page_can_hold():
    texts = ["y" * 5000, "y " * 2500, "y\n" * 2500, "a\nb\nc"]
    (sheet,) = split_into_sheets(Table([Column("x")], [[text] for text in texts]), 20, 10)
    for (cell,) in sheet.rows:
        assert len(cell) <= MAX_LINES * sheet.widths[0]
        assert cell.count("\n") < MAX_LINES
    assert sheet.rows[2][0].endswith("… and 2484 more lines")
    assert sheet.rows[3][0] == "a\nb\nc"


def test_rows_that_are_left_out_are_counted():
    (sheet,) = split_into_sheets(table(2, 12), 100, 10)
    assert len(sheet.rows) == 10
    assert notes_with_omitted_rows(table(2, 12), 10)[0].startswith("These are the first 10 of 12 rows")
    assert notes_with_omitted_rows(table(2, 10), 10) == []


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("100 % & #1", r"100 \% \& \#1"),
        ("a -- b", "a -{}- b"),
        ("---", "-{}-{}-"),
        ("Zürich", "Zürich"),
        ("ﬁne №5", "fine No5"),
        ("žluť", "žluť"),
        ("ṩḿ", "sm"),
        ("机", "[U+673A]"),
        ("😀", "[U+1F600]"),
        ("a\u0301", "a"),
        ("\x1b[0m\u202e", " [0m "),
    ],
)
def test_latex_prints_every_character_or_its_code(text, printed):
    assert escape_latex(text) == printed


def test_a_row_never_begins_with_what_the_row_above_would_take_for_its_option():
    assert latex_row(["[5mm]", "x"]) == r"{}[5mm] & x \\"
    assert latex_row(["*"]) == r"{}* \\"


def test_all_tables_that_a_page_shows_are_long_tables_with_a_caption():
    blocks = [Block(heading="Shown & told", table=table(2, 3)), Block(table=table(2, 3), folded=True), Block(words="w")]
    text = latex.latex_tables([Section("s", "First", blocks), Section("t", "Second", [Block(table=table(60, 700))])])
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") > 2
    assert r"\caption{Shown \& told}" in text
    assert re.search(r"\\caption\{Second \(part 2 of \d\)\}", text)
    assert "These are the first 500 of 700 rows" in text


def test_a_long_word_can_be_broken_where_its_column_is_narrow():
    rows = [["a_very_long_name_without_any_gap_" * 4, "x" * 90, "short"]]
    text = latex.latex_tables([Section("s", "First", [Block(table=Table([Column(c) for c in "abc"], rows))])])
    assert r"a\_\allowbreak{}very" in text
    assert "x" * 20 + r"\allowbreak{}" in text
    assert "short" in text
