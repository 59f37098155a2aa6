"""Does an interval from three processes hold what a rerun gives? Fresh processes of three networks, in turns.

    python benchmarks/experiments/reruns.py --minutes 40   # continues docs/experiments/data/reruns.parquet
    python benchmarks/experiments/reruns.py --page         # writes docs/experiments/reruns.md from what is there

A round has one process of each network started afresh, and one forked from a parent that has imported torch and built
nothing; all in random order. Each process builds its network, warms up and measures one window of about a second with
one thread. Run it as `nice -n -15 taskset -c 1 python ...` where other work shares the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dlbench.suites.case import Case, Protocol  # noqa: E402

DATA = ROOT / "docs" / "experiments" / "data" / "reruns.parquet"
PROTOCOL = Protocol(
    warmup_min_steps=2, warmup_min_time_s=0.3, warmup_max_time_s=1.5, min_time_s=1.0, max_time_s=1.2,
    min_steps=5, energy="none", idle_time_s=0.0,
)  # fmt: skip
CASES = (
    Case("lenet5", "training", batch_size=64, protocol=PROTOCOL),
    Case("squeezenet1_1", "inference", batch_size=1, protocol=PROTOCOL),
    Case("resnet18", "inference", batch_size=1, protocol=PROTOCOL),
)
KINDS = ("fresh", "forked")
SEED = 20261128


# ---- one process -----------------------------------------------------------------------------------------------------


def measured(index: int) -> dict[str, object]:
    """The step times [s] of one window of a case, in this process."""
    import torch

    from dlbench.worker.measure import measure
    from dlbench.worker.ranks.context import RankContext

    torch.set_num_threads(1)
    ((_, found),) = measure(CASES[index], RankContext()).ranks
    return {"step_s": found.step_s, "warmup_step_s": found.warmup_step_s}


def fresh(index: int) -> dict[str, object]:
    """A case measured in a process started afresh."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--work", str(index)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": time.monotonic() - began}


class Parent:
    """A process that has imported all it needs; each case is measured in a child that it forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--parent"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip

    def forked(self, index: int) -> dict[str, object]:
        """A case measured in a child."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        began = time.monotonic()
        self._process.stdin.write(f"{index}\n")
        self._process.stdin.flush()
        return {**json.loads(self._process.stdout.readline()), "wall_s": time.monotonic() - began}

    def close(self) -> None:
        """End the parent."""
        self._process.communicate(timeout=30)


def serve() -> None:
    """The parent's side: fork a child for each line on stdin."""
    import torch  # noqa: F401  # nothing of dlbench's worker: it ends children that it finds forked
    import torchvision  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            print(json.dumps(measured(int(line))), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


# ---- collecting ------------------------------------------------------------------------------------------------------


def collect(minutes: float, kinds: Sequence[str]) -> None:
    """Measure rounds until the time is used up; each is kept as soon as it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(DATA).to_pylist() if DATA.exists() else []
    number = 1 + max((row["round"] for row in rows), default=-1)
    parent, until = Parent(), time.monotonic() + 60 * minutes
    try:
        while time.monotonic() < until:
            turns = [(index, kind) for index in range(len(CASES)) for kind in kinds]
            random.Random(f"{SEED}/{number}").shuffle(turns)
            for index, kind in turns:
                at = time.time()
                found = fresh(index) if kind == "fresh" else parent.forked(index)
                row = {"round": number, "case": index, "model": CASES[index].model, "kind": kind, "started_at": at}
                rows.append({**row, "load": os.getloadavg()[0], **found})
            pq.write_table(pa.Table.from_pylist(rows), DATA, compression="zstd")
            print(f"round {number}:", *(f"{row['wall_s']:.1f} s" for row in rows[-len(turns) :]), flush=True)
            number += 1
    finally:
        parent.close()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--work", type=int)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--parent", action="store_true")
    options = parser.parse_args()
    if options.work is not None:
        print(json.dumps(measured(options.work)))
    elif options.parent:
        serve()
    else:
        if options.minutes:
            collect(options.minutes, options.kinds)
        if options.page:
            from benchmarks.experiments import rerun_coverage

            rerun_coverage.PAGE.write_text(rerun_coverage.page(), encoding="utf-8")
