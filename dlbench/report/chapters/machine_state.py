"""What MachineState recorded of the nodes: in what they differ, and everything of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dlbench import units
from dlbench.node_list import fold_nodes
from dlbench.report.document import Block
from dlbench.report.loading.machine_state import NodeState
from dlbench.table import Cell, Column, Table

#: What differs from moment to moment, or names the node, explains nothing.
_VOLATILE = ("HostInfo/", "Uptime/", "LoadAvg/", "MachineState/Timestamp", "MemInfo/", "UsersInfo/", "ThermalZoneInfo/",
             "CoretempInfo/", "ShellEnvironment/")  # fmt: skip
_MAX_ROWS = 300


def machine_state_blocks(states: Mapping[str, NodeState]) -> list[Block]:
    """Return the blocks of the provenance chapter; none without files of MachineState."""
    if not states:
        return []
    first = next(iter(states))
    cells: list[list[Cell]] = [[name, value] for name, value in states[first].items()]
    table = Table([Column("property", "Property"), Column("value", "Value", "left")], cells)
    whole = Block(heading=f"MachineState of {first}", table=table, folded=True)
    return [_differences_block(states), whole] if len(states) > 1 else [whole]


def _differences_block(states: Mapping[str, NodeState]) -> Block:
    names = dict.fromkeys(name for state in states.values() for name in state if not name.startswith(_VOLATILE))
    columns = [
        Column("property", "Property"),
        Column("usual", "Most nodes", "left"),
        Column("others", "Others", "left"),
    ]
    cells: list[list[Cell]] = []
    for name in names:
        hosts: dict[str, list[str]] = {}
        for host, state in states.items():
            hosts.setdefault(state.get(name, units.MISSING), []).append(host)
        if len(hosts) > 1 and len(cells) < _MAX_ROWS:
            usual, _ = Counter({value: len(own) for value, own in hosts.items()}).most_common(1)[0]
            others = [f"{value}: {fold_nodes(own)}" for value, own in hosts.items() if value != usual]
            cells.append([name, usual, "\n".join(others)])
    heading = f"Differences between the MachineState of {len(states)} nodes"
    if not cells:
        return Block(heading=heading, words="The nodes differ only in times, loads and names.")
    return Block(heading=heading, table=Table(columns, cells))
