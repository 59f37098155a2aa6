"""Names as people read them: networks and the settings of a case."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.suites.case import AXES, describe_axis, describe_axis_value
from dlbench.suites.catalog import CATALOG, LENGTH_SIGN

#: Axes that always stand in a table; the others only where they vary.
MAIN_AXES = ("model", "mode", "precision", "batch_size")
AXIS_TITLES = {
    "model": "Network",
    "mode": "Mode",
    "precision": "Precision",
    "batch_size": "Batch",
    "memory_format": "Layout",
    "devices_per_node": "Devices/node",
    "compile": "Compile",
    "sample_unit": "Sample",
    "power_cap_w": "Power limit",
    "clock_mhz": "Clock",
}
#: Axes whose default value is named too; that of all others needs no words.
_NAMED = (*MAIN_AXES, "memory_format", "device", "optimizer", "data")
#: A name longer than this is cut in the middle where space is limited; tables hold it whole.
_MAX_LABEL = 34


def network_title(name: str) -> str:
    """A network's title: "VGG-16" for vgg16; a name that is not in the catalogue stays as it is."""
    base, sign, length = name.partition(LENGTH_SIGN)
    title = CATALOG[base].title if base in CATALOG else base
    return f"{title} ({length} tok)" if sign and base in CATALOG else title + sign + length


def sort_networks(names: Iterable[str]) -> list[str]:
    """The networks in the order of the catalogue, which is about that of history; others follow by name."""
    place = {name: i for i, name in enumerate(CATALOG)}
    return sorted(set(names), key=lambda name: (place.get(name.partition(LENGTH_SIGN)[0], len(place)), name))


def shorten_in_middle(text: str, limit: int = _MAX_LABEL) -> str:
    """`text` of at most `limit` characters, cut in the middle, where long names differ least."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[-(limit - 1 - head) :]}"


def case_axis_title(axis: str) -> str:
    """What stands above a column of this axis."""
    return AXIS_TITLES.get(axis, axis.replace("_", " ").capitalize())


def varying_axes(cases: pd.DataFrame) -> list[str]:
    """The axes beyond `MAIN_AXES` that take more than one value in these cases."""
    return [axis for axis in AXES if axis not in MAIN_AXES and cases[axis].nunique() > 1]


def varying_settings(cases: pd.DataFrame) -> list[str]:
    """The same of `aggregation.SETTING_COLUMNS`: the threads are one of them if they differ between equal axes."""
    axes = [axis for axis in AXES if axis != "repeat"]
    threads = cases.groupby(axes, dropna=False)["system_torch_threads"].nunique().gt(1).any()
    varying = [axis for axis in varying_axes(cases[axes].assign(repeat=0)) if not (threads and axis == "threads")]
    return [*varying, *(["system_torch_threads"] if threads else [])]


def setting_label(case: Mapping[Hashable, Any], axes: Iterable[str]) -> str:
    """The values of these axes in one line: "tf32, batch 64"; what is the plain default is left out."""
    return ", ".join(part for axis in axes if (part := _axis_value_label(axis, case[axis])))


def case_name(case: Mapping[Any, Any], axes: Iterable[str] = ()) -> str:
    """A case in one line, with these axes at its end: "ResNet-50, training, amp_bf16, batch 256"."""
    return f"{network_title(str(case['model']))}, {setting_label(case, ('mode', 'precision', 'batch_size', *axes))}"


def _axis_value_label(axis: str, value: Any) -> str:
    if axis == "system_torch_threads":  # null on a GPU
        return units.count_text(int(value), "thread") if value == value and value is not None else ""
    if axis == "batch_size":
        return f"batch {value}"
    if axis in ("nodes", "devices_per_node", "repeat"):
        return f"{case_axis_title(axis).lower()} {value}"
    return (describe_axis_value if axis in _NAMED else describe_axis)(axis, value)
