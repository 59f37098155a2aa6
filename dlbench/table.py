"""Tables and their five formats: terminal text, Markdown, CSV, LaTeX, JSON.

Text, Markdown and LaTeX format each cell by its column, numbers right-aligned; CSV and JSON keep raw values. A missing
value is an en dash in text, an empty field in CSV and null in JSON.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from dlbench import units
from dlbench.csv_cells import csv_line
from dlbench.errors import UnknownName
from dlbench.json_text import dump_json
from dlbench.table_width import fit_to_width, terminal_width, wrap_text
from dlbench.units import GROUP_SEPARATOR, MISSING, number_text

Cell = str | int | float | bool | None


class NumberWithText(float):
    """A number that people read as `text`; CSV, JSON and the sorting of a page take the number."""

    text: str

    def __new__(cls, value: float, text: str) -> NumberWithText:
        cell = super().__new__(cls, value)
        cell.text = text
        return cell


@dataclass(frozen=True)
class Column:
    """One column: key in CSV and JSON, title in other formats ("" means the key), and cell format."""

    key: str
    title: str = ""
    align: str = ""  # "left" | "right" | "": right if the column holds any number
    show: Callable[[Cell], str] | None = None  # None: whole numbers grouped, floats with three significant digits

    @property
    def heading(self) -> str:
        """Header of the column."""
        return self.title or self.key

    def title_and_unit(self) -> tuple[str, str]:
        """Header without its unit, and the unit in brackets ("" without unit)."""
        title, bracket, unit = self.heading.partition(" [")
        return title, unit.removesuffix("]") if bracket else ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, with a title above and notes below."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    notes: Sequence[str] = field(default=())
    sums: Sequence[Cell] | None = None  # a last row for people; machines add up for themselves

    def __post_init__(self) -> None:
        for row in (*self.rows, *([self.sums] if self.sums else [])):
            assert len(row) == len(self.columns), f"{len(row)} cells under {len(self.columns)} columns: {row}"

    def without_empty_columns(self, keys: Collection[str]) -> Table:
        """Return the table without those of these columns that have no value in any row."""
        kept = [
            i
            for i, column in enumerate(self.columns)
            if column.key not in keys or any(row[i] not in (None, "") for row in self.rows)
        ]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows)

    def without_title(self) -> Table:
        """Return the table without its title, where a heading says the same."""
        return replace(self, title="")

    def records(self) -> list[dict[str, Cell]]:
        """Return each row as a dictionary of raw values by column key."""
        return [{c.key: cell for c, cell in zip(self.columns, row, strict=True)} for row in self.rows]


def render(table: Table, format: str) -> str:
    """Format `table` in one of `FORMATS`, ending with a newline. Raises UnknownName for another format."""
    return format_tables([table], format)


def format_tables(tables: Sequence[Table], format: str) -> str:
    """Format several tables, separated by blank lines; in JSON a list, unless there is only one.

    Raises UnknownName for another format.
    """
    if format not in FORMATS:
        raise UnknownName("format", format, FORMATS)
    return FORMATS[format](tables)


def default_cell_text(value: Cell) -> str:
    """Format a cell by default, if its column defines no format."""
    if isinstance(value, NumberWithText):
        return value.text
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", GROUP_SEPARATOR) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return number_text(value) if math.isfinite(value) else ("∞" if value > 0 else "-∞")
    return value


def number_or_none(value: object) -> float | None:
    """Return a number as a float; None for NaN, as data frames mark a missing one, and for all else."""
    return float(value) if isinstance(value, int | float) and value == value else None


def quantity_format(unit: str) -> Callable[[Cell], str]:
    """Return a cell format for numbers of `unit`, with an SI prefix."""
    return lambda cell: units.quantity_text(number_or_none(cell), unit)


def _number_format(show: Callable[[float | None], str]) -> Callable[[Cell], str]:
    return lambda cell: show(number_or_none(cell))


bytes_text = _number_format(units.bytes_text)
seconds_text = _number_format(units.seconds_text)
percent_text = _number_format(units.percent_text)


def with_shared_unit(table: Table, *keys: str) -> Table:
    """Return the table with the durations of these columns in one unit, that of the shortest."""
    chosen = [place for place, column in enumerate(table.columns) if column.key in keys]
    known = [number for row in table.rows for i in chosen if (number := number_or_none(row[i])) is not None]

    def duration_text(cell: Cell) -> str:
        return units.seconds_text(number_or_none(cell), like=min(known))

    columns = [replace(c, show=duration_text) if i in chosen and known else c for i, c in enumerate(table.columns)]
    return replace(table, columns=columns)


def half_width_cell(fraction: float, value: float, low: float, high: float) -> NumberWithText:
    """Half of an interval's width over its value, shown under a heading "±" as `units.plus_minus_text` does."""
    return NumberWithText(fraction, units.plus_minus_text(fraction, (low / value, high / value)).removeprefix("±"))


def half_width_text(cell: Cell) -> str:
    """Format half of an interval's width under a heading "±", as `units.plus_minus_text` does."""
    fraction = number_or_none(cell)
    if isinstance(cell, NumberWithText) or fraction is None:
        return default_cell_text(cell)
    return units.plus_minus_text(fraction).removeprefix("±")


def signed_percent_text(cell: Cell) -> str:
    """Format a difference as percent: ``+3.0 %``."""
    value = number_or_none(cell)
    return MISSING if value is None else f"{100 * value:+.1f} %"


def three_digits_text(cell: Cell) -> str:
    """Format a number with three significant digits."""
    value = number_or_none(cell)
    return MISSING if value is None else number_text(value)


def text_table(table: Table, width: int | None = None) -> str:
    """`table` for the terminal: columns two spaces apart under a rule, without what a terminal might obey.

    Args:
        width: characters in a line; columns without room are named below the table, and its title and notes go over
            several lines. None prints everything.
    """
    rows = [list(map(_printable_line, row)) for row in ([c.heading for c in table.columns], *cell_texts(table))]
    aligns, columns, notes = column_alignments(table), len(table.columns), list(table.notes)
    if width is not None:
        rows, columns = fit_to_width(rows, aligns, width)
    if columns < len(table.columns):
        names = ", ".join(c.heading for c in table.columns[columns:])
        notes.append(f"Columns not shown: {names}. Pipe into `less -S`, or use --format csv, to see them.")
    cells = [[cell.split("\n") for cell in row[:columns]] for row in rows]
    widths = [max(len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    lines = [*wrap_text(_printable_line(table.title), width), ""] if table.title else []
    for number, row in enumerate(cells):
        lines += [_aligned_line(parts, widths, aligns[:columns]) for parts in zip_longest(*row, fillvalue="")]
        lines += ["  ".join("─" * w for w in widths)] if number == 0 else []
    lines += ["", *(line for note in notes for line in wrap_text(_printable_line(note), width))] if notes else []
    return "\n".join(lines) + "\n"


def markdown_table(table: Table) -> str:
    """Format `table` as GitHub-flavoured Markdown; special characters are escaped."""
    rules = ["---:" if align == "right" else ":---" for align in column_alignments(table)]
    rows = [[c.heading for c in table.columns], *cell_texts(table)]
    lines = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join(rules) + " |")
    lines = ([f"**{escape_markdown(table.title)}**", ""] if table.title else []) + lines
    for note in table.notes:
        lines += ["", escape_markdown(note)]
    return "\n".join(lines) + "\n"


def csv_table(table: Table) -> str:
    """Format `table` as CSV (RFC 4180 with newline line ends): keys, then raw values; notes are omitted.

    A text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    keys: list[Cell] = [column.key for column in table.columns]
    rows = [[_without_narrow_spaces(cell) for cell in row] for row in table.rows]
    return "".join(csv_line(line) for line in (keys, *rows))


def latex_table(table: Table) -> str:
    r"""Format `table` as a LaTeX tabular with booktabs rules; with a title as a float with caption."""
    spec = "".join("r" if align == "right" else "l" for align in column_alignments(table))
    head, *rows = [latex_row(row) for row in ([c.heading for c in table.columns], *cell_texts(table))]
    lines = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    if table.title:
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(table.title)}}}", *lines, r"\end{table}"]
    for note in table.notes:
        lines += ["", rf"\noindent {escape_latex(note)}"]
    return "\n".join([r"% \usepackage{booktabs}", *lines]) + "\n"


def escape_markdown(text: str) -> str:
    """Escape `text` for Markdown, on one line."""
    escaped = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
    # An underscore inside a word has no meaning in Markdown and is not escaped.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", escaped).replace("\n", "<br>")


def escape_latex(text: str) -> str:
    """Escape `text` for LaTeX with T1 fonts; other letters lose their accents, other characters become code points."""
    # Two hyphens would become a dash.
    return re.sub(r"-(?=-)", "-{}", "".join(map(_latex_character, text)))


def latex_row(cells: Sequence[str]) -> str:
    r"""Format a row of a LaTeX table; protect a leading bracket or asterisk (option of the row above)."""
    row = " & ".join(map(escape_latex, cells))
    return (f"{{}}{row}" if row.lstrip().startswith(("[", "*")) else row) + r" \\"


def cell_texts(table: Table) -> list[list[str]]:
    """Format the cells of `table`."""
    rows = [*table.rows, *([table.sums] if table.sums else [])]
    return [[(c.show or default_cell_text)(cell) for c, cell in zip(table.columns, row, strict=True)] for row in rows]


def column_alignments(table: Table) -> list[str]:
    """Return "left" or "right" per column: numbers right, unless the column defines it."""
    found = []
    for index, column in enumerate(table.columns):
        numbers = any(isinstance(row[index], int | float) and not isinstance(row[index], bool) for row in table.rows)
        found.append(column.align or ("right" if numbers else "left"))
    return found


def _printable_line(text: str) -> str:
    """Put `text` on one line; replace control and invisible characters by spaces."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else " " for c in text)


def _latex_character(character: str) -> str:
    if character in _LATEX_ESCAPES:
        return _LATEX_ESCAPES[character]
    if " " <= character <= "~" or "\u00a1" <= character <= "\u00ff" or character in _T1_CHARACTERS:
        return character
    if not character.isprintable():
        return " "
    plain = unicodedata.normalize("NFKD", character)
    kept = "".join(c for c in plain if not unicodedata.combining(c))
    if kept and kept != character and all(" " <= c <= "~" for c in kept):
        return "".join(_LATEX_ESCAPES.get(c, c) for c in kept)
    return "" if unicodedata.combining(character) else f"[U+{ord(character):04X}]"


def _aligned_line(cells: Sequence[str], widths: Sequence[int], aligns: Sequence[str]) -> str:
    padded = [c.rjust(w) if a == "right" else c.ljust(w) for c, w, a in zip(cells, widths, aligns, strict=True)]
    return "  ".join(padded).rstrip()


def _without_narrow_spaces(cell: Cell) -> Cell:
    """A text without narrow spaces: none between the digits of a number, a plain one elsewhere."""
    if not isinstance(cell, str) or GROUP_SEPARATOR not in cell:
        return cell
    return re.sub(rf"(?<=\d){GROUP_SEPARATOR}(?=\d)", "", cell).replace(GROUP_SEPARATOR, " ")


def _json_tables(tables: Sequence[Table]) -> str:
    """Format each table as an object of title, notes, and rows, which are objects of raw values."""
    objects = [
        {
            "title": _without_narrow_spaces(table.title),
            "rows": [{key: _without_narrow_spaces(cell) for key, cell in row.items()} for row in table.records()],
            "notes": [_without_narrow_spaces(note) for note in table.notes],
        }
        for table in tables
    ]
    return dump_json(objects[0] if len(objects) == 1 else objects) + "\n"


def _join_tables(one: Callable[[Table], str]) -> Callable[[Sequence[Table]], str]:
    return lambda tables: "\n".join(one(t) for t in tables)


#: Format name (as in `--format`) -> renderer of a list of tables.
FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "text": _join_tables(lambda table: text_table(table, terminal_width())),
    "markdown": _join_tables(markdown_table),
    "csv": _join_tables(csv_table),
    "latex": _join_tables(latex_table),
    "json": _json_tables,
}

#: Letters beyond Latin-1 in LaTeX's T1 encoding.
_T1_CHARACTERS = frozenset("ĂăĄąĆćČčĎďĐđĘęĚěĞğĹĺĽľŁłŃńŇňŐőŒœŔŕŘřŚśŞşŠšŢţŤťŮůŰűŸŹźŻżŽž")
_LATEX_ESCAPES = (
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\dots{}"}
    | {"×": r"$\times$", "±": r"$\pm$", "·": r"$\cdot$", "−": r"$-$", "√": r"$\surd$", "²": r"$^2$", "³": r"$^3$"}
    | {"≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "∞": r"$\infty$", "→": r"$\rightarrow$"}
    | {"α": r"$\alpha$", "β": r"$\beta$", "ρ": r"$\rho$", "σ": r"$\sigma$", "Δ": r"$\Delta$"}
    | {"µ": r"$\mu$", "μ": r"$\mu$", "€": r"\texteuro{}"}
    | {GROUP_SEPARATOR: r"\,", "\n": " ", "\u00a0": "~", "\u00ad": r"\-", "\u200b": r"\allowbreak{}"}
)
