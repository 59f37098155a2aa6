"""What `dlbench verify` looked at and found, as tables."""

from dlbench import units
from dlbench.report.analysis.verification import CHECKS, STORE_CHECKS, Verification, findings_by_check
from dlbench.table import Cell, Column, Table

#: A check that finds more than this is told by a few and their number.
_MAX_LISTED = 20


def checks_table(found: Verification) -> Table:
    """Every check with how many rows it looked at and found something in."""
    columns = [Column("check", "Check"), Column("looks_at", "Requirement"), Column("rows", "Rows", "right")]
    columns.append(Column("findings", "Findings", "right"))
    counts = {name: len(findings) for name, findings in findings_by_check(found).items()}
    named = {check.name: check.looks_at for check in CHECKS} | STORE_CHECKS
    rows: list[list[Cell]] = [
        [name, words, found.looked_at[name], counts.get(name, 0)] for name, words in named.items()
    ]
    return Table(columns, rows, notes=found.notes)


def findings_table(found: Verification) -> Table:
    """What cannot be, by check."""
    rows: list[list[Cell]] = []
    notes = []
    for name, findings in findings_by_check(found).items():
        rows += [[name, one.attempt, one.words] for one in findings[:_MAX_LISTED]]
        if len(findings) > _MAX_LISTED:
            notes.append(f"{name}: {len(findings) - _MAX_LISTED} more.")
    return Table(
        [Column("check", "Check"), Column("attempt", "Attempt"), Column("finding", "Finding")], rows, notes=notes
    )


def summary_line(found: Verification) -> str:
    """The closing line."""
    rows = units.count_text(found.rows, "row")
    if not found.findings:
        return f"{rows}: nothing found"
    attempts = len({one.attempt for one in found.findings})
    return f"{rows}: {units.count_text(len(found.findings), 'finding')} in {units.count_text(attempts, 'attempt')}"
