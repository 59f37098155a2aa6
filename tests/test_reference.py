"""`make reference`: which commands it runs, that it resumes, and what it survives; by a stand-in for Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAND_IN = """#!/usr/bin/env bash
case "$1 $2" in
  "-c "*available*) exit "${HAS_NO_GPU:-1}" ;;
  "-c "*) printf '%s\\n' "lenet5 4096 amp_bf16 channels_last" "alexnet 1024 tf32 channels_first"; exit ;;
esac
echo "${@:3}" >> "$LOG"
[ "$3" = profile ] && [ "$4" = lenet5 ] && exit 1
[ "$3" = "${ENDS_EARLY:-}" ] && kill -TERM $$
exit 0
"""


@pytest.fixture
def reference(tmp_path):
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "reference.sh"
    script.write_text((ROOT / "scripts" / "reference.sh").read_text())

    def run(suites="", seconds="60", **variables):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        environment = {**os.environ, "LOG": str(log), **variables}
        command = ["bash", script, python, "box", suites, "results", seconds]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return ended.returncode, log.read_text().splitlines() if log.exists() else [], ended.stderr

    return run


def test_the_suite_fits_the_device_and_profiles_take_the_fastest_precision_and_layout(reference):
    status, commands, _ = reference(HAS_NO_GPU="0")
    assert status == 0
    assert commands[0] == "run quick_gpu -P protocol.processes=3 -P protocol.max_processes=72 --results results"
    assert commands[1] == "ceilings --missing --results results"
    # The first profile fails, and the second is made all the same.
    assert "-P batch_size=4096 -P precision=amp_bf16 -P memory_format=channels_last" in commands[2]
    assert commands[3].startswith(
        "profile alexnet -P batch_size=1024 -P precision=tf32 -P memory_format=channels_first"
    )
    assert [command.split()[0] for command in commands[4:]] == ["export", "report"]
    assert reference()[1][0].startswith("run quick -P")


@pytest.mark.parametrize(("seconds", "ends_early"), [("10", ""), ("60", "run"), ("0", "run")])
def test_a_call_whose_time_is_up_says_how_to_resume(reference, seconds, ends_early):
    status, commands, words = reference("quick", seconds, ENDS_EARLY=ends_early)
    assert status == 130
    assert len(commands) == (1 if ends_early else 0)
    assert words.strip().endswith("run the same command again to resume")


def test_a_wrong_name_or_time_is_one_line(reference):
    status, _, words = reference("quick", "9m")
    assert (status, words) == (2, "the time of a call is '9m'; give seconds, such as 540 (0: no limit)\n")
