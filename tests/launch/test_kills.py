"""Whatever is killed at whatever time: resumed until nothing is missing, every case is there exactly once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from dlbench.launch import attempts
from dlbench.results import store
from dlbench.results.records import DONE_STATUSES
from tests.fakes import runtimes
from tests.fakes.quick import make_python

ROOT = Path(__file__).parents[2]
NUM_CASES = 8


@pytest.fixture
def campaign(tmp_path):
    """Starts `dlbench run` of eight cases of half a second, through a step as on a job's first node."""
    runtimes.install(tmp_path / "bin", "srun")
    python = make_python(tmp_path / "python")
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'name = "suite"\n[axes]\nmodel = ["lenet5"]\nbatch_size = {list(range(1, NUM_CASES + 1))}\n'
        "[protocol]\nprocesses = 1\nmin_time_s = 0.5\nmax_time_s = 60\n"
    )
    command = [sys.executable, "-m", "dlbench", "run", suite, "--results", tmp_path / "results"]
    command += ["--launcher", "srun", "--", "srun", "{ranks}", python]
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    started = []

    def start():
        with (tmp_path / "said.txt").open("a") as said:
            process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, stdout=said, stderr=said)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def victims(results):
    """Processes of the campaign that can be killed: supervisors, steps and workers, each with its kind."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if not any(word.startswith(str(results)) for word in words):
            continue
        if "run" in words and "dlbench" in words:
            found.append(("supervisor", int(entry.name)))
        elif "tests.cluster.worker" in words or "dlbench.worker" in words:
            found.append(("worker or step", int(entry.name)))
    return sorted(found)


def wait_for_one(results, kind, chance):
    """A process of that kind after a random while; None when everything is measured already."""
    until = time.monotonic() + 60
    time.sleep(chance.uniform(0.0, 1.0))
    while time.monotonic() < until and len(attempts.finished_keys(results)) < NUM_CASES:
        if found := [pid for what, pid in victims(results) if what == kind]:
            return chance.choice(found)
        time.sleep(chance.uniform(0.0, 0.1))
    return None


def wait_for(process, folder):
    """Its exit status; a campaign that does not end tells what it said and which files its claims are."""
    try:
        return process.wait(timeout=120)
    except subprocess.TimeoutExpired:
        claims = {path.name: path.read_text() for path in (folder / "results" / "claims").iterdir()}
        said = (folder / "said.txt").read_text()
        pytest.fail(f"{process.pid} does not end\n{claims}\n{victims(folder / 'results')}\n{said}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_killed_every_case_is_measured_exactly_once(tmp_path, campaign, seed):
    chance = random.Random(seed)
    results = tmp_path / "results"
    running = [campaign()]
    killed = 0
    for kind in chance.sample(["supervisor", "worker or step"], k=8, counts=[4, 4]):
        pid = wait_for_one(results, kind, chance)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        running = [process for process in running if process.poll() is None]
        if len(running) < 2:
            running.append(campaign())  # a resumed one, while another may still be at work
    for _ in range(20):  # as a person would resume: until nothing is left
        for process in running:
            wait_for(process, tmp_path)
        if wait_for(campaign(), tmp_path) == 0 and len(attempts.finished_keys(results)) == NUM_CASES:
            break
    assert killed >= 6, "little was put to the test"
    subprocess.run([sys.executable, "-m", "dlbench", "collect", "--results", results], cwd=ROOT, check=True)

    records = [record for _, record in attempts.find_closed_attempts(results)]
    done = [record.case_id for record in records if record.status in DONE_STATUSES]
    assert sorted(Counter(done).values()) == [1] * NUM_CASES
    assert list(attempts.find_open_attempts(results)) == []
    assert victims(results) == []
    # And the Parquet parts say the same, each attempt once.
    table = store.read_rows(results).to_pylist()
    assert Counter(row["attempt_id"] for row in table) == Counter(record.attempt_id for record in records)
