"""What each lever gives on a CPU: two settings of one network in turns, the ratio of their step times.

    python benchmarks/experiments/levers.py --write          # the table into docs/experiments/levers.md

Both settings live in one process, and blocks of steps alternate, so that other load falls on both alike. What concerns
a whole process (the heap of the C library, denormals in all its threads) alternates fresh processes. An interval
is that of the mean of the logarithms of the ratios of neighbouring blocks, by Student's t, at 95 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from scipy.stats import t as student

from dlbench.heap import keep_freed_memory
from dlbench.suites.case import Case
from dlbench.table import Column, Table, render
from dlbench.worker.workload import Workload, build_workload

DOCS = Path(__file__).parents[2] / "docs" / "experiments" / "levers.md"
MARKS = "<!-- table -->\n", "<!-- end -->\n"
ROUNDS, BLOCK_S, PROCESS_PAIRS = 12, 0.25, 5
CPU, THREADS = torch.device("cpu"), torch.get_num_threads()
#: Networks, with the levers tried on them. The process has the threads of PyTorch's choice.
CASES: dict[str, tuple[Case, tuple[str, ...]]] = {
    "LeNet-5, training": (
        Case("lenet5", batch_size=64),
        (
            *("threads=1", "memory_format=channels_last", "precision=amp_bf16", "precision=bf16"),
            *("optimizer_impl=foreach", "optimizer_impl=fused", "compile=default"),
        ),
    ),
    "ResNet-50, training": (
        Case("resnet50", batch_size=4),
        (
            *("threads=1", "memory_format=channels_last", "precision=amp_bf16", "precision=bf16"),
            *("optimizer_impl=foreach", "optimizer_impl=fused"),
        ),
    ),
    "ResNet-50, inference": (
        Case("resnet50", "inference", batch_size=4),
        (
            *("threads=1", "memory_format=channels_last", "precision=amp_bf16", "precision=bf16"),
            "fold_batch_norm=on",
        ),
    ),
}
#: Networks with levers of a whole process.
PROCESSES: dict[str, tuple[Case, tuple[str, ...]]] = {
    "MobileNetV3, inference": (
        Case("torchvision:mobilenet_v3_large", "inference", batch_size=1),
        ("heap=keep",),
    ),
    "LeNet-5, training": (Case("lenet5", batch_size=64), ("heap=keep", "flush_denormals=on")),
}


def changed(case: Case, lever: str) -> Case:
    """The case with `axis=value`."""
    axis, _, value = lever.partition("=")
    return dataclasses.replace(case, **{axis: int(value) if isinstance(getattr(case, axis), int) else value})


def block(workload: Workload, seconds: float) -> float:
    """Mean time of a step [s] over a block of steps."""
    assert workload.settings is not None
    workload.settings.apply()
    with workload.inference_context():
        began = now = time.perf_counter()
        steps = 0
        while now - began < seconds or not steps:
            workload.step()
            steps += 1
            now = time.perf_counter()
    return (now - began) / steps


def ratios(case: Case, lever: str) -> Iterator[float]:
    """Yield the step time of the plain setting over that of the lever, in turns."""
    torch.set_num_threads(THREADS)
    plain, other = build_workload(case, CPU), build_workload(changed(case, lever), CPU)
    for workload in (plain, other, plain, other):
        block(workload, 4 * BLOCK_S)  # warm-up
    for number in range(ROUNDS):
        pair = [plain, other] if number % 2 else [other, plain]
        times = {id(workload): block(workload, BLOCK_S) for workload in pair}
        yield times[id(plain)] / times[id(other)]


def process_ratios(name: str, lever: str) -> Iterator[float]:
    """Yield the step time of the plain setting over that of the lever, in fresh processes in turns."""
    for number in range(PROCESS_PAIRS):
        pair = ("plain", lever) if number % 2 else (lever, "plain")
        times = {setting: _in_process(name, setting) for setting in pair}
        yield times["plain"] / times[lever]


def _in_process(name: str, setting: str) -> float:
    argv = [sys.executable, __file__, "--process", name, setting]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def one_process(name: str, setting: str) -> float:
    """Median time of a step [s] in this process, with the heap of the C library as a plain script has it."""
    case, _ = PROCESSES[name]
    if setting == "heap=keep":
        keep_freed_memory()
    elif setting != "plain":
        case = changed(case, setting)
    workload = build_workload(case, CPU)
    block(workload, 1.0)
    return statistics.median(block(workload, 0.1) for _ in range(20))


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean ratio and the ends of its interval."""
    logs = [math.log(value) for value in values]
    mean = statistics.fmean(logs)
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def main() -> None:
    """Measure and print the table; write it into the page with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCS.name}")
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--process", nargs=2, metavar=("NETWORK", "SETTING"), help="measure one process")
    options = parser.parse_args()
    if options.process:
        print(one_process(*options.process))
        return
    rows = []

    def measure(name: str, setting: str, lever: str, found: Callable[[], Iterator[float]]) -> None:
        try:
            middle, low, high = interval(list(found()))
            rows.append([name, setting, lever, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"])
        except Exception as error:  # a lever may not work here, such as a compiler that is missing
            rows.append([name, setting, lever, "-", (str(error).splitlines() or [type(error).__name__])[0][:80]])
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)

    for group, found in ((CASES, ratios), (PROCESSES, process_ratios)):
        for name, (case, levers) in group.items():
            what = f"fp32, batch {case.batch_size}, {THREADS} threads"
            for lever in levers if options.only in name else ():
                first = case if group is CASES else name
                measure(name, what, lever, partial(found, first, lever))
    columns = [Column("network", "Network"), Column("setting", "Plain setting"), Column("lever", "Lever")]
    columns += [Column("ratio", "Times as fast"), Column("interval", "95 % interval")]
    text = render(Table(columns, rows), "markdown")
    print(text)
    if options.write:
        page = DOCS.read_text(encoding="utf-8")
        before, _, rest = page.partition(MARKS[0])
        DOCS.write_text(f"{before}{MARKS[0]}{text}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
