"""Formatting of quantities: SI prefixes, three significant digits, always with unit."""

import math
from collections.abc import Sequence

from dlbench.errors import BadInput

_PREFIXES = (
    *((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")),
    *((1e-3, "m"), (1e-6, "µ"), (1e-9, "n")),
)
_BINARY_PREFIXES = ((2**50, "PiB"), (2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_DURATION_UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
#: Up to this half-width an interval is called symmetric.
_ALMOST_SYMMETRIC = 0.2
#: An interval that reaches further up shows no more than that little is known.
_LARGEST_PERCENT = 1000.0
#: The inverse of it is the smallest ratio with digits.
_LARGEST_RATIO = 10_000.0
#: Placeholder for a missing value in tables.
MISSING = "–"
#: Thin non-breaking spaces: between groups of digits, and between number and unit.
GROUP_SEPARATOR = "\u202f"


def number_text(value: float, significant: int = 3) -> str:
    """Format `value` with significant digits, without exponent, grouped from 10 000 on; a dash if not finite."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{rounded:,.{decimals}f}"
    return text.replace(",", GROUP_SEPARATOR) if abs(rounded) >= 10_000 else text.replace(",", "")


def quantity_text(value: float | None, unit: str, significant: int = 3) -> str:
    """Format `value` with an SI prefix: ``quantity_text(4.136e9, "FLOP") == "4.14 GFLOP"``; an en dash for None or NaN.

    Rates of samples have no prefix, so that one table or figure does not hold 950 img/s and 1.2 kimg/s.
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}∞ {unit}"
    factor, prefix = si_prefix(value, unit)
    return f"{number_text(value / factor, significant)} {prefix}{unit}".rstrip()


def rate_text(value: float | None, unit: str, significant: int = 3) -> str:
    """Format counts and rates as `quantity_text`, but without prefixes below 1: ``rate_text(0.386, "img/s") == "0.386
    img/s"``."""
    if value is not None and 0 < abs(value) < 1:
        return f"{number_text(value, significant)} {unit}".rstrip()
    return quantity_text(value, unit, significant)


def count_text(number: int, noun: str) -> str:
    """Format a number with its noun: ``count_text(1, "case") == "1 case"``, ``count_text(2, "case") == "2 cases"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def list_text(names: Sequence[object], most: int) -> str:
    """Join the first names: ``list_text(["a", "b", "c"], 2) == "a, b and 1 more"``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def si_prefix(value: float, unit: str) -> tuple[float, str]:
    """The factor and the SI prefix that `value` is shown with: ``si_prefix(0.02, "J") == (0.001, "m")``."""
    magnitude = abs(value)
    samples = unit.endswith("/s") and not unit.startswith(("FLOP", "B"))
    if magnitude == 0 or samples:
        return 1.0, ""
    for factor, prefix in _PREFIXES:
        # 999.5 k would print as 1000 k: take the next prefix already there.
        if magnitude >= factor * 0.9995:
            return factor, prefix
    return _PREFIXES[-1]


def seconds_text(value: float | None, significant: int = 3, like: float | None = None) -> str:
    """Format a duration: ns, µs, ms or s below two minutes, then minutes, hours and days.

    `like` is the duration that determines the unit instead, so that a column has a single one.
    """
    if value is None or math.isnan(value):
        return MISSING
    scale = abs(value if like is None else like)
    if scale < 120 or math.isinf(value):
        return quantity_text(value, "s", significant)
    if scale < 2 * 3600:
        return f"{number_text(value / 60, significant)} min"
    if scale < 2 * 86400:
        return f"{number_text(value / 3600, significant)} h"
    return f"{number_text(value / 86400, significant)} d"


def nominal_memory_size(value: float) -> int:
    """Round to the nominal memory size of a node [B]: 251.4 GiB become 256 GiB (the kernel reserves some).

    The nearest of 1, 1.25, 1.5 and 1.75 times a power of two: nodes of one kind differ by less, kinds by more.
    """
    quarter = 2.0 ** (math.floor(math.log2(max(1.0, value))) - 2)
    return int(round(value / quarter) * quarter)


def bytes_text(value: float | None, significant: int = 3) -> str:
    """Format a memory size with binary prefixes: ``bytes_text(2**30) == "1.00 GiB"``."""
    if value is None or not math.isfinite(value):
        return MISSING
    for factor, name in _BINARY_PREFIXES:
        if abs(value) >= factor * 0.9995:
            return f"{number_text(value / factor, significant)} {name}"
    return f"{value:.0f} B"


def percent_text(fraction: float | None, significant: int = 2) -> str:
    """Format a fraction as percent: ``percent_text(0.0042) == "0.42 %"``."""
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    return f"{number_text(100 * fraction, significant)} %"


def plus_minus_text(fraction: float | None, ends: tuple[float, float] | None = None) -> str:
    """Format an interval around its value: "±0.42 %", both ends where it is wide: "−29 to +40 %", "no ±" without one.

    Args:
        fraction: half of its width over its value.
        ends: its ends over its value; by default they are symmetric in logarithms, as of an interval over processes.
    """
    if fraction is None or math.isnan(fraction):
        return "no ±"
    if ends is None or any(map(math.isnan, ends)):
        high_end = fraction + math.hypot(fraction, 1.0)  # x, where (x - 1/x) / 2 is the fraction
        ends = 1 / high_end, high_end
    low, high = (100 * (end - 1) for end in ends)
    if high > _LARGEST_PERCENT:
        return "±> 100 %"
    below, above = (number_text(abs(end), 2) for end in (low, high))
    if fraction <= _ALMOST_SYMMETRIC or (below == above and low <= 0 <= high):
        return f"±{percent_text(fraction)}"
    return f"{'−' if low < 0 else '+'}{below} to {'−' if high < 0 else '+'}{above} %"


def ratio_text(value: float | None, significant: int = 3) -> str:
    """Format a ratio, small ones by significant digits: ``ratio_text(0.00833) == "0.00833"``; "< 0.0001" below."""
    if value is None or math.isnan(value):
        return MISSING
    if 0 < value < 1 / _LARGEST_RATIO:
        return f"< {number_text(1 / _LARGEST_RATIO, 1)}"
    return f"> {number_text(_LARGEST_RATIO, 1)}" if value > _LARGEST_RATIO else number_text(value, significant)


def confidence_text(confidence: float) -> str:
    """Format a confidence level: ``confidence_text(0.95) == "95 %"``, ``confidence_text(0.9999) == "99.99 %"``."""
    return f"{100 * confidence:.10g} %"


def parse_duration(text: str) -> float:
    """Parse seconds from a text such as "90", "1.5 h" or "20min". Raises BadInput if it is none."""
    stripped = text.strip()
    number = stripped.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = stripped[len(number) :].strip() or "s"
    try:
        value = float(number)
    except ValueError:
        raise BadInput(f"not a duration: '{text}'; write for example '90 s', '20 min' or '1.5 h'") from None
    if unit not in _DURATION_UNITS or not math.isfinite(value):
        raise BadInput(f"not a duration: '{text}'; units are {', '.join(_DURATION_UNITS)}")
    return value * _DURATION_UNITS[unit]
