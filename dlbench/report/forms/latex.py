r"""The tables of a report for a LaTeX document: ``\input{tables.tex}``, or ``pdflatex report.tex`` for all of them."""

from collections.abc import Sequence

from dlbench.report.document import Section
from dlbench.report.forms.table_layout import TableSheet, notes_with_omitted_rows, split_into_sheets
from dlbench.table import Table, escape_latex, latex_row

#: A landscape A4 page in \footnotesize holds about so many characters, the gaps between columns counted as `_GAP`.
_PAGE_WIDTH = 165
_GAP = 2
#: LaTeX keeps a long table in memory; further rows are left out, and the table says so.
MAX_ROWS = 500

#: What a document needs for these tables.
_PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[landscape,margin=15mm]{geometry}
\usepackage{array,booktabs,longtable}
\setlength{\parindent}{0pt}
\setlength{\emergencystretch}{3em}
"""


def latex_document(title: str, file: str) -> str:
    """A LaTeX document of all tables, to be compiled in the folder that holds them in `file`."""
    lines = [_PREAMBLE + r"\begin{document}", rf"\section*{{{escape_latex(title)}}}", rf"\input{{{file}}}"]
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def latex_tables(sections: Sequence[Section]) -> str:
    """All tables of a report but the long lists of its provenance, as long tables that go on over pages."""
    lines = [r"% \usepackage{array,booktabs,longtable}, on a landscape page; report.tex does it."]
    for section in sections:
        for block in section.blocks:
            listed = block.folded and section.id == "provenance"
            if block.table and block.table.rows and not listed:
                lines += _longtable_lines(block.table, block.heading or block.table.title or section.title)
    return "\n".join(lines) + "\n"


def _longtable_lines(table: Table, caption: str) -> list[str]:
    parts = split_into_sheets(table, _PAGE_WIDTH - _GAP * len(table.columns), MAX_ROWS)
    lines = ["", r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}"]
    for number, sheet in enumerate(parts, 1):
        part = f" (part {number} of {len(parts)})" if len(parts) > 1 else ""
        lines += _sheet_latex_lines(sheet, caption + part)
    lines += [rf"{escape_latex(note)}\par" for note in notes_with_omitted_rows(table, MAX_ROWS)]
    return [*lines, r"\endgroup"]


def _sheet_latex_lines(sheet: TableSheet, caption: str) -> list[str]:
    columns = zip(sheet.widths, sheet.aligns, sheet.wrapped, strict=True)
    head = latex_row(sheet.headings)
    return [
        rf"\begin{{longtable}}{{{''.join(_column_spec(*column) for column in columns)}}}",
        rf"\caption{{{escape_latex(caption)}}}\\",
        *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
        *(r"\toprule", head, r"\midrule", r"\endhead"),
        *(r"\bottomrule", r"\endfoot"),
        *map(latex_row, sheet.rows_with_break_points()),
        r"\end{longtable}",
    ]


def _column_spec(width: float, align: str, wrapped: bool) -> str:
    if not wrapped:
        return "r" if align == "right" else "l"
    ragged = r"\raggedleft" if align == "right" else r"\raggedright"
    return rf">{{{ragged}\arraybackslash}}p{{{width / _PAGE_WIDTH * 0.92:.3f}\linewidth}}"
