"""What `reruns.py --page` writes: coverage of the intervals over processes, and the components of variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dlbench import process_statistics, stats
from dlbench.process_statistics import ProcessMedian, interval_over_processes, student_quantile
from dlbench.report.analysis.comparison_statistics import compare_over_weighted_cases

ROOT = Path(__file__).resolve().parents[2]
NEW, OLD = (ROOT / "docs" / "experiments" / "data" / f"{name}.parquet" for name in ("reruns", "aa"))
PAGE = ROOT / "docs" / "experiments" / "reruns.md"
FIGURE = ROOT / "docs" / "images" / "variance_components.svg"
#: Processes of an interval, and later ones whose mean it is held against.
TRIPLE, LATER = 3, 10
#: Time between two processes of a case [s], as in a campaign: a round of the suite `quick` takes about as long.
SPACING_S = 55.0
#: Processes further apart than this [s] belong to different blocks.
PAUSE_S = 600.0
#: After a longer pause it is another session, perhaps on another machine [s].
SESSION_PAUSE_S = 2 * 3600.0
#: Time between two campaigns that are compared [s].
BETWEEN_CAMPAIGNS_S = 300.0
#: Slowdown that comparisons are to detect.
SLOWDOWN = 1.1
#: Allowances for drift whose coverage is shown.
FACTORS = (1.0, 1.5, 2.0, 2.5)

#: Consecutive processes of one network.
Series = list[dict[str, Any]]
#: Of a triple of processes the lowest and highest values for the mean of later ones, and for the next one.
Rule = Callable[[Series], tuple[tuple[float, float], tuple[float, float]] | None]


def rows_by_session(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of the reruns, cut where measuring paused for hours (it may be another machine), by date and hour."""
    found: dict[str, list[dict[str, Any]]] = {}
    name, ended = "", -math.inf
    rows = pq.read_table(file, columns=["model", "kind", "started_at", "step_s", "load"]).to_pylist()
    for row in sorted(rows, key=lambda row: row["started_at"]):
        if row["started_at"] - ended > SESSION_PAUSE_S:
            name = f"{datetime.fromtimestamp(row['started_at'], UTC):%Y-%m-%d %H h}"
        ended = row["started_at"]
        found.setdefault(name, []).append(row)
    return found


def series_of(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[Series]]:
    """By network and kind the series of processes, cut where measuring paused."""
    found: dict[tuple[str, str], Series] = {}
    for row in rows:
        at = row["started_at"] if isinstance(row["started_at"], float) else row["started_at"].timestamp()
        kind = row.get("kind") or row["attempt_id"].rpartition("-")[2]
        steps = row["step_s"]
        interval = stats.median_interval(steps)
        limits = (interval.low, interval.high) if interval else (None, None)
        process = {"at": at, "steps": steps, "window": ProcessMedian(median(steps), *limits)}
        found.setdefault((row["model"].rpartition(":")[2], kind), []).append(process)
    return {key: _blocks(sorted(series, key=lambda p: p["at"])) for key, series in found.items()}


def _blocks(series: Series) -> list[Series]:
    cuts = [i for i in range(1, len(series)) if series[i]["at"] - series[i - 1]["at"] > PAUSE_S]
    return [series[a:b] for a, b in zip([0, *cuts], [*cuts, len(series)], strict=True)]


def of_one_window(triple: Series) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The interval of the last process's own window, which reports showed before."""
    window = triple[-1]["window"]
    return None if window.low is None else ((window.low, window.high),) * 2


def student_alone(triple: Series) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Student's t over the logarithms of three medians, without an allowance for drift."""
    logs = [math.log(p["window"].value) for p in triple]
    t, middle, k = student_quantile(len(logs) - 1, 0.95) * stdev(logs), fmean(logs), len(logs)
    reaches = t / math.sqrt(k), t * math.sqrt(1 + 1 / k)
    low_high = [(math.exp(middle - r), math.exp(middle + r)) for r in reaches]
    return low_high[0], low_high[1]


def the_rule(triple: Series) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """What dlbench states now."""
    found = interval_over_processes([p["window"] for p in triple])
    return None if found is None else ((found.low, found.high), (found.next_low, found.next_high))


def rounds_apart(blocks: list[Series], seconds: float) -> int:
    """How many rounds of the experiment take that long; at least one."""
    gaps = [later["at"] - earlier["at"] for block in blocks for earlier, later in pairwise(block)]
    return max(1, round(seconds / median(gaps)))


def coverage(stating: list[Series], judging: list[Series], rule: Rule) -> tuple[int, float, float, float]:
    """Number of triples, percent that hold the mean of later processes and the next one, and the median half-width [%].

    Args:
        stating: blocks of processes that the intervals are of; triples overlap.
        judging: blocks of the same rounds whose processes they are held against.
    """
    held, next_held, widths = [], [], []
    step = rounds_apart(stating, SPACING_S)
    span = (TRIPLE - 1) * step + 1
    for own, others in zip(stating, judging, strict=True):
        for i in range(min(len(own), len(others)) - span - LATER + 1):
            found = rule(own[i : i + span : step])
            if found is None:
                continue
            (low, high), (next_low, next_high) = found
            later = [p["window"].value for p in others[i + span : i + span + LATER]]
            held.append(low <= math.exp(fmean(map(math.log, later))) <= high)
            next_held.append(next_low <= later[0] <= next_high)
            widths.append(50 * (high - low) / math.sqrt(low * high))
    if not held:
        return 0, math.nan, math.nan, math.nan
    return len(held), 100 * fmean(held), 100 * fmean(next_held), median(widths)


RULES: tuple[tuple[str, Rule], ...] = (
    ("one window (before)", of_one_window),
    ("Student, three processes", student_alone),
    ("the rule", the_rule),
)


def _two_digits(percent: float) -> str:
    return f"{percent:.2g}" if percent < 99.5 else f"{percent:.0f}"


def coverage_table(data: dict[tuple[str, str], list[Series]], kinds: Sequence[tuple[str, str]]) -> list[str]:
    """Rows by network, and all together; `kinds` are those of the stating and of the judging processes."""
    lines = [
        "| network | processes | interval | triples | holds mean of 10 later [%] | holds next [%] | median ± [%] |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    held: dict[str, list[tuple[int, float, float, float]]] = {}
    for model in sorted({model for model, _ in data}):
        for stating, judging in kinds:
            if (model, stating) not in data or (model, judging) not in data:
                continue
            for name, rule in RULES:
                n, mean, following, width = coverage(data[model, stating], data[model, judging], rule)
                which = stating if stating == judging else f"{stating}, judged by {judging}"
                lines.append(
                    f"| {model} | {which} | {name} | {n} | {mean:.1f} | {following:.1f} | {_two_digits(width)} |"
                )
                if rule is RULES[-1][1]:
                    held.setdefault(which, []).append((n, mean, following, width))
    return [*lines, *(f"| all | {which} | {RULES[-1][0]} | {_together(found)} | |" for which, found in held.items())]


def summary_table(sessions: dict[str, tuple[dict[tuple[str, str], list[Series]], str, float | None]]) -> list[str]:
    """How often the rule holds, by session and together: series with the kind that counts, and the median load."""
    lines = ["| measured | median load | triples | holds mean of 10 later [%] | holds next [%] |"]
    lines += ["|---|---:|---:|---:|---:|"]
    all_found = []
    for name, (series, kind, load) in sessions.items():
        found = [coverage(blocks, blocks, the_rule) for (_, k), blocks in series.items() if k == kind]
        all_found += found
        lines.append(f"| {name} | {'' if load is None else f'{load:.0f}'} | {_together(found)} |")
    return [*lines, f"| all together | | {_together(all_found)} |"]


def _together(found: Sequence[tuple[int, float, float, float]]) -> str:
    """Triples of several networks and the shares of them that hold, as cells of a table."""
    n = sum(triples for triples, *_ in found)
    mean, following = (sum(row[0] * row[i] for row in found) / n for i in (1, 2))
    return f"{n} | {mean:.1f} | {following:.1f}"


def components(blocks: list[Series]) -> dict[str, float]:
    """Standard deviations in percent: of steps, between fifths of a window, between processes, between blocks."""
    processes = [p for block in blocks for p in block]
    within = [float(np.log(p["steps"]).std(ddof=1)) for p in processes if len(p["steps"]) > 1]
    fifths = [
        stdev(math.log(float(np.median(part))) for part in np.array_split(p["steps"], 5))
        for p in processes
        if len(p["steps"]) >= 20
    ]
    logs = [[math.log(p["window"].value) for p in block] for block in blocks]
    between = [stdev(block) for block in logs if len(block) > 2]
    found = {"steps": median(within), "parts of a window": median(fifths) if fifths else math.nan}
    found["processes"] = math.sqrt(fmean(s * s for s in between)) if between else math.nan
    found["days"] = stdev(median(block) for block in logs) if len(logs) > 2 else math.nan
    return {name: 100 * value for name, value in found.items()}


def draw(found: dict[str, dict[str, float]]) -> None:
    """The components of each network, as dots on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "dlbench"
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(found) + 1.6), layout="constrained")
    names = list(next(iter(found.values())))
    for name, marker in zip(names, "osD^", strict=True):
        axes.plot([values[name] for values in found.values()], list(found), marker, linestyle="", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("standard deviation of the step time between ... [%]")
    axes.grid(axis="x", which="both", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(FIGURE, metadata={"Date": None})
    plt.close(figure)


INTRODUCTION = f"""# How well do intervals predict a rerun?

Written by `python benchmarks/experiments/reruns.py --page` from `docs/experiments/data/`.

A report's ± is the confidence interval of the mean over fresh processes of a case. This page measures how often this
interval contains the results of later processes. Processes of several networks ran alternately, in random order. An
interval is computed from {TRIPLE} processes about {SPACING_S:.0f} s apart, as in a campaign of the suite `quick`, and
compared with the geometric mean of the next {LATER} processes. The prediction is compared with the next process.
Triples overlap, so neighbouring triples are not independent.

The rule (`dlbench.process_statistics.interval_over_processes`): Student's t over the logarithms of the medians, times
{process_statistics.DRIFT_ALLOWANCE:g} for the mean and {process_statistics.NEXT_ALLOWANCE:g} for the next process, and
never narrower than the intervals of the windows. Student's t alone is too narrow for two reasons. Conditions drift
between processes. And a few processes are much slower than the others: three processes often have none of them, ten
seldom. The factor is the smallest of those below with which at most 5 % of equal campaigns are called different.
"""


def factor_table(data: dict[str, tuple[dict[tuple[str, str], list[Series]], str]]) -> list[str]:
    """What other allowances for drift would give: coverage of the mean of later processes and of the next, and ±."""
    used = process_statistics.DRIFT_ALLOWANCE, process_statistics.NEXT_ALLOWANCE
    keys = [(name, model) for name, (series, kind) in data.items() for model, k in sorted(series) if k == kind]
    lines = ["| factor | " + " | ".join(f"{model}, {name}" for name, model in keys) + " |"]
    lines += ["|---:|" + "---:|" * len(keys)]
    for factor in FACTORS:
        process_statistics.DRIFT_ALLOWANCE = process_statistics.NEXT_ALLOWANCE = factor
        cells = []
        for name, model in keys:
            series, kind = data[name]
            _, mean, following, width = coverage(series[model, kind], series[model, kind], the_rule)
            cells.append(f"{mean:.0f}, {following:.0f}, ±{_two_digits(width)} %")
        lines.append(f"| {factor:g} | {' | '.join(cells)} |")
    process_statistics.DRIFT_ALLOWANCE, process_statistics.NEXT_ALLOWANCE = used
    return lines


def differences(blocks: list[Series], campaign: int) -> tuple[int, int, int]:
    """Number of comparisons of two campaigns, of those called different, and of slowdowns called slower.

    Args:
        blocks: processes of one network; campaigns overlap.
        campaign: number of processes of each.
    """
    compared = different = slower = 0
    apart = rounds_apart(blocks, BETWEEN_CAMPAIGNS_S)
    for block in blocks:
        logs = [math.log(p["window"].value) for p in block]
        for i in range(len(logs) - 2 * campaign - apart + 1):
            first, second = logs[i : i + campaign], logs[i + campaign + apart : i + 2 * campaign + apart]
            verdict = compare_over_weighted_cases([(first, second)], [1.0]).verdict
            compared += 1
            different += verdict in ("faster", "slower")
            slower += (
                compare_over_weighted_cases([(first, [x + math.log(SLOWDOWN) for x in second])], [1.0]).verdict
                == "slower"
            )
    return compared, different, slower


def differences_table(data: dict[str, tuple[dict[tuple[str, str], list[Series]], str]]) -> list[str]:
    """How often equal campaigns are called different, and slower ones slower, by the factor."""
    used = process_statistics.DRIFT_ALLOWANCE
    lines = [
        f"| processes | factor | comparisons | called different [%] | +{100 * (SLOWDOWN - 1):.0f} % called slower [%] |"
    ]
    lines += ["|---:|---:|---:|---:|---:|"]
    for campaign in (TRIPLE, 5):
        for factor in FACTORS:
            process_statistics.DRIFT_ALLOWANCE = factor
            found = [
                differences(blocks, campaign)
                for series, kind in data.values()
                for (_, k), blocks in series.items()
                if k == kind
            ]
            n, different, slower = map(sum, zip(*found, strict=True))
            lines.append(f"| {campaign} | {factor:g} | {n} | {100 * different / n:.1f} | {100 * slower / n:.0f} |")
    process_statistics.DRIFT_ALLOWANCE = used
    return lines


def page() -> str:
    """The whole page, in Markdown."""
    days = rows_by_session(NEW)
    checks = {day: series_of(rows) for day, rows in days.items()}
    rows = pq.read_table(OLD, columns=["model", "started_at", "step_s", "attempt_id"]).to_pylist()
    old = {key: blocks for key, blocks in series_of(rows).items() if key[1] == "first"}
    loads = {day: median(row["load"] for row in rows) for day, rows in days.items()}
    sessions = {day: (found, "fresh", loads[day]) for day, found in checks.items()} | {"A/A": (old, "first", None)}
    lines = [INTRODUCTION, "## In short", "", "The rule, for fresh processes of all networks, on two cores:", ""]
    lines += [*summary_table(sessions), "", "## Fresh and forked processes of three networks", ""]
    for day, found_series in checks.items():
        lines += [f"Measured on {day}, under a median load of {loads[day]:.0f} on two cores:", ""]
        lines += [*coverage_table(found_series, [("fresh", "fresh"), ("forked", "fresh")]), ""]
    lines += ["`forked` processes come from a parent that has imported torch; their intervals are judged by"]
    lines += ["processes started afresh. dlbench starts every process afresh.", ""]
    lines += ["## Processes of the A/A experiment", ""]
    lines += coverage_table(old, [("first", "first")])
    lines += ["", "## Other factors", ""]
    lines += ["Percent of triples whose interval holds the mean of later processes, percent whose prediction holds the"]
    lines += ["next one, and the median ±, by the factor for drift. Where conditions change from minute to minute, a"]
    lines += ["larger factor makes intervals wider, but hardly more of them hold.", ""]
    all_series = {"A/A": (old, "first")} | {day: (found, "fresh") for day, found in checks.items()}
    lines += factor_table(all_series)
    lines += ["", "## Two campaigns of the same network", ""]
    minutes = f"{BETWEEN_CAMPAIGNS_S / 60:.0f} minutes"
    lines += [
        f"Two campaigns of one network, each of consecutive processes, {minutes} apart, compared as `dlbench compare`"
    ]
    lines += ["does, over all networks and days. The share called different should be at most 5 %.", ""]
    lines += differences_table(all_series)
    sources = [*((f"reruns {day}", found) for day, found in checks.items()), ("A/A", old)]
    found = {
        f"{model} ({source})": components(blocks)
        for source, data in sources
        for (model, kind), blocks in data.items()
        if kind != "forked"
    }
    draw(found)
    lines += ["", "## Components of variance", "", f"![Components of variance](../images/{FIGURE.name})", ""]
    lines += [
        "Standard deviations [%]: of single steps, of the medians of fifths of a window, of the medians of processes"
    ]
    lines += ["within a block (root mean square), and of the medians of blocks measured on different days.", ""]
    names = list(next(iter(found.values())))
    lines += [f"| network | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    lines += [
        f"| {model} | {' | '.join('–' if math.isnan(v) else f'{v:.2g}' for v in values.values())} |"
        for model, values in found.items()
    ]
    return "\n".join([*lines, ""])
