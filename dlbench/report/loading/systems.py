"""Which system a row is of, and what it is called: as the user names it, else by its hardware, then by what differs."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.errors import BadInput
from dlbench.suites import ab_sides

#: What tells systems of one name apart, in this order, each with the word before its value.
_DISTINGUISHING_COLUMNS = {
    **dict.fromkeys(("hardware", "system_cpu_model", "cores_and_threads", "logical_cores", "node_cores"), ""),
    **dict.fromkeys(("node_memory", "quota", "binding"), ""),
    "system_torch_version": "PyTorch ",
    "system_cuda_version": "CUDA ",
    "system_driver_version": "driver ",
    **dict.fromkeys(("system_hostname", "device", "system_key"), ""),
    "source_number": "source ",
}
#: What a setting of a CPU is told by where the key of a system does not hold it, as in records of earlier versions.
_SETTING_COLUMNS = ("system_cpu_cores", "system_cpu_threads", "threads", "memory")


@dataclass(frozen=True)
class ResultsSource:
    """Where results lie, and what the user calls the system that they are of."""

    path: str
    name: str | None = None


def parse_source(text: str | Path) -> ResultsSource:
    """``H200=results/h200`` names a source; what exists as it stands is a path, '=' or not.

    Raises BadInput if there is nothing before or behind '='.
    """
    whole = str(text)
    name, equals, path = whole.partition("=")
    # Not pathlib's: that takes no absolute patterns.
    if not equals or Path(whole).exists() or glob.glob(whole, recursive=True):  # noqa: PTH207
        return ResultsSource(whole)
    if not name.strip() or not path:
        raise BadInput(f"cannot use the source '{whole}': write NAME=SOURCE, such as H200=results/h200")
    return ResultsSource(path, " ".join(name.split()))


def add_results_name_columns(rows: pd.DataFrame, source: ResultsSource, number: int) -> pd.DataFrame:
    """The rows of one source, with its name and its place among the sources."""
    name = pd.Series(source.name, index=rows.index, dtype=object)
    return rows.assign(source_name=name, source_number=number)


def join_sources(tables: Sequence[pd.DataFrame], with_sides: bool = False) -> pd.DataFrame:
    """The rows of all sources, each attempt from the first that holds it, with the `system_id` of each.

    `with_sides`: the two sides of an A/B experiment are systems, if the sources hold nothing else.
    """
    filled = [table for table in tables if len(table)] or list(tables[:1])
    rows = filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)
    doubled = rows.duplicated(["attempt_id", "rank"])
    rows = rows[~doubled].reset_index(drop=True) if doubled.any() else rows
    rows = _name_sources_by_ab_side(rows) if with_sides else rows
    return rows.assign(system_id=system_ids(rows))


def ab_side_by_label(suites: pd.Series, labels: pd.Series) -> dict[tuple[str, str], ab_sides.Side] | None:
    """The side of each suite and label that occurs; None unless all are of the two sides of one A/B experiment."""
    if not suites.astype(str).str.endswith(("-a", "-b")).all():
        return None
    found = {(str(s), str(n)): ab_sides.parse_side(s, n) for s, n in set(zip(suites, labels, strict=True))}
    sides = {key: side for key, side in found.items() if side is not None}
    one = len(sides) == len(found) and len({side.experiment for side in sides.values()}) == 1
    return sides if one else None


def ab_side_by_system(cases: pd.DataFrame) -> dict[str, ab_sides.Side]:
    """The side of each system, where each is of one side of one A/B experiment; else, and without labels, nothing."""
    sides = ab_side_by_label(cases["suite"], cases["label"]) if "label" in cases and len(cases) else None
    if sides is None or cases["suite"].groupby(cases["system_id"]).nunique().max() > 1:
        return {}
    first = cases.drop_duplicates("system_id")
    keys = zip(first["suite"].astype(str), first["label"].astype(str), strict=True)
    return {str(system): sides[key] for system, key in zip(first["system_id"], keys, strict=True)}


def _name_sources_by_ab_side(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` of one A/B experiment on one machine, the sides as names of sources: each is a system; else `rows`."""
    sides = ab_side_by_label(rows["suite"], rows["label"]) if len(rows) else None
    if sides is None or rows["source_name"].nunique(dropna=False) > 1:
        return rows
    of_row = [sides[str(s), str(n)] for s, n in zip(rows["suite"], rows["label"], strict=True)]
    letters = pd.Series([side.letter for side in of_row], rows.index)
    # Environment variables may make another system of a side, such as one of other threads.
    num_systems = rows["system_key"].groupby([letters, rows["device"]]).nunique()
    if letters.nunique() < 2 or num_systems.groupby(level=0).sum().gt(1).any():
        return rows
    given = rows["source_name"].iloc[0]
    before = "" if _is_missing(given) else f"{given} "
    return rows.assign(source_name=pd.Series([before + side.name for side in of_row], rows.index, dtype=object))


def system_ids(rows: pd.DataFrame) -> pd.Series[str]:
    """What tells systems apart: the given name, the key of hardware and software, the kind of device of the case.

    A CPU is another system where it may use other cores, threads or memory. Keys hold these (`system_key` in
    `dlbench.worker.machine.system`); where attempts of one key differ in them, records of earlier versions among them,
    the setting is added. The threads of several ranks are shares, so such an attempt belongs to the only setting
    of its key, and so does one that died before it could tell. An attempt that could not even tell its key belongs to
    the only system of its source, where there is one.

    Args:
        rows: one per rank; `source_name` and `source_number` may be missing.
    """
    number = rows["source_number"] if "source_number" in rows else pd.Series(0, rows.index)
    name = rows["source_name"].fillna("").astype(str) if "source_name" in rows else pd.Series("", rows.index)
    keys = rows["system_key"].groupby([number, name, rows["device"]])
    # `first` passes over what is missing.
    only = keys.transform("first").where(keys.transform("nunique").eq(1))
    key = rows["system_key"].fillna(only).astype(object).fillna(_UNKNOWN_SYSTEM).astype(str)
    found: pd.Series[str] = name + "/" + key + "/" + rows["device"].astype(str)
    return found + _cpu_setting_suffixes(rows, found)


#: In the id of a system: nobody knows which it is.
_UNKNOWN_SYSTEM = "unknown"


def add_system_ids(cases: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """`cases` (one per attempt) with the `system_id` of their rows (one per rank), or what these give."""
    doubled = rows.duplicated("attempt_id")
    first = (rows[~doubled] if doubled.any() else rows).reset_index(drop=True)
    found = first["system_id"] if "system_id" in first else system_ids(first)
    ids = pd.Series(found.to_numpy(), first["attempt_id"])
    return cases.assign(system_id=cases["attempt_id"].map(ids).astype(object))


def is_unknown_system_id(system_ids: pd.Series) -> pd.Series[bool]:
    """Which of these ids belong to attempts that could not tell their system."""
    return system_ids.astype(str).str.contains(f"/{_UNKNOWN_SYSTEM}/", regex=False)


def _cpu_setting_suffixes(rows: pd.DataFrame, system_ids: pd.Series[str]) -> pd.Series[str]:
    """What is to be added to the ids where attempts of a CPU differ in cores, threads or memory; "" elsewhere."""
    first = rows[rows["device"].eq("cpu")].drop_duplicates("attempt_id")
    if first.empty:
        return pd.Series("", rows.index)
    facts = _cpu_settings_of_attempts(first)
    known = facts["system_cpu_threads"].notna()
    number = facts.groupby(list(_SETTING_COLUMNS), dropna=False, sort=False).ngroup()
    # Once for each setting: there are few of them, and many attempts.
    different = facts.loc[~number.duplicated(), list(_SETTING_COLUMNS)].itertuples(index=False)
    words = [",".join(f"{value:.0f}" for value in setting) for setting in different]
    text = number.map(dict(enumerate(words))).astype(object)
    alone = (first["nodes"] * first["devices_per_node"]).eq(1) & known
    place = system_ids.loc[first.index]
    of_place = text.where(alone).groupby(place)
    only = of_place.transform("first").where(of_place.transform("nunique").eq(1)).astype(object)
    ranks = (first["nodes"] * first["devices_per_node"]).astype(str) + " ranks: "
    own = text.where(facts["single"], ranks + text).where(known).astype(object)
    text = text.where(alone).astype(object).fillna(only).fillna(own).fillna(_UNKNOWN_SYSTEM)
    several = text.groupby(place).transform("nunique").gt(1)
    added = ("/" + text + "/").where(several, "")
    return rows["attempt_id"].map(pd.Series(added.to_numpy(), first["attempt_id"])).fillna("").astype(str)


def _cpu_settings_of_attempts(first: pd.DataFrame) -> pd.DataFrame:
    """Cores, threads of one process, and size of the memory of each attempt, by its first row.

    `single`: the threads are known to be those of one process, not the share of a rank.
    """
    num_ranks = first["nodes"] * first["devices_per_node"]
    job = first["system_job_threads"]
    memory = first["system_node_memory_bytes"].fillna(first["system_memory_bytes"])
    sizes = {size: units.nominal_memory_size(size) for size in memory.dropna().unique()}
    columns = {
        "system_cpu_cores": first["system_cpu_cores"],
        "system_cpu_threads": first["system_cpu_threads"],
        "threads": job.fillna(first["system_torch_threads"]),
        "memory": memory.map(sizes),
        "single": job.notna() | num_ranks.eq(1),
    }
    return pd.DataFrame(columns, index=first.index)


def system_names(rows: pd.DataFrame) -> dict[str, str]:
    """A short and distinct name for each system by `system_id`, in the order of the sources.

    The user's name, else the accelerator, else the processor, else the host; where two are alike, with what differs,
    such as "AMD EPYC 7B13 (2 cores, 1 thread)". Attempts that could not tell their system are passed over.

    Args:
        rows: of all sources, as `join_sources` gives them.
    """
    told = rows["system_hostname"].fillna("") != ""
    # For each system an attempt of one rank, where there is one: it has the threads of one process.
    single = (rows["nodes"] * rows["devices_per_node"]).eq(1) | rows["system_job_threads"].notna()
    # All columns of a large store, sorted, would be a copy that takes gigabytes.
    places = rows[["system_id", "source_number", "source_name"]].assign(shared=~single)[told]
    order = places.sort_values(["source_number", "shared"], kind="stable").drop_duplicates("system_id")
    # Within a source, side A comes before B.
    ids = places.sort_values(["source_number", "source_name"], kind="stable")["system_id"].drop_duplicates().tolist()
    best = rows.loc[order.index].set_index("system_id")
    described = best.loc[ids].copy().reset_index()  # in one piece: pandas warns of more than 100
    hardware = described["device_name"].fillna(described["system_cpu_model"]).fillna(described["system_hostname"])
    settings = _cpu_settings_of_attempts(described).to_dict("records")
    rows_by_name = described.assign(hardware=hardware).to_dict("records")
    facts = [
        {**row, **_describe_cpu_settings(row | setting)} for row, setting in zip(rows_by_name, settings, strict=True)
    ]
    bases = [str(fact["hardware"] if _is_missing(fact["source_name"]) else fact["source_name"]) for fact in facts]
    return dict(zip(described["system_id"], _make_names_distinct(bases, facts), strict=True))


def _describe_cpu_settings(fact: Mapping[Any, Any]) -> dict[str, str]:
    """What a CPU may use; nothing for other devices."""
    if fact["device"] != "cpu":
        return {}
    threads = _count_with_noun(fact["threads"], "thread") + ("" if fact["single"] else " per rank")
    memory = "unknown size" if _is_missing(fact["memory"]) else f"{fact['memory'] / 2**30:g} GiB"
    quota = "all" if _is_missing(fact["system_cpu_quota"]) else f"{fact['system_cpu_quota']:g}"
    return {
        "cores_and_threads": f"{_count_with_noun(fact['system_cpu_cores'], 'core')}, {threads}",
        "logical_cores": _count_with_noun(fact["system_cpu_threads"], "logical core"),
        "node_cores": f"node of {_count_with_noun(fact['system_node_cpu_cores'], 'core')}",
        "node_memory": f"memory of {memory}",
        "quota": f"quota of {quota} cores",
        "binding": "no binding" if _is_missing(fact["system_cpu_binding"]) else str(fact["system_cpu_binding"]),
    }


def _count_with_noun(value: Any, noun: str) -> str:
    return f"unknown {noun}s" if _is_missing(value) else units.count_text(int(value), noun)


def _make_names_distinct(bases: list[str], facts: list[dict[Any, Any]]) -> list[str]:
    added: list[list[str]] = [[] for _ in bases]
    for column, word in _DISTINGUISHING_COLUMNS.items():
        same_names: dict[tuple[str, ...], list[int]] = {}
        for i, base in enumerate(bases):
            same_names.setdefault((base, *added[i]), []).append(i)
        for alike in same_names.values():
            values = [_format_system_fact(facts[i].get(column)) for i in alike]
            if len(set(values)) > 1:
                for i, value in zip(alike, values, strict=True):
                    added[i].append(word + value)
    return [f"{base} ({', '.join(parts)})" if parts else base for base, parts in zip(bases, added, strict=True)]


def _format_system_fact(value: Any) -> str:
    if _is_missing(value):
        return "unknown"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or value != value
