"""Devices behind `torch.accelerator`, by a stand-in for the parts of PyTorch that only such a device has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dlbench.errors import DeviceUnavailable
from dlbench.suites.case import Case
from dlbench.worker import accelerators, memory
from dlbench.worker.devices import clock_for_device, device_name, device_uuid, find_device
from dlbench.worker.machine.system import software_and_device_facts, system_key
from dlbench.worker.meters.energy import open_meter
from dlbench.worker.precision import supported_precisions
from dlbench.worker.timing import run_window


class FakeEvent:
    """An event whose times are those of a device that takes 2 ms between two of them."""

    made = 0
    now_ms = 0.0

    def __init__(self, device, enable_timing):
        assert (device.type, enable_timing) == ("xpu", True)
        FakeEvent.made += 1

    def record(self):
        FakeEvent.now_ms += 2.0
        self.at_ms = FakeEvent.now_ms

    def synchronize(self):
        pass

    def query(self):
        return True

    def elapsed_time(self, end):
        return end.at_ms - self.at_ms


@pytest.fixture
def xpu(monkeypatch):
    """One Intel GPU of 64 GB, of which steps took 3 GB."""
    device = torch.device("xpu", 0)
    accelerator = SimpleNamespace(
        is_available=lambda: True,
        current_accelerator=lambda: device,
        device_count=lambda: 1,
        set_device_index=lambda index: None,
        synchronize=lambda device: None,
        reset_peak_memory_stats=lambda device: None,
        max_memory_allocated=lambda device: 3 * 2**30,
        max_memory_reserved=lambda device: 4 * 2**30,
        get_memory_info=lambda device: (60 * 2**30, 64 * 2**30),
    )
    properties = SimpleNamespace(
        name="Intel(R) Data Center GPU Max 1550", total_memory=64 * 2**30, uuid="8680", max_compute_units=448
    )
    functions = SimpleNamespace(
        get_device_name=lambda device: properties.name, get_device_properties=lambda _: properties
    )
    monkeypatch.setattr(torch, "accelerator", accelerator)
    monkeypatch.setattr(torch, "xpu", functions)
    monkeypatch.setattr(torch, "Event", FakeEvent)
    monkeypatch.setattr(FakeEvent, "made", 0)
    return device


def test_an_intel_gpu_is_found_named_and_in_the_key_of_the_system(xpu):
    assert find_device(Case("lenet5", device="auto")) == xpu
    assert find_device(Case("lenet5", device="xpu")) == xpu
    assert (device_name(xpu), device_uuid(xpu)) == ("Intel(R) Data Center GPU Max 1550", "8680")
    facts = software_and_device_facts()
    assert facts["device_kind"] == "xpu"
    assert facts["devices"][0]["memory_bytes"] == 64 * 2**30
    assert system_key(facts) != system_key(facts | {"devices": []})
    assert "tf32" not in supported_precisions(xpu)


def test_steps_are_timed_by_events_of_the_device_which_are_used_again(xpu):
    clock = clock_for_device(xpu)
    rule = lambda step_s, elapsed_s: "target" if len(step_s) >= 40 else None  # noqa: E731
    window = run_window(lambda clock: (), clock, rule, step_estimate_s=0.002, first_look_s=0.0, cap_s=1.0, max_steps=60,
                        growth=1.2)  # fmt: skip
    assert window.step_s == [pytest.approx(0.002)] * len(window.step_s)
    assert FakeEvent.made < len(window.step_s)


def test_memory_is_that_of_its_allocator_and_energy_is_unknown(xpu):
    memory.reset_memory_peaks(xpu)
    peaks = memory.read_memory_peaks(xpu)
    assert (peaks["memory_allocated_peak_bytes"], peaks["memory_reserved_peak_bytes"]) == (3 * 2**30, 4 * 2**30)
    meter = open_meter("auto", "xpu", None, None)
    assert (meter.source, meter.reason) == ("none", "no meter for devices of kind 'xpu'")


def test_an_allocator_without_peaks_gives_none(xpu, monkeypatch):
    def refuse(device):
        raise NotImplementedError

    for name in ("reset_peak_memory_stats", "max_memory_allocated", "get_memory_info"):
        monkeypatch.setattr(torch.accelerator, name, refuse)
    memory.reset_memory_peaks(xpu)
    assert memory.read_memory_peaks(xpu)["memory_allocated_peak_bytes"] is None
    assert accelerators.free_bytes(xpu) is None


def test_a_device_that_is_not_there_and_several_of_them_are_one_line(xpu):
    with pytest.raises(DeviceUnavailable, match="device 'mps' was requested, but PyTorch"):
        find_device(Case("lenet5", device="mps"))
    with pytest.raises(DeviceUnavailable, match="the case needs 2 devices, but for 'xpu' only one device is supported"):
        find_device(Case("lenet5", device="xpu", devices_per_node=2))
