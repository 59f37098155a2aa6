"""The kernels of oneDNN in one step, from its verbose log: which ran, how often and how long."""

from __future__ import annotations

from collections import defaultdict

from dlbench.table import Cell, Column, Table, percent_text, seconds_text


def kernels_table(log: str) -> Table:
    """One row per kind of work and kernel, the one that takes longest first.

    Args:
        log: lines such as "onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_training,...,0.12";
            older versions have no "v1,primitive,".
    """
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for line in log.splitlines():
        words = line.strip().split(",")
        if words[0] != "onednn_verbose" or "exec" not in words:
            continue
        rest = words[words.index("exec") + 2 :]
        try:
            found[rest[0], rest[1], rest[2]].append(float(rest[-1]) * 1e-3)
        except (IndexError, ValueError):
            continue
    whole = sum(map(sum, found.values()))
    rows: list[list[Cell]] = [
        [*names, len(times), sum(times), sum(times) / whole if whole else None]
        for names, times in sorted(found.items(), key=lambda one: -sum(one[1]))
    ]
    columns = [
        Column("work", "Work"),
        Column("kernel", "Kernel of oneDNN"),
        Column("direction", "Direction"),
        Column("calls", "Calls", "right"),
        Column("time_s", "Time", "right", seconds_text),
        Column("share", "Share", "right", percent_text),
    ]
    notes = ["Time: measured by oneDNN itself in one step, without other operations of PyTorch."]
    return Table(columns, rows, "Kernels of oneDNN in one step", notes)
