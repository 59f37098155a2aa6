"""Power limits and clocks through the real pynvml and the compiled stand-in: set, put back, and left as they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid as uuids

import pytest

from dlbench.worker.meters.limit_guard import limits_state_file

IMPORTS = """
import json, os, signal, sys, time
from dlbench.errors import InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.worker.meters.held_limits import hold_limits, restore_limits
from dlbench.worker.meters.limit_guard import limits_state_file
uuid = os.environ["NVML_UUID"].removeprefix("GPU-")
def held(power_cap_w=0, clock_mhz=0):
    return hold_limits(Case("lenet5", device="cuda", power_cap_w=power_cap_w, clock_mhz=clock_mhz), uuid)
def state():
    return open(os.environ["NVML_STATE"]).read().split()
"""
AS_FOUND = ["650000", "0"]


class Gpu:
    """A GPU of the stand-in, with its limits in a file."""

    def __init__(self, library, folder):
        self.uuid = str(uuids.uuid4())
        self.state_path = folder / "state"
        self.state_path.write_text("650000 0\n")
        self._environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(library),
            "NVML_UUID": f"GPU-{self.uuid}",
            "NVML_STATE": str(self.state_path),
        }

    def run(self, lines, code=0, **variables):
        command = [sys.executable, "-c", f"{IMPORTS}\n{lines}"]
        environment = self._environment | {name: str(value) for name, value in variables.items()}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode == code, ended.stderr
        return json.loads(ended.stdout or "null")

    def state(self):
        return self.state_path.read_text().split()

    def is_put_back(self):
        give_up_s = time.monotonic() + 20
        while time.monotonic() < give_up_s:
            if self.state() == AS_FOUND and not limits_state_file(self.uuid).exists():
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def gpu(nvml_library, tmp_path):
    made = Gpu(nvml_library, tmp_path)
    yield made
    limits_state_file(made.uuid).unlink(missing_ok=True)


def test_limits_hold_for_a_case_and_what_was_there_is_put_back(gpu):
    lines = """
limits = held(400, 1200)
during = state()
print(json.dumps([during, restore_limits(limits), state(), limits_state_file(uuid).exists(), held()]))
"""
    assert gpu.run(lines) == [["400000", "1200"], [], AS_FOUND, False, None]


def test_a_worker_that_is_killed_leaves_the_device_as_it_was(gpu):
    gpu.run("held(400, 1200)\nassert state() == ['400000', '1200']\nos.kill(os.getpid(), signal.SIGKILL)", code=-9)
    assert gpu.is_put_back()


def test_where_all_processes_of_a_case_are_killed_the_next_case_puts_the_device_back(gpu):
    gpu.run("held(400)._process.kill()\nos.kill(os.getpid(), signal.SIGKILL)", code=-9)
    assert gpu.state() == ["400000", "0"]
    assert gpu.run("limits = held()\nprint(json.dumps([state(), restore_limits(limits)]))") == [AS_FOUND, []]
    assert gpu.is_put_back()


@pytest.mark.parametrize(
    ("asked", "settings", "reason"),
    [
        ("900", {}, "power_cap_w is 900; this device accepts 200 to 700 W"),
        ("0, 100", {}, "clock_mhz is 100; this device accepts 345 to 1980 MHz"),
        ("400", {"NVML_KEEPS": 500000}, "power_cap_w is 400, but the device enforces 500 W"),
        (
            "400",
            {"NVML_LIMITS": 4},
            "cannot set the power limit: Insufficient Permissions; run as root, or set the environment variable ",
        ),
        ("400", {"DLBENCH_SET_POWER_LIMIT": "no-such-command {watts}"}, "the command 'no-such-command {watts}' failed"),
        ("400", {"DLBENCH_SET_POWER_LIMIT": "false"}, "'false' ended with exit status 1: no message"),
    ],
)
def test_a_refused_limit_is_one_line_and_the_device_is_as_it_was(gpu, asked, settings, reason):
    lines = f"""
try:
    held({asked})
except InvalidMeasurement as error:
    print(json.dumps(str(error)))
"""
    assert gpu.run(lines, **settings).startswith(reason)
    assert gpu.state() == AS_FOUND


def test_without_permission_the_commands_of_the_site_set_and_put_back(gpu, tmp_path):
    log = tmp_path / "log"
    commands = {
        "DLBENCH_SET_POWER_LIMIT": f"sh -c 'echo power $0 $1 >> {log}' {{uuid}} {{watts}}",
        "DLBENCH_LOCK_CLOCK": f"sh -c 'echo lock $0 >> {log}' {{mhz}}",
        "DLBENCH_UNLOCK_CLOCK": f"sh -c 'echo unlock >> {log}'",
    }
    assert (
        gpu.run("print(json.dumps(restore_limits(held(400, 1200))))", NVML_LIMITS=4, NVML_KEEPS=400000, **commands)
        == []
    )
    set_w, lock, put_back, unlock = log.read_text().splitlines()
    assert set_w == f"power GPU-{gpu.uuid} 400"
    assert (lock, put_back, unlock) == ("lock 1200", f"power GPU-{gpu.uuid} 650", "unlock")


def test_a_gpu_that_is_lost_with_limits_set_is_named_and_put_back_once_it_is_there_again(gpu):
    lines = """
limits = held(400)
time.sleep(max(0, float(os.environ["NVML_LOST_AT"]) - time.perf_counter()))
print(json.dumps(restore_limits(limits)))
"""
    [warning] = gpu.run(lines, NVML_LOST_AT=time.perf_counter() + 2.5)
    assert warning.startswith(
        "limits_left: power limit or clock of the device was not restored: cannot set the power limit: GPU is "
    )
    assert "by hand: nvidia-smi -pl 650" in warning
    assert gpu.run("print(json.dumps([restore_limits(held(300)), state()]))") == [[], AS_FOUND]
