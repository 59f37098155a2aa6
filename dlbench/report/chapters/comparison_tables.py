"""What was found between two sides, as tables and as one closing line."""

from collections import Counter

from dlbench import units
from dlbench.report.analysis.comparison import ComparisonResult
from dlbench.report.analysis.comparison_lines import NOT_COMPARED, ComparisonLine, verdict_names_for_metric
from dlbench.report.analysis.comparison_statistics import Comparison
from dlbench.report.analysis.labels import MAIN_AXES, case_axis_title, network_title, sort_networks
from dlbench.report.analysis.metrics import METRICS
from dlbench.suites.case import AXES
from dlbench.table import Cell, Column, Table, default_cell_text


def comparison_tables(found: ComparisonResult, names: tuple[str, str] = ("BASE", "TARGET")) -> list[Table]:
    """What differs between the systems, and the comparison; the first is without rows where nothing differs."""
    columns = [Column("fact", "Differs"), Column("base", names[0]), Column("target", names[1])]
    return [Table(columns, found.differences, title="Systems"), comparison_table(found, names)]


def comparison_table(found: ComparisonResult, names: tuple[str, str] = ("BASE", "TARGET")) -> Table:
    """One row per case; below it what the verdicts mean, and their sum."""
    metric = METRICS[found.rules.metric]
    axes = [
        axis
        for axis in (*AXES, "suite", "suite_version")
        if axis != "repeat" and (axis in MAIN_AXES or len({str(line.setting.get(axis)) for line in found.lines}) > 1)
    ]
    columns = [
        Column(a, case_axis_title(a), show=(lambda c: network_title(str(c))) if a == "model" else None) for a in axes
    ]
    columns += [
        Column(
            "base", f"{metric.title} {names[0]}", "right", lambda cell: _format_metric_value(found.rules.metric, cell)
        ),
        Column("target", names[1], "right", lambda cell: _format_metric_value(found.rules.metric, cell)),
        Column("ratio", "Ratio", "right", _ratio_text),
        Column("ratio_low", f"{_percent_text(found.rules.confidence)} from", "right", _ratio_text),
        Column("ratio_high", "to", "right", _ratio_text),
        Column("verdict", "Verdict", show=lambda cell: _describe_verdict(cell, found.rules.margin)),
        Column("adjusted_p_value", "p (Holm)", "right", _p_value_text),
        Column("chance_target_larger", "Effect", "right", lambda c: units.MISSING if c is None else f"{c:.2f}"),
        Column("base_processes", f"n {names[0]}", "right"),
        Column("target_processes", f"n {names[1]}", "right"),
        Column("note", "Note"),
    ]
    common = _common_caveat(found)
    lines = _sort_comparison_lines(found.lines)
    rows = [[*(line.setting.get(axis) for axis in axes), *_comparison_row_cells(line, common)] for line in lines]
    notes = [f"All cases: {common}.", *_comparison_notes(found, names)] if common else _comparison_notes(found, names)
    return Table(columns, rows, title=f"{names[1]} against {names[0]}: {metric.title.lower()}", notes=notes)


#: What is read first on a terminal, after the setting; a narrow one has no room for the columns at the end.
_TERMINAL_ORDER = ("ratio", "ratio_low", "ratio_high", "verdict", "note", "base", "target")


def arrange_for_terminal(table: Table) -> Table:
    """A comparison for the terminal: what all cases share is in the title, the verdict stands before the values.

    Each different note is once below the table, by its number.
    """
    keys = [column.key for column in table.columns]
    note = keys.index("note")
    different = list(dict.fromkeys(row[note] for row in table.rows if row[note]))
    numbers: dict[Cell, Cell] = {text: f"[{number}]" for number, text in enumerate(different, 1)}
    rows = [[*row[:note], numbers.get(row[note], ""), *row[note + 1 :]] for row in table.rows]
    shared = [i for i, key in enumerate(keys) if key in AXES and key != "model" and len({row[i] for row in rows}) == 1]
    rank = {key: place for place, key in enumerate(_TERMINAL_ORDER)}
    order = sorted(range(len(keys)), key=lambda i: -1 if keys[i] in AXES else rank.get(keys[i], len(rank)))
    kept = [i for i in order if i not in shared]
    setting = [f"{table.columns[i].heading.lower()} {default_cell_text(rows[0][i])}" for i in shared]
    return Table(
        [table.columns[i] for i in kept],
        [[row[i] for i in kept] for row in rows],
        "; ".join([table.title, *setting]),
        [*(f"{numbers[text]} {text}" for text in different), *table.notes],
    )


def summary_line(found: ComparisonResult) -> str:
    """The closing line: ``12 compared: 1 slower, 8 same, 3 not decided; 2 not compared: 1 failed, 1 refused``."""
    counts = Counter(line.verdict for line in found.lines)
    words = verdict_names_for_metric(found.rules.metric)
    said = ", ".join(f"{counts[word]} {word}" for word in words)
    rest = [f"{counts[word]} {word}" for word in NOT_COMPARED if counts[word]]
    left = len(found.lines) - found.num_compared
    return f"{found.num_compared} compared: {said}" + (f"; {left} not compared: {', '.join(rest)}" if rest else "")


def _sort_comparison_lines(lines: list[ComparisonLine]) -> list[ComparisonLine]:
    order = {name: i for i, name in enumerate(sort_networks(str(line.setting["model"]) for line in lines))}
    return sorted(lines, key=lambda line: (line.verdict in NOT_COMPARED, order[str(line.setting["model"])]))


def _common_caveat(found: ComparisonResult) -> str:
    """What has to be known beside all of several verdicts, and so is said once; "" where they differ."""
    caveats = [line.comparison.caveat_of_verdict for line in found.lines if line.comparison]
    return caveats[0] if len(caveats) > 1 and len(set(caveats)) == 1 else ""


def _comparison_row_cells(line: ComparisonLine, common: str) -> list[Cell]:
    c = line.comparison
    if c is None:
        return [line.base, line.target, None, None, None, line.verdict, None, None, None, None, line.note]
    # With too few processes on a side the caveat says it already.
    is_open = line.verdict == "not decided" and c.more_processes_needed and c.basis != "assumed"
    more = f"needs {describe_needed_runs(c)}" if is_open else ""
    note = "; ".join(
        said for said in (c.caveat_of_verdict if c.caveat_of_verdict != common else "", more, line.note) if said
    )
    return [
        line.base, line.target, c.ratio, c.low, c.high, line.verdict, c.adjusted_p_value, c.chance_b_slower,
        c.num_processes_a, c.num_processes_b, note,
    ]  # fmt: skip


def describe_needed_runs(c: Comparison) -> str:
    """What would decide: ``4 more runs on each side``, ``4 more pairs``."""
    if c.basis == "pairs":
        return units.count_text(c.more_processes_needed or 0, "more pair")
    return f"{units.count_text(c.more_processes_needed or 0, 'more run')} on each side"


def _comparison_notes(found: ComparisonResult, names: tuple[str, str]) -> list[str]:
    rules = found.rules
    more = "energy" if rules.metric == "energy_per_image" else "time"
    return [
        *found.remarks,
        f"Ratio: {names[1]} divided by {names[0]}, each the geometric mean of its n processes' medians. Above 1: "
        f"{names[1]} needs more {more}.",
        f"Effect: the probability that a process of {names[1]} has a larger value than one of {names[0]}; 0.5 means no "
        f"difference.",
        f"The verdicts in this table that state a difference have {_percent_text(rules.confidence)} confidence all "
        f"together (Holm's correction for {found.num_with_interval} intervals). `same`: the interval of this one case "
        f"lies within ±{100 * rules.margin:g} %.",
        summary_line(found),
    ]


def _describe_verdict(cell: Cell, margin: float) -> str:
    return f"no difference beyond {100 * margin:g} %" if cell == "same" else str(cell)


def _percent_text(share: float) -> str:
    return f"{100 * share:g} %"


def _format_metric_value(metric: str, cell: Cell) -> str:
    return METRICS[metric].format(cell if isinstance(cell, int | float) else None, 4)


def _ratio_text(cell: Cell) -> str:
    if not isinstance(cell, int | float):
        return units.MISSING
    return f"{cell:.4f}" if 0.1 <= cell < 10 else units.ratio_text(cell, 4)


def _p_value_text(cell: Cell) -> str:
    if not isinstance(cell, int | float):
        return units.MISSING
    return "< 0.0001" if cell < 1e-4 else f"{cell:.4f}"
