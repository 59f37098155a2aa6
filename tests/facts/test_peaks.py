"""Device names as drivers give them, and the datasheet rows that they must find - or must not."""

import pytest

from dlbench.facts.peaks import find_device_peaks, peaks_by_device, published_throughputs


@pytest.mark.parametrize(
    ("driver_name", "row"),
    [
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM4 40GB"),
        ("A100-SXM4-40GB", "A100 SXM4 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA GH200 480GB", "GH200 96GB"),
        ("NVIDIA GH200 144G HBM3e", "GH200 144GB"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A40", "A40"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("AMD Instinct MI210", "MI210"),
        ("AMD Instinct MI250X", "MI250X"),
        ("AMD Instinct MI300X", "MI300X"),
        ("H100 SXM5", "H100 SXM5"),
    ],
)
def test_a_device_is_found_by_its_drivers_name(driver_name, row):
    assert find_device_peaks(driver_name).device == row


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA H200 NVL", "NVIDIA H100 NVL", "NVIDIA L40", "NVIDIA A4000", "NVIDIA GB200", "NVIDIA A100-SXM-64GB"),
        *("NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D"),
        *("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "AMD EPYC 9654 96-Core Processor", "cpu", "", None),
    ],
)
def test_a_part_that_only_sounds_alike_and_a_cpu_have_no_peak(name):
    assert find_device_peaks(name) is None


def test_every_row_of_the_datasheets_can_be_found():
    assert {name for name in peaks_by_device() if find_device_peaks(name) is None} == set()


def test_precisions_find_their_dense_column():
    peaks = find_device_peaks("NVIDIA H200")
    found = {p: peaks.flop_per_s(p) for p in ("fp32", "tf32", "amp_bf16", "amp_fp16", "int8")}
    assert found == {"fp32": 67e12, "tf32": 494.5e12, "amp_bf16": 989e12, "amp_fp16": 989e12, "int8": None}
    assert find_device_peaks("Tesla V100-SXM2-32GB").flop_per_s("amp_bf16") is None


def test_one_die_of_a_two_die_device_has_half_of_its_peak():
    assert find_device_peaks("AMD Instinct MI250X").flop_per_s("amp_bf16") == 383e12 / 2


def test_anchors_are_read_with_their_gaps_as_none():
    found = published_throughputs()
    assert len(found) == 23
    assert (found[0].model, found[0].devices, found[0].img_per_s_total) == ("resnet50_v1_5", 8, 63601)
    assert found[1].batch_per_device is None
