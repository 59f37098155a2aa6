"""Loader figures against a bare loop: dlbench's loader and a usual DataLoader over torchvision's ImageFolder.

    python benchmarks/experiments/loader.py [--pairs 8] [--write]

Both load the same files in the same order, with the same crops, flips and normalisation, in turns, in random order
within each pair. In each turn the processes of the loader start anew, and the prefetched batches are used up before the
clock starts. The ratio of a pair is that of the times per batch; the figure is their median, with an interval of at
least 95 % by order statistics, since a moment of other work on the machine makes single pairs useless.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "experiments" / "loader.md"
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.utils.data import DataLoader, DistributedSampler  # noqa: E402
from torchvision.datasets import ImageFolder  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from dlbench.data.loaders import open_batches  # noqa: E402
from dlbench.data.photographs import photograph_folder  # noqa: E402
from dlbench.models import BuiltModel, build_on_meta  # noqa: E402
from dlbench.suites.case import Case, Protocol  # noqa: E402
from dlbench.worker.loader_limits import ALONE_S, MIN_BATCHES, measure_loader_alone  # noqa: E402

_BATCH = 8
_WANTED = 0.03


def main() -> int:
    """Measure each number of processes; print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"also write {DOC.relative_to(ROOT)}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _network()  # outside of the turns
    photograph_folder()
    order = random.Random(options.seed)
    rows = [_row(int(workers), options.pairs, order) for workers in options.workers.split(",")]
    text = _document(rows, options.pairs, options.seed)
    print(text)
    if options.write:
        DOC.write_text(text)
    return 0


@dataclass(frozen=True)
class Turn:
    """One turn of a loader: its time per batch, and the CPU time per batch of all its processes [s]."""

    batch_s: float
    cpu_s: float


@dataclass(frozen=True)
class Row:
    """Medians of both, and the ratios dlbench / bare as median with its interval: of wall time and of CPU time."""

    workers: int
    bare: Turn
    own: Turn
    wall: tuple[float, float, float]
    cpu: tuple[float, float, float]


def _row(workers: int, num_pairs: int, order: random.Random) -> Row:
    ways: list[tuple[str, Callable[[int, int], tuple[float, int]]]] = [("own", _own), ("bare", _bare)]
    turns: dict[str, list[Turn]] = {"own": [], "bare": []}
    for pair in range(1 + num_pairs):  # the first warms caches up
        order.shuffle(ways)
        for name, measure in ways:
            before_s = _cpu_s()
            batch_s, count = measure(workers, pair)
            turns[name].append(Turn(batch_s, (_cpu_s() - before_s) / count))
    both = list(zip(turns["own"], turns["bare"], strict=True))[1:]
    bare, own = (
        Turn(*(statistics.median(getattr(turn, figure) for turn in turns[name][1:]) for figure in ("batch_s", "cpu_s")))
        for name in ("bare", "own")
    )
    wall, cpu = (_median([getattr(a, figure) / getattr(b, figure) for a, b in both]) for figure in ("batch_s", "cpu_s"))
    return Row(workers, bare, own, wall, cpu)


def _cpu_s() -> float:
    """CPU time of this process and of its ended children [s]."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _median(ratios: list[float]) -> tuple[float, float, float]:
    """The median, and its interval by order statistics: the narrowest that holds it with at least 95 %."""
    n = len(ratios)
    below, rank = 1, 0  # of 2 ** n equally likely outcomes so many have at most `rank` ratios below the median
    while 2 * below <= 0.05 * 2**n:
        rank += 1
        below += math.comb(n, rank)
    ordered = sorted(ratios)
    return statistics.median(ratios), ordered[max(rank - 1, 0)], ordered[min(n - rank, n - 1)]


@cache
def _network() -> BuiltModel:
    return build_on_meta("resnet50")


def _own(workers: int, _: int) -> tuple[float, int]:
    case = Case("resnet50", data="jpeg", batch_size=_BATCH, loader_workers=workers)
    loader = open_batches(case, _network())
    found = measure_loader_alone(loader)["loader_batch_s"]
    count = loader.num_batches + _num_warm(workers)
    loader.close()
    assert found is not None
    return found, count


def _bare(workers: int, seed: int) -> tuple[float, int]:
    transform = v2.Compose(
        [
            *(v2.PILToTensor(), v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()),
            *(v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ]
    )
    torch.manual_seed(seed)
    images = ImageFolder(str(photograph_folder()), transform)
    order: Any = DistributedSampler(images, 1, 0, seed=Protocol().seed, drop_last=True)  # that of dlbench's loader
    loader: Any = DataLoader(images, _BATCH, sampler=order, num_workers=workers, drop_last=True)
    batches = iter(loader)
    for _ in range(_num_warm(workers)):
        next(batches)
    count = 0
    began_s = time.perf_counter()
    while count < max(MIN_BATCHES, 2 * workers) or time.perf_counter() - began_s < ALONE_S:
        next(batches)
        count += 1
    batch_s = (time.perf_counter() - began_s) / count
    del batches  # its processes end here
    return batch_s, count + _num_warm(workers)


def _num_warm(workers: int) -> int:
    """Batches before the clock starts, as in `measure_loader_alone`."""
    return 3 * workers if workers > 1 else 1


def _document(rows: list[Row], num_pairs: int, seed: int) -> str:
    lines = [
        "# Loader figures against a bare DataLoader loop",
        "",
        f"`python benchmarks/experiments/loader.py --pairs {num_pairs} --seed {seed} --write`: batches of {_BATCH} "
        "images for ResNet-50 from the embedded set of JPEG files. dlbench's loader and a usual loop (DataLoader over "
        "torchvision's ImageFolder, the same crops, flips and normalisation) take turns of "
        f"{ALONE_S:g} s in one process, in random order within a pair, with new processes and equal files each turn. "
        "The ratio dlbench / bare is the median over the pairs, with its interval of at least 95 % (order statistics). "
        "CPU time is that of all processes of a turn: other programs on the machine change it less. "
        f"Wanted: 1.00 within {_WANTED:.0%}.",
        "",
        "| processes | bare [ms/batch] | dlbench [ms/batch] | time, ratio | CPU time, ratio |",
        "|---:|---:|---:|---|---|",
    ]
    for row in rows:
        ratios = " | ".join(f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in (row.wall, row.cpu))
        lines.append(f"| {row.workers} | {1e3 * row.bare.batch_s:.1f} | {1e3 * row.own.batch_s:.1f} | {ratios} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
