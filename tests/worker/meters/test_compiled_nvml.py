"""Meters through the real pynvml, its ctypes and its structures, against a compiled stand-in for NVIDIA's library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UUID = "11111111-2222-3333-4444-555555555555"
IMPORTS = """
import json, sys, time
from dlbench.worker.meters import reading
from dlbench.worker.meters.device_watch import DeviceWatch
from dlbench.worker.meters.energy import open_meter
from dlbench.worker.meters.nvml import MeterUnavailable, NvmlDevice, driver_version, vbios_version
reading.FEWEST_TICKS = 2
uuid = sys.argv[1]
def window(length_s):
    meter = open_meter("auto", "cuda", uuid, None)
    meter.measure_idle(0.2)
    meter.start()
    opened_s = time.perf_counter()
    time.sleep(length_s)
    found = meter.stop(opened_s, time.perf_counter())
    return {"source": meter.source, "energy_j": found.energy_j, "integral_j": found.integral_j, "module_j": found.module_j,
            "window_s": found.window_s, "idle_w": found.idle_power_w, "note": found.note, "rows": len(found.trace.rows),
            "warnings": [warning.partition(":")[0] for warning in found.warnings]}
"""


@pytest.fixture
def with_gpu(nvml_library):
    """Runs lines of Python, in a process that finds the stand-in, and gives what its `print` wrote as JSON."""

    def run(lines, uuid=UUID, **settings):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LD_LIBRARY_PATH": str(nvml_library),
            "NVML_UUID": f"GPU-{UUID}",
        }
        environment |= {f"NVML_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-c", f"{IMPORTS}\n{lines}", uuid]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    return run


def test_counter_and_sampled_power_agree(with_gpu):
    found = with_gpu("print(json.dumps(window(0.8)))", watts=412.5)
    assert found["source"] == "nvml_counter"
    assert found["energy_j"] == pytest.approx(412.5 * found["window_s"], rel=0.01)
    assert found["integral_j"] == pytest.approx(found["energy_j"], rel=0.01)
    assert found["idle_w"] == pytest.approx(412.5, rel=0.02)
    assert found["rows"] >= 15
    assert found["warnings"] == ["short_energy_window"]
    assert found["module_j"] is None


def test_the_energy_is_that_of_the_window_where_the_load_ends_with_it(with_gpu, tmp_path):
    lines = """
meter = open_meter("auto", "cuda", uuid, None)
meter.measure_idle(0.3)
meter.start()
opened_s = time.perf_counter()
with open(POWER, "a") as power:
    power.write(f"{opened_s} 600\\n{opened_s + 1.04} 80\\n")
time.sleep(1.04)
found = meter.stop(opened_s, opened_s + 1.04)
print(json.dumps(found.energy_j))
"""
    power = tmp_path / "power"
    power.write_text("0 80\n")
    energy_j = with_gpu(f"POWER = {str(power)!r}\n{lines}", power=power)
    assert energy_j == pytest.approx(600 * 1.04, rel=0.02)


def test_a_sensor_that_is_off_by_a_fifth_is_a_warning(with_gpu):
    assert "energy_mismatch" in with_gpu("print(json.dumps(window(0.5)))", sensor=1.2)["warnings"]


def test_the_module_of_a_superchip_is_metered_too(with_gpu):
    found = with_gpu("print(json.dumps(window(0.5)))", module=900)
    assert found["module_j"] == pytest.approx(900 * found["window_s"], rel=0.01)


def test_without_the_instantaneous_power_the_plain_call_is_read(with_gpu):
    assert with_gpu("print(NvmlDevice(uuid).power_w())", fields=3, watts=250) == pytest.approx(250, rel=0.01)


@pytest.mark.parametrize(("answer", "reason"), [(3, "Not Supported"), (4, "Insufficient Permissions")])
def test_without_a_counter_the_energy_is_that_of_the_samples(with_gpu, answer, reason):
    found = with_gpu("print(json.dumps(window(0.5)))", energy=answer)
    assert found["source"] == "nvml_power"
    assert found["energy_j"] == pytest.approx(300 * found["window_s"], rel=0.01)
    assert found["note"].endswith(reason)


def test_a_device_lost_in_the_window_gives_no_energy_and_no_traceback(with_gpu):
    lines = """
import os
meter = open_meter("auto", "cuda", uuid, None)
meter.start()
opened_s = time.perf_counter()
os.environ["NVML_LOST_AT"] = str(opened_s + 0.3)
time.sleep(0.5)
found = meter.stop(opened_s, time.perf_counter())
print(json.dumps([found.energy_j, found.warnings]))
"""
    energy_j, warnings = with_gpu(lines)
    assert energy_j is None
    assert warnings == ["meter_lost: the energy counter could not be read: GPU is lost."]


@pytest.mark.parametrize(
    ("settings", "uuid", "reason"),
    [
        ({"mig": 1}, UUID, "the device is a MIG instance; NVML can only meter the whole GPU"),
        ({"init": 18}, UUID, "NVML: RM has detected an NVML/RM version mismatch"),
        ({"init": 9}, UUID, "NVML: Driver Not Loaded"),
        ({}, "99999999-2222-3333-4444-555555555555", "NVML: Not Found"),
    ],
)
def test_what_cannot_be_metered_has_a_reason(with_gpu, settings, uuid, reason):
    lines = """
meter = open_meter("auto", "cuda", uuid, None)
print(json.dumps([meter.source, meter.reason]))
"""
    source, found = with_gpu(lines, uuid, **settings)
    assert source == "none"
    assert found.startswith(reason)


def test_state_processes_and_throttling_come_through_the_real_structures(with_gpu):
    lines = """
watch = DeviceWatch(uuid)
watch.read_before_window()
watch.read_after_window()
facts = watch.window_facts([(0.0, 300.0, None, 1700.0, 61.0, 0x4)])
print(json.dumps([facts, [w.partition(":")[0] for w in watch.warnings()], driver_version(), vbios_version(uuid)]))
"""
    facts, warnings, driver, firmware = with_gpu(lines, processes=3, reasons=0x24)
    assert driver == "580.159.04"
    assert firmware == "96.00.89.00.01"
    assert facts["sm_clock_before_mhz"] == 1755
    assert facts["sm_clock_min_mhz"] == 1700
    assert facts["sm_clock_max_mhz"] == 1980
    assert facts["memory_clock_mhz"] == 2619
    assert facts["temperature_max_c"] == 61
    assert facts["power_limit_w"] == 700
    assert facts["memory_device_total_bytes"] == 85520809984
    assert facts["memory_device_used_bytes"] == 3 << 30
    assert facts["throttle_reasons"] == ["sw_power_cap", "sw_thermal_slowdown"]
    assert facts["other_processes"] == 2  # one of the three is taken to be this process
    assert warnings == ["throttled", "power_capped", "shared_device"]


def test_memory_errors_and_xids_of_a_case_come_through_the_real_structures(with_gpu):
    lines = """
import os
watch = DeviceWatch(uuid)
os.environ.update(NVML_ECC="9 1 30 2", NVML_ROWS="2 1 1 0", NVML_XIDS="48 63")
watch.read_before_window()
watch.read_after_window()
print(json.dumps([watch.window_facts([]), watch.warnings()]))
"""
    facts, warnings = with_gpu(lines, ecc="4 0 25 1", rows="2 0 0 0")
    assert (facts["ecc_corrected_volatile_before"], facts["ecc_corrected_volatile_after"]) == (4, 9)
    assert (facts["ecc_uncorrected_volatile_before"], facts["ecc_uncorrected_volatile_after"]) == (0, 1)
    assert (facts["ecc_corrected_aggregate_after"], facts["ecc_uncorrected_aggregate_after"]) == (30, 2)
    assert (facts["rows_remapped_corrected_before"], facts["rows_remapped_uncorrected_after"]) == (2, 1)
    assert (facts["remap_pending_before"], facts["remap_pending_after"]) == (False, True)
    assert facts["xid_events"] == [48, 63]
    assert warnings == [
        "ecc_corrected: ECC corrected 5 memory error(s) during the case.",
        "ecc_uncorrected: 1 memory error(s) during the case could not be corrected.",
        "rows_remapped: 1 memory row(s) were remapped during the case.",
        "rows_remapped: a memory row waits to be remapped; reset the GPU.",
        "xid: the NVIDIA driver reported Xid error 48, 63 during the case.",
    ]


def test_without_ecc_and_permission_for_events_the_errors_are_unknown(with_gpu):
    lines = """
watch = DeviceWatch(uuid)
watch.read_before_window()
watch.read_after_window()
facts = watch.window_facts([])
print(json.dumps([facts["ecc_corrected_volatile_after"], facts["remap_failed_after"], facts["xid_events"]]))
"""
    assert with_gpu(lines, xids=-1) == [None, None, None]


@pytest.mark.parametrize("tick_s", [0.02, 0.1])
def test_the_tick_of_the_counter_is_found(with_gpu, tick_s):
    lines = """
from dlbench.worker.meters.energy import wait_for_counter_tick
device = NvmlDevice(uuid)
ticks = [wait_for_counter_tick(device).at_s for _ in range(6)]
print((ticks[-1] - ticks[0]) / 5)
"""
    assert with_gpu(lines, tick=tick_s) == pytest.approx(tick_s, rel=0.25)


def test_the_checks_of_a_gpu_pass_on_the_stand_in(with_gpu):
    lines = """
from tests.gpu import checks
def load(seconds):
    began_s = time.perf_counter()
    time.sleep(seconds)
    return began_s, time.perf_counter()
print(json.dumps([checks.every_call_answers(uuid), checks.the_counter_moves_in_ticks(uuid, 1.0),
                  checks.counter_and_integral_agree(uuid, load, (0.3, 0.6))]))
"""
    answers, ticks, agreement = with_gpu(lines, ecc="0 0 0 0", rows="0 0 0 0", watts=450)
    assert answers["limits"] == {"range_w": [200, 700], "set_w": 700, "mhz": [345, 1980]}
    assert ticks["tick_s"] == pytest.approx(0.1, rel=0.2)
    assert agreement["power_w"] == pytest.approx(450, rel=0.02)
