"""Meters against a fake NVML and fake powercap files: exact where they can be, None with a reason where not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlbench.worker.meters import energy, nvml, reading
from dlbench.worker.meters.device_watch import DeviceWatch, health_of_watched_device
from dlbench.worker.meters.energy import NoMeter, NvmlCounterMeter, SampledMeter, open_meter, wait_for_counter_tick
from dlbench.worker.meters.nvml import MeterUnavailable, NvmlDevice
from dlbench.worker.meters.power_trace import PowerSampler, integrate_trapezoids
from dlbench.worker.meters.rapl import RaplMeter

UUID = "11111111-2222-3333-4444-555555555555"


def device(**changes):
    return {"uuid": f"GPU-{UUID}", "power": [[None, 300.0]], "loaded_at_s": time.perf_counter() - 100, **changes}


def loaded(now_s, start_s, length_s, idle_w=80.0, load_w=600.0):
    """A device that works for a while and is idle before and after."""
    return device(power=[[now_s + start_s, idle_w], [now_s + start_s + length_s, load_w], [None, idle_w]])


def measure(meter, length_s):
    meter.start()
    opened_s = time.perf_counter()
    time.sleep(length_s)
    return meter.stop(opened_s, time.perf_counter())


@pytest.fixture
def short_windows(monkeypatch):
    """Lets windows of a few ticks count, so that the tests need not last."""
    monkeypatch.setattr(reading, "FEWEST_TICKS", 2)


def test_the_counter_gives_the_energy_of_the_window_alone(fake_nvml, short_windows):
    fake = fake_nvml(device())
    meter = NvmlCounterMeter(NvmlDevice(UUID), None)
    meter.start()
    opened_s = time.perf_counter()
    # The load begins with the window and ends with it, in the middle of a tick; afterwards the device is idle.
    load = device(power=[[opened_s, 80.0], [opened_s + 0.73, 600.0], [None, 80.0]])
    base = device(power=load["power"], loaded_at_s=opened_s - 100)
    meter._start = energy.CounterTick(
        opened_s // 0.1 * 0.1, fake.true_energy_j(base, opened_s - 100, opened_s // 0.1 * 0.1)
    )
    fake_nvml(base)
    time.sleep(opened_s + 0.73 - time.perf_counter())
    found = meter.stop(opened_s, opened_s + 0.73)
    # The lead before the window is taken off at the tail's power, for want of a rest; both are idle here.
    assert found.energy_j == pytest.approx(0.73 * 600.0, rel=0.01)
    assert found.window_s == pytest.approx(0.73)


def test_counter_and_sampled_power_agree_and_the_idle_power_is_known(fake_nvml, short_windows):
    fake_nvml({**device(), "uuid": "GPU-other", "power": [[None, 999.0]]}, device(module=500.0))
    meter = open_meter("auto", "cuda", UUID, None)
    assert (meter.source, meter.scope) == ("nvml_counter", "device")
    meter.measure_idle(0.2)
    found = measure(meter, 0.8)
    assert found.energy_j == pytest.approx(300.0 * found.window_s, rel=0.01)
    assert found.integral_j == pytest.approx(found.energy_j, rel=0.01)
    assert found.module_j == pytest.approx(500.0 * found.window_s, rel=0.01)
    assert found.idle_power_w == pytest.approx(300.0, rel=0.02)
    assert [w.split(":")[0] for w in found.warnings] == ["short_energy_window"]


def test_a_sensor_that_reads_another_power_than_the_counter_is_reported(fake_nvml, short_windows):
    fake_nvml(device(power_scale=1.2))
    found = measure(open_meter("auto", "cuda", UUID, None), 0.5)
    assert found.energy_j == pytest.approx(300.0 * found.window_s, rel=0.01)
    assert any(w.startswith("energy_mismatch: the integral of sampled power differs by +") for w in found.warnings)


@pytest.mark.parametrize(
    ("counter", "reason"), [("unsupported", "Not Supported"), ("no_permission", "Insufficient Permissions")]
)
def test_without_a_counter_the_sampled_power_is_the_energy_and_says_why(fake_nvml, short_windows, counter, reason):
    fake_nvml(device(energy=counter))
    meter = open_meter("auto", "cuda", UUID, None)
    assert isinstance(meter, SampledMeter)
    meter.measure_idle(0.2)
    found = measure(meter, 0.5)
    assert meter.source == "nvml_power"
    assert found.counter_j is None
    assert found.energy_j == pytest.approx(300.0 * found.window_s, rel=0.01)
    assert found.idle_power_w == pytest.approx(300.0, rel=0.02)
    assert found.note == f"sampled power, because the energy counter cannot be read: {reason}"


def test_a_sensor_that_shows_no_power_gives_no_energy(fake_nvml, short_windows):
    fake_nvml(device(energy="unsupported", power=[[None, 0.0]]))
    meter = open_meter("auto", "cuda", UUID, None)
    meter.measure_idle(0.1)
    found = measure(meter, 0.3)
    assert (found.energy_j, found.idle_power_w) == (None, None)
    assert found.warnings[-1].startswith("meter_still: the energy meter returned 0 J")


def test_a_window_of_too_few_ticks_has_no_energy(fake_nvml):
    fake_nvml(device())
    found = measure(NvmlCounterMeter(NvmlDevice(UUID), None), 0.3)
    assert (found.energy_j, found.counter_j, found.window_s) == (None, None, None)
    assert "is shorter than 20 updates of the counter (2.0 s)" in found.note


@pytest.mark.parametrize("change", [{"lost_at_s": 0.3}, {"reset_at_s": 0.3}])
def test_a_meter_that_fails_on_the_way_gives_none_and_says_why(fake_nvml, short_windows, change):
    now_s = time.perf_counter()
    fake_nvml(device(**{name: now_s + after_s for name, after_s in change.items()}))
    found = measure(NvmlCounterMeter(NvmlDevice(UUID), None), 0.5)
    assert found.energy_j is None
    assert ("GPU is lost" if "lost_at_s" in change else "went backwards") in found.note


def test_a_lost_device_ends_the_samples_and_not_the_case(fake_nvml, short_windows):
    fake_nvml(device(energy="unsupported", lost_at_s=time.perf_counter() + 1.0))
    meter = open_meter("auto", "cuda", UUID, None)
    found = measure(meter, 1.2)
    assert found.energy_j is None
    assert "GpuIsLost" in found.note


def test_a_counter_that_stands_still_is_no_zero(fake_nvml, monkeypatch):
    monkeypatch.setattr(energy, "TICK_TIMEOUT_S", 0.2)
    fake_nvml(device(energy="frozen"))
    found = measure(NvmlCounterMeter(NvmlDevice(UUID), None), 0.05)
    assert found.energy_j is None
    assert "did not change" in found.note


@pytest.mark.parametrize("changes", [{"mig": True}, {"uuid": f"MIG-{UUID}"}])
def test_an_instance_of_a_split_gpu_has_no_meter(fake_nvml, changes):
    fake_nvml(device(**changes))
    meter = open_meter("auto", "cuda", UUID, None)
    assert isinstance(meter, NoMeter)
    assert "MIG instance" in meter.reason
    assert meter.stop(0.0, 1.0).energy_j is None


def test_a_device_is_matched_by_uuid_or_not_at_all(fake_nvml):
    fake_nvml({**device(), "uuid": "GPU-other"})
    assert "Not Found" in open_meter("auto", "cuda", UUID, None).reason
    assert "UUID of the device is unknown" in open_meter("auto", "cuda", None, None).reason


def test_energy_none_and_a_missing_driver_have_their_reasons(fake_nvml, monkeypatch):
    assert "disabled by" in open_meter("none", "cuda", UUID, None).reason
    monkeypatch.delenv("FAKE_NVML")
    assert "Driver Not Loaded" in open_meter("auto", "cuda", UUID, None).reason


def test_ticks_are_found_to_a_few_milliseconds(fake_nvml):
    fake_nvml(device())
    ticks = [wait_for_counter_tick(NvmlDevice(UUID)).at_s for _ in range(3)]
    assert all(t % 0.1 < 0.02 for t in ticks)


def test_the_sampler_needs_no_torch_and_dies_with_its_parent(fake_nvml):
    fake_nvml(device())
    sampler = PowerSampler("nvml", UUID)
    assert "libtorch" not in Path(f"/proc/{sampler._process.pid}/maps").read_text()
    sampler._process.stdin.close()
    assert sampler._process.wait(5) == 0
    sampler._process.stdout.close()


def test_a_sampler_that_was_killed_leaves_a_reason(fake_nvml):
    fake_nvml(device())
    sampler = PowerSampler("nvml", UUID)
    sampler._process.kill()
    assert "ended without samples" in sampler.stop().error


def test_a_sampler_whose_parent_died_is_silent(fake_nvml):
    fake_nvml(device())
    command = [sys.executable, "-m", "dlbench.worker.meters.power_sampler", "nvml", UUID, "0.05"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(10) == 1


def test_an_integral_with_a_hole_or_an_open_end_is_none():
    even = [(i * 0.1, 100.0 + i) for i in range(11)]
    assert integrate_trapezoids(even, 0.25, 0.75) == pytest.approx(0.5 * 105.0)
    assert integrate_trapezoids(even, -0.1, 0.5) is None
    assert integrate_trapezoids(even, 0.5, 1.1) is None
    assert integrate_trapezoids([*even[:3], *even[9:]], 0.1, 0.95) is None
    assert integrate_trapezoids([], 0.0, 1.0) is None


def test_state_throttling_and_other_processes_are_flagged(fake_nvml):
    fake_nvml(device(throttle=0x4 | 0x2, processes=[1, 2, os.getpid()]))
    watch = DeviceWatch(UUID)
    watch.read_before_window()
    watch.read_after_window()
    facts = watch.window_facts([(0.0, 300.0, None, 1400.0, 71.0, 0x4)])
    assert facts["throttle_reasons"] == ("applications_clocks", "sw_power_cap")
    assert (facts["sm_clock_min_mhz"], facts["temperature_max_c"], facts["power_limit_w"]) == (1400.0, 71.0, 700.0)
    assert facts["other_processes"] == 2
    capped, shared = watch.warnings()
    assert capped == "power_capped: sw_power_cap in 2 of 2 samples."
    assert shared.startswith("shared_device: 2 other")


def test_heat_and_limits_of_the_board_throttle_and_the_power_cap_is_named_apart(fake_nvml):
    fake_nvml(device(throttle=0x4 | 0x40 | 0x200))
    watch = DeviceWatch(UUID)
    watch.read_before_window()
    watch.read_after_window()
    watch.window_facts([])
    throttled, capped = watch.warnings()
    assert throttled == "throttled: hw_thermal_slowdown in 1 of 1 samples, board_limit in 1 of 1 samples."
    assert capped.startswith("power_capped: ")


def test_the_errors_of_a_device_stay_known_where_its_case_fails(fake_nvml):
    fake_nvml(device(ecc={"uncorrected_volatile": 2}))
    DeviceWatch(UUID)
    fake_nvml(device(ecc={"uncorrected_volatile": 2}, xids=[31]))
    facts = health_of_watched_device()
    assert facts["xid_events"] == (31,)
    assert facts["warnings"] == (
        "ecc_uncorrected: 2 uncorrected memory error(s) since the driver was loaded.",
        "xid: the NVIDIA driver reported Xid error 31 (of the application) during the case.",
    )


def test_a_driver_too_old_for_a_call_leaves_its_fact_unknown(fake_nvml):
    fake_nvml(device(old_driver=True))
    watch = DeviceWatch(UUID)
    watch.read_before_window()
    watch.read_after_window()
    assert watch.window_facts([])["other_processes"] is None


def test_a_module_that_draws_nothing_is_none(fake_nvml):
    fake_nvml(device(module=0))
    sampler = PowerSampler("nvml", UUID)
    assert {row[2] for row in sampler.stop().rows} == {None}


def test_in_a_container_one_foreign_process_id_is_our_own():
    assert nvml.count_other_processes([], [4711]) == 0
    assert nvml.count_other_processes([], [4711, 4712]) == 1
    # In a container process ids are others; ours was there before, for choosing a device makes a context.
    assert nvml.count_other_processes([4711], [4711]) == 0
    assert nvml.count_other_processes([4711, 4712], [4711]) == 1
    assert nvml.count_other_processes([os.getpid()], [os.getpid()]) == 0
    assert nvml.count_other_processes([4711], [os.getpid()]) == 1
    assert nvml.count_other_processes(None, [4711]) is None


@pytest.fixture
def powercap(tmp_path):
    """Two packages with dram and core, psys over all, and the same package again under mmio."""

    def domain(name, title, energy_uj=1_000_000, range_uj=262_143_328_850):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "name").write_text(title + "\n")
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")

    for i in (0, 1):
        domain(f"intel-rapl:{i}", f"package-{i}")
        domain(f"intel-rapl:{i}:0", "core")
        domain(f"intel-rapl:{i}:1", "dram")
    domain("intel-rapl:2", "psys")
    domain("intel-rapl-mmio:0", "package-0")
    return tmp_path


@pytest.fixture
def any_window(monkeypatch):
    """Lets a window of no length count: what is tested is the sum, not the time."""
    monkeypatch.setattr(reading, "FEWEST_TICKS", 0)


def add_uj(root, name, energy_uj):
    file = root / name / "energy_uj"
    file.write_text(str(int(file.read_text()) + energy_uj))


def test_rapl_counts_packages_and_their_memory_once(powercap, any_window):
    meter = RaplMeter(powercap)
    meter.start()
    for name in ("intel-rapl:0", "intel-rapl:1:1", "intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        add_uj(powercap, name, 5_000_000)
    assert meter.stop(0.0, 1.0).energy_j == 10.0


def test_rapl_counters_wrap(powercap, any_window):
    (powercap / "intel-rapl:0" / "energy_uj").write_text("262143000000")
    meter = RaplMeter(powercap)
    meter.start()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("2000000")
    assert meter.stop(0.0, 1.0).energy_j == pytest.approx(2.32885)


def test_rapl_that_stands_still_is_no_zero(powercap):
    meter = RaplMeter(powercap)
    meter.measure_idle(0.01)
    found = measure(meter, 0.03)
    assert (found.energy_j, found.counter_j, found.idle_power_w) == (None, None, None)
    assert found.warnings[-1].startswith("meter_still: the energy meter returned 0 J")


def test_rapl_over_a_window_of_too_few_ticks_has_no_energy(powercap):
    meter = RaplMeter(powercap)
    meter.start()
    add_uj(powercap, "intel-rapl:0", 5_000_000)
    found = meter.stop(0.0, 0.001)
    assert found.energy_j is None
    assert "is shorter than 20 updates of the counter (0.020 s)" in found.note


def test_rapl_says_when_a_counter_may_have_wrapped_twice(powercap):
    for name in powercap.iterdir():
        (name / "max_energy_range_uj").write_text("1000")
    meter = RaplMeter(powercap)
    meter.start()
    time.sleep(0.01)
    found = meter.stop(0.0, 1.0)
    assert found.energy_j is None
    assert "wrapped twice" in found.note


def test_rapl_that_cannot_be_read_is_a_reason(powercap, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied", "/sys/class/powercap/intel-rapl:0/energy_uj")

    monkeypatch.setattr("dlbench.worker.meters.rapl.RaplDomain.read_microjoules", refuse)
    with pytest.raises(MeterUnavailable, match="readable by root only"):
        RaplMeter(powercap)
    with pytest.raises(MeterUnavailable, match="no RAPL package"):
        RaplMeter(tmp_path / "nothing")


def test_rapl_that_was_set_back_is_no_wrap(powercap, any_window):
    (powercap / "intel-rapl:1" / "energy_uj").write_text("100000000000")
    meter = RaplMeter(powercap)
    meter.start()
    (powercap / "intel-rapl:1" / "energy_uj").write_text("1000000")
    found = meter.stop(0.0, 1.0)
    assert found.energy_j is None
    assert found.warnings[0].startswith("counter_reset: RAPL counted ")


def test_rapl_knows_a_single_counter_that_was_set_back(powercap, any_window, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("dlbench.worker.meters.rapl.time.perf_counter", lambda: clock[0])
    meter = RaplMeter(powercap)
    meter.start()
    clock[0] = 40.0
    # 60 kJ in 40 s: less than all packages together might draw, and more than one does.
    add_uj(powercap, "intel-rapl:0", 60_000_000_000)
    found = meter.stop(0.0, 40.0)
    assert found.energy_j is None
    assert found.warnings[0].startswith("counter_reset: RAPL counted 60000 J in 40.00 s")


def test_rapl_that_vanishes_is_a_warning(powercap):
    meter = RaplMeter(powercap)
    meter.start()
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    found = meter.stop(0.0, 1.0)
    assert found.energy_j is None
    assert found.warnings[0].startswith("meter_lost: RAPL")


def test_an_amd_device_is_sampled_by_its_pci_address(tmp_path, monkeypatch, short_windows):
    (tmp_path / "amdsmi.py").write_text(
        "def amdsmi_init(): pass\n"
        "def amdsmi_get_processor_handles(): return [1, 2]\n"
        "def amdsmi_get_gpu_device_bdf(h): return {1: '0000:c1:00.0', 2: '0000:C6:00.0'}[h]\n"
        "def amdsmi_get_power_info(h):\n"
        "    return {'current_socket_power': 'N/A', 'average_socket_power': {1: 111, 2: 222}[h]}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    meter = open_meter("auto", "cuda", None, "0000:c6:00.0")
    found = measure(meter, 0.4)
    assert meter.source == "amdsmi"
    assert found.energy_j == pytest.approx(222 * found.window_s)
    assert "has no device at 0000:00:00.0" in open_meter("auto", "cuda", None, "0000:00:00.0").reason


def test_the_fake_has_the_names_and_codes_of_the_real_module(fake_nvml):
    real = pytest.importorskip("pynvml")
    fake = fake_nvml(json.loads("{}"))
    for name in [n for n in dir(fake) if n.startswith(("nvml", "NVML"))]:
        assert hasattr(real, name), name
        if isinstance(getattr(fake, name), int):
            assert getattr(fake, name) == getattr(real, name), name
