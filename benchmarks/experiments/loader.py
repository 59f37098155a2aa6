"""Loader figures against a bare loop: dlbench's loader and a usual DataLoader over torchvision's ImageFolder.

    python benchmarks/experiments/loader.py [--pairs 8] [--write]

Both load the same files with the same crops, flips and normalisation, in turns, in random order within each pair. In
each turn the processes of the loader start anew, and the prefetched batches are used up before the clock starts. The
ratio of a pair is that of the times per batch; the figure is their mean, with its 95 % interval (Student's t).
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "experiments" / "loader.md"
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchvision.datasets import ImageFolder  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from dlbench.data.loaders import open_batches  # noqa: E402
from dlbench.data.photographs import photographs  # noqa: E402
from dlbench.models import build_on_meta  # noqa: E402
from dlbench.stats import student_quantile  # noqa: E402
from dlbench.suites.case import Case  # noqa: E402
from dlbench.worker.loading import ALONE_S, MIN_BATCHES, loader_alone  # noqa: E402

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
    order = random.Random(options.seed)
    rows = [_row(int(workers), options.pairs, order) for workers in options.workers.split(",")]
    text = _document(rows, options.pairs, options.seed)
    print(text)
    if options.write:
        DOC.write_text(text)
    return 0


def _row(workers: int, num_pairs: int, order: random.Random) -> tuple[int, float, float, float, float, float]:
    ways = [("dlbench", _dlbench), ("bare", _bare)]
    times: dict[str, list[float]] = {"dlbench": [], "bare": []}
    for pair in range(num_pairs):
        order.shuffle(ways)
        for name, measure in ways:
            times[name].append(measure(workers, pair))
    ratios = [a / b for a, b in zip(times["dlbench"], times["bare"], strict=True)]
    mean = statistics.mean(ratios)
    half = student_quantile(0.975, num_pairs - 1) * statistics.stdev(ratios) / math.sqrt(num_pairs)
    bare_s, own_s = (statistics.median(times[name]) for name in ("bare", "dlbench"))
    return workers, bare_s, own_s, mean, mean - half, mean + half


def _dlbench(workers: int, _: int) -> float:
    case = Case("resnet50", data="jpeg", batch_size=_BATCH, loader_workers=workers)
    loader = open_batches(case, build_on_meta("resnet50"))
    found = loader_alone(loader)["loader_batch_s"]
    loader.close()
    assert found is not None
    return found


def _bare(workers: int, seed: int) -> float:
    transform = v2.Compose(
        [
            *(v2.PILToTensor(), v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()),
            *(v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ]
    )
    torch.manual_seed(seed)
    loader: Any = DataLoader(
        ImageFolder(str(photographs()), transform), _BATCH, shuffle=True, num_workers=workers, drop_last=True
    )
    batches = iter(loader)
    for _ in range(3 * workers if workers > 1 else 1):
        next(batches)
    count = 0
    began_s = time.perf_counter()
    while count < max(MIN_BATCHES, 2 * workers) or time.perf_counter() - began_s < ALONE_S:
        next(batches)
        count += 1
    return (time.perf_counter() - began_s) / count


def _document(rows: list[tuple[int, float, float, float, float, float]], num_pairs: int, seed: int) -> str:
    lines = [
        "# Loader figures against a bare DataLoader loop",
        "",
        f"`python benchmarks/experiments/loader.py --pairs {num_pairs} --seed {seed} --write`: batches of {_BATCH} "
        "images for ResNet-50 from the embedded set of JPEG files. dlbench's loader and a usual loop (DataLoader over "
        "torchvision's ImageFolder, the same crops, flips and normalisation) take turns of "
        f"{ALONE_S:g} s in one process, in random order within a pair, with new processes each turn. "
        "The ratio is the mean over the pairs, with its 95 % interval. Wanted: "
        f"1.00 within {_WANTED:.0%}.",
        "",
        "| processes | bare [ms/batch] | dlbench [ms/batch] | dlbench / bare | 95 % interval | within 3 % |",
        "|---:|---:|---:|---:|---|---|",
    ]
    for workers, bare_s, own_s, ratio, low, high in rows:
        within = "yes" if abs(ratio - 1) <= _WANTED else "no"
        figures = (
            f"{workers} | {1e3 * bare_s:.1f} | {1e3 * own_s:.1f} | {ratio:.3f} | {low:.3f} to {high:.3f} | {within}"
        )
        lines.append(f"| {figures} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
