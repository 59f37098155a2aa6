"""Why a unit may be slower than the others: what its records show and theirs do not."""

import numpy as np
import pandas as pd

from dlbench import units
from dlbench.results.aggregation import SYSTEM_FACTS
from dlbench.results.records import CHOSEN_CLOCK_REASONS, POWER_CAP_REASON

#: A reading must differ by this share from the fleet's median, and lie outside of nearly all others.
_CLOCK_SHARE, _HOTTER_C = 0.03, 5.0
#: A reason that this share of the others has as well explains nothing.
_COMMON_SHARE = 0.5
REASON_COLUMNS = (
    *("throttle_reasons", "other_processes", "warnings", "sm_clock_min_mhz", "sm_clock_max_mhz", "temperature_max_c"),
    *SYSTEM_FACTS,
)
_THROTTLE_NAMES = {
    "hw_slowdown": "clock reduced by the GPU's protection circuit (hw_slowdown)",
    "sw_thermal_slowdown": "throttled because of high temperature (sw_thermal_slowdown)",
    "hw_thermal_slowdown": "throttled because of high temperature (hw_thermal_slowdown)",
    "hw_power_brake": "slowed by the power supply (hw_power_brake)",
    POWER_CAP_REASON: "slowed by its power limit (sw_power_cap)",
}
#: Warnings of a record that may explain a slowdown.
_EXPLAINING_WARNINGS = {
    "busy_host": "other work on the node",
    "shared_device": "other processes on the device",
    "ecc": "memory errors (ECC)",
    "rows_remapped": "memory rows that were remapped, or will be at the next reset",
    "xid": "errors that the driver reported (Xid)",
}


def likely_slowdown_reasons(mine: pd.DataFrame, peers: pd.DataFrame) -> tuple[str, ...]:
    """What sets the rows of a unit apart from those of the units of its kind, the likeliest cause first."""
    others = peers.drop(mine.index, errors="ignore")
    if others.empty or mine.empty:
        return ()
    looks = (_throttle_reasons, _clock_and_heat_reasons, _other_load_reasons, _differing_system_facts)
    return tuple(dict.fromkeys(reason for look in looks for reason in look(mine, others)))


def _throttle_reasons(mine: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    own = {reason for row in mine["throttle_reasons"] if row is not None for reason in row} - set(CHOSEN_CLOCK_REASONS)
    found = []
    for reason in sorted(own, key=lambda r: (r == POWER_CAP_REASON, r)):
        share = others["throttle_reasons"].map(lambda row, r=reason: row is not None and r in row).mean()
        if share < _COMMON_SHARE:
            found.append(_THROTTLE_NAMES.get(reason, f"throttled ({reason})"))
    return found


def _clock_and_heat_reasons(mine: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    found = []
    clock, usual = _medians_of_unit_and_peers(mine, others, "sm_clock_min_mhz")
    if clock < (1 - _CLOCK_SHARE) * usual and clock < np.nanpercentile(others["sm_clock_min_mhz"].astype(float), 5):
        found.append(f"low clock: {clock:.0f} MHz; median of the other units {usual:.0f} MHz")
    heat, usual = _medians_of_unit_and_peers(mine, others, "temperature_max_c")
    if heat > usual + _HOTTER_C and heat > np.nanpercentile(others["temperature_max_c"].astype(float), 95):
        found.append(f"hot: {heat:.0f} °C; median of the other units {usual:.0f} °C")
    return found


def _medians_of_unit_and_peers(mine: pd.DataFrame, others: pd.DataFrame, column: str) -> tuple[float, float]:
    if mine[column].isna().all() or others[column].isna().all():
        return float("nan"), float("nan")
    return float(mine[column].median()), float(others[column].median())


def _other_load_reasons(mine: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    found = []
    if (
        mine["other_processes"].fillna(0).gt(0).any()
        and others["other_processes"].fillna(0).gt(0).mean() < _COMMON_SHARE
    ):
        found.append("other processes on the device")
    for code, words in _EXPLAINING_WARNINGS.items():
        if _share_of_rows_with_warning(mine, code) > 0 and _share_of_rows_with_warning(others, code) < _COMMON_SHARE:
            found.append(words)
    return found


def _share_of_rows_with_warning(rows: pd.DataFrame, code: str) -> float:
    return float(rows["warnings"].map(lambda row: row is not None and any(str(w).startswith(code) for w in row)).mean())


def _differing_system_facts(mine: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """Facts that more than half of the other units share and this one does not."""
    found = []
    for column, title in SYSTEM_FACTS.items():
        counts = others[column].astype(object).value_counts(normalize=True)
        own = mine[column].dropna().unique()
        if counts.empty or counts.iloc[0] <= _COMMON_SHARE or not len(own):
            continue
        usual = counts.index[0]
        different = [value for value in own if value != usual]
        if different:
            words = "fewer " if title.startswith("cores") and different[0] < usual else "other "
            found.append(f"{words}{title}: {_format_fact(column, different[0])}, others {_format_fact(column, usual)}")
    return found


def _format_fact(column: str, value: object) -> str:
    if isinstance(value, int | float | np.number):
        if column.endswith("_bytes"):
            return units.bytes_text(float(value))
        unit = {"w": " W", "mhz": " MHz"}.get(column.rpartition("_")[2], "")
        return f"{float(value):g}{unit}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
