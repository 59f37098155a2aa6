"""How long a store of 100 000 records takes to read and to report, and how much memory: each in a fresh process.

    python benchmarks/experiments/big_store.py [--records 100000] [--folder FOLDER]

The records are made up (few samples each), spread over models, batches and repeats, and merged into one Parquet file.
The aim is 10 s and 1 GB for reading and reporting together.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_STEPS = 30
_STAGES = ("load", "derive", "page")


def main() -> int:
    """Make the store, then measure each stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keeps the store and the report; default: a temporary one")
    parser.add_argument("--stage", choices=_STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        return _measure(options.stage, options.folder)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        part = folder / "store" / "merged-fake.parquet"
        if not part.exists():
            make_store(part, options.records)
        print(f"{options.records} records, {part.stat().st_size / 1e6:.0f} MB")
        for stage in _STAGES:
            argv = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
            subprocess.run(argv, check=True)
    return 0


def make_store(part: Path, num_records: int) -> None:
    """One row per record: a few made-up rows of the current schema, repeated with other names, times and samples."""
    from dlbench.results.records import Measurement, Record, System
    from dlbench.results.schema import to_table
    from dlbench.spec.case import Case

    rng = np.random.default_rng(0)
    steps = tuple(float(x) for x in 0.01 * (1 + np.abs(rng.normal(0, 0.01, NUM_STEPS))))
    models = ("lenet5", "alexnet", "overfeat_fast", "vgg16", "googlenet", "resnet50")
    patterns = []
    for model in models:
        for batch in (1, 2, 4, 8, 16, 32, 64, 128):
            case = Case(model, batch_size=batch)
            found = Measurement(
                step_s=steps,
                forward_s=steps,
                backward_s=steps,
                optimizer_s=steps,
                window_s=sum(steps),
                device_window_s=sum(steps),
                clock="host",
                stop_reason="target",
                forward_macs=10**9,
                forward_flop=2 * 10**9,
                backward_flop=4 * 10**9,
            )
            system = System(hostname="fake", cpu_model="a made-up CPU", cpu_cores=2)
            record = Record(
                "a", case.id, "big", 1, case.to_dict(), "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:10+00:00",
                "ok", wall_s=10.0, system_key="fake", ranks=((system, found),),
            )  # fmt: skip
            patterns.append(to_table([record]))
    pattern = pa.concat_tables(patterns)
    rows = pattern.take(pa.array(np.arange(num_records) % pattern.num_rows))
    names = pa.array([f"20260101T000000-{i:012x}" for i in range(num_records)])
    rows = rows.set_column(rows.schema.get_field_index("attempt_id"), rows.schema.field("attempt_id"), names)
    # Each repeat is a case of its own, so that the report has to show all of them.
    repeats = pa.array(np.arange(num_records) // pattern.num_rows).cast(rows.schema.field("repeat").type)
    rows = rows.set_column(rows.schema.get_field_index("repeat"), rows.schema.field("repeat"), repeats)
    cases = pa.array([f"{i:012x}" for i in range(num_records)])
    rows = rows.set_column(rows.schema.get_field_index("case_id"), rows.schema.field("case_id"), cases)
    part.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, part, compression="zstd")


def _measure(stage: str, folder: Path) -> int:
    import dlbench
    from dlbench.report import derive, page

    began_s = time.perf_counter()
    if stage == "page":
        page.build([folder / "store"], folder / "report")
    else:
        rows = dlbench.load(folder / "store")
        if stage == "derive":
            derive.tidy(rows)
    seconds = time.perf_counter() - began_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{stage:8} {seconds:8.1f} s   peak {peak / 1e9:6.2f} GB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
