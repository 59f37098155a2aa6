"""The memory that `dlbench plan` names without torch: against the step as it is followed, and against the real one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from dlbench.errors import BadInput
from dlbench.suites.case import MODES, Case
from dlbench.suites.case_estimates import OPTIMIZER_STATES, _read_memory_coefficients, predicted_memory_bytes
from dlbench.suites.catalog import CATALOG
from dlbench.worker.counting.memory_fit import LISTED_MODELS, fit_memory, fit_peak_memory
from dlbench.worker.counting.memory_prediction import _CHANNEL_BLOCK, predict_memory
from tests.worker.counting.test_memory_prediction import measured

QUICK = ("lenet5", "alexnet")
KNOWN_CPU = torch.backends.cpu.get_cpu_capability() in _CHANNEL_BLOCK


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", QUICK)
def test_the_table_holds_what_is_followed(model, mode, precision):
    case = Case(model, mode=mode, device="cuda", precision=precision)
    followed, kept = fit_memory(case), _read_memory_coefficients()[model, mode, "cuda", precision]
    assert len(followed) == len(kept)
    # Versions of PyTorch differ in what autocast casts.
    for line, known in zip(followed, kept, strict=True):
        assert line == pytest.approx(known, rel=0.05 if precision.startswith("amp") else 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [name for name in CATALOG if name not in QUICK and not name.startswith(("resnet101", "resnet152"))]
)
def test_the_table_holds_what_is_followed_of_every_network(model):
    case = Case(model, device="cuda")
    assert fit_memory(case) == _read_memory_coefficients()[model, "training", "cuda", "fp32"]


def test_the_table_has_every_network_and_nothing_else():
    keys = [
        (m, mode, d, p) for m in LISTED_MODELS for mode in MODES for d in ("cpu", "cuda") for p in ("fp32", "amp_bf16")
    ]
    assert set(_read_memory_coefficients()) == set(keys)


@pytest.mark.skipif(not KNOWN_CPU, reason="what oneDNN copies on this kind of CPU is not known")
@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", QUICK)
def test_the_highest_line_is_the_prediction_at_any_batch(model, mode, batch_size):
    case = Case(model, mode=mode, device="cpu", batch_size=batch_size)
    assert predicted_memory_bytes(case) == pytest.approx(predict_memory(case).peak_bytes, rel=0.01)


@pytest.mark.parametrize("batch_size", [2, 16, 64, 500])
@pytest.mark.parametrize(("model", "mode"), [("alexnet", "training"), ("lenet5", "training"), ("alexnet", "inference")])
def test_the_lines_of_maxbatch_are_the_prediction_at_any_batch(model, mode, batch_size):
    case = Case(model, mode=mode, device="cuda", batch_size=batch_size)
    predicted = max(fixed + batch_size * per_image for fixed, per_image in fit_peak_memory(case))
    assert predicted == pytest.approx(predict_memory(case).peak_bytes, rel=0.01)


@pytest.mark.skipif(not KNOWN_CPU, reason="what oneDNN copies on this kind of CPU is not known")
@pytest.mark.parametrize(
    ("model", "mode", "batch_size"),
    [
        *((model, mode, batch) for model in QUICK for mode in MODES for batch in (1, 8)),
        # With a few images, oneDNN's scratchpad, which is not predicted, is a sixth of the peak.
        *(("conv_autoencoder", mode, 64) for mode in MODES),
        pytest.param("vgg16", "inference", 8, marks=pytest.mark.slow),
        pytest.param("googlenet", "training", 8, marks=pytest.mark.slow),
    ],
)
def test_the_plan_is_within_a_tenth_of_the_allocators_peak(model, mode, batch_size):
    case = Case(model, mode=mode, device="cpu", batch_size=batch_size)
    assert predicted_memory_bytes(case) == pytest.approx(measured(case)[1], rel=0.10)


@pytest.mark.skipif(not KNOWN_CPU, reason="what oneDNN copies on this kind of CPU is not known")
@pytest.mark.parametrize(("batch_size", "within"), [(2, 0.13), (64, 0.01)])
@pytest.mark.parametrize("optimizer", OPTIMIZER_STATES)
def test_each_optimizer_keeps_its_state(optimizer, batch_size, within):
    case = Case("alexnet", batch_size=batch_size, device="cpu", optimizer=optimizer)
    assert predicted_memory_bytes(case) == pytest.approx(predict_memory(case).peak_bytes, rel=within)


def test_a_network_outside_the_catalogue_has_no_prediction():
    assert predicted_memory_bytes(Case("torchvision:vgg16")) is None


def test_the_plan_needs_no_torch():
    code = "import sys; from dlbench.suites.case_estimates import predicted_memory_bytes as p; from dlbench.suites.case import Case\n"
    code += "assert p(Case('vgg16', batch_size=8)) > 2**31; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_that_grows_with_the_square_of_the_batch_has_no_lines():
    with pytest.raises(BadInput, match="is not linear in the batch"):
        fit_memory(Case("tests.worker.networks.counted:EachToEach", device="cuda"))
