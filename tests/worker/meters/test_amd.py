"""AMD devices through a stand-in for amdsmi with the functions and answers that its documentation names."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from dlbench.worker.meters.amd import AmdDevice
from dlbench.worker.meters.device_watch import DeviceWatch
from dlbench.worker.meters.energy import open_meter
from dlbench.worker.meters.nvml import MeterUnavailable

AMDSMI = """
class AmdSmiTemperatureType: EDGE, HOTSPOT = 0, 1
class AmdSmiTemperatureMetric: CURRENT = 0
class AmdSmiClkType: GFX, MEM = 0, 4
class AmdSmiLibraryException(Exception): pass
def amdsmi_init(): pass
def amdsmi_get_processor_handles(): return [1, 2]
def amdsmi_get_gpu_device_bdf(h): return {1: '0000:c1:00.0', 2: '0000:C6:00.0'}[h]
def amdsmi_get_power_info(h): return {'current_socket_power': 'N/A', 'average_socket_power': {1: 480, 2: 0}[h]}
def amdsmi_get_power_cap_info(h): return {'power_cap': 560000000}
def amdsmi_get_gpu_vram_usage(h): return {'vram_used': 1024, 'vram_total': 65536}
def amdsmi_get_clock_info(h, kind): return {0: {'clk': 1650, 'max_clk': 1700}, 4: {'clk': 1600, 'max_clk': 1600}}[kind]
def amdsmi_get_gpu_total_ecc_count(h): return {'correctable_count': 3, 'uncorrectable_count': 1}
def amdsmi_get_gpu_process_list(h): return [{'pid': 17}]
def amdsmi_get_temp_metric(h, kind, metric):
    if kind == AmdSmiTemperatureType.HOTSPOT: raise AmdSmiLibraryException('not supported')
    return 55
"""


@pytest.fixture
def amdsmi(tmp_path, monkeypatch):
    (tmp_path / "amdsmi.py").write_text(AMDSMI)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "amdsmi", raising=False)
    yield
    sys.modules.pop("amdsmi", None)


def test_clocks_temperature_limit_memory_and_errors_of_an_amd_device_are_in_the_record(amdsmi):
    watch = DeviceWatch("a uuid of ROCm", "0000:c1:00.0")
    watch.read_before_window()
    watch.read_after_window()
    facts = SimpleNamespace(**watch.window_facts([(0.0, 480.0, None, 1500.0, 61.0, None)]))
    assert (facts.sm_clock_min_mhz, facts.sm_clock_max_mhz, facts.memory_clock_mhz) == (1500, 1700, 1600)
    assert (facts.temperature_before_c, facts.temperature_max_c, facts.power_limit_w) == (55, 61, 560)
    assert (facts.memory_device_used_bytes, facts.memory_device_total_bytes) == (2**30, 2**36)
    assert (facts.ecc_corrected_volatile_after, facts.ecc_uncorrected_volatile_after) == (3, 1)
    assert (facts.ecc_corrected_aggregate_after, facts.remap_pending_after, facts.xid_events) == (None, None, None)
    assert facts.throttle_reasons == ()
    assert [w.partition(":")[0] for w in watch.warnings()] == ["ecc_uncorrected"]


def test_the_first_die_of_a_module_reports_for_both_and_the_second_has_no_meter(amdsmi):
    first = open_meter("auto", "cuda", None, "0000:c1:00.0", "AMD Instinct MI250X")
    assert (first.source, first.scope) == ("amdsmi", "module")
    found = first.stop(0.0, 1.0)
    assert found.trace.rows[0][1] == 480
    second = open_meter("auto", "cuda", None, "0000:c6:00.0", "AMD Instinct MI250X")
    assert second.source == "none"
    assert "on a module of two dies, only the first die reports power" in second.reason


def test_without_amdsmi_or_its_device_there_is_a_reason(amdsmi, monkeypatch):
    with pytest.raises(MeterUnavailable, match=r"no device at 0000:99:00\.0; devices: 0000:c1:00\.0, 0000:c6:00\.0"):
        AmdDevice("0000:99:00.0")
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(MeterUnavailable, match="amdsmi: "):
        AmdDevice("0000:c1:00.0")
