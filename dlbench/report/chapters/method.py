"""How far the numbers of a report keep the rules: those of dlbench's measurement contract, and those of SC15.

Honest about what is not met, and counted from the data wherever it can be.
"""

import pandas as pd

from dlbench import units
from dlbench.report.analysis.case_warnings import CLOCK_GAP_LIMIT, boolean_column_per_warning
from dlbench.report.analysis.content import Content
from dlbench.report.loading.intervals import read_protocol_number
from dlbench.results.records import ENERGY_TOLERANCE, SHORT_ENERGY_WINDOW_S
from dlbench.table import Column, Table

_CONTEXT_TEXT = (
    "The table lists layout, precision, batch, compile mode and data source if they differ between cases. "
    "metrics.csv lists them for every record. fp32 is strict: no TF32 in convolutions or matrix products."
)
_PEAK_TITLES = {"device_peak": "the datasheet peak", "measured_peak": "the peak measured on the same system"}


def measurement_rules_table(content: Content) -> Table:
    """The twelve rules of `measurement.md`, what was done about each, and whether that is all of it."""
    shown = content.shown
    rules = [
        ("The settings of each throughput are stated", _CONTEXT_TEXT, "met"),
        ("Warm-up ends when step times no longer fall", *_warm_up_rule(shown)),
        ("Measure until the interval of the median is narrow enough", *_stopping_rule(shown)),
        (
            "Intervals allow for autocorrelation; outliers are kept",
            "The interval of the median assumes no distribution: its ends are two of the sorted step times, and "
            "correlated steps count as fewer. With too few steps there is no interval. Rates, shares of a peak and "
            "distances to a bound are computed from that median and have its interval. Energy, power, memory and "
            "sustained throughput have no interval: each is one reading per process. Their variation is "
            "visible only over several processes of a case. Outliers are counted and stay in every statistic. Latency "
            "of inference has p50, p95 and p99 (metrics.csv).",
            "met",
        ),
        (
            "Compared settings alternate, in random order, in fresh processes",
            _describe_comparison_method(content),
            "partly",
        ),
        ("Steps timed by device events and host clock; slowest rank counts", *_timers_text(shown)),
        (
            "Clocks, temperature and throttling recorded",
            _throttling_text(shown, content.rows),
            "met" if _has_clock_frequency(shown) else "no sensor",
        ),
        (
            "Random inputs, usual initialisation",
            "Inputs are random, not zero. Weights have the usual initialisation. The seed is part of the protocol.",
            "met",
        ),
        ("Energy measured over at least 5 s", *_energy_windows_rule(content.rows)),
        ("Energy from both energy counter and power samples; source and scope stated", *_meters_rule(shown)),
        (
            "FLOP are counted from the operations; 1 MAC is 2 FLOP; peaks are those without sparsity",
            *_flop_counts_rule(content.rows),
        ),
        ("Each result shown next to its hardware bounds", *_bounds_rule(shown)),
    ]
    columns = [Column("rule", "#"), Column("asks", "Rule"), Column("done", "Here"), Column("state", "State")]
    return Table(columns, [(number, *rule) for number, rule in enumerate(rules, 1)])


def hoefler_belli_rules_table() -> Table:
    """Hoefler and Belli, "Scientific Benchmarking of Parallel Computing Systems" (SC15), rule by rule."""
    rules = [
        ("The base case of each speedup is stated", "Each speedup is shown with the throughput of its base case."),
        ("Reason for subsets", "Failed and left-out cases are listed with the reason."),
        ("Arithmetic mean only for times and amounts, not for rates", "Reports use medians and percentiles."),
        (
            "No averages of ratios",
            "The chapter In brief shows geometric means per precision and mode, each with its interval and the range "
            "of its cases.",
        ),
        (
            "Confidence intervals for varying results",
            "Step times, and all values computed from them, have a confidence interval.",
        ),
        ("No normality assumed", "Nonparametric intervals; the distributions are shown."),
        (
            "Sound comparisons",
            "Systems are compared by a test over processes, corrected for multiple tests; without enough evidence the "
            'verdict is "not decided". Settings are compared by `dlbench compare` and `dlbench ab`.',
        ),
        (
            "Percentiles where they matter",
            "p50, p95 and p99 of the inference latency; largest deviation of a step from the median.",
        ),
        (
            "All factors documented",
            "Case, protocol, system, libraries and git state are recorded; see the chapter Provenance.",
        ),
        (
            "Parallel timing explained",
            "The time of a step is that of its slowest rank. About once a second the ranks decide together whether the "
            "window ends.",
        ),
        (
            "Upper bounds shown",
            "Datasheet peak if known; peaks and bandwidth measured on the same system; see the chapter Bounds.",
        ),
        ("Plots with enough information", "Lines in plots connect only ordered values: batch sizes, steps, times."),
    ]
    columns = [Column("rule", "#"), Column("asks", "Rule"), Column("done", "Here")]
    return Table(columns, [(number, *rule) for number, rule in enumerate(rules, 1)])


def _describe_comparison_method(content: Content) -> str:
    words = (
        "Each case runs in its own process, and the cases of a campaign run one after the other. A difference between "
        "two cases that is not larger than their intervals means nothing. `dlbench ab` runs two settings alternately, "
        "in random order and in fresh processes; `dlbench compare` gives the verdict."
    )
    if len(content.system_names) > 1:
        words += (
            " Systems cannot alternate, so they are compared by independent processes. With fewer than three processes "
            "on a side there is no verdict."
        )
    return words


def _warm_up_rule(shown: pd.DataFrame) -> tuple[str, str]:
    unsteady = int(shown["steady"].eq(False).sum())
    words = "Warm-up steps are stored but not evaluated. The window starts when a Mann-Whitney test finds no further "
    words += (
        f"speed-up. {unsteady} of {units.count_text(len(shown), 'case')} reached the time limit of the warm-up first."
    )
    return words, "partly" if unsteady else "met"


def _stopping_rule(shown: pd.DataFrame) -> tuple[str, str]:
    ended = shown["stop_reason"].eq("target")
    # The last look that ended the window saw most of the steps; what is shown is the interval of all.
    targets = [read_protocol_number(text, "target_half_width") for text in shown["protocol"]]
    met = ended & (shown["step_time_half_width"] <= targets)
    cases = units.count_text(len(shown), "case")
    words = f"{met.sum()} of {cases} reached the protocol's target for the half-width of the interval"
    if not ended.all():
        words += f"; {(~ended).sum()} reached the time limit before the target (status unstable)"
    if (ended & ~met).any():
        words += (
            f"; for {(ended & ~met).sum()} the interval was narrow enough when the window ended, but the interval over "
            f"all steps is wider or unknown"
        )
    words += (
        ". If a window ends because its interval is narrow enough, about 92 % of the 95 % intervals contain the true "
        "median. If min_time_s makes the window longer, 95 % of the intervals contain it."
    )
    return words, "met" if met.all() else "partly"


def _timers_text(shown: pd.DataFrame) -> tuple[str, str]:
    sources = ", ".join(sorted(shown["clock"].dropna().unique())) or "unknown"
    worst = shown["clock_gap"].max()
    gap = f"largest gap {units.percent_text(worst)}" if pd.notna(worst) else "gap unknown"
    words = (
        f"Steps timed by: {sources}. The total times by the host's and by the device's clock are both stored: {gap}; a "
        f"gap above {CLOCK_GAP_LIMIT:.0%} gives a warning."
    )
    return words, "met" if shown["clock_gap"].le(CLOCK_GAP_LIMIT).all() else "partly"


def _has_clock_frequency(shown: pd.DataFrame) -> bool:
    return bool(shown["sm_clock_min"].notna().any())


def _throttling_text(shown: pd.DataFrame, rows: pd.DataFrame) -> str:
    if not _has_clock_frequency(shown):
        at_ends = rows[["sm_clock_before_mhz", "sm_clock_after_mhz"]].notna().any(axis=None)
        known = "Device clocks were read before and after the timed steps, not during them."
        return known if at_ends else "The device's clocks and throttling could not be read."
    found = boolean_column_per_warning(shown)
    throttled, capped = int(found["throttled"].sum()), int(found["at its power limit"].sum())
    cases = units.count_text(len(shown), "case")
    return (
        f"Throttling is read before, during and after the timed steps. Of {cases}, {throttled} throttled and {capped} "
        f"ran at the power limit; all are listed."
    )


def _energy_windows_rule(rows: pd.DataFrame) -> tuple[str, str]:
    windows = rows.loc[rows["energy_j"].notna(), "energy_window_s"].dropna()
    if windows.empty:
        return "No energy was measured.", "no meter"
    short = int((windows < SHORT_ENERGY_WINDOW_S).sum())
    return (
        f"{short} of {units.count_text(len(windows), 'energy window')} lasted less than {SHORT_ENERGY_WINDOW_S:g} s.",
        "partly" if short else "met",
    )


def _meters_rule(shown: pd.DataFrame) -> tuple[str, str]:
    known = shown[shown["energy_per_image"].notna()]
    if known.empty:
        return "No meter could be read: energies are missing, not 0.", "no meter"
    sources = ", ".join(sorted(known["energy_source"].dropna().unique()))
    scopes = ", ".join(sorted(known["energy_scope"].dropna().unique()))
    words, apart = f"Source: {sources}; scope: {scopes}", known["energy_disagreement"]
    if apart.isna().all():
        return f"{words}. The meters gave only one kind of reading, so there is no cross-check.", "partly"
    words += f"; energy counter and integral of sampled power differ by at most {units.percent_text(apart.max())}"
    if apart.isna().any():
        words += f"; {apart.isna().sum()} of {units.count_text(len(known), 'case')} have only one of the two energies"
    return f"{words}.", "met" if apart.le(ENERGY_TOLERANCE).all() else "partly"


def _flop_counts_rule(rows: pd.DataFrame) -> tuple[str, str]:
    words = (
        "Matrix products, convolutions and attention are counted as they run, with the batch of the case. Pooling, "
        "normalisation and activations are not counted. Peak FLOP/s are those without sparsity."
    )
    partial = rows["flop_partial"].dropna()
    if len(partial):
        names = ", ".join(sorted({name for names in partial for name in names.split(", ")}))
        words += f" The count is partial in {units.count_text(len(partial), 'record')}: {names} are not counted."
    checked = rows[["pytorch_forward_flop", "forward_flop"]].dropna()
    if checked.empty:
        return f"{words} These records have no count by PyTorch for a cross-check.", "partly"
    agree = int((checked["pytorch_forward_flop"] == checked["forward_flop"]).sum())
    records = units.count_text(len(checked), "record")
    outcome = "met" if agree == len(checked) and partial.empty else "partly" if agree else "no"
    return f"{words} PyTorch's own counter gives the same forward FLOP in {agree} of {records}.", outcome


def _bounds_rule(shown: pd.DataFrame) -> tuple[str, str]:
    cases = units.count_text(len(shown), "case")
    known = {title: int(shown[name].notna().sum()) for name, title in _PEAK_TITLES.items()}
    if not any(known.values()):
        return "This device has neither a datasheet nor a measured peak; run `dlbench ceilings` to measure it.", "no"
    words = "; ".join(f"{title} in {count} of {cases}" for title, count in known.items())
    words = f"Peaks shown with the results: {words}. Published throughputs: see the chapter Published results."
    return words, "met" if known[_PEAK_TITLES["measured_peak"]] == len(shown) else "partly"
