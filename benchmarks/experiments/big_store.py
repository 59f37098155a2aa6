"""How long commands take over large stores, and how much memory: each in a fresh process.

    python benchmarks/experiments/big_store.py [NAME ...] [--stages STAGE,...] [--folder FOLDER] [--write]

Without names all of `STORES` are made and measured. The records are made up. The aims: 100 000 records in under 10 s
and 1 GB, 10 000 records of 10 systems in under 20 s, and a million records in 60 s and 4 GB by each command, from the
start of Python to its end. `--write` keeps the outcome in docs/experiments/data and docs/experiments/big_store.md;
`--before` keeps it as the figures that the others are held against. For these, PYTHONPATH names a checkout of the
earlier version.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
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
DATA = {name: DOC.parent / "data" / f"big_store_{name}.json" for name in ("before", "now")}
MODELS = ("lenet5", "alexnet", "overfeat_fast", "vgg16", "googlenet", "resnet50")
DEVICES = (
    *("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S", "Tesla V100-SXM2-32GB"),
    *("NVIDIA A100-SXM4-40GB", "NVIDIA GH200 480GB", "NVIDIA L4", "NVIDIA A40", "NVIDIA GeForce RTX 4090"),
)
#: Each record has values of its own, around these.
VARYING = {
    "wall_s": 10.0, "window_s": 6.0, "device_window_s": 6.0, "energy_window_s": 6.0, "warmup_s": 1.0, "import_s": 2.0,
    "build_s": 0.5, "first_step_s": 0.8, "energy_j": 1800.0, "energy_counter_j": 1800.0, "energy_integral_j": 1790.0,
    "idle_power_w": 80.0, "sm_clock_before_mhz": 1980.0, "sm_clock_min_mhz": 1900.0, "sm_clock_after_mhz": 1950.0,
    "temperature_before_c": 40.0, "temperature_max_c": 60.0, "temperature_after_c": 55.0, "kernel_time_s": 0.1,
    "loss_first": 6.9, "loss_last": 6.5,
}  # fmt: skip
PHASES = ("forward_s", "backward_s", "optimizer_s")
#: A process that takes more than this is stopped: the machine has other users.
MAX_BYTES, MAX_CPU_S = 8e9, 300.0
#: So many records are made at a time, and are a row group of a merged store.
CHUNK = 4096


@dataclass(frozen=True)
class Store:
    """What a made-up store holds."""

    words: str
    records: int
    systems: int
    steps: tuple[int, ...]  # of the records in turn
    apart: bool = False  # each record is a part of its own
    libraries: int = 300  # named in the details of each record's system, 35 bytes each
    alike: bool = False  # in each row group few lists of steps differ, so that the file stays small
    limit_s: float | None = None
    limit_bytes: float | None = None


STORES = {
    "records": Store("100 000 records of 30 steps, merged", 100_000, 1, (30,), limit_s=10, limit_bytes=1e9),
    "systems": Store(
        "10 systems, 10 000 records of 200 to 4000 steps, merged", 10_000, 10, (200, 200, 200, 1000, 4000), limit_s=20
    ),
    "million": Store(
        "1 000 000 records of 30 steps, 2 systems, merged",
        1_000_000,
        2,
        (30,),
        libraries=540,
        alike=True,
        limit_s=60,
        limit_bytes=4e9,
    ),
    "parts": Store("10 000 records of 200 steps, each in its own part", 10_000, 1, (200,), apart=True),
}
_SQL = "select model, mode, count(*), avg(window_s), max(energy_j) from records group by all order by all"
_SQL_OF_SAMPLES = "select model, count(*), avg(list_avg(step_s)), max(list_max(step_s)) from records group by all"
_SQL_OF_ALL = "select * from records order by started_at desc limit 3"
#: What is measured in a process of its own: what it does in words, and the command or the function of `_run_command`.
STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "imports": ("import pandas, pyarrow and dlbench's own modules", ()),
    "read": ("derive everything that a report shows", ()),
    "load": ('`dlbench.load("STORE")`', ()),
    "load_some": ('`dlbench.load("STORE", columns=[...])` of 6 columns', ()),
    "metrics": ('`dlbench.metrics("STORE")`', ()),
    "query": (f'`dlbench query "{_SQL}"`', ("query", _SQL, "--results", "STORE")),
    "query_samples": (f'`dlbench query "{_SQL_OF_SAMPLES}"`', ("query", _SQL_OF_SAMPLES, "--results", "STORE")),
    "query_all": (f'`dlbench query "{_SQL_OF_ALL}"`', ("query", _SQL_OF_ALL, "--results", "STORE")),
    "compare": (
        "`dlbench compare STORE STORE`, one system of it with the other",
        ("compare", "STORE", "STORE", "--base-where", "half=0", "--target-where", "half=1"),
    ),
    "export_csv": ("`dlbench export --format csv STORE`", ("export", "--format", "csv", "STORE", "-o", "OUT.csv")),
    "export_json": ("`dlbench export --format json STORE`", ("export", "--format", "json", "STORE", "-o", "OUT.json")),
    "export_parquet": (
        "`dlbench export --format parquet STORE`",
        ("export", "--format", "parquet", "STORE", "-o", "OUT.parquet"),
    ),
    "export_public": (
        "`dlbench export --format parquet --public STORE`",
        ("export", "--format", "parquet", "--public", "STORE", "-o", "OUT-public.parquet"),
    ),
    **{
        f"export_{name}": (
            f"`dlbench export --format {name} STORE`",
            ("export", "--format", name, "STORE", "-o", f"OUT.{name}"),
        )
        for name in ("bencher", "prometheus", "junit", "mllog", "jube", "mlperf")
    },
    "report": ("`dlbench report STORE`", ("report", "STORE", "-o", "REPORT")),
}
#: The halves of a store by columns of it.
_HALVES = {"half=0": "system_key=fake0", "half=1": "system_key=fake1"}


def main() -> int:
    """Make the stores, then measure each stage of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STORES)}; default: all")
    parser.add_argument("--folder", type=Path, help="keeps the stores and the reports; default: a temporary one")
    parser.add_argument("--stages", help=f"of {','.join(STAGES)}; default: all")
    parser.add_argument("--write", action="store_true", help=f"keep the outcome in {DOC.relative_to(ROOT)}")
    parser.add_argument("--before", action="store_true", help="with --write: as the figures of an earlier version")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        return _stage(options.stage, options.folder)
    unknown = set(options.names) - set(STORES)
    if unknown:
        parser.error(f"no store is called {sorted(unknown)[0]!r}; there are {', '.join(STORES)}")
    stages = options.stages.split(",") if options.stages else list(STAGES)
    data = DATA["before" if options.before else "now"]
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.names or STORES:
            found = _measured(name, (options.folder or Path(temporary)) / name, stages)
            if options.write:
                kept = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {}
                kept[name] = kept.get(name, {}) | found
                data.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if options.write:
        DOC.write_text("\n".join(_document()) + "\n", encoding="utf-8")
    return 0


def make_store(folder: Path, store: Store) -> None:
    """Write the records: each a case of its own, so that a report has to show all of them."""
    from dlbench.results.parts import ONE_ATTEMPT_CODEC, open_part_writer

    folder.mkdir(parents=True)
    patterns = _patterns(store.systems, store.libraries)
    writer: pq.ParquetWriter | None = None
    for begin in range(0, store.records, CHUNK):
        rows = _rows(patterns, store, range(begin, min(begin + CHUNK, store.records)))
        if store.apart:
            for row in range(rows.num_rows):
                target = folder / f"{rows['attempt_id'][row]}.parquet"
                with open_part_writer(target, compression=ONE_ATTEMPT_CODEC) as part:
                    part.write_table(rows.slice(row, 1))
            continue
        writer = writer or pq.ParquetWriter(folder / "merged-fake.parquet", rows.schema, compression="zstd")
        writer.write_table(rows)
    if writer:
        writer.close()


def _patterns(num_systems: int, num_libraries: int) -> pa.Table:
    """One record for each system, network, mode and batch, still without samples."""
    from dlbench.results.records import Measurement, Record, System
    from dlbench.results.schema import to_table
    from dlbench.suites.case import Case

    records = []
    for number in range(num_systems):
        device = DEVICES[number]
        system = System(
            hostname=f"fake-{number}", cpu_model="a made-up CPU", cpu_cores=32, device_kind="cuda", device_name=device,
            torch_version="2.15.0",
            details={"libraries": [f"/opt/fake/lib/library-{i}.so" for i in range(num_libraries)]},
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
    noise = rng.normal(0, 0.01, counts.sum())
    if store.alike:
        noise = np.resize(noise[: sum(counts[: patterns.num_rows])], noise.size)
    steps = median_s * (1 + np.abs(noise))
    times = np.datetime64("2026-01-01T00:00:00", "ms") + 10_000 * place
    values: dict[str, Any] = {
        "attempt_id": [f"20260101T000000-{i:012x}" for i in numbers],
        "case_id": [f"{i:012x}" for i in numbers],
        "repeat": place // patterns.num_rows,
        "label": np.where(place // patterns.num_rows % 2, "second", "first"),
        "started_at": times,
        "finished_at": times + 9000,
        "step_s": _lists(steps, counts),
    }
    values |= {name: _lists(share * steps, counts) for name, share in zip(PHASES, (0.3, 0.6, 0.05), strict=True)}
    values |= {name: value * (1 + np.abs(rng.normal(0, 0.01, place.size))) for name, value in VARYING.items()}
    for name, column in values.items():
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(name), pa.array(column).cast(rows.schema.field(name).type))
    return rows


def _lists(values: np.ndarray, counts: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.concatenate(([0], np.cumsum(counts))).astype(np.int32), values)


def _measured(name: str, folder: Path, stages: list[str]) -> dict[str, Any]:
    """The figures of one store by stage; the store is made if it is not there yet."""
    store = STORES[name]
    if not folder.exists():
        make_store(folder / "store", store)
    size = sum(p.stat().st_size for p in (folder / "store").iterdir())
    print(f"{name}: {store.words}, {size / 1e6:.0f} MB", flush=True)
    found: dict[str, Any] = {"bytes": size}
    for stage in stages:
        cost = _run([sys.executable, __file__, "--stage", stage, "--folder", str(folder)])
        print(
            f"  {stage:14} {cost.wall_s:8.1f} s   CPU {cost.cpu_s:6.1f} s   peak {cost.peak_bytes / 1e9:5.2f} GB"
            f"   {cost.error}",
            flush=True,
        )
        found[stage] = dataclasses.asdict(cost)
    return found


@dataclass(frozen=True)
class Cost:
    """What a process and its children took."""

    wall_s: float
    cpu_s: float
    peak_bytes: int  # of the memory of all of them together, what they share counted once
    error: str = ""  # the last line on stderr of one that failed


def _run(argv: list[str]) -> Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    with tempfile.TemporaryFile("w+") as stderr:
        process = psutil.Popen(argv, stdout=subprocess.DEVNULL, stderr=stderr)
        peak, stopped = 0, False
        while process.poll() is None:
            looked_s = time.perf_counter()
            stopped = peak > MAX_BYTES or sum(map(_cpu_s, [process, *_children(process)])) > MAX_CPU_S
            if stopped:
                _stop(process)
            peak = max(peak, sum(map(_memory, [process, *_children(process)])))
            # Looking stops the processes for a moment; it must not slow down what is measured.
            time.sleep(max(0.1, 20 * (time.perf_counter() - looked_s)))
        wall_s = time.perf_counter() - began_s
        stderr.seek(0)
        last = (stderr.read().splitlines() or [""])[-1]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if stopped:
        return Cost(wall_s, cpu_s, peak, "stopped there")
    return Cost(wall_s, cpu_s, peak, last[:120] or f"status {process.returncode}" if process.returncode else "")


def _stop(process: psutil.Popen) -> None:
    for one in [*_children(process), process]:
        with contextlib.suppress(psutil.Error):
            one.kill()


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


def _cpu_s(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:2])
    except psutil.Error:
        return 0.0


def _aims(store: Store) -> str:
    limits = (store.limit_s and f"{store.limit_s:g} s", store.limit_bytes and f"{store.limit_bytes / 1e9:g} GB")
    return ", ".join(limit for limit in limits if limit)


def _stage(stage: str, folder: Path) -> int:
    """Do it, as `_run` measures from outside."""
    import dlbench
    from dlbench.cli import main as command
    from dlbench.report.analysis import content

    _, argv = STAGES[stage]
    if argv:
        paths = {"STORE": str(folder / "store"), "REPORT": str(folder / "report")} | _HALVES
        paths |= {name: str(folder / name) for name in argv if name.startswith("OUT")}
        return command([paths.get(word, word) for word in argv])
    sources = [folder / "store"]
    if stage == "read":
        content.read_content(sources)
    elif stage == "load":
        dlbench.load(sources)
    elif stage == "load_some":
        dlbench.load(sources, columns=["model", "mode", "batch_size", "status", "window_s", "step_s"])
    elif stage == "metrics":
        dlbench.metrics(sources)
    return 0


def _document() -> Iterator[str]:
    yield "# How long do commands take over large stores?"
    yield ""
    yield "Written by `benchmarks/experiments/big_store.py --write`; do not edit. Each line is a fresh process from its"
    yield (
        "start to its end. CPU time and peak memory are those of the process and its children together; memory that "
        "they share"
    )
    yield "counts once. `before` is the version without bulk intervals and large stores; `now` is this one."
    yield "A process that took more than 8 GB or 300 s of CPU was stopped. Other work ran on the same cores,"
    yield "so CPU time is more reliable than wall time. The CPU time of `report` is the sum of several processes."
    yield ""
    yield f"Measured on {os.cpu_count()} cores, Python {platform.python_version()}, pyarrow {pa.__version__}."
    before, now = (json.loads(d.read_text(encoding="utf-8")) if d.exists() else {} for d in DATA.values())
    for name, store in STORES.items():
        if name not in now and name not in before:
            continue
        yield ""
        yield f"## {store.words}, {(before | now)[name]['bytes'] / 1e6:.0f} MB"
        yield ""
        if _aims(store):
            yield f"Aim for each command: {_aims(store)}."
            yield ""
        yield "| what | time before | peak before | time now | CPU now | peak now |"
        yield "|---|---:|---:|---:|---:|---:|"
        for stage, (words, _) in STAGES.items():
            costs = [Cost(**kept[name][stage]) if stage in kept.get(name, {}) else None for kept in (before, now)]
            if any(costs):
                yield f"| {words} | {_said(costs[0], cpu=False)} | {_said(costs[1], cpu=True)} |"


def _said(cost: Cost | None, cpu: bool) -> str:
    if cost is None:
        return " | ".join(["—"] * (3 if cpu else 2))
    end = f" ({cost.error})" if cost.error else ""
    middle = [f"{cost.cpu_s:.1f} s"] if cpu else []
    return " | ".join([f"{cost.wall_s:.1f} s{end}", *middle, f"{cost.peak_bytes / 1e9:.2f} GB"])


if __name__ == "__main__":
    sys.exit(main())
