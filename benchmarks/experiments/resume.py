"""What a resume and a further case cost beside many attempts that are done already.

    python benchmarks/experiments/resume.py [--attempts 10000] [--folder FOLDER] [--merged] [--bare]

The attempts are made up, with files as large as those of real ones; nothing is measured but dlbench's own work. It
prints the time of each stage: a whole `dlbench run` that finds everything done (a fresh process, the machine's probe
included), its part before the first case, a further case with a worker that ends at once, and `dlbench status`'s count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dlbench.launch import attempts, case_counts, probe, supervise
from dlbench.launch.results_folder import require_writable_folder
from dlbench.results.records import Measurement, Outcome, Record, System
from dlbench.suites.case import Case
from dlbench.suites.suite import Suite, load_suite

STEPS = 200
SUITE = """name = "many"
[axes]
model = ["lenet5"]
batch_size = [1]
device = ["cpu"]
repeat = {repeats}
"""


def main() -> int:
    """Make the folder, then time each stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="keeps the results; default: a temporary one")
    parser.add_argument("--merged", action="store_true", help="the parts are in one file")
    parser.add_argument("--bare", action="store_true", help="without pyarrow, as on a node outside of its container")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        suite_file = folder / "many.toml"
        if not suite_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            suite_file.write_text(SUITE.format(repeats=list(range(options.attempts + 20))), encoding="utf-8")
            make(folder / "results", load_suite(str(suite_file)), options.attempts)
        return measure(folder, suite_file, options)


def make(root: Path, suite: Suite, number: int) -> None:
    """Closed attempts of the suite's first cases, each with the files of a real one, and their Parquet parts."""
    from dlbench.results import store

    root.mkdir(parents=True, exist_ok=True)

    key = probe.probe_machine().system_key
    steps = tuple(0.002 + i * 1e-7 for i in range(STEPS))
    libraries = [f"/opt/fake/lib/library-{i}.so" for i in range(100)]
    system = System(hostname="fake", cpu_model="a made-up CPU", details={"libraries": libraries})
    found = Measurement(step_s=steps, forward_s=steps, backward_s=steps, optimizer_s=steps, window_s=6.0, clock="host")
    outcome = Outcome("ok", None, ((system, found),))
    for case in suite.cases()[:number]:
        attempt = attempts.create_attempt(root, case, suite.name, suite.version, key, {"host": "fake", "pid": 1})
        record = Record(
            attempt.id, case.id, suite.name, suite.version, case.to_dict(), attempt.started_at, attempt.started_at,
            "ok", exit_code=0, wall_s=12.0, system_key=key, ranks=outcome.ranks,
        )  # fmt: skip
        (attempt.folder / "result.json").write_text(outcome.to_json(), encoding="utf-8")
        (attempt.folder / "stderr.txt").write_text("phase: warmup\nphase: window\n", encoding="utf-8")
        (attempt.folder / "record.json").write_text(record.to_json(), encoding="utf-8")
        store.append_record(root, record)


def measure(folder: Path, suite_file: Path, options: argparse.Namespace) -> int:
    """Print the seconds of each stage."""
    root = folder / "results"
    if options.merged:
        subprocess.run([sys.executable, "-m", "dlbench", "collect", "--merge", "--results", root], check=True)
    prelude = "import sys; sys.modules['pyarrow'] = None; " if options.bare else "import sys; "
    command = "from dlbench.cli import main; sys.exit(main(sys.argv[1:]))"
    done = list(range(options.attempts))
    resume = [sys.executable, "-c", prelude + command, "run", str(suite_file), "--results", str(root)]
    limited = folder / "done.toml"
    limited.write_text(SUITE.format(repeats=done), encoding="utf-8")
    resume[4] = str(limited)
    key = probe.probe_machine().system_key
    suite = load_suite(str(suite_file))

    def launcher(case: Case, attempt: Path) -> list[str]:
        return ["/bin/sh", "-c", 'cp "$2" "$1/result.json"', "sh", str(attempt), str(good)]

    good = attempts.list_attempt_folders(root)[0] / "result.json"
    campaign = supervise.Campaign(root, suite.name, suite.version, key, launcher)
    _timed("probe of the machine alone", lambda: probe.probe_machine(["lenet5"]))
    _timed("whole `dlbench run`, all done", lambda: subprocess.run(resume, check=True))
    further = suite.cases()[options.attempts :]
    began = time.perf_counter()
    number = len(list(supervise.run_cases(further, campaign)))
    print(f"a further case: {(time.perf_counter() - began) / max(1, number) * 1000:.1f} ms ({number} measured)")
    empty = supervise.Campaign(folder / "empty", suite.name, suite.version, key, launcher)
    require_writable_folder(empty.root)
    began = time.perf_counter()
    number = len(list(supervise.run_cases(further, empty, fresh=True)))
    print(f"a case beside none: {(time.perf_counter() - began) / max(1, number) * 1000:.1f} ms ({number} measured)")
    _timed("`dlbench status`'s count", lambda: case_counts.count_cases(root, load_suite(str(limited))))
    return 0


def _timed(words: str, what: Callable[[], object]) -> None:
    began = time.perf_counter()
    what()
    print(f"{words}: {time.perf_counter() - began:.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
