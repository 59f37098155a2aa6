"""Which units of a fleet (nodes, or single devices) are slower than the others, and why.

A unit is compared with the others of its kind case by case, by the logarithm of its median step time over all its
processes. Figures of `dlbench ceilings` (FLOP/s, bandwidth) count as cases of their own. The chance of one false alarm
or more in the whole fleet is stated (`outliers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from dlbench import units
from dlbench.report.analysis import fleet_reasons, outliers
from dlbench.report.analysis.fleet_units import add_node_and_device_names
from dlbench.report.analysis.labels import case_name, varying_settings
from dlbench.results import bounds_store
from dlbench.results.aggregation import SETTING_AXES, SETTING_COLUMNS, THREADS_COLUMN, read_process_rows

#: A unit that is slower by less than this does no harm.
MIN_SLOWDOWN = 0.01
#: Rows of other units that an outlier is compared with, at most.
_PEERS = 2000
#: Readings of a unit whose distribution is shown: column, title, unit.
READINGS = {
    "power_w": ("Power", "W"),
    "temperature_max_c": ("Highest temperature", "°C"),
    "sm_clock_min_mhz": ("Lowest SM clock", "MHz"),
    "memory_clock_mhz": ("Memory clock", "MHz"),
}
_READ_COLUMNS = (
    *("suite", "system_hostname", "system_device_kind", "system_cpu_model", "device_name", "device_uuid", "local_rank"),
    *("energy_j", "energy_window_s", "energy_scope", *fleet_reasons.REASON_COLUMNS),
)


@dataclass(frozen=True)
class FleetValueRange:
    """How the units of one kind differ in one case, or in one reading."""

    kind: str  # of the units: a device's name or a CPU's model
    what: str  # the case, in words
    unit: str  # of the figures
    units: int
    median: float
    low: float  # of the units, in the unit of the figures
    high: float
    #: Slower than the median by more than this is an outlier; None where the units are too few, or all equal.
    limit: float | None = None
    #: A unit slower by this is found in 95 of 100 fleets.
    found_from: float | None = None
    #: The spread is not normal, and the units are too few to show their tails: more false alarms than stated.
    is_uneven: bool = False

    @property
    def relative_range(self) -> float:
        """Highest less lowest over the median."""
        return (self.high - self.low) / self.median if self.median else float("nan")


@dataclass(frozen=True)
class OutlierNodeOrDevice:
    """One unit that is slower than chance explains."""

    host: str
    device: str  # its number on the host; "" for a whole node
    kind: str
    what: str  # the case in which it is furthest behind
    slower: float  # 0.05: takes 5 % longer than the median unit
    limit: float  # from which slowdown on it is an outlier
    cases: int  # in how many cases it is one
    tested: int  # of so many
    processes: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class FleetComparison:
    """What was found."""

    distributions: tuple[FleetValueRange, ...]
    outliers: tuple[OutlierNodeOrDevice, ...]  # the slowest first
    slowdowns: pd.DataFrame  # one row per unit: host, slot (device), kind, slower (of its worst case), outlier
    tests: int
    false_alarms: float
    notes: tuple[str, ...]

    @property
    def nodes_with_outliers(self) -> list[str]:
        """The nodes with an outlier."""
        return sorted({outlier.host for outlier in self.outliers})


def read_fleet_processes(sources: Sequence[str | Path], since: datetime | None = None) -> pd.DataFrame:
    """The processes of a fleet, one row per rank. Raises StoreError if a source does not exist."""
    return read_process_rows(sources, _READ_COLUMNS, since)


def compare_fleet(
    rows: pd.DataFrame,
    ceilings: pd.DataFrame | None = None,
    false_alarms: float = outliers.FALSE_ALARMS,
    margin: float = MIN_SLOWDOWN,
) -> FleetComparison:
    """Compare the units of a fleet.

    Args:
        rows: as `read_fleet_processes` gives them; `ceilings` as `bounds_store.read_bounds` does.
        false_alarms: chance of one or more in the whole fleet.
        margin: a slowdown below this is no outlier.
    """
    usable = rows["step_s"].notna()
    spread_out = usable & rows["nodes"].gt(1)
    rows, notes = add_node_and_device_names(rows[usable & ~spread_out])
    for count, words in (
        (int((~usable).sum()), "they have no usable step times"),
        (int(spread_out.sum()), "their cases ran on several nodes and do not show the speed of one node"),
    ):
        if count:
            notes.append(f"{count} rows are not used: {words}.")
    values = pd.concat([_log_times_by_case(rows), _times_per_flop_or_byte(ceilings, rows)], ignore_index=True)
    tests = int(values.groupby("case")["unit"].transform("size").ge(outliers.MIN_UNITS).sum())
    tested = [_compare_units_of_case(own, false_alarms, tests) for _, own in values.groupby("case", sort=False)]
    values = pd.concat([frame for frame, _ in tested]) if tested else values.assign(slower=0.0, limit=np.nan)
    values = values.assign(is_outlier=(values["slower"] > values["limit"]) & (values["slower"] > margin))
    found = _find_outliers(values, rows)
    few = sorted({d.kind for _, d in tested if d.units < outliers.MIN_UNITS})
    notes += [
        f"{kind}: fewer than {outliers.MIN_UNITS} nodes or devices per case, too few to find outliers." for kind in few
    ]
    notes += _thread_count_notes(rows)
    shown = [distribution for _, distribution in tested] + _power_and_clock_distributions(rows)
    notes += _false_alarm_notes([d for _, d in tested if d.limit is not None])
    return FleetComparison(tuple(shown), tuple(found), _median_slowdowns(values), tests, false_alarms, tuple(notes))


def _false_alarm_notes(tested: Sequence[FleetValueRange]) -> list[str]:
    """What the stated rate of false alarms assumes, and where that is doubtful."""
    few = [distribution for distribution in tested if distribution.units < outliers.MIN_UNITS_FOR_TAILS]
    notes = []
    if few:
        minimum = outliers.MIN_UNITS_FOR_TAILS
        notes.append(
            f"Some cases have fewer than {minimum} nodes or devices: their false-alarm probability assumes normally "
            f"distributed values."
        )
    uneven = [f"{d.kind}, {d.what}" for d in few if d.is_uneven]
    if uneven:
        named = units.list_text(uneven, 1)
        notes.append(f"The values are not normally distributed ({named}): false alarms are more likely than stated.")
    return notes


def read_fleet_ceilings(sources: Sequence[str | Path]) -> pd.DataFrame:
    """The ceilings that lie with these results, those of single nodes (`nodes/NAME`) too."""
    folders = [str(path) for source in sources for path in sorted(Path(source).glob("nodes/*/")) if path.is_dir()]
    inner = [str(path) for folder in folders for path in sorted(Path(folder).glob("gpu*/"))]
    return bounds_store.read_bounds([*sources, *folders, *inner]).ceilings


def _log_times_by_case(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per unit and case: the logarithm of its step time [s]."""
    case = rows.groupby(["kind", *SETTING_COLUMNS], sort=False, dropna=False).ngroup()
    # A case over all devices of a node is one value of the node: its slowest device sets the pace.
    several = rows["world_size"].gt(1)
    own = rows.assign(
        case=case,
        unit=rows["unit"].mask(several, rows["host"]),
        slot=rows["slot"].mask(several, ""),
        log_step=np.log(rows["step_s"].astype(float)),
    )
    attempts = own.groupby(["case", "unit", "attempt_id"], sort=False).agg(
        log_step=("log_step", "max"), host=("host", "first"), slot=("slot", "first"), kind=("kind", "first")
    )
    values = attempts.reset_index().groupby(["case", "unit"], sort=False).agg(
        value=("log_step", "median"), processes=("log_step", "size"), host=("host", "first"),
        slot=("slot", "first"), kind=("kind", "first"),
    ).reset_index()  # fmt: skip
    first = own.drop_duplicates("case").set_index("case")
    axes = varying_settings(first)
    names = {number: case_name(row, axes) for number, row in zip(first.index, first.to_dict("records"), strict=True)}
    images = first["batch_size"] * first["devices_per_node"]
    return values.assign(
        what=values["case"].map(names), work=values["case"].map(images).astype(float), unit_of="img/s",
        case=values["case"].astype(str),
    )  # fmt: skip


def _times_per_flop_or_byte(ceilings: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per unit and kind of ceiling: the best of its median rates, as the time of one FLOP or byte."""
    if ceilings is None or ceilings.empty:
        return pd.DataFrame()
    rate = ceilings["median_flop_per_s"].fillna(ceilings["median_bytes_per_s"])
    known = ceilings.assign(rate=rate)[rate.gt(0)]
    known = known.assign(
        kind_of_unit=known["device_name"].fillna(known["cpu_model"]),
        what=known["kind"].str.cat(known["precision"].fillna(""), " ").str.strip(),
        unit_of=np.where(known["median_flop_per_s"].notna(), "FLOP/s", "B/s"),
    )
    threads = known["torch_threads"].where(known["device_kind"].eq("cpu"))
    if threads.nunique() > 1:
        suffixes = threads.map(lambda number: f", {units.count_text(int(number), 'thread')}", na_action="ignore")
        known = known.assign(what=known["what"] + suffixes.fillna(""))
    best = known.sort_values("rate").drop_duplicates(["hostname", "device_uuid", "what"], keep="last")
    devices = rows.drop_duplicates(["host_full", "device_uuid"]).set_index(["host_full", "device_uuid"])
    measured = devices.reindex(pd.MultiIndex.from_frame(best[["hostname", "device_uuid"]]))
    host = pd.Series(measured["host"].to_numpy(), best.index).fillna(best["hostname"])
    slot = pd.Series(measured["slot"].to_numpy(), best.index).fillna("")
    return pd.DataFrame(
        {
            "case": "ceiling " + best["kind_of_unit"].astype(str) + best["what"], "unit": host + "/" + slot,
            "value": -np.log(best["rate"].astype(float)), "processes": 1, "host": host, "slot": slot,
            "kind": best["kind_of_unit"], "what": best["what"], "work": 1.0, "unit_of": best["unit_of"],
        }
    )  # fmt: skip


def _thread_count_notes(rows: pd.DataFrame) -> list[str]:
    """Which hosts computed the same case with which number of threads."""
    on_cpu = rows[rows[THREADS_COLUMN].notna()]
    several = on_cpu.groupby(["kind", *SETTING_AXES], dropna=False)[THREADS_COLUMN].transform("nunique").gt(1)
    notes = []
    for kind, own in on_cpu[several].groupby("kind"):
        hosts = own.groupby(THREADS_COLUMN)["host"].unique().items()
        shown = "; ".join(f"{number:.0f}: {units.list_text(sorted(names), 3)}" for number, names in hosts)
        notes.append(f"{kind}: cases with different numbers of threads are not compared ({shown}).")
    return notes


def _compare_units_of_case(own: pd.DataFrame, false_alarms: float, tests: int) -> tuple[pd.DataFrame, FleetValueRange]:
    """The units of a case with how much slower than the median each is, and the limit; and their distribution."""
    values = own["value"].to_numpy(dtype=float)
    spread = outliers.estimate_spread(values, false_alarms, tests)
    usable = spread if spread and spread.scale > 0 else None
    limit = np.expm1(usable.outlier_distance) if usable else np.nan
    rates = own["work"].to_numpy(dtype=float) / np.exp(values)
    first = own.iloc[0]
    distribution = FleetValueRange(
        kind=str(first["kind"]),
        what=str(first["what"]),
        unit=str(first["unit_of"]),
        units=len(own),
        median=float(np.median(rates)),
        low=float(rates.min()),
        high=float(rates.max()),
        limit=float(limit) if usable else None,
        found_from=float(np.expm1(usable.outlier_distance + 1.645 * usable.scale)) if usable else None,
        is_uneven=usable is not None and outliers.looks_nonnormal(values, usable.outlier_distance),
    )
    return own.assign(slower=np.expm1(values - np.median(values)), limit=limit), distribution


def _find_outliers(values: pd.DataFrame, rows: pd.DataFrame) -> list[OutlierNodeOrDevice]:
    """Each unit that is slow in some case once, by its worst case."""
    behind = values[values["is_outlier"]]
    tested = values[values["limit"].notna()].groupby("unit").size()
    places = rows.groupby("host").indices
    # So many rows show what is usual: a fleet may have a thousand outliers among a million rows.
    peers = {kind: own.sample(min(len(own), _PEERS), random_state=0) for kind, own in rows.groupby("kind")}
    found = []
    for unit, own in behind.groupby("unit", sort=False):
        worst = own.sort_values("slower").iloc[-1]
        mine = rows.iloc[places.get(worst["host"], [])]
        mine = mine[(mine["kind"] == worst["kind"]) & ((worst["slot"] == "") | (mine["slot"] == worst["slot"]))]
        found.append(
            OutlierNodeOrDevice(
                host=str(worst["host"]),
                device=str(worst["slot"]),
                kind=str(worst["kind"]),
                what=str(worst["what"]),
                slower=float(worst["slower"]),
                limit=float(worst["limit"]),
                cases=len(own),
                tested=int(tested[unit]),
                processes=int(worst["processes"]),
                reasons=fleet_reasons.likely_slowdown_reasons(mine, peers.get(worst["kind"], mine)),
            )
        )
    return sorted(found, key=lambda outlier: -outlier.slower)


def _median_slowdowns(values: pd.DataFrame) -> pd.DataFrame:
    """The median slowdown of each unit over its cases, and whether it is an outlier in any."""
    if values.empty:
        return pd.DataFrame(columns=["host", "slot", "kind", "slower", "is_outlier"])
    return values.groupby("unit", sort=False).agg(
        host=("host", "first"), slot=("slot", "first"), kind=("kind", "first"), slower=("slower", "median"),
        is_outlier=("is_outlier", "any"),
    ).reset_index(drop=True)  # fmt: skip


def _power_and_clock_distributions(rows: pd.DataFrame) -> list[FleetValueRange]:
    """How the units differ in power, temperature and clocks, each unit by the median over its processes."""
    own = rows["energy_scope"].isin(["device", "module"])
    rows = rows.assign(power_w=(rows["energy_j"] / rows["energy_window_s"]).where(own))
    found = []
    for kind, peers in rows.groupby("kind", sort=False):
        medians = peers.groupby("unit")[list(READINGS)].median()
        for name, (title, unit) in READINGS.items():
            known = medians[name].dropna()
            if len(known) > 1:
                extremes = (float(known.median()), float(known.min()), float(known.max()))
                found.append(FleetValueRange(str(kind), title, unit, len(known), *extremes))
    return found
