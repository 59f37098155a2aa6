"""Results for other programs: every metric as CSV or JSON, and descriptions of the systems in MLPerf's field names."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.json_text import dump_json
from dlbench.report import tool_formats
from dlbench.report.analysis.content import Content, read_content
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.forms.frame_csv import csv_chunks
from dlbench.report.forms.frame_json import json_row_chunks, to_json_type
from dlbench.version import __version__

#: Columns that are for drawing, and say nothing more than the others.
_HIDDEN_COLUMNS = ("samples", "system_id", "power_time_s", "power_w", "power_limit_w")

#: The fields of an MLPerf system description, in the groups of the submission checker (v1.0 to v5): for all, since
#: v1.0, with power. What nobody measured is left to whoever submits.
MLPERF_FIELDS = (
    *("division", "submitter", "status", "system_type", "system_type_detail", "system_name", "number_of_nodes"),
    *("host_processor_model_name", "host_processors_per_node", "host_processor_core_count"),
    *("host_processor_frequency", "host_processor_caches", "host_processor_interconnect"),
    *("host_memory_capacity", "host_memory_configuration", "host_storage_capacity", "host_storage_type"),
    *("host_networking", "host_networking_topology", "host_network_card_count"),
    *("accelerators_per_node", "accelerator_model_name", "accelerator_memory_capacity", "accelerator_frequency"),
    *("accelerator_host_interconnect", "accelerator_interconnect", "accelerator_interconnect_topology"),
    *("accelerator_memory_configuration", "accelerator_on-chip_memories", "cooling", "framework"),
    *("operating_system", "other_software_stack", "hw_notes", "sw_notes"),
    *("power_management", "filesystem", "boot_firmware_version", "management_firmware_version", "other_hardware"),
    *("number_of_type_nics_installed", "nics_enabled_firmware", "nics_enabled_os", "nics_enabled_connected"),
    *("network_speed_mbit", "power_supply_quantity_and_rating_watts", "power_supply_details", "disk_drives"),
    "disk_controllers",
)


def export_chunks(sources: Sequence[str | Path], format: str) -> Iterator[str]:
    """All results of `sources` in one of `FORMATS`, in parts, for the text of a large store may not fit in memory.

    A part that cannot be read is passed over with a `SkippedPart` warning. Raises StoreError without a source.
    """
    content = read_content(sources, max_shown=0, with_rows=format == "mlperf")
    content.warn_of_unreadable_files()
    return FORMATS[format](content)


def _json_chunks(content: Content) -> Iterator[str]:
    """The definitions of all metrics, and each attempt with its metrics in SI units."""
    frame = content.attempts
    frame = frame.assign(system=frame["system_id"].map(content.system_names))
    frame = frame.drop(columns=[name for name in _HIDDEN_COLUMNS if name in frame])
    metrics = [dataclasses.asdict(metric) for metric in METRICS.values()]
    rows = content.account.row_counts_with_every_attempt()
    whole = dump_json({"dlbench_version": __version__, "rows": rows, "metrics": metrics, "attempts": []}) + "\n"
    if frame.empty:
        yield whole
        return
    end = "[]\n}\n"
    yield whole.removesuffix(end) + "["
    yield from json_row_chunks(frame, of_json="protocol")
    yield "\n ]\n}\n"


def _mlperf_chunks(content: Content) -> Iterator[str]:
    """One description of a system, or a list where there are several."""
    rows = content.rows
    known = rows[rows["system_hostname"].fillna("") != ""]
    found = [_system_description(known[known["system_id"] == s], name) for s, name in content.system_names.items()]
    yield dump_json(found[0] if len(found) == 1 else found) + "\n"


def _system_description(rows: pd.DataFrame, name: str) -> dict[str, Any]:
    first: dict[Any, Any] = {key: to_json_type(value) for key, value in rows.iloc[0].to_dict().items()}
    software = [f"{title} {first[key]}" for key, title in _SOFTWARE_NAMES.items() if first.get(key)]
    cores = f"{first['system_cpu_cores']:.0f} processor cores usable per node" if first["system_cpu_cores"] else ""
    facts = {
        "system_name": name,
        "number_of_nodes": int(rows["nodes"].max()),
        "host_processor_model_name": first["system_cpu_model"],
        "host_processor_core_count": int(first["system_cpu_cores"]) if first["system_cpu_cores"] else None,
        "host_memory_capacity": _capacity_text(first["system_memory_bytes"]),
        "accelerators_per_node": int(first["system_device_count"] or 0),
        "accelerator_model_name": first["system_device_name"],
        "accelerator_memory_capacity": _capacity_text(first["memory_device_total_bytes"]),
        "accelerator_frequency": f"{first['sm_clock_max_mhz']:.0f} MHz" if first["sm_clock_max_mhz"] else None,
        "framework": f"PyTorch {first['system_torch_version']}" if first["system_torch_version"] else None,
        "operating_system": first["system_os"],
        "other_software_stack": ", ".join(software),
        "hw_notes": cores,
        "boot_firmware_version": first["system_firmware"],
        "sw_notes": f"measured by dlbench {first['system_dlbench_version'] or __version__}",
    }
    return {field: facts.get(field) if facts.get(field) is not None else "" for field in MLPERF_FIELDS}


def _capacity_text(size_bytes: float | None) -> str | None:
    return units.bytes_text(size_bytes).replace(units.GROUP_SEPARATOR, "") if size_bytes else None


_SOFTWARE_NAMES = {
    "system_kernel": "Linux",
    "system_driver_version": "driver",
    "system_cuda_version": "CUDA",
    "system_cudnn_version": "cuDNN",
    "system_nccl_version": "NCCL",
    "system_python_version": "Python",
    "system_container_runtime": "container",
}
#: Each format's name, as `dlbench export --format` takes it, and its writer.
FORMATS: dict[str, Callable[[Content], Iterator[str]]] = {
    "csv": lambda content: tidy_csv_chunks(content.attempts),
    "json": _json_chunks,
    "mlperf": _mlperf_chunks,
    "bencher": tool_formats.format_bencher,
    "prometheus": tool_formats.format_prometheus,
    "junit": tool_formats.format_junit,
    "mllog": tool_formats.format_mllog,
    "jube": tool_formats.format_jube,
}


def tidy_csv_chunks(cases: pd.DataFrame) -> Iterator[str]:
    """All attempts with all metrics as CSV in parts: SI units, fractions as fractions, empty fields if missing."""
    hidden = ("samples", "system_id", "protocol")
    return csv_chunks(cases, [str(name) for name in cases if name not in hidden])
