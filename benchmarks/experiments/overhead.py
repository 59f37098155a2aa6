"""What measuring costs: the same step by dlbench and by a bare PyTorch loop, and where the time of a campaign goes.

    make overhead                            (or: python benchmarks/experiments/overhead.py [--write])
    python benchmarks/experiments/overhead.py --results FOLDER      of a store alone: where its time went

Both loops step the same workload in one process, in blocks of 0.1 s or one step, in random order within each pair of
blocks; the ratio of a pair is that of the blocks' times. A process gives the median of its pairs, and it gives much the
same again for as long as it lives: where its memory happens to lie makes steps of a millisecond differ by some tenths
of a percent. So the interval is that of the mean over fresh processes (Student's t). A machine must be quiet for 1 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "experiments" / "overhead.md"
#: The shorter a block, the less the machine changes within a pair.
_BLOCK_S = 0.1
#: Garbage is collected this often [s], outside of the blocks; the steps behind it, which find cold caches, are in none.
_COLLECT_S = 2.0
_COLD_STEPS = 2
#: A process measures pairs for so long [s], and never fewer than these.
_PROCESS_S = 10.0
_MIN_PAIRS = 10
#: Half the width of the interval at which a network has been measured long enough, in no fewer processes than these.
_WANTED_WIDTH = 0.001
_MIN_PROCESSES = 8


def main() -> int:
    """Run both parts and print them as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases",
        default="lenet5:1,lenet5:16,resnet50:1,lenet5:16:inference",
        help="networks, each with its batch, and its mode unless it is training",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=720.0, help="no process of a network starts later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", metavar="NAME:BATCH:MODE", help=argparse.SUPPRESS)
    parser.add_argument("--results", help="take the campaign's times from this store instead of an own run")
    parser.add_argument("--write", action="store_true", help=f"also write {DOC.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.one:
        [(model, batch, mode)] = _cases(options.one)
        print(json.dumps(measure_ratios(model, batch, mode, options.device, options.seconds, options.seed)))
        return 0
    parts = ["# What measuring costs", ""]
    if not options.results or options.write:
        parts += _loops(options)
    if options.results:
        parts += _campaign(options.results)
    else:
        with tempfile.TemporaryDirectory() as folder:
            parts += _campaign(_own_run(options, Path(folder)))
    text = "\n".join(parts) + "\n"
    print(text, end="")
    if options.write:
        DOC.parent.mkdir(parents=True, exist_ok=True)
        DOC.write_text(text, encoding="utf-8")
    return 0


def _loops(options: argparse.Namespace) -> list[str]:
    """The ratio of dlbench's step time to that of the bare loop, per network."""
    lines = [
        "## The same step in dlbench's loop and in a bare one",
        "",
        f"Fresh processes run for {_PROCESS_S:g} s each, in pairs of blocks of at least {_BLOCK_S:g} s. The "
        f"measurement ends when the interval is {200 * _WANTED_WIDTH:g} % wide or after {options.seconds:g} s (`--seed "
        f"{options.seed}`). "
        "dlbench's loop opens a window, records time stamps and reads them; the bare loop only runs steps. For both, "
        "the time around the block is measured. The process keeps freed memory, as in every case. The stopping rule is "
        "not evaluated in such a short window. In a real window it is evaluated from time to time; its time falls on "
        "single steps and does not change the median. Each process gives the median ratio of its pairs. The table "
        "shows the mean over the processes with its interval (Student's t), and the lowest and highest process. Aim: "
        "1.00 within 1 %.",
        "",
        "| network | mode | batch | bare step [ms] | processes | pairs | dlbench / bare | 95 % interval | within 1 % "
        "| single processes | more [µs] |",
        "|---|---|---:|---:|---:|---:|---:|---|---|---|---:|",
    ]
    for model, batch, mode in _cases(options.cases):
        bare_s, pairs, ratios = measure_processes(model, batch, mode, options)
        (low, high), ratio = mean_limits(ratios), statistics.fmean(ratios)
        lines.append(
            f"| {model} | {mode} | {batch} | {bare_s * 1e3:.3f} | {len(ratios)} | {pairs} | {ratio:.4f} "
            f"| {low:.4f} to {high:.4f} | {_within(low, high)} | {min(ratios):.4f} to {max(ratios):.4f} "
            f"| {(ratio - 1) * bare_s * 1e6:+.0f} |"
        )
    return [*lines, ""]


def _cases(text: str) -> list[tuple[str, int, str]]:
    """Network, batch and mode of each."""
    parts = [case.split(":") for case in text.split(",")]
    return [(name, int(batch), *(mode or ["training"])) for name, batch, *mode in parts]


def measure_processes(model: str, batch: int, mode: str, options: argparse.Namespace) -> tuple[float, int, list[float]]:
    """Median step time of the bare loop [s], number of pairs, and the ratio that each process found."""
    argv = [sys.executable, __file__, "--one", f"{model}:{batch}:{mode}", "--device", options.device]
    argv += ["--seconds", str(_PROCESS_S)]
    bare_s, pairs, ratios = [], 0, []
    ends_at = time.perf_counter() + options.seconds
    while len(ratios) < _MIN_PROCESSES or (time.perf_counter() < ends_at and not _narrow(ratios)):
        seed = str(options.seed + len(ratios))
        done = subprocess.run([*argv, "--seed", seed], check=True, stdout=subprocess.PIPE, cwd=ROOT)
        found_s, found = json.loads(done.stdout)
        bare_s.append(found_s)
        pairs += len(found)
        ratios.append(statistics.median(found))
        print(f"{model}, {mode}, batch {batch}, process {len(ratios)}: {ratios[-1]:.4f}", file=sys.stderr, flush=True)
    return statistics.median(bare_s), pairs, ratios


def _narrow(ratios: list[float]) -> bool:
    low, high = mean_limits(ratios)
    return high - low <= 2 * _WANTED_WIDTH


def mean_limits(values: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of independent, roughly normal values (Student's t)."""
    from scipy import stats

    reach = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - float(reach), mean + float(reach)


def _within(low: float, high: float) -> str:
    """Whether the interval lies within 1 % of one, beyond it, or tells neither."""
    if low >= 0.99 and high <= 1.01:
        return "yes"
    return "no" if low > 1.01 or high < 0.99 else "undecided"


def measure_ratios(
    model: str, batch: int, mode: str, device_name: str, seconds: float, seed: int
) -> tuple[float, list[float]]:
    """Median step time of the bare loop [s], and per pair the time of dlbench's block over the bare one's."""
    import torch

    from dlbench.heap import keep_freed_memory
    from dlbench.suites.case import Case, Protocol
    from dlbench.tasks.classification import loss as training_loss
    from dlbench.worker.devices import find_device
    from dlbench.worker.ranks.context import RankContext
    from dlbench.worker.stopping import WINDOW_GROWTH
    from dlbench.worker.timing import Clock, CudaClock, HostClock, no_garbage_collection, run_window
    from dlbench.worker.workload import build_workload

    # As in a worker. Otherwise it hangs on what else lies on the heap whether a step takes memory from the kernel anew.
    keep_freed_memory()
    case = Case(model, mode, batch_size=batch, device=device_name, protocol=Protocol(min_steps=20))
    place = RankContext()
    device = find_device(case, place.local_rank)
    case = dataclasses.replace(case, device=device.type)
    clock: Clock = CudaClock() if device.type == "cuda" else HostClock()
    workload = build_workload(case, device)
    (images,), labels = next(workload.batches)
    module, optimizer = workload.module, workload.optimizer

    def bare_training(count: int) -> None:
        assert optimizer is not None
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            output = module(images)
            loss = training_loss(output, labels)
            loss.backward()
            optimizer.step()

    def bare_inference(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                module(images)

    def ours(count: int) -> None:
        with workload.inference_context():
            run_window(
                workload.step,
                clock,
                lambda steps, elapsed_s: None,
                step_estimate_s=estimate_s,
                first_look_s=0.0,
                cap_s=1e6,
                max_steps=count,
                growth=WINDOW_GROWTH,
            )
        # The bare loop, too, ends without the graph of its last step, and does not begin with one of ours.
        workload.output = workload.loss = None

    def time_of(loop: Callable[[int], None], count: int) -> float:
        clock.synchronize()
        began_s = time.perf_counter()
        loop(count)
        clock.synchronize()
        return time.perf_counter() - began_s

    bare = bare_training if mode == "training" else bare_inference
    bare(10)
    estimate_s = min(time_of(bare, 10) for _ in range(3)) / 10
    count = math.ceil(_BLOCK_S / estimate_s)
    chance = random.Random(seed)
    loops = [bare, ours]
    bare_times, ratios = [], []
    ends_at = time.perf_counter() + seconds
    while len(ratios) < _MIN_PAIRS or time.perf_counter() < ends_at:
        with no_garbage_collection():
            bare(_COLD_STEPS)
            collect_at = time.perf_counter() + _COLLECT_S
            while time.perf_counter() < collect_at:
                chance.shuffle(loops)
                found_s = {loop: time_of(loop, count) for loop in loops}
                bare_times.append(found_s[bare] / count)
                ratios.append(found_s[ours] / found_s[bare])
    return statistics.median(bare_times), ratios


def _own_run(options: argparse.Namespace, folder: Path) -> str:
    """A short campaign with the usual protocol; gives its store."""
    suite = folder / "overhead.toml"
    cases = _cases(options.cases)
    models = ", ".join(f'"{name}"' for name in dict.fromkeys(name for name, _, _ in cases))
    batch = min(batch for _, batch, _ in cases)
    suite.write_text(f'name = "overhead"\n[axes]\nmodel = [{models}]\nbatch_size = {batch}\n')
    argv = [sys.executable, "-m", "dlbench", "run", str(suite), "--results", str(folder / "results")]
    argv += ["-P", f"device={options.device}"]
    subprocess.run(argv, check=False, stdout=sys.stderr, cwd=ROOT)
    return str(folder / "results")


def _campaign(results: str) -> list[str]:
    """Where the wall time of a store's attempts went."""
    import dlbench

    rows = dlbench.load(results)
    rows = rows[rows["status"].isin(("ok", "unstable")) & rows["window_s"].notna() & rows["wall_s"].notna()]
    rows = rows.drop_duplicates("attempt_id")
    lines = ["## Where a campaign's time goes", ""]
    if rows.empty:
        return [*lines, "No measured attempt in the store."]
    startup = rows["import_s"] + rows["build_s"] + rows["first_step_s"]
    after_first = rows["warmup_s"] - rows["first_step_s"]
    rest = rows["wall_s"] - rows["window_s"] - startup - after_first

    def spread(values: Any) -> str:
        low, middle, high = (float(values.quantile(q)) for q in (0.0, 0.5, 1.0))
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    wall = float(rows["wall_s"].sum())
    reached = rows[rows["stop_reason"] == "target"]
    lines += [
        f"{len(rows)} attempts, {wall:.0f} s. Median over attempts, with minimum and maximum.",
        "",
        "| part | seconds per attempt | share of all wall time |",
        "|---|---|---:|",
    ]
    for name, values in (
        ("import, build, first step", startup),
        ("rest of the warm-up", after_first),
        ("window", rows["window_s"]),
        ("process, idle power, memory, FLOP, writing", rest),
    ):
        lines.append(f"| {name} | {spread(values)} | {100 * float(values.sum()) / wall:.1f} % |")
    lines += ["", f"{len(reached)} of {len(rows)} reached their confidence target"]
    if len(reached):
        lines[-1] += f", after {spread(reached['window_s'])} s of window"
    lines[-1] += "."
    return lines


if __name__ == "__main__":
    sys.exit(main())
