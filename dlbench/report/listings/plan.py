"""The plan of a suite as a table; needs no install, so that it works on a login node."""

from dlbench import units
from dlbench.suites.case import AXES, Case
from dlbench.suites.case_estimates import predicted_memory_bytes, step_flop
from dlbench.suites.suite import Suite
from dlbench.table import Cell, Column, Table, bytes_text, quantity_format

#: Axes that are listed even when they never vary.
_ALWAYS_SHOWN = ("model", "mode", "precision", "batch_size")


def plan_table(suite: Suite, cases: list[Case]) -> Table:
    """One row per case: its id (none while its device is "auto"), the axes that vary, FLOP of a step, memory."""
    if not cases:
        return Table([Column("model")], [], suite.name, ["Nothing is left to measure."])
    axes = [a for a in AXES if a in _ALWAYS_SHOWN or len({getattr(case, a) for case in cases}) > 1]
    known = all(case.device != "auto" for case in cases)
    columns = [
        *([Column("case_id", "case")] if known else []),
        *(Column(axis, axis.replace("_", " ")) for axis in axes),
        Column("step_flop", "FLOP/step", "right", quantity_format("FLOP")),
        Column("predicted_memory_bytes", "memory", "right", bytes_text),
    ]
    rows: list[list[Cell]] = [
        [
            *([case.id] if known else []),
            *(getattr(case, axis) for axis in axes),
            step_flop(case),
            predicted_memory_bytes(case),
        ]
        for case in cases
    ]
    processes = 1 if "repeat" in suite.axes else suite.processes
    each = f", each in {processes} processes" if processes > 1 else ""
    rules = cases[0].protocol
    longest_s = sum(c.protocol.warmup_max_time_s + c.protocol.idle_time_s + c.protocol.max_time_s for c in cases)
    notes = [
        f"Cases: {len(cases)}{each}. Each process measures for {units.seconds_text(rules.min_time_s)} to "
        f"{units.seconds_text(rules.max_time_s)} (the window), after start-up and warm-up; it is stopped after "
        f"{units.seconds_text(rules.timeout_s)}.",
        f"Warm-up and windows of all cases take at most {units.seconds_text(longest_s)} per round (one process of "
        f"each case).",
        "FLOP and memory are per device. Memory is what PyTorch allocates; libraries and the CUDA context need more.",
    ]
    if any(row[-2] is None for row in rows):
        notes.append("The FLOP of networks outside the catalogue are counted when they run.")
    if any(row[-1] is None for row in rows):
        notes.append(
            "Memory is predicted for networks of the catalogue, at the sequence lengths of the shipped suites; "
            "`dlbench maxbatch` predicts it for any network."
        )
    return Table(columns, rows, f"{suite.name}: {suite.description}" if suite.description else suite.name, notes)
