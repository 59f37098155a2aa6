"""Which system a row is of, and what it is called: as the user names it, else by its hardware, then by what differs."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dlbench.errors import BadInput, UnknownName

#: What tells systems of one name apart, in this order, each with the word before its value.
_TELLING = (
    ("hardware", ""),
    ("system_cpu_model", ""),
    ("system_torch_version", "PyTorch "),
    ("system_cuda_version", "CUDA "),
    ("system_driver_version", "driver "),
    ("system_hostname", ""),
    ("device", ""),
    ("system_key", ""),
    ("source_number", "source "),
)


@dataclass(frozen=True)
class Source:
    """Where results lie, and what the user calls the system that they are of."""

    path: str
    name: str | None = None


def parse_source(text: str | Path) -> Source:
    """``H200=results/h200`` names a source; what exists as it stands is a path, '=' or not.

    Raises:
        BadInput: there is nothing before or behind '='.
    """
    whole = str(text)
    name, equals, path = whole.partition("=")
    # Not pathlib's: that takes no absolute patterns.
    if not equals or Path(whole).exists() or glob.glob(whole, recursive=True):  # noqa: PTH207
        return Source(whole)
    if not name.strip() or not path:
        raise BadInput(f"cannot use the source '{whole}': write NAME=SOURCE, such as H200=results/h200")
    return Source(path, " ".join(name.split()))


def marked(rows: pd.DataFrame, source: Source, number: int) -> pd.DataFrame:
    """The rows of one source, with its name and its place among the sources."""
    name = pd.Series(source.name, index=rows.index, dtype=object)
    return rows.assign(source_name=name, source_number=number)


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all sources, each attempt from the first that holds it, with the `system_id` of each."""
    filled = [table for table in tables if len(table)] or list(tables[:1])
    rows = filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)
    rows = rows.drop_duplicates(["attempt_id", "rank"]).reset_index(drop=True)
    return rows.assign(system_id=system_ids(rows))


def system_ids(rows: pd.DataFrame) -> pd.Series[str]:
    """What tells systems apart: the given name, the key of hardware and software, the kind of device of the case.

    An attempt that died before it could tell its system belongs to the only one of its source, where there is one.
    """
    place = [rows["source_number"], rows["device"]]
    keys = rows["system_key"].groupby(place)
    # `first` passes over what is missing.
    only = keys.transform("first").where(keys.transform("nunique").eq(1))
    key = rows["system_key"].fillna(only).fillna("unknown").astype(str)
    name = rows["source_name"].fillna("").astype(str)
    return name + "/" + key + "/" + rows["device"].astype(str)


def system_names(rows: pd.DataFrame) -> dict[str, str]:
    """A short and distinct name for each system by `system_id`, in the order of the sources.

    The user's name, else the accelerator, else the processor, else the host; where two are alike, with what differs.

    Args:
        rows: of all sources, as `joined` gives them. Attempts that died before they could tell their system are passed
            over.
    """
    told = rows[rows["system_hostname"].fillna("") != ""]
    told = told.sort_values("source_number", kind="stable").drop_duplicates("system_id")
    hardware = told["device_name"].fillna(told["system_cpu_model"]).fillna(told["system_hostname"])
    facts = told.assign(hardware=hardware).to_dict("records")
    bases = [str(fact["hardware"] if _unknown(fact["source_name"]) else fact["source_name"]) for fact in facts]
    return dict(zip(told["system_id"], _distinct(bases, facts), strict=True))


def check_baseline(name: str | None, names: Iterable[str]) -> None:
    """Raises UnknownName: no system is called so."""
    known = list(names)
    if name is not None and name not in known:
        raise UnknownName("system", name, known, "--baseline")


def _distinct(bases: list[str], facts: list[dict[Any, Any]]) -> list[str]:
    told: list[list[str]] = [[] for _ in bases]
    for column, word in _TELLING:
        for alike in _alike(bases, told):
            values = [_said(facts[i], column) for i in alike]
            if len(set(values)) > 1:
                for i, value in zip(alike, values, strict=True):
                    told[i].append(word + value)
    return [f"{base} ({', '.join(parts)})" if parts else base for base, parts in zip(bases, told, strict=True)]


def _alike(bases: list[str], told: list[list[str]]) -> list[list[int]]:
    """The places of names that are still the same."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, base in enumerate(bases):
        groups.setdefault((base, *told[i]), []).append(i)
    return [places for places in groups.values() if len(places) > 1]


def _said(fact: Mapping[Any, Any], column: str) -> str:
    value = fact[column]
    if _unknown(value):
        return "unknown"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _unknown(value: Any) -> bool:
    return value is None or value != value
