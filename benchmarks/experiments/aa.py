"""Does `dlbench ab` call equal things equal, and a slowdown of 3 % slower? Measured here, in fresh processes.

    python benchmarks/experiments/aa.py --minutes 25   # goes on from what docs/experiments/data/aa.parquet holds
    python benchmarks/experiments/aa.py --page         # writes docs/experiments/aa.md again from what is there

A round of a case is three processes in random order: the network, the same network once more, and the network made 3 %
slower by a busy wait in each step (`benchmarks/experiments/slow.py`). Rounds of both cases alternate. Each process
measures one case, once, with `dlbench.worker.measure.measure`, as `python -m dlbench.worker` does, in a short window.
Importing torch takes longer than that window, so the processes of two rounds are started together and import at the
same time; then each is given its turn, one at a time, while the others are blocked in a read. They compute with one
thread unless --threads says otherwise, which leaves a core of two to the system and to this script.

Run it on a quiet machine: what else runs is part of what is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import math
import os
import random
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scipy import stats  # noqa: E402

from dlbench.report.analysis.comparison_statistics import Comparison, compare_process_groups  # noqa: E402
from dlbench.results.records import Measurement, Outcome, Record  # noqa: E402
from dlbench.suites.case import Case, Protocol  # noqa: E402

PAGE = ROOT / "docs" / "experiments" / "aa.md"
DATA = ROOT / "docs" / "experiments" / "data" / "aa.parquet"
PROTOCOL = Protocol(
    warmup_min_time_s=0.2, warmup_max_time_s=1.0, min_time_s=0.5, max_time_s=0.8, energy="none", idle_time_s=0.0
)
CASES = (
    Case("lenet5", "training", batch_size=64, protocol=PROTOCOL),
    Case("squeezenet1_1", "inference", batch_size=1, protocol=PROTOCOL),
    Case("benchmarks.experiments.slow:metronome", "inference", batch_size=1, protocol=PROTOCOL),
)
#: Each network's slower twin.
SLOWER = {
    "lenet5": "benchmarks.experiments.slow:lenet5",
    "squeezenet1_1": "benchmarks.experiments.slow:squeezenet1_1",
    "benchmarks.experiments.slow:metronome": "benchmarks.experiments.slow:late_metronome",
}
#: The place of each network's case, the slower twins' too.
INDEX = {name: i for i, case in enumerate(CASES) for name in (case.model, SLOWER[case.model])}
#: The processes of a round. Apart from their name the first two are the same.
ROLES = ("first", "second", "slow")
#: Pairs in one comparison: what `dlbench ab` runs by default.
NUM_PAIRS = 10
#: A block is measured in one go: after a pause of this [s] another one begins, and so it does at another commit.
PAUSE_S = 600.0
SUITE = "experiment-aa"
SEED = 20261123
#: Columns of a record that this experiment has no use for; they would make the file ten times as large.
_LEFT_OUT = ("forward_s", "backward_s", "optimizer_s", "warmup_step_s", "power_time_s", "power_w")

#: Median step times [s] by case (index into `CASES`), round and role.
Medians = dict[tuple[int, int, str], float]
Steps = dict[tuple[int, int, str], list[float]]
Loads = dict[tuple[int, int], float]
#: Of each case the rounds that were measured in one go.
Runs = dict[int, list[list[int]]]


# ---- one process -----------------------------------------------------------------------------------------------------


def work() -> int:
    """The process itself: import, say so, wait for a case on stdin, measure it, print the outcome."""
    import contextlib

    from dlbench.worker.measure import measure
    from dlbench.worker.ranks.context import RankContext

    answers = os.fdopen(os.dup(1), "w")
    with contextlib.redirect_stdout(sys.stderr):
        answers.write("ready\n")
        answers.flush()
        case = Case.from_dict(json.loads(sys.stdin.readline()))
        answers.write(json.dumps(json.loads(measure(case, RankContext()).to_json())) + "\n")
        answers.flush()
    return 0


def start(threads: int) -> subprocess.Popen[str]:
    """A fresh process that imports what it needs and then waits."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--work"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip


def measure_in(process: subprocess.Popen[str], case: Case) -> Outcome:
    """Give a waiting process its turn; returns when it has ended."""
    answer, _ = process.communicate(json.dumps(case.to_dict()) + "\n", timeout=120)
    if process.returncode != 0 or not answer.strip():
        raise RuntimeError(f"a process ended with exit status {process.returncode} while it measured {case.model}")
    return Outcome.from_json(answer.strip().splitlines()[-1])


# ---- collecting ------------------------------------------------------------------------------------------------------


def collect(minutes: float, threads: int, chosen: list[int]) -> None:
    """Measure rounds of the chosen cases until the time is used up, and keep each as soon as it is whole."""
    records = load()
    known = steps_of(records)
    rounds = {index: 1 + max((r for i, r, _ in known if i == index), default=-1) for index in chosen}
    until = time.monotonic() + 60 * minutes
    longest = 0.0
    while time.monotonic() + longest < until:
        began = time.monotonic()
        chance = random.Random(f"{SEED}/{'/'.join(map(str, rounds.values()))}")
        turns = [
            (index, rounds[index], role)
            for index in chance.sample(chosen, len(chosen))
            for role in chance.sample(ROLES, len(ROLES))
        ]
        processes = [start(threads) for _ in turns]
        try:
            for process in processes:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError(
                        "a process ended before its turn; try `python benchmarks/experiments/aa.py --work`"
                    )
            found = [record_of(turn, process) for turn, process in zip(turns, processes, strict=True)]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
        records += found
        save(records)
        for index in rounds:
            rounds[index] += 1
        longest = max(longest, time.monotonic() - began)
        shown = ", ".join(
            f"{r.case['model'].rpartition('.')[2]} {1e3 * median(r.ranks[0][1].step_s):.3f} ms" for r in found
        )
        load_1 = os.getloadavg()[0]
        print(f"round {max(rounds.values())}: {shown}; {time.monotonic() - began:.1f} s, load {load_1:.1f}", flush=True)


def record_of(turn: tuple[int, int, str], process: subprocess.Popen[str]) -> Record:
    """Measure one turn; everything about it as a record of the store."""
    index, number, role = turn
    model = CASES[index].model if role != "slow" else SLOWER[CASES[index].model]
    case = dataclasses.replace(CASES[index], model=model, repeat=number)
    started = datetime.now(UTC)
    outcome = measure_in(process, case)
    finished = datetime.now(UTC)
    (system, measured), = outcome.ranks  # fmt: skip
    kept = dataclasses.replace(measured, **dict.fromkeys(_LEFT_OUT, ()))
    # To 10 ns, far below the clock's own jitter: the file is half as large.
    kept = dataclasses.replace(kept, step_s=tuple(round(s, 8) for s in measured.step_s))
    system = dataclasses.replace(system, details={"load": os.getloadavg()[0]})
    return Record(
        attempt_id=f"aa-{number:04d}-{index}-{role}",
        case_id=case.id,
        suite=SUITE,
        suite_version=1,
        case=case.to_dict(),
        started_at=started.isoformat(),
        finished_at=finished.isoformat(),
        status=outcome.status,
        error=outcome.error,
        wall_s=(finished - started).total_seconds(),
        ranks=((system, kept),),
        label=role,
    )


def load() -> list[Record]:
    """What has been measured so far."""
    if not DATA.exists():
        return []
    from dlbench.results.store import read_part

    # A column of today that the file lacks is null in every row: it takes its default.
    return [
        _record_from({name: value for name, value in row.items() if value is not None})
        for row in read_part(DATA).to_pylist()
    ]


def _record_from(row: dict[str, Any]) -> Record:
    from dlbench.results.records import System, from_dict

    facts = {k.removeprefix("system_"): v for k, v in row.items() if k.startswith("system_")}
    system = from_dict(System, facts | {"details": json.loads(row.get("system_details", "{}"))})
    case = {f.name: row[f.name] for f in dataclasses.fields(Case) if f.name != "protocol" and f.name in row}
    times = {name: row[name].isoformat() for name in ("started_at", "finished_at")}
    head = {f.name: row[f.name] for f in dataclasses.fields(Record) if f.name in row}
    case["protocol"] = json.loads(row["protocol"])
    return Record(**(head | times | {"case": case, "ranks": ((system, from_dict(Measurement, row)),)}))


def save(records: list[Record]) -> None:
    """All records in one Parquet file, whole or not at all."""
    import pyarrow.parquet as pq

    from dlbench.results.schema import to_table

    DATA.parent.mkdir(parents=True, exist_ok=True)
    partial = DATA.with_suffix(".tmp")
    pq.write_table(to_table(records), partial, compression="zstd", compression_level=15)
    partial.replace(DATA)


# ---- comparing -------------------------------------------------------------------------------------------------------


def steps_of(records: list[Record]) -> Steps:
    """The step times [s] of each process."""
    return {
        (INDEX[str(r.case["model"])], int(r.case["repeat"]), str(r.label)): list(r.ranks[0][1].step_s) for r in records
    }


def loads_of(records: list[Record]) -> Loads:
    """The load average at each round of each case."""
    return {
        (INDEX[str(r.case["model"])], int(r.case["repeat"])): float(r.ranks[0][0].details.get("load", math.nan))
        for r in records
    }


def runs_of(records: list[Record]) -> Runs:
    """The whole rounds of each case, apart where somebody paused or changed dlbench."""
    steps = steps_of(records)
    first = {(INDEX[str(r.case["model"])], int(r.case["repeat"])): r for r in reversed(records)}
    runs: Runs = {}
    for index in range(len(CASES)):
        runs[index], last = [], None
        for number in whole_rounds(steps, index):
            record = first[index, number]
            if last is None or _apart(last, record):
                runs[index].append([])
            runs[index][-1].append(number)
            last = record
    return runs


def _apart(before: Record, after: Record) -> bool:
    pause = datetime.fromisoformat(after.started_at) - datetime.fromisoformat(before.started_at)
    return pause.total_seconds() > PAUSE_S or before.ranks[0][0].git_commit != after.ranks[0][0].git_commit


def whole_rounds(steps: Steps, index: int) -> list[int]:
    """The rounds of a case of which all processes are there."""
    rounds = sorted({r for i, r, _ in steps if i == index})
    return [r for r in rounds if all((index, r, role) in steps for role in ROLES)]


def single_pairs(steps: Steps, index: int, role: str, rounds: list[int]) -> list[Comparison]:
    """Each round's second process, or its slow one, against its first: one process against one.

    How processes differ is stated, as a user would state it: from the first processes of all others of the rounds.
    """
    logs = {r: math.log(median(steps[index, r, "first"])) for r in rounds}
    found = []
    for r in rounds if len(rounds) > 3 else []:
        spread = stdev([logs[other] for other in rounds if other != r])
        found.append(
            compare_process_groups([steps[index, r, "first"]], [steps[index, r, role]], between_processes=spread)
        )
    return found


@dataclasses.dataclass(frozen=True)
class Block:
    """Ten rounds of a case in one go, and all comparisons made of them; the first of each is as it was drawn."""

    case: int
    rounds: list[int]
    equal: list[Comparison]
    slower: list[Comparison]


def blocks(steps: Steps, runs: Runs) -> list[Block]:
    """All blocks that are whole."""
    medians = {key: median(values) for key, values in steps.items()}
    return [
        _block(medians, index, rounds[k : k + NUM_PAIRS])
        for index in range(len(CASES))
        for rounds in runs[index]
        for k in range(0, len(rounds) - NUM_PAIRS + 1, NUM_PAIRS)
    ]


def _block(medians: Medians, index: int, rounds: list[int]) -> Block:
    """A coin for each pair says which of the two equal processes is A: 2^10 throws, all of them are evaluated."""
    equal, slower = [], []
    for pattern in range(2**NUM_PAIRS):
        coins = [(pattern >> k) & 1 for k in range(NUM_PAIRS)]
        a = [[medians[index, r, ROLES[coin]]] for r, coin in zip(rounds, coins, strict=True)]
        b = [[medians[index, r, ROLES[1 - coin]]] for r, coin in zip(rounds, coins, strict=True)]
        slow = [[medians[index, r, "slow"]] for r in rounds]
        equal.append(compare_process_groups(a, b, paired=True))
        slower.append(compare_process_groups(a, slow, paired=True))
    return Block(index, rounds, equal, slower)


# ---- the page --------------------------------------------------------------------------------------------------------


INTRODUCTION = """# Does `dlbench ab` detect a slowdown, and only a real one?

Written by `benchmarks/experiments/aa.py`; do not edit. Everything here was measured in fresh processes on one machine.
Their step times are in `data/aa.parquet`; `dlbench.load` reads it.

**Method.** A round is three processes of one case in random order: the network, the same network again, and the
network with a busy wait of 3 % of its own step time in every step. The cases alternate. Ten consecutive rounds make a
block. A pause of ten minutes or another commit of dlbench begins a new block. A block is what `dlbench ab` runs with
its ten pairs: `compare_process_groups` of pairs over the medians, verdict at 95 % with the margin of 1 %.

**The metronome.** A machine is never completely idle. Disturbances can hide a difference of 3 % from ten pairs,
whatever the test. The third case therefore waits 10 ms per step by the clock, and its slower version 10.3 ms.
Disturbances hardly change these times; everything else is as with the networks. The metronome shows what an idle
machine would give.

**Three evaluations.** *As drawn*: a block is one comparison, the first process of each round against the second. Which
is first was drawn before the run. *Pair by pair*: each round is a comparison of one process with one process, by
`compare_process_groups`; the spread between processes is taken from the other rounds, as with `--between-processes`.
*All throws*:
which of two equal processes is A is decided by a coin, which a process cannot notice. Each of the 2^10 throws of a
block is therefore a comparison that could have happened. This keeps the share near its level by construction, whatever
the processes do. It shows only that the t distribution is adequate for these step times. For the slowdown it is a fair
average over the choice between the two plain processes.
"""


def page(records: list[Record]) -> str:
    """The outcome, in Markdown."""
    steps, loads = steps_of(records), loads_of(records)
    found = blocks(steps, runs_of(records))
    lines = [INTRODUCTION, _machine(records), "## Outcome", ""]
    if not found:
        return "\n".join([*lines, f"Not enough rounds yet: a block needs {NUM_PAIRS} of a case.", ""])
    pairs = {index: NUM_PAIRS * sum(b.case == index for b in found) for index in range(len(CASES))}
    lines += [
        f"From {sum(pairs.values())} pairs of equal processes, {pairs[2]} of them of the metronome. The aim: at most 5 "
        f"% of A/A comparisons called different, and on an idle machine at least 95 % of slowdowns called slower.",
        "",
        "| cases | evaluation | A/A comparisons | called different | 95 % interval of that share | +3 % called slower "
        "|",
        "|---|---|---:|---:|---|---:|",
        *(row for name, cases in _KINDS.items() for row in _judged_rows(steps, found, name, cases)),
        "",
        _quiet(steps, found),
        "",
        _alone(steps, found),
        "",
        "| case | blocks | called same, all throws | +3 % called slower, all throws "
        "| +3 % measured as | between processes | within pairs | pairs for 3 % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(_case_row(steps, [b for b in found if b.case == index], index) for index in range(len(CASES))),
        "",
        "*Between processes* is the standard deviation of the logarithm of the medians of the plain processes. *Within "
        "pairs* is that of the difference within a pair, divided by √2; it is smaller if drift affects both processes "
        "of a pair. *Pairs for 3 %* is computed from it: the number of pairs that `ab` needs here to call a slowdown "
        "of 3 % slower in 95 of 100 comparisons.",
        "",
        "## By block",
        "",
        "Ratios as drawn, with 95 % intervals. *Within*: as *within pairs* above, for the block's pairs. *Load* is the "
        "mean load average of the block. Up to about two of it is this experiment itself, because its processes import "
        "at the same time.",
        "",
        "| case | rounds | load | within | A/A: ratio | verdict | +3 %: ratio | verdict |",
        "|---|---:|---:|---:|---|---|---|---|",
        *(_block_row(steps, block, loads) for block in found),
        "",
    ]
    return "\n".join(lines)


_KINDS = {"the networks": (0, 1), "the metronome": (2,)}


def _judged_rows(steps: Steps, found: list[Block], name: str, cases: tuple[int, ...]) -> list[str]:
    """The three ways to judge one kind of case, a row each."""
    blocks_of = [b for b in found if b.case in cases]
    ways = {
        "as drawn, ten pairs": ([b.equal[0] for b in blocks_of], [b.slower[0] for b in blocks_of]),
        "pair by pair": tuple(
            [c for i in cases for c in single_pairs(steps, i, role, whole_rounds(steps, i))] for role in ROLES[1:]
        ),
        "all throws": ([c for b in blocks_of for c in b.equal], [c for b in blocks_of for c in b.slower]),
    }
    rows = []
    for way, (equal, slower) in ways.items():
        if not equal:
            rows.append(f"| {name} | {way} | 0 | | | |")
            continue
        called, caught = sum(map(called_different, equal)), sum(c.verdict == "slower" for c in slower)
        # The throws of one block share its processes: an interval would take them for independent.
        limits = "" if way == "all throws" else _limits(called, len(equal))
        rows.append(
            f"| {name} | {way} | {len(equal)} | {called} ({called / len(equal):.1%}) | {limits} "
            f"| {caught} ({caught / len(slower):.1%}) |"
        )
    return rows


def called_different(comparison: Comparison) -> bool:
    return comparison.verdict in ("faster", "slower")


def _machine(records: list[Record]) -> str:
    system, loads = records[0].ranks[0][0], [float(r.ranks[0][0].details.get("load", math.nan)) for r in records]
    minutes = sum(r.wall_s or 0 for r in records) / 60
    versions = " and ".join(dict.fromkeys(str(r.ranks[0][0].torch_version) for r in records))
    return (
        f"**System and time.** {system.cpu_model}, {system.cpu_cores} cores, {system.torch_threads} thread(s), torch "
        f"{versions}, {records[0].started_at[:16]} to {records[-1].started_at[:16]} UTC: {len(records)} "
        f"processes, {minutes:.0f} min of measuring, load average {min(loads):.1f} to {max(loads):.1f} (up to about "
        f"two of it is this experiment itself). Window: {PROTOCOL.min_time_s:g} to {PROTOCOL.max_time_s:g} s.\n"
    )


def _case_row(steps: Steps, found: list[Block], index: int) -> str:
    case = CASES[index]
    name = f"{case.model}, {case.mode}, batch {case.batch_size}"
    if not found:
        return f"| {name} | 0 |" + " |" * 6
    equal, slower = [c for b in found for c in b.equal], [c for b in found for c in b.slower]
    rounds = [r for b in found for r in b.rounds]
    logs = {role: [math.log(median(steps[index, r, role])) for r in rounds] for role in ROLES}
    triples = list(zip(*logs.values(), strict=True))
    injected = fmean(slow - (first + second) / 2 for first, second, slow in triples)
    within = _within(steps, index, rounds)
    cells = [
        name,
        len(found),
        f"{sum(c.verdict == 'same' for c in equal)} of {len(equal)}",
        f"{sum(c.verdict == 'slower' for c in slower)} of {len(slower)}",
        f"{math.exp(injected) - 1:+.2%}",
        f"{stdev([*logs['first'], *logs['second']]):.2%}",
        f"{within:.2%}",
        _pairs_needed(within),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _quiet(steps: Steps, found: list[Block]) -> str:
    """What became of the slowdown where the machine was quiet enough for ten pairs to show it."""
    enough = next(s for s in (k * 1e-4 for k in range(1000, 0, -1)) if _pairs_needed(s) <= NUM_PAIRS)
    quiet = [b for b in found if _within(steps, b.case, b.rounds) <= enough]
    caught, told = 0, []
    for index, case in enumerate(CASES):
        slower = [b.slower[0].verdict == "slower" for b in quiet if b.case == index]
        caught += sum(slower)
        told.append(f"{sum(slower)} of {len(slower)} of {case.model.partition(':')[2] or case.model}")
    return (
        f"**On an idle machine.** Ten pairs are enough if equal processes spread by at most {enough:.1%} within pairs. "
        f"In the blocks with at most this spread, {caught} of {len(quiet)} slowdowns of 3 % were called slower, as "
        f"drawn (95 % interval {_limits(caught, len(quiet))}): {', '.join(told)}. The slow processes do not influence "
        f"which blocks these are. The first process of each pair does, as it does in the ratio, so the share is "
        f"slightly too high."
    )


def _alone(steps: Steps, found: list[Block]) -> str:
    """What became of the slowdown where the machine was quiet enough for a single pair to show it."""
    enough = math.log(1.03) / math.sqrt(2) / (stats.norm.ppf(0.975) + stats.norm.ppf(0.95))
    quiet = [b for b in found if stdev(math.log(median(steps[b.case, r, ROLES[0]])) for r in b.rounds) <= enough]
    equal, slower = ([c for b in quiet for c in single_pairs(steps, b.case, role, b.rounds)] for role in ROLES[1:])
    called, caught = sum(map(called_different, equal)), sum(c.verdict == "slower" for c in slower)
    return (
        f"One pair is enough if processes spread by at most {enough:.1%}. In the {len(quiet)} blocks with at most this "
        f"spread, {caught} of {len(slower)} slow processes were called slower than the plain process of their round "
        f"(95 % interval {_limits(caught, len(slower))}), and {called} of {len(equal)} equal processes were called "
        f"different. The spread is taken from the other rounds of the block."
    )


def _limits(count: int, of: int) -> str:
    return "{:.1%} to {:.1%}".format(*stats.binomtest(count, of).proportion_ci()) if of else "none"


def _within(steps: Steps, index: int, rounds: list[int]) -> float:
    """Standard deviation of the logarithm within pairs of equal processes."""
    pairs = [[math.log(median(steps[index, r, role])) for role in ROLES[:2]] for r in rounds]
    return stdev(first - second for first, second in pairs) / math.sqrt(2)


@functools.cache
def _pairs_needed(within: float) -> int:
    """How many pairs call a slowdown of 3 % slower in 95 of 100 comparisons, by the power of the t test."""
    for pairs in itertools.count(3):
        limit = stats.t.ppf(0.975, pairs - 1)
        shift = math.log(1.03) / (within * math.sqrt(2 / pairs))
        if stats.nct.sf(limit, pairs - 1, shift) >= 0.95:
            return pairs
    raise AssertionError


def _load(block: Block, loads: Loads) -> float:
    return fmean(loads[block.case, r] for r in block.rounds)


def _block_row(steps: Steps, block: Block, loads: Loads) -> str:
    equal, slower = block.equal[0], block.slower[0]
    load = _load(block, loads)
    return (
        f"| {CASES[block.case].model} | {block.rounds[0]}–{block.rounds[-1]} | {load:.1f} "
        f"| {_within(steps, block.case, block.rounds):.1%} "
        f"| {equal.ratio:.4f} ({equal.low:.4f} to {equal.high:.4f}) | {equal.verdict} "
        f"| {slower.ratio:.4f} ({slower.low:.4f} to {slower.high:.4f}) | {slower.verdict} |"
    )


def wrapped_page(records: list[Record]) -> str:
    """The page with lines of at most 120 characters, but for tables."""
    lines = page(records).splitlines()
    return "\n".join(line if line.startswith("|") else textwrap.fill(line, 120) for line in lines) + "\n"


def main() -> int:
    """Collects for so many minutes, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25.0, help="how long to measure; goes on from what is there")
    parser.add_argument("--threads", type=int, default=1, help="of torch in each process (default: 1)")
    parser.add_argument("--cases", default="0,1", help="0 LeNet-5, 1 SqueezeNet 1.1, 2 the metronome (default: 0,1)")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--data", type=Path, help="another Parquet file, for trials; the page goes beside it")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work()
    global DATA, PAGE
    if options.data:
        DATA, PAGE = options.data, options.data.with_suffix(".md")
    if not options.page:
        collect(options.minutes, options.threads, [int(i) for i in options.cases.split(",")])
    records = load()
    if not records:
        parser.error(f"nothing in {DATA}")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(wrapped_page(records), encoding="utf-8")
    print(f"{len(records)} processes in {DATA}; see {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
