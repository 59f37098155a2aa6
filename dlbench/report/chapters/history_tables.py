"""The lines of a history and their changes, as tables."""

from datetime import datetime

from dlbench import units
from dlbench.report.analysis.history import CaseHistory, History
from dlbench.table import Cell, Column, Table, number_or_none, percent_text, seconds_text


def case_histories_table(found: History) -> Table:
    """One row per case and device: how long, how noisy, where it is now."""
    columns = [Column("case", "Case"), Column("device", "Device"), Column("days", "Days", "right")]
    columns += [Column("from", "From"), Column("to", "To"), Column("processes", "Processes", "right")]
    times = {"step_time_s": "Step time", "low_s": "from", "high_s": "to"}
    columns += [Column(name, title, "right", seconds_text) for name, title in times.items()]
    columns += [Column("noise", "Noise", "right", percent_text), Column("changes", "Changes", "right")]
    chance = units.percent_text(found.false_alarms)
    notes = [
        "Step time: the latest day's median, with its 95 % interval over processes. Noise: the usual variation of the "
        "step time from day to day.",
        f"Probability of at least one false alarm in all lines of this table together: {chance}, assuming normally "
        f"distributed noise.",
        *found.notes,
    ]
    return Table(columns, [_case_history_row(line) for line in found.lines], title="Lines", notes=notes)


def changes_table(found: History, since: datetime | None = None) -> Table:
    """One row per change, by time, with what else changed then."""
    columns = [
        Column("day", "From"),
        Column("kind", "Change"),
        Column("size", "Size", "right"),
        Column("case", "Case"),
        Column("device", "Device"),
        Column("facts", "Other changes then"),
    ]
    rows: list[list[Cell]] = []
    for line, c in found.changes(since):
        facts = "; ".join(c.facts) or "none recorded"
        size = f"{100 * c.size:+.1f} %" if c.is_level_change else f"× {c.size:.1f}"  # of a level, of a spread
        rows.append([f"{c.day:%F}", c.kind, size, line.name, line.device, facts])
    notes = [
        "Size: change of the step time (+ is slower); for changes of kind unstable or steadier, the noise after "
        "the change divided by the noise before it.",
        "temporary: the step time returned to its former level within 15 measured days.",
    ]
    return Table(columns, rows, title="Changes", notes=notes)


def _case_history_row(line: CaseHistory) -> list[Cell]:
    figures = [number_or_none(float(values[-1])) for values in (line.step_s, line.low_s, line.high_s)]
    head: list[Cell] = [line.name, line.device, len(line.days), f"{line.days[0]:%F}", f"{line.days[-1]:%F}"]
    return [*head, line.processes, *figures, number_or_none(line.noise), len(line.changes)]
