"""How long large stores take to read and to report, and how much memory: each stage in a fresh process.

    python benchmarks/experiments/big_store.py [NAME ...] [--folder FOLDER] [--write]

Without names all of `STORES` are made and measured. The records are made up. The aims: 100 000 records in under 10 s
and 1 GB, and 10 000 records of 10 systems in under 20 s, each from the start of Python to the finished report.
`--write` keeps the outcome in docs/experiments/big_store.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "experiments" / "big_store.md"
MODELS = ("lenet5", "alexnet", "overfeat_fast", "vgg16", "googlenet", "resnet50")
DEVICES = (
    *("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S", "Tesla V100-SXM2-32GB"),
    *("NVIDIA A100-SXM4-40GB", "NVIDIA GH200 480GB", "NVIDIA L4", "NVIDIA A40", "NVIDIA GeForce RTX 4090"),
)
PHASES = ("forward_s", "backward_s", "optimizer_s")
#: So many records are made at a time.
CHUNK = 2000


@dataclass(frozen=True)
class Store:
    """What a made-up store holds."""

    words: str
    records: int
    systems: int
    steps: tuple[int, ...]  # of the records in turn
    apart: bool = False  # each record is a part of its own
    limit_s: float | None = None
    limit_bytes: float | None = None


STORES = {
    "records": Store("100 000 records of 30 steps, merged", 100_000, 1, (30,), limit_s=10, limit_bytes=1e9),
    "systems": Store(
        "10 systems, 10 000 records of 200 to 4000 steps, merged", 10_000, 10, (200, 200, 200, 1000, 4000), limit_s=20
    ),
    "parts": Store("10 000 records of 200 steps, each in its own part", 10_000, 1, (200,), apart=True),
}
#: What is measured in a process of its own: nothing but imports, reading, all columns, and the whole report.
STAGES = ("imports", "read", "load", "report")


def main() -> int:
    """Make the stores, then measure each stage of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STORES)}; default: all")
    parser.add_argument("--folder", type=Path, help="keeps the stores and the reports; default: a temporary one")
    parser.add_argument("--write", action="store_true", help=f"keep the outcome in {DOC.relative_to(ROOT)}")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        return _stage(options.stage, options.folder)
    unknown = set(options.names) - set(STORES)
    if unknown:
        parser.error(f"no store is called {sorted(unknown)[0]!r}; there are {', '.join(STORES)}")
    with tempfile.TemporaryDirectory() as temporary:
        lines = [_measured(name, (options.folder or Path(temporary)) / name) for name in options.names or STORES]
    if options.write:
        DOC.write_text(_document(lines), encoding="utf-8")
    return 0


def make_store(folder: Path, store: Store) -> None:
    """Write the records: each a case of its own, so that a report has to show all of them."""
    folder.mkdir(parents=True)
    patterns = _patterns(store.systems)
    writer: pq.ParquetWriter | None = None
    for begin in range(0, store.records, CHUNK):
        rows = _rows(patterns, store, range(begin, min(begin + CHUNK, store.records)))
        if store.apart:
            for row in range(rows.num_rows):
                pq.write_table(rows.slice(row, 1), folder / f"{rows['attempt_id'][row]}.parquet", compression="zstd")
            continue
        writer = writer or pq.ParquetWriter(folder / "merged-fake.parquet", rows.schema, compression="zstd")
        writer.write_table(rows)
    if writer:
        writer.close()


def _patterns(num_systems: int) -> pa.Table:
    """One record for each system, network, mode and batch, still without samples."""
    from dlbench.results.records import Measurement, Record, System
    from dlbench.results.schema import to_table
    from dlbench.spec.case import Case

    records = []
    for number in range(num_systems):
        device = DEVICES[number]
        system = System(
            hostname=f"fake-{number}", cpu_model="a made-up CPU", cpu_cores=32, device_kind="cuda", device_name=device,
            torch_version="2.15.0", details={"libraries": [f"/opt/fake/lib/library-{i}.so" for i in range(300)]},
        )  # fmt: skip
        found = Measurement(
            device_name=device, device_uuid=f"GPU-fake-{number}", clock="cuda_event", stop_reason="target", steady=True,
            window_s=6.0, device_window_s=6.0, energy_j=1800.0, energy_window_s=6.0, energy_source="nvml_counter",
            energy_scope="device", forward_flop=2 * 10**9, backward_flop=4 * 10**9, parameter_bytes=10**8,
            memory_allocated_peak_bytes=10**9, memory_rss_peak_bytes=2 * 10**9,
            warnings=("sample: a made-up record",),
        )  # fmt: skip
        for model in MODELS:
            for mode in ("training", "inference"):
                for batch in (1, 4, 16, 64):
                    case = Case(model, mode, batch_size=batch, device="cuda")
                    records.append(
                        Record(
                            "a", case.id, "big", 1, case.to_dict(), "2026-01-01T00:00:00+00:00",
                            "2026-01-01T00:00:10+00:00", "ok", wall_s=10.0, system_key=f"fake{number}",
                            ranks=((system, found),),
                        )
                    )  # fmt: skip
    return to_table(records)


def _rows(patterns: pa.Table, store: Store, numbers: range) -> pa.Table:
    """These records: patterns in turn, with names, times, repeats and samples of their own."""
    place = np.arange(numbers.start, numbers.stop)
    rows = patterns.take(pa.array(place % patterns.num_rows))
    counts = np.array(store.steps)[place % len(store.steps)]
    rng = np.random.default_rng(numbers.start)
    median_s = np.repeat(0.002 * (1 + place % patterns.num_rows), counts)
    steps = median_s * (1 + np.abs(rng.normal(0, 0.01, counts.sum())))
    times = np.datetime64("2026-01-01T00:00:00", "ms") + 10_000 * place
    values: dict[str, Any] = {
        "attempt_id": [f"20260101T000000-{i:012x}" for i in numbers],
        "case_id": [f"{i:012x}" for i in numbers],
        "repeat": place // patterns.num_rows,
        "started_at": times,
        "finished_at": times + 9000,
        "step_s": _lists(steps, counts),
    }
    values |= {name: _lists(share * steps, counts) for name, share in zip(PHASES, (0.3, 0.6, 0.05), strict=True)}
    for name, column in values.items():
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(name), pa.array(column).cast(rows.schema.field(name).type))
    return rows


def _lists(values: np.ndarray, counts: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.concatenate(([0], np.cumsum(counts))).astype(np.int32), values)


def _measured(name: str, folder: Path) -> list[str]:
    """The lines of one store's table; the store is made if it is not there yet."""
    store = STORES[name]
    if not folder.exists():
        make_store(folder / "store", store)
    size = sum(p.stat().st_size for p in (folder / "store").iterdir())
    print(f"{name}: {store.words}, {size / 1e6:.0f} MB", flush=True)
    lines = []
    for stage in STAGES:
        cost = _run([sys.executable, __file__, "--stage", stage, "--folder", str(folder)])
        print(
            f"  {stage:8} {cost.wall_s:8.1f} s   CPU {cost.cpu_s:6.1f} s   peak {cost.peak_bytes / 1e9:5.2f} GB",
            flush=True,
        )
        aims = _aims(store) if stage == "report" else ""
        lines.append(
            f"| {store.words} | {size / 1e6:.0f} MB | {stage} | {cost.wall_s:.1f} s | {cost.cpu_s:.1f} s | "
            f"{cost.peak_bytes / 1e9:.2f} GB | {aims} |"
        )
    return lines


@dataclass(frozen=True)
class Cost:
    """What a process and its children took."""

    wall_s: float
    cpu_s: float
    peak_bytes: int  # of the memory of all of them together, what they share counted once


def _run(argv: list[str]) -> Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    process = psutil.Popen(argv, stdout=subprocess.DEVNULL)  # the report's table in text
    peak = 0
    while process.poll() is None:
        looked_s = time.perf_counter()
        peak = max(peak, sum(map(_memory, [process, *_children(process)])))
        # Looking stops the processes for a moment; it must not slow down what is measured.
        time.sleep(max(0.1, 20 * (time.perf_counter() - looked_s)))
    wall_s = time.perf_counter() - began_s
    if process.returncode:
        raise SystemExit(process.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def _children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
        return found
    except psutil.Error:
        return []


def _memory(process: psutil.Process) -> int:
    """Proportional set size: what several processes share is divided between them."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0  # it ended meanwhile


def _aims(store: Store) -> str:
    limits = (store.limit_s and f"{store.limit_s:g} s", store.limit_bytes and f"{store.limit_bytes / 1e9:g} GB")
    return ", ".join(limit for limit in limits if limit)


def _stage(stage: str, folder: Path) -> int:
    """Do it, as `_run` measures from outside."""
    import dlbench
    from dlbench.__main__ import main as command
    from dlbench.report.data import content

    sources = [folder / "store"]
    if stage == "read":
        content.read(sources)
    elif stage == "load":
        dlbench.load(sources)
    elif stage == "report":
        return command(["report", str(folder / "store"), "-o", str(folder / "report")])
    return 0


def _document(tables: list[list[str]]) -> str:
    return "\n".join(_document_lines(tables)) + "\n"


def _document_lines(tables: list[list[str]]) -> Iterator[str]:
    yield "# How long do large stores take?"
    yield ""
    yield "Written by `benchmarks/experiments/big_store.py --write`; do not edit. Each line is a fresh process from its"
    yield "start to its end: `imports` only imports what the others need, `read` derives everything that a report"
    yield "shows, `load` gives all columns to a user, `report` writes the whole report. CPU and peak memory are of"
    yield "the process and its children together; memory that they share counts once."
    yield ""
    yield f"Measured on {os.cpu_count()} cores, Python {platform.python_version()}, pyarrow {pa.__version__}."
    yield ""
    yield "| store | size | stage | time | CPU | peak | aim |"
    yield "|---|---:|---|---:|---:|---:|---|"
    for lines in tables:
        yield from lines


if __name__ == "__main__":
    sys.exit(main())
