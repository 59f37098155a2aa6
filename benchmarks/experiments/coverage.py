"""How often the intervals of `dlbench.stats` hold the truth: simulated step times with a known median.

    python benchmarks/experiments/coverage.py         # all, 20 min on 2 cores; writes docs/experiments/coverage.md
    python benchmarks/experiments/coverage.py --quick # a tenth of the repetitions, prints only

Every random number comes from a fixed seed, one per cell of a table, so that each cell can be run again alone.
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from math import comb
from multiprocessing import Pool
from multiprocessing.pool import Pool as ProcessPool
from pathlib import Path
from unittest.mock import patch

import numpy as np
from scipy import stats as scipy_stats
from scipy.optimize import brentq
from scipy.signal import lfilter

from dlbench import stats
from dlbench.report.analysis.comparison_statistics import compare_process_groups
from dlbench.stats import Interval, is_steady, median_interval, step_time_drift

SIZES = (20, 30, 50, 100, 300, 1000, 5000)
RHOS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiments" / "coverage.md"


def first_order(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """A stationary first-order autoregressive series with standard normal values."""
    shocks = rng.standard_normal(n)
    shocks[1:] *= math.sqrt(1 - rho * rho)
    return lfilter([1.0], [1.0, -rho], shocks)


# Each maker gives samples [s] around a median of 10 ms, and the true median.


def normal(rho: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Normal with a coefficient of variation of 2 %."""
    return 0.010 * (1 + 0.02 * first_order(rho, n, rng)), 0.010


def lognormal(rho: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Lognormal with sigma 0.3: skewed to the right."""
    return 0.010 * np.exp(0.3 * first_order(rho, n, rng)), 0.010


def heavy_tail(rho: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A hard floor with a heavy tail above it, as step times have: floor + lognormal with sigma 1.5."""
    return 0.0098 + 0.0002 * np.exp(1.5 * first_order(rho, n, rng)), 0.010


def with_outliers(rho: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Normal as above, and one step in a hundred is three times as long."""
    times, _ = normal(rho, n, rng)
    late = rng.random(n) < 0.01
    true_median = 0.010 * (1 + 0.02 * scipy_stats.norm.ppf(0.5 / 0.99))
    return np.where(late, 3 * times, times), true_median


def coarse_clock(rho: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Normal as above, read from a clock that ticks once per 0.1 ms (half a standard deviation): many ties."""
    times, _ = normal(rho, n, rng)
    return np.round(times / 1e-4) * 1e-4, round(0.010 / 1e-4) * 1e-4


def two_speeds(rho: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Half the variance from a first-order series, half from white noise: correlation that lag one hides."""
    slow, white = first_order(rho, n, rng), rng.standard_normal(n)
    return 0.010 * (1 + 0.02 * (slow + white) / math.sqrt(2)), 0.010


MAKERS: dict[str, Callable[..., tuple[np.ndarray, float]]] = {
    f.__name__: f for f in (normal, lognormal, heavy_tail, with_outliers, coarse_clock, two_speeds)
}


@lru_cache
def disturbed_median(size: float, share: float) -> float:
    """The median of `bursts`, from its distribution function."""

    def excess(relative: float) -> float:
        quiet, slow = scipy_stats.norm.cdf([(relative - 1) / 0.02, (relative / (1 + size) - 1) / 0.02])
        return (1 - share) * quiet + share * slow - 0.5

    return 0.010 * brentq(excess, 0.5, 2.0)


def bursts(size: float, length: int, share: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float, bool]:
    """Normal with 2 %, and slower by `size` in bursts; the true median; whether the window has a burst.

    A burst is `length` steps long on average, and bursts take `share` of the time: a Markov chain of two states.
    """
    slow = bool(rng.random() < share)
    states = np.empty(n, bool)
    begin = 0
    while begin < n:
        end = begin + rng.geometric(1 / length if slow else share / (1 - share) / length)
        states[begin:end] = slow
        begin, slow = end, not slow
    times = 0.010 * (1 + 0.02 * rng.standard_normal(n)) * (1 + size * states)
    return times, disturbed_median(size, share), bool(states.any())


# What else could have been chosen. Each gives an interval of the median as `median_interval` does.


def independent_ranks(samples: np.ndarray) -> Interval | None:
    """Order statistics as if steps were independent (Le Boudec, table A.1)."""
    ordered, n = np.sort(samples), len(samples)
    reach = 1.96 * math.sqrt(n) / 2
    low, high = np.interp([(n - 1) / 2 - reach, (n - 1) / 2 + reach], np.arange(n), ordered)
    return Interval(float(np.median(ordered)), float(low), float(high), 0.95)


def block_medians(samples: np.ndarray, num_blocks: int = 10) -> Interval | None:
    """Student's t over the medians of ten consecutive blocks."""
    medians = [np.median(block) for block in np.array_split(samples, num_blocks)]
    center = float(np.mean(medians))
    reach = float(scipy_stats.t.ppf(0.975, num_blocks - 1) * np.std(medians, ddof=1) / math.sqrt(num_blocks))
    return Interval(center, center - reach, center + reach, 0.95)


def moving_blocks(samples: np.ndarray, resamples: int = 200) -> Interval | None:
    """Moving-block bootstrap of the median with blocks of n^(1/3) steps, percentile interval (Künsch 1989)."""
    n = len(samples)
    length = max(1, round(n ** (1 / 3)))
    rng = np.random.default_rng(0)
    starts = rng.integers(0, n - length + 1, size=(resamples, math.ceil(n / length)))
    chosen = (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :n]
    low, high = np.percentile(np.median(samples[chosen], axis=1), [2.5, 97.5])
    return Interval(float(np.median(samples)), float(low), float(high), 0.95)


def signs_alone(samples: np.ndarray) -> Interval | None:
    """`dlbench.stats.median_interval` without the search for clusters of slow or fast steps."""
    with patch.object(stats, "CLUSTER_LIMIT", math.inf):
        return median_interval(samples.tolist())


def shipped(samples: np.ndarray) -> Interval | None:
    """`dlbench.stats.median_interval`."""
    return median_interval(samples.tolist())


METHODS: dict[str, Callable[[np.ndarray], Interval | None]] = {
    f.__name__: f for f in (independent_ranks, block_medians, moving_blocks, signs_alone, shipped)
}

Cell = tuple[str, str, float, int, int]


def seeded(*what: object) -> np.random.Generator:
    """A generator whose seed is the description of what is drawn."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


def coverage(cell: Cell) -> tuple[float, float, float]:
    """Share of given intervals that hold the true median, share of windows with an interval, mean half-width [%]."""
    maker, method, rho, n, repetitions = cell
    rng = seeded(maker, rho, n)
    held = given = 0
    width = 0.0
    for _ in range(repetitions):
        samples, truth = MAKERS[maker](rho, n, rng)
        interval = METHODS[method](samples)
        if interval is None:
            continue
        given += 1
        # A clock's tick is a decimal fraction: equal up to rounding is inside.
        held += interval.low - 1e-12 <= truth <= interval.high + 1e-12
        width += 100 * interval.relative_half_width
    return (held / given if given else math.nan), given / repetitions, (width / given if given else math.nan)


def burst_coverage(cell: tuple[str, str, int, int]) -> tuple[float, float, float, float, float]:
    """As `coverage`; then the share of windows without a burst, and the coverage of the intervals of these."""
    name, method, n, repetitions = cell
    size, length, share = BURSTS[name]
    rng = seeded("bursts", size, length, share, n)
    held, width, has_burst = [], [], []
    windows_without = 0
    for _ in range(repetitions):
        samples, truth, burst = bursts(size, length, share, n, rng)
        windows_without += not burst
        interval = METHODS[method](samples)
        if interval is not None:
            held.append(interval.low <= truth <= interval.high)
            width.append(100 * interval.relative_half_width)
            has_burst.append(burst)
    quiet = [h for h, b in zip(held, has_burst, strict=True) if not b]
    return (
        float(np.mean(held)) if held else math.nan,
        len(held) / repetitions,
        float(np.mean(width)) if held else math.nan,
        windows_without / repetitions,
        float(np.mean(quiet)) if quiet else math.nan,
    )


def runs_probability(samples: np.ndarray) -> float:
    """Probability of as few runs above and below the median or fewer, for independent steps (Wald & Wolfowitz 1940)."""
    above = samples[samples != np.median(samples)] > np.median(samples)
    a, b = int(above.sum()), int((~above).sum())
    runs = 1 + int((above[1:] != above[:-1]).sum())
    ways = 0
    for r in range(2, runs + 1):
        k = r // 2
        if r % 2:
            ways += comb(a - 1, k) * comb(b - 1, k - 1) + comb(a - 1, k - 1) * comb(b - 1, k)
        else:
            ways += 2 * comb(a - 1, k - 1) * comb(b - 1, k - 1)
    return ways / comb(a + b, a)


def few_steps(cell: tuple[float, int, int]) -> tuple[float, float, float]:
    """As `coverage`, of the exact interval by order statistics, given where a runs test at 10 % is passed."""
    rho, n, repetitions = cell
    rng = seeded("few steps", rho, n)
    # The innermost ranks, counted from 0, whose interval holds the median of independent steps in at least 95 %.
    rank = int(scipy_stats.binom.ppf(0.025, n, 0.5)) - 1
    held = given = 0
    for _ in range(repetitions):
        samples, truth = heavy_tail(rho, n, rng)
        if runs_probability(samples) > 0.1:
            ordered = np.sort(samples)
            given += 1
            held += ordered[rank] <= truth <= ordered[n - 1 - rank]
    return held / given, given / repetitions, math.nan


def stopped(cell: tuple[str, float, float, int, int]) -> tuple[float, float, float]:
    """A window that ends when so many looks in a row find a half-width of at most 0.5 %, or at 20 000 steps.

    Looks are taken at 30 steps and then each time the window has grown by the given factor. Gives coverage, mean number
    of steps, and the share that reached the target.
    """
    maker, rho, growth, looks_needed, repetitions = cell
    rng = seeded("stopped", maker, rho)
    held = steps = reached = 0
    for _ in range(repetitions):
        samples, truth = MAKERS[maker](rho, 20_000, rng)
        n, looks_passed = 30, 0
        while True:
            interval = median_interval(samples[:n].tolist())
            narrow = interval is not None and interval.relative_half_width <= 0.005
            looks_passed = looks_passed + 1 if narrow else 0
            if interval is not None and looks_passed == looks_needed:
                reached += 1
                held += interval.low <= truth <= interval.high
                break
            if n == len(samples):
                break
            n = min(len(samples), math.ceil(n * growth))
        steps += n
    return (held / reached if reached else math.nan), steps / repetitions, reached / repetitions


def drifted(cell: tuple[float, int, float, int]) -> float:
    """Share of windows that `drift` flags, their median rising linearly by `change` from start to end."""
    rho, n, change, repetitions = cell
    rng = seeded("drift", rho, n, change)
    ramp = 1 + change * np.linspace(0, 1, n)
    return (
        sum(step_time_drift((heavy_tail(rho, n, rng)[0] * ramp).tolist()) is not None for _ in range(repetitions))
        / repetitions
    )


def steady(cell: tuple[float, int, float, int]) -> float:
    """Share of warm-ups called steady, their times falling by `change` from the middle to the last step."""
    rho, n, change, repetitions = cell
    rng = seeded("steady", rho, n, change)
    ramp = 1 - change * np.clip(np.linspace(-1, 1, n), 0, 1)
    return sum(is_steady((normal(rho, n, rng)[0] * ramp).tolist()) for _ in range(repetitions)) / repetitions


def between(kind: str, k: int, rng: np.random.Generator) -> np.ndarray:
    """How the log medians of k pairs of processes deviate, in standard deviations: row 0 for A, row 1 for B."""
    own = rng.standard_normal((2, k))
    if kind == "two modes":
        # Three processes in ten get the slower memory; the same mean and standard deviation as the others.
        return ((rng.random((2, k)) < 0.3) - 0.3) / math.sqrt(0.3 * 0.7)
    if kind == "neighbours":
        return own + (rng.random((2, k)) < 0.1) * rng.uniform(0, 10, (2, k))
    if kind == "drift":
        return own + np.cumsum(rng.standard_normal(k))
    return own


def compared(cell: tuple[str, bool, int, float, float, int]) -> tuple[float, float, float, float]:
    """Shares of faster, slower, same and not decided among comparisons with B slower by `change`."""
    kind, in_pairs, k, spread, change, repetitions = cell
    rng = seeded("compare", kind, k, spread, change)
    verdicts = []
    for _ in range(repetitions):
        medians = 0.010 * np.exp(spread * between(kind, k, rng)) * np.array([[1], [1 + change]])
        a, b = ([[m] for m in side] for side in medians.tolist())
        verdicts.append(compare_process_groups(a, b, paired=in_pairs).verdict)
    faster, slower, same = (verdicts.count(v) / repetitions for v in ("faster", "slower", "same"))
    return faster, slower, same, 1 - faster - slower - same


def table(corner: str, columns: list[str], rows: list[tuple[str, list[str]]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows])


def shown(result: tuple[float, float, float]) -> str:
    """Coverage, and in brackets the share of windows that have an interval at all when it is not every one."""
    held, given, _ = result
    if given < 0.02:
        return "none given"
    return f"{100 * held:.1f}" + (f" ({100 * given:.0f})" if given < 0.995 else "")


def without_burst(result: tuple[float, float, float, float, float]) -> str:
    """Share of windows without a burst, their coverage, and the coverage of all if every other interval were right."""
    _, given, _, without, held = result
    if math.isnan(held):
        return "none"
    return f"{100 * without:.0f}: {100 * held:.0f}, {100 * (1 - without * (1 - held) / given):.1f}"


def burst_sections(pool: ProcessPool, repetitions: Callable[[int], int]) -> list[str]:
    """Coverage with bursts, and what the windows without one contribute."""
    by_row = []
    for method in ("shipped", "signs_alone"):
        for n in BURST_SIZES:
            cells = [(name, method, n, repetitions(n)) for name in BURSTS]
            by_row.append((method, n, pool.map(burst_coverage, cells, chunksize=1)))
    rows = [(f"{m}, n = {n}", [f"{shown(r[:3])}, ±{r[2]:.1f} %" for r in row]) for m, n, row in by_row]
    few = [(f"n = {n}", [without_burst(r) for r in row]) for m, n, row in by_row if m == "shipped" and n <= 300]
    return [
        f"## Bursts\n\n{BURST_TEXT}\n\n" + table("rule and steps", list(BURSTS), rows),
        f"### Windows without a burst\n\n{NO_BURST_TEXT}\n\n" + table("steps", list(BURSTS), few),
    ]


def few_section(pool: ProcessPool, repetitions: Callable[[int], int]) -> str:
    """Coverage of windows too short for `median_interval`."""
    rows = []
    for n in (6, 10, 14, 19):
        results = pool.map(few_steps, [(rho, n, repetitions(n)) for rho in RHOS], chunksize=1)
        rows.append((f"n = {n}", [shown(r) for r in results]))
    return f"## Fewer than 20 steps\n\n{FEW_TEXT}\n\n" + table("heavy_tail", [f"ρ = {rho:g}" for rho in RHOS], rows)


def build_page(scale: float, workers: int) -> str:
    """The whole page; `scale` multiplies all numbers of repetitions."""

    def repetitions(n: int) -> int:
        return max(20, round(scale * (4000 if n <= 300 else 2000 if n <= 1000 else 1000)))

    rho_names = [f"ρ = {rho:g}" for rho in RHOS]
    parts = [INTRODUCTION]
    with Pool(workers) as pool:
        for maker, make in MAKERS.items():
            cells = [(maker, "shipped", rho, n, repetitions(n)) for n in SIZES for rho in RHOS]
            results = iter(pool.map(coverage, cells, chunksize=1))
            rows = [(f"n = {n}", [shown(next(results)) for _ in RHOS]) for n in SIZES]
            parts.append(f"## {maker}\n\n{make.__doc__}\n\n" + table("steps", rho_names, rows))
            print(parts[-1], flush=True)

        parts += [*burst_sections(pool, repetitions), few_section(pool, repetitions)]
        print(*parts[-3:], sep="\n\n", flush=True)

        for n in (100, 1000):
            cells = [("heavy_tail", method, rho, n, max(20, round(1000 * scale))) for method in METHODS for rho in RHOS]
            results = iter(pool.map(coverage, cells, chunksize=1))
            rows = []
            for method in METHODS:
                row = [next(results) for _ in RHOS]
                rows.append((method, [f"{shown(r)}, ±{r[2]:.2f} %" for r in row]))
            parts.append(f"## Alternative methods, heavy_tail, n = {n}\n\n{ALTERNATIVES if n == 100 else ''}")
            parts[-1] = parts[-1].rstrip() + "\n\n" + table("method", rho_names, rows)
            print(parts[-1], flush=True)

        rows = []
        for maker in ("normal", "heavy_tail", "with_outliers"):
            for growth, needed in ((1.1, 1), (1.5, 1), (1.5, 2)):
                cells = [(maker, rho, growth, needed, max(20, round(1000 * scale))) for rho in RHOS]
                looks = pool.map(stopped, cells, chunksize=1)
                shares = [f" ({100 * r:.0f})" if r < 0.995 else "" for _, _, r in looks]
                row = [f"{100 * h:.1f}, {s:.0f} steps{r}" for (h, s, _), r in zip(looks, shares, strict=True)]
                rows.append((f"{maker}, × {growth}, {needed} in a row", row))
        parts.append(f"## Stopping at the target\n\n{STOPPING}\n\n" + table("times", rho_names, rows))
        print(parts[-1], flush=True)

        rows = []
        for n in (100, 1000):
            for change in (0.0, 0.005, 0.01, 0.03):
                flags = pool.map(drifted, [(rho, n, change, max(20, round(500 * scale))) for rho in RHOS], chunksize=1)
                rows.append((f"n = {n}, rise of {100 * change:g} %", [f"{100 * f:.1f}" for f in flags]))
        parts.append(f"## Drift over a window\n\n{DRIFT}\n\n" + table("heavy_tail", rho_names, rows))
        print(parts[-1], flush=True)

        rows = []
        for n in (6, 20, 100, 1000):
            for change in (0.0, 0.02, 0.10):
                calls = pool.map(steady, [(rho, n, change, max(20, round(1000 * scale))) for rho in RHOS], chunksize=1)
                rows.append((f"n = {n}, fall of {100 * change:g} %", [f"{100 * c:.1f}" for c in calls]))
        parts.append(f"## End of warm-up\n\n{STEADY}\n\n" + table("normal", rho_names, rows))
        print(parts[-1], flush=True)

        settings = [(kind, in_pairs, k) for kind in KINDS for in_pairs in (True, False) for k in (3, 5, 7, 10)]
        trials = max(20, round(2000 * scale))
        rows = []
        for kind, in_pairs, k in settings:
            cells = [(kind, in_pairs, k, spread, 0.0, trials) for spread in (0.003, 0.01)]
            cells += [(kind, in_pairs, k, spread, 0.03, trials) for spread in (0.005, 0.01, 0.016, 0.03)]
            results = pool.map(compared, cells, chunksize=1)
            row = [f"{100 * (faster + slower):.1f} / {100 * same:.0f}" for faster, slower, same, _ in results[:2]]
            row += [f"{100 * slower:.1f}" for _, slower, _, _ in results[2:]]
            rows.append((f"{kind}, {k} {'pairs' if in_pairs else '+ ' + str(k)}", row))
        columns = ["A/A, 0.3 %", "A/A, 1 %", "+3 %, 0.5 %", "+3 %, 1 %", "+3 %, 1.6 %", "+3 %, 3 %"]
        parts.append(f"## Comparing A with B\n\n{COMPARING}\n\n" + table("processes", columns, rows))
        print(parts[-1], flush=True)
    return "\n\n".join(parts) + "\n"


#: Size, mean length [steps] and share of the time of bursts.
BURSTS = {
    "+2 %": (0.02, 15, 0.2),
    "+10 %": (0.10, 15, 0.2),
    "+30 %": (0.30, 15, 0.2),
    "-10 %": (-0.10, 15, 0.2),
    "+10 %, 5 steps": (0.10, 5, 0.2),
    "+10 %, 40 steps": (0.10, 40, 0.2),
}
BURST_SIZES = (30, 40, 100, 150, 300, 600, 1000, 5000)
KINDS = ("normal", "two modes", "neighbours", "drift")


INTRODUCTION = """# Do the intervals contain the true median as often as stated?

Written by `benchmarks/experiments/coverage.py` from fixed seeds; do not edit. Step times with a known median are
simulated. Before they are transformed, they have the first-order autocorrelation ρ. Each cell has 4000 windows (2000
at n = 1000, 1000 at n = 5000). It shows the percentage of the intervals given by `dlbench.stats.median_interval` at 95
% that contain the true median. If some windows have no interval, because of too few effective samples, the share of
windows with an interval is in brackets. The standard error of a cell is 0.35 points (0.5 at n = 1000, 0.7 at n =
5000).

The aim is 93 to 97 %. It is met from n = 30 for ρ up to 0.5, from n = 100 for ρ up to 0.8, and from n = 300 for ρ up
to 0.9. At n = 30 without much correlation, the intervals are slightly too wide (up to 97.8 %). Below these sizes a
window has only a few independent steps, and most windows get no interval. The few windows with an interval look less
correlated than they are, so their coverage is lower. Counted over all windows, a wrong interval remains rare. With a
coarse clock many steps equal the median, so the intervals contain it more often than stated. If white noise hides slow
correlation (`two_speeds`), longer windows are needed. Bursts of slow or fast steps have a section of their own."""

ALTERNATIVES = """Coverage and mean half-width. Intervals that assume independent steps are too narrow as soon as steps
are correlated. Student's t over block medians needs long blocks and is biased for skewed times. The moving-block
bootstrap with the usual block length includes only part of a strong correlation. `signs_alone` is the rule without
the search for clusters of slow or fast steps: what undisturbed windows pay for it."""

BURST_TEXT = """Normal step times as above, with bursts in which all steps are slower (or faster) by the stated amount.
A burst is 15 steps long on average, unless the column states another length, and bursts take a fifth of the time. The
true median is that of all steps, including those in bursts. Each cell shows the coverage, the share of windows with an
interval in brackets, and the mean half-width. `signs_alone` is the rule without the search for clusters of slow or fast
steps. With this search, the coverage rises from 92 to 99 % at 600 steps, from 84 to 91 % at 150, and from 80 to 82 % at
40; the half-widths grow by about a tenth. From 300 steps on, the coverage is above 93 %. At 600 and 1000 steps, it is
above 97 % for bursts of 10 % or more: these intervals are rather too wide. At 150 steps and below, the aim is not met,
except for short bursts. Bursts of 40 steps need windows of 600 steps: what matters is how many bursts a window has."""

NO_BURST_TEXT = """Short windows miss the aim because many of them have no burst. Such a window looks exactly like one
of a quiet machine. It gets the same narrow interval, around the median of the undisturbed steps. Each cell shows the
percentage of windows without a burst, the coverage of their intervals, and, after the comma, the coverage of all
intervals if every interval of a window with a burst held the true median. Without wider intervals for quiet windows, no
rule can exceed this limit: 89 % at 40 steps, 95 % at 150. Giving no interval to windows with a visible burst makes it
worse, because then the windows without one are a larger share of the rest. Longer windows help, and so do several
processes, because the spread between them includes bursts."""

FEW_TEXT = """`median_interval` gives no interval below 20 steps. The table shows what was rejected: the exact interval
by order statistics, which holds for independent steps, given to the windows that pass a runs test for independence at
10 % (Wald & Wolfowitz 1940, Annals of Mathematical Statistics 11(2); one-sided, against too few runs). The coverage is
too low as soon as steps are correlated, because no test recognises correlation in 6 to 19 steps: at ρ = 0.5, two of
three windows or more pass. The share of windows that pass is in brackets."""

STOPPING = """The window ends when the half-width is at most 0.5 % (`protocol.target_half_width`) at one check, or at
two checks in a row. The first check is after 30 steps, the next ones whenever the window has grown by the stated
factor. This rule favours windows that look quieter than they are, because the width is itself an estimate. An interval
of a window that ended at its first narrow check therefore covers about 90 % instead of 95 %. With two checks in a row,
the second after growing by half, it covers about 93 % and needs 2.3 times the steps. If `min_time_s` keeps a window
open long after its interval is narrow, the window did not stop by its width and is not affected. The table shows the
coverage of the windows that reached the target, the mean number of steps and, in brackets, the share that reached it
within 20 000 steps."""

DRIFT = """Percentage of windows with a `drift` warning. A rise of 0 % shows false alarms; at most 1 % is the aim. While
times rise above a hard floor, the fastest steps are neighbours, so `median_interval` widens. Such wide intervals would
hide the drift; `drift` therefore does not search for clusters."""

STEADY = """Percentage of warm-ups that `is_steady` calls steady, if times fall by the stated amount over the second
half of all steps. The rows of 0 % show how often the warm-up may end; if it is refused, the next check may allow it.
The other rows should be low if the fall is large compared with the noise of 2 %."""

COMPARING = """`compare_stats` on processes that differ by the standard deviation in the column's title. A/A:
percentage of comparisons of A with itself called faster or slower (should be at most 5) / called same. +3 %:
percentage of comparisons called slower if B is slower by 3 % (should be at least 95). `two modes`: three processes in
ten are slower by 2.2 standard deviations. `neighbours`: one process in ten is disturbed, by up to 10 standard
deviations. `drift`: the machine drifts by one standard deviation from pair to pair. Ten pairs are the default: they
are sufficient up to a standard deviation of about 1.6 %, and drift does not harm them. Disturbed processes reduce the
power of the test, but add no false verdicts."""


def main() -> int:
    """Prints all tables; writes the page unless --quick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions, nothing written")
    parser.add_argument("--workers", type=int, default=2, help="processes to run on")
    options = parser.parse_args()
    page = build_page(0.1 if options.quick else 1.0, options.workers)
    if not options.quick:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
