"""The fingerprint: rounding passes in every setting, an error of one part in a hundred does not."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.suites.case import Case, Protocol
from dlbench.worker import fingerprint
from dlbench.worker.measure import measure
from dlbench.worker.ranks.context import RankContext
from dlbench.worker.settings import ProcessSettings
from tests.worker.conftest import NETWORKS, TINY

CPU = torch.device("cpu")
SETTINGS = (
    {"precision": "fp32"},
    {"precision": "amp_bf16"},
    {"memory_format": "channels_last"},
    {"precision": "amp_bf16", "memory_format": "channels_last", "optimizer": "adam", "optimizer_impl": "fused"},
)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(NETWORKS)])
    yield
    sys.modules.pop("convolving", None)
    ProcessSettings(Case("lenet5", device="cpu"), CPU)
    torch.backends.cudnn.benchmark = False


def found(network, **setting):
    return fingerprint.compare_with_reference(
        Case(f"convolving:{network}", batch_size=16, device="cpu", **setting), CPU
    )


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: "-".join(s.values()))
def test_a_right_network_passes_and_one_whose_convolution_is_wrong_by_one_in_a_hundred_does_not(setting):
    precision = setting.get("precision", "fp32")
    found("right", **setting).require_agreement(precision)
    found("normalised", **setting).require_agreement(precision)
    caught = found("wrong", **setting)
    assert 0.008 < caught.deviation < 0.02
    with pytest.raises(
        InvalidMeasurement,
        match=r"fingerprint: .* differs by [01]\.\d\d% from the same computation in fp32 .* check driver",
    ):
        caught.require_agreement(precision)


@pytest.mark.slow
def test_a_compiled_network_passes():
    found("right", compile="default").require_agreement("fp32")


def test_a_factor_that_normalisation_takes_out_again_in_training_is_seen_in_the_outputs():
    caught = found("wrong_and_normalised")
    assert caught.of.endswith("outputs")
    with pytest.raises(InvalidMeasurement):
        caught.require_agreement("fp32")


class WrongKernel(TorchDispatchMode):
    """In bf16, one operation with an operand of one shape is wrong by one part in a hundred."""

    def __init__(self, name, shape):
        super().__init__()
        self.name, self.shape = name, shape

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [a for a in args if isinstance(a, torch.Tensor) and a.dtype == torch.bfloat16]
        if func._schema.name != f"aten::{self.name}" or self.shape not in [t.shape for t in tensors]:
            return found
        return tuple(f if f is None else 1.01 * f for f in found) if isinstance(found, tuple) else 1.01 * found


@pytest.mark.parametrize("kernel", ["convolution", "convolution_backward"])
def test_a_wrong_kernel_is_seen_in_a_deep_network_where_rounding_hides_it(monkeypatch, kernel):
    setting = {"precision": "amp_bf16", "memory_format": "channels_last"}
    found("deep", **setting).require_agreement("amp_bf16")
    with WrongKernel(kernel, (16, 8, 3, 3)):
        caught = found("deep", **setting)
    assert caught.deviation == pytest.approx(0.01, rel=0.05)
    message = rf"fingerprint: {kernel} of .*16x8x3x3 differs by [01]\.\d\d% from the same computation in fp32"
    with pytest.raises(InvalidMeasurement, match=message):
        caught.require_agreement("amp_bf16")
    monkeypatch.setattr(fingerprint, "_COMPARED", set())
    with WrongKernel(kernel, (16, 8, 3, 3)):
        found("deep", **setting).require_agreement("amp_bf16")


def test_a_wrong_product_of_inference_is_seen():
    case = Case("mlp", "inference", batch_size=16, device="cpu", precision="bf16")
    fingerprint.compare_with_reference(case, CPU).require_agreement("bf16")
    with WrongKernel("addmm", (512, 10)):
        assert fingerprint.compare_with_reference(case, CPU).of == "addmm of 16x512 and 512x10"


def test_an_error_in_one_sample_of_the_batch_is_seen():
    with pytest.raises(InvalidMeasurement):
        found("wrong_in_one_sample").require_agreement("fp32")


@pytest.mark.parametrize("network", ["convolving:normalised", "lenet5", "mlp"])
def test_inference_compares_outputs(network):
    case = Case(network, "inference", batch_size=16, device="cpu", precision="amp_bf16")
    passed = fingerprint.compare_with_reference(case, CPU)
    passed.require_agreement("amp_bf16")
    assert passed.of.endswith("outputs")


def test_each_optimizer_in_each_implementation_follows_the_reference():
    for optimizer, kind in [("sgd", "fused"), ("adamw", "foreach"), ("adagrad", "plain"), ("rmsprop", "foreach")]:
        found("right", optimizer=optimizer, optimizer_impl=kind).require_agreement("fp32")


def test_an_optimizer_that_goes_the_wrong_way_is_seen(monkeypatch):
    step = torch.optim.Adam.step

    def wrong(self, closure=None):
        found = step(self, closure)
        if self.defaults["fused"]:
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.mul_(1.05)
        return found

    monkeypatch.setattr(torch.optim.Adam, "step", wrong)
    caught = found("right", optimizer="adam", optimizer_impl="fused")
    assert caught.of == "loss"
    with pytest.raises(InvalidMeasurement):
        caught.require_agreement("fp32")


def test_the_samples_divide_the_batch():
    assert [fingerprint.num_samples(n) for n in (1, 2, 4, 6, 7, 32, 256)] == [1, 2, 4, 6, 7, 8, 8]


def test_a_run_stores_its_fingerprint_or_is_invalid():
    protocol = dataclasses.replace(TINY, fingerprint="on")
    case = Case("convolving:right", batch_size=16, device="cpu", protocol=protocol)
    ((_, measured),) = measure(case, RankContext()).ranks
    assert measured.fingerprint_deviation < measured.fingerprint_limit
    assert measured.fingerprint_of
    with pytest.raises(InvalidMeasurement, match="fingerprint"):
        measure(dataclasses.replace(case, model="convolving:wrong"), RankContext())


def test_without_the_option_ids_stay_and_a_wrong_value_is_one_line():
    assert Case("lenet5").id == Case("lenet5", protocol=Protocol(fingerprint="off")).id
    assert Case("lenet5").id != Case("lenet5", protocol=Protocol(fingerprint="on")).id
    with pytest.raises(BadInput, match=r"unknown fingerprint 'yes' in protocol\.fingerprint"):
        Protocol(fingerprint="yes")
