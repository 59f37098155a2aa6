"""Where every number comes from: systems, software, protocol, and each attempt with its folder and command."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from dlbench import units
from dlbench.node_list import compress_nodes
from dlbench.report.analysis import row_accounting
from dlbench.report.analysis.content import MAX_CASES, Content
from dlbench.report.chapters import bounds_runs, tables
from dlbench.report.document import Block, Section
from dlbench.report.loading.machine_state import NodeState
from dlbench.results.records import parse_system_details
from dlbench.table import Cell, Column, Table

#: The properties of a system in the order in which they are listed.
_PROPERTY_TITLES = {
    "hostname": "Host",
    "device_name": "Accelerator",
    "device_count": "Accelerators",
    "cpu_model": "Processor",
    "cpu_cores": "Cores",
    "cpu_threads": "Threads",
    "memory_bytes": "Memory",
    "cpu_quota": "Quota of cores",
    "cpu_binding": "Binding of threads",
    "node_cpu_cores": "Cores of the node",
    "node_cpu_threads": "Logical cores of the node",
    "node_memory_bytes": "Memory of the node",
    "firmware": "Firmware",
    "os": "Operating system",
    "kernel": "Kernel",
    "driver_version": "Driver",
    "python_version": "Python",
    "torch_version": "PyTorch",
    "torchvision_version": "torchvision",
    "cuda_version": "CUDA",
    "cudnn_version": "cuDNN",
    "nccl_version": "NCCL",
    "torch_threads": "PyTorch threads",
    "job_threads": "PyTorch threads of one process",
    "container_runtime": "Container runtime",
    "container_image": "Container image",
    "dlbench_version": "dlbench",
    "git_commit": "dlbench commit",
    "git_dirty": "Changes not committed",
    "slurm_job_id": "Slurm job",
}

#: Software that may change without making another system of it.
_SOFTWARE_PROPERTIES = (
    *("firmware", "os", "kernel", "python_version", "cudnn_version", "nccl_version"),
    *("container_runtime", "container_image", "dlbench_version", "git_commit"),
)

#: A list with more entries than these is folded away by itself.
_MAX_INLINE_ITEMS = 8
#: What differs from moment to moment, or names the node, explains nothing.
_VOLATILE = ("HostInfo/", "Uptime/", "LoadAvg/", "MachineState/Timestamp", "MemInfo/", "UsersInfo/", "ThermalZoneInfo/",
             "CoretempInfo/", "ShellEnvironment/")  # fmt: skip
_MAX_DIFFERENCES = 300


def provenance_section(content: Content) -> Section:
    """The chapter that leads from each figure back to its records."""
    stores = ", ".join(content.sources)
    count = f"{units.count_text(len(content.rows), 'row')} of {units.count_text(len(content.attempts), 'attempt')}"
    where = "Folders in this chapter are relative to the folder of the Parquet file."
    blocks = [Block(words=f"Read from {stores}: {count}. {where}")]
    blocks += [*_row_count_blocks(content), *_system_blocks(content), *_mixed_software_blocks(content)]
    if len(content.attempts):
        blocks.append(Block(heading="Suites and protocols", table=_protocols_table(content.attempts)))
        heading = "All attempts, with the commands to repeat them"
        table = tables.attempts_table(_select_listed_attempts(content), content.sources, content.files)
        blocks.append(Block(heading=heading, table=table, folded=True))
    measured = bounds_runs.bounds_runs_table(content.bounds)
    if measured.rows:
        heading = "All runs of ceilings, profiles and all-reduces, with the commands to repeat them"
        blocks.append(Block(heading=heading, table=measured, folded=True))
    for system, name in content.system_names.items():
        details = _system_details(content.rows, system)
        lists = {key: value for key, value in details.items() if isinstance(value, list)}
        long = {key: value for key, value in lists.items() if len(value) > _MAX_INLINE_ITEMS}
        parts = {f"All properties of {name}": {key: value for key, value in details.items() if key not in long}}
        parts |= {f"{key.capitalize()} of {name} ({len(value)})": {key: value} for key, value in long.items()}
        blocks += [
            Block(heading=title, table=_system_details_table(part), folded=True) for title, part in parts.items()
        ]
    blocks += machine_state_blocks(content.machine_states)
    return Section("provenance", "Provenance", blocks)


def _row_count_blocks(content: Content) -> list[Block]:
    """What became of every row that was read; where they do not add up, that is said first."""
    account = content.account
    cells: list[list[Cell]] = [
        [row_accounting.KIND_DESCRIPTIONS[kind], number, account.attempts.get(kind)]
        for kind, number in account.rows.items()
        if number
    ]
    cells.append(["Read", account.read, None])
    columns = [Column("what", "What"), Column("rows", "Rows", "right"), Column("attempts", "Attempts", "right")]
    blocks = [Block(words=f"Error: {account.error}")] if account.error else []
    return [*blocks, Block(heading="Stored rows: how many are shown or left out", table=Table(columns, cells))]


def _select_listed_attempts(content: Content) -> pd.DataFrame:
    """At most `MAX_CASES` attempts by time: those that the report shows, for these are led to, and then the newest."""
    shown = content.attempts["attempt_id"].isin(content.shown["attempt_id"])
    others = content.attempts.index[~shown]
    room = max(0, MAX_CASES - int(shown.sum()))
    return content.attempts[shown | content.attempts.index.isin(others[len(others) - room :])]


def _system_blocks(content: Content) -> list[Block]:
    """The properties of the systems: of several first what differs, then, folded, what they have in common."""
    if not content.system_names:
        return []
    rows = _system_property_rows(content)
    if len(content.system_names) == 1:
        return [Block(heading="Systems and software", table=_systems_table(content, rows))]
    same = [row for row in rows if len(set(row[1:])) == 1]
    different = [row for row in rows if row not in same]
    common = Table([Column("property", "Property"), Column("value", "All systems", "left")], [row[:2] for row in same])
    return [
        Block(heading="Differences between the systems", table=_systems_table(content, different)),
        Block(heading=f"Properties equal on all systems ({len(same)})", table=common, folded=True),
    ]


def _mixed_software_blocks(content: Content) -> list[Block]:
    """Which software is not the same in all records of one system, a sentence for each."""
    said = []
    for name, of_system in zip(content.system_names.values(), _row_mask_per_system(content), strict=True):
        columns = {n: content.rows[f"system_{n}"][of_system] for n in _SOFTWARE_PROPERTIES}
        several = [n for n in _SOFTWARE_PROPERTIES if columns[n].nunique(dropna=False) > 1]
        if several:
            parts = [f"{_PROPERTY_TITLES[n]} ({_distinct_values_text(columns[n], n, missing=True)})" for n in several]
            said.append(f"{name}: {', '.join(parts)}.")
    words = "These properties differ between records of one system, and may affect its results: "
    return [Block(words=words + " ".join(said))] if said else []


def _systems_table(content: Content, rows: list[list[Cell]]) -> Table:
    columns = [Column("property", "Property")]
    columns += [Column(f"system_{i}", name, "left") for i, name in enumerate(content.system_names.values(), 1)]
    return Table(columns, rows)


def _system_property_rows(content: Content) -> list[list[Cell]]:
    """One row per property that any system tells: its title, and of each system all values."""
    of_systems = _row_mask_per_system(content)
    cells: list[list[Cell]] = []
    numbers = [content.rows["source_number"][places].unique().tolist() for places in of_systems]
    if len({n for some in numbers for n in some}) > 1:
        read_from = [sorted({content.sources[int(n)] for n in some}) for some in numbers]
        cells.append(["Read from", *(", ".join(sources) for sources in read_from)])
    if content.sides:
        cells.append(["Setting of the side", *(content.sides[system].setting for system in content.system_names)])
    for name, title in _PROPERTY_TITLES.items():
        column = content.rows[f"system_{name}"]
        values: list[Cell] = [_distinct_values_text(column[places], name) for places in of_systems]
        if any(v != units.MISSING for v in values):
            cells.append([title, *values])
    return cells


def _row_mask_per_system(content: Content) -> list[pd.Series[bool]]:
    """Which rows describe each system. Rows have over a hundred columns: only the needed ones are taken."""
    described = content.rows["system_hostname"].fillna("") != ""
    return [described & content.rows["system_id"].eq(system) for system in content.system_names]


def _distinct_values_text(values: pd.Series, name: str, missing: bool = False) -> str:
    """All different values of one property, as one text; with `missing` also that some records have none."""
    shown = [_format_system_property(value, name) for value in values.dropna().unique()]
    shown += ["none"] if missing and values.isna().any() else []
    return units.list_text(shown, 8) if shown else units.MISSING


def _format_system_property(value: object, name: str) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("memory_bytes") and isinstance(value, int | float):
        return units.bytes_text(value)
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _protocols_table(attempts: pd.DataFrame) -> Table:
    """Suite by suite the protocol's values; a value that differs between cases is listed with all it took."""
    columns = [Column("suite", "Suite"), Column("attempts", "Attempts"), Column("protocol", "Protocol")]
    cells: list[list[Cell]] = []
    for (suite, version), of_suite in attempts.groupby(["suite", "suite_version"], sort=True):
        taken: dict[str, list[str]] = {}
        for text in of_suite["protocol"].dropna().unique():
            for key, value in json.loads(text).items():
                taken.setdefault(key, []).append(f"{value:g}" if isinstance(value, float) else str(value))
        words = "; ".join(f"{key} = {' or '.join(dict.fromkeys(values))}" for key, values in taken.items())
        cells.append([f"{suite} (version {version})", len(of_suite), words])
    return Table(columns, cells)


def _system_details(rows: pd.DataFrame, system: str) -> dict[str, object]:
    """Devices, loaded libraries, environment and the rest, as the first record of this system holds them."""
    of_system = rows["system_details"][(rows["system_id"] == system) & (rows["system_hostname"].fillna("") != "")]
    return {str(k): v for k, v in parse_system_details(of_system.iloc[0]).items()}


def machine_state_blocks(states: Mapping[str, NodeState]) -> list[Block]:
    """What MachineState recorded of the nodes: in what they differ, and everything of one; none without files."""
    if not states:
        return []
    first = next(iter(states))
    cells: list[list[Cell]] = [[name, value] for name, value in states[first].items()]
    table = Table([Column("property", "Property"), Column("value", "Value", "left")], cells)
    whole = Block(heading=f"MachineState of {first}", table=table, folded=True)
    return [_node_state_differences_block(states), whole] if len(states) > 1 else [whole]


def _node_state_differences_block(states: Mapping[str, NodeState]) -> Block:
    names = dict.fromkeys(name for state in states.values() for name in state if not name.startswith(_VOLATILE))
    columns = [Column("property", "Property"), Column("usual", "Most nodes", "left")]
    columns.append(Column("others", "Others", "left"))
    cells: list[list[Cell]] = []
    for name in names:
        hosts: dict[str, list[str]] = {}
        for host, state in states.items():
            hosts.setdefault(state.get(name, units.MISSING), []).append(host)
        if len(hosts) > 1 and len(cells) < _MAX_DIFFERENCES:
            usual, _ = Counter({value: len(own) for value, own in hosts.items()}).most_common(1)[0]
            others = [f"{value}: {compress_nodes(own)}" for value, own in hosts.items() if value != usual]
            cells.append([name, usual, "\n".join(others)])
    heading = f"Differences between {len(states)} nodes, recorded by MachineState"
    if not cells:
        return Block(heading=heading, words="The nodes differ only in time of recording, system load and names.")
    return Block(heading=heading, table=Table(columns, cells))


def _system_details_table(details: dict[str, object]) -> Table:
    cells: list[list[Cell]] = [[key, _join_nested_values(value)] for key, value in details.items()]
    return Table([Column("name", "Name"), Column("value", "Value", "left")], cells)


def _join_nested_values(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(_join_nested_values(v).replace("\n", ", ") for v in value) or units.MISSING
    if isinstance(value, dict):
        return (
            "\n".join(f"{k} = {_join_nested_values(v)}".replace("\n", ", ") for k, v in value.items()) or units.MISSING
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    return units.MISSING if value is None else str(value)
