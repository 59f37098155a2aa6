"""What a reader must know before trusting a number: the records' own warnings, and what the metrics reveal."""

import shlex
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis import derived_metrics
from dlbench.report.analysis.case_warnings import CLOCK_GAP_LIMIT, boolean_column_per_warning
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, setting_label, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import add_case_numbers
from dlbench.results.records import DONE_STATUSES, ENERGY_TOLERANCE
from dlbench.table import Cell, Column, Table

#: Warnings of the worker that the records' metrics show as well.
_METRIC_FLAGS = ("not steady", "throttled", "power capped", "shared device")
#: So many cases are named for each finding; the others are counted.
_MAX_NAMED = 4
_UNEVEN = "uneven steps"
_MEANINGS = {
    "unstable": "The measurement reached its time limit before the interval (±) was as narrow as the protocol asks.",
    "no interval": "No confidence interval: too few steps, or their times are too correlated.",
    "not steady": "The warm-up ended at its limit, perhaps while steps were still getting faster.",
    _UNEVEN: f"Throughput over the whole window is more than {units.percent_text(derived_metrics.UNEVEN_LIMIT)} below "
    f"the throughput of the median step: slow steps take much of the time.",
    "throttled": "The device lowered its clock during the window, because of heat, the power supply or the board.",
    "power capped": "The power limit of the device lowered its clock. This is usual for heavy work. With a higher "
    "limit the device would be faster.",
    "clock gap": f"The host's clock and the device's clock differ by more than "
    f"{units.percent_text(CLOCK_GAP_LIMIT, 1)} in the total time of the steps: some time passed outside the steps.",
    "shared device": "Other processes used the same device.",
    "meters disagree": "The energy counter and the integral of the power differ strongly: trust neither.",
    "above the peak": "The FLOP/s exceed the datasheet peak: the count, the clock or the peak is wrong.",
}


def findings_table(content: Content) -> Table:
    """One row per kind of finding: what it is, how many cases it concerns, and which."""
    shown = content.shown
    axes = ["mode", "precision", "batch_size", *varying_axes(shown)]
    axes = [axis for axis in axes if shown[axis].nunique() > 1]
    rows: list[list[Cell]] = [["unreadable part", words, None, ""] for words in content.skipped]
    if content.account.error:
        rows.append(["rows are missing", content.account.error, None, ""])
    if content.left_out:
        words = "There are too many cases. Some are left out of tables and figures; metrics.csv contains all."
        rows.append(["too many cases", words, content.left_out, ""])
    mixed = [*_mixed_thread_findings(content), *_duplicate_findings(content)]
    for code, sentence, concerned in [*_metric_findings(shown), *mixed, *_warning_findings(shown)]:
        both = code == _UNEVEN
        names = [
            network_title(c["model"])
            + (f" ({setting_label(c, axes)})" if axes else "")
            + (_describe_median_and_window_rate(c) if both else "")
            for c in concerned.head(_MAX_NAMED).to_dict("records")
        ]
        more = [f"and {len(concerned) - _MAX_NAMED} more"] if len(concerned) > _MAX_NAMED else []
        rows.append([code, sentence, len(concerned), "; ".join([*names, *more])])
    columns = [Column("code", "Finding"), Column("sentence", "What it means"), Column("cases", "Cases", "right")]
    return Table([*columns, Column("which", "Which")], rows)


def _describe_median_and_window_rate(case: Mapping[Hashable, Any]) -> str:
    """By the median step and over the whole window."""
    show = METRICS["throughput"].format
    whole = show(case["sustained_throughput"])
    return f": {show(case['throughput'])} computed from the median step, {whole} over the whole window"


def _metric_findings(shown: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Findings that follow from the metrics, each with the cases that it concerns."""
    warned = boolean_column_per_warning(shown)
    checks = {
        "unstable": shown["status"] == "unstable",
        "no interval": shown["step_time_half_width"].isna(),
        "not steady": shown["steady"].eq(False),
        _UNEVEN: derived_metrics.has_uneven_steps(shown),
        "throttled": warned["throttled"],
        "power capped": warned["at its power limit"],
        "clock gap": shown["clock_gap"] > CLOCK_GAP_LIMIT,
        "shared device": shown["other_processes"].gt(0),
        "meters disagree": shown["energy_disagreement"] > ENERGY_TOLERANCE,
        "above the peak": shown["mfu"] > 1,
    }
    for code, concerned in checks.items():
        if concerned.any():
            yield code, _MEANINGS[code], shown[concerned]


def _mixed_thread_findings(content: Content) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Cases of CPUs whose processes computed with different numbers of threads: these are no repeats of one thing."""
    cases = content.shown[content.shown["device"] == "cpu"]
    if cases.empty:
        return
    ranks = content.rows[["attempt_id", "system_torch_threads"]].drop_duplicates("attempt_id").set_index("attempt_id")
    threads = cases["attempt_id"].map(ranks["system_torch_threads"])
    if threads.nunique() < 2:
        return
    key = [add_case_numbers(cases)["number"], cases["system_id"]]
    mixed = threads.groupby(key).transform("nunique").gt(1).astype(bool)
    if mixed.any():
        counts = ", ".join(f"{count:.0f}" for count in sorted(threads[mixed].dropna().unique()))
        words = (
            f"Processes of one case ran with different numbers of threads ({counts}), so they are not repeats of "
            f"the same measurement."
        )
        yield "threads differ", words, cases[mixed]


def _duplicate_findings(content: Content) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Cases that several unnamed sources hold, of one kind of system: all but one result of each is hidden."""
    if len(content.sources) < 2:
        return
    names = ["suite", "suite_version", "case_id", "system_id"]
    done = content.attempts[["attempt_id", *names]][content.attempts["status"].isin(DONE_STATUSES)]
    rows = content.rows[["attempt_id", "source_number"]]
    sources = rows.drop_duplicates("attempt_id").set_index("attempt_id")["source_number"]
    keys = [done[name] for name in names]
    several = done["attempt_id"].map(sources).groupby(keys).transform("nunique").gt(1).astype(bool)
    concerned = content.shown[content.shown["attempt_id"].isin(done.loc[several, "attempt_id"])]
    if len(concerned):
        named = zip(("OLD", "NEW"), content.sources, strict=False)
        words = (
            "Several sources contain these cases, from systems that look the same. Only the latest result counts. To "
            f"keep the sources apart, name them: {' '.join(f'{name}={shlex.quote(path)}' for name, path in named)}."
        )
        yield "in several sources", words, concerned


def _warning_findings(shown: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The records' own warnings, those of one kind together; kinds that the metrics reveal are not said twice."""
    single = shown["warnings"].explode().dropna().astype(str)
    if single.empty:
        return
    parted = single.str.partition(": ")
    code = parted[0].where(parted[2] != "", "warning")
    sentence = parted[2].where(parted[2] != "", parted[0])
    for kind, same in sentence.groupby(code, sort=True):
        if str(kind).replace("_", " ") in _METRIC_FLAGS:
            continue
        words = same.iloc[0] if same.nunique() == 1 else f"For instance: {same.iloc[0]}"
        yield str(kind), words, shown.loc[same.index.unique()]
