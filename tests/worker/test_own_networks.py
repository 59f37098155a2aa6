"""Users' own networks: measured as the case says, or invalid with the reason, or one clear line."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.models import build, build_on_meta
from dlbench.suites.case import Case
from dlbench.tasks.classification import loss as training_loss
from dlbench.tasks.outputs import auxiliary_head_scores, main_head_scores
from dlbench.worker.measure import measure
from dlbench.worker.ranks.context import RankContext
from dlbench.worker.settings import ProcessSettings
from dlbench.worker.workload import build_workload, require_finite_outputs
from tests.worker.conftest import NETWORKS, TINY, run_worker

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Networks are found, and the settings of this process are put back."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(NETWORKS)])
    threads = torch.get_num_threads()
    yield
    for name in ("settings_changed", "shapes", "tiny"):
        sys.modules.pop(name, None)
    torch.set_num_threads(threads)
    ProcessSettings(Case("lenet5", device="cpu"), CPU)
    torch.backends.cudnn.benchmark = False


def case_of(model, **more):
    return Case(model, batch_size=4, device="cpu", protocol=TINY, **more)


def built(model, **more):
    return build_workload(case_of(model, **more), CPU)


def checked(model, **more):
    workload = built(model, **more)
    for _ in range(3):
        workload.step()
    return workload.check_work_and_precision()


def test_switches_at_the_head_of_a_networks_file_are_set_back_and_named(tmp_path):
    status, outcome, stderr = run_worker(tmp_path, case_of("settings_changed:at_import"))
    assert (status, outcome.error) == (0, None), stderr
    ((system, found),) = outcome.ranks
    assert set(system.details["precision_switches"].values()) == {"ieee"}
    (warning,) = (w for w in found.warnings if w.startswith("settings_reset: "))
    assert "precision of matrix product is tf32 instead of ieee" in warning


def test_all_settings_are_set_back_after_the_network_is_built():
    threads = torch.get_num_threads()
    workload = built("settings_changed:when_built")
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert workload.settings.describe_differences() == []
    (warning,) = workload.warnings
    names = ("threads", "deterministic", "anomaly", "gradients", "autocast", "cuDNN's choice", "default dtype", "modes")
    assert [name for name in names if name not in warning] == []
    # The seeds as well: a network's file cannot choose the images.
    first = next(workload.batches)[0][0]
    assert torch.equal(first, next(built("tiny:make").batches)[0][0])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("matmul", "precision of matrix product is tf32 instead of ieee"),
        ("threads", "number of threads is 2 instead of 1"),
        ("deterministic", "deterministic algorithms is on instead of off"),
        ("default_dtype", "default dtype is float64 instead of float32"),
        ("default_device", "open function modes is 1 instead of 0"),
        ("anomaly", "anomaly detection is on instead of off"),
        ("for_a_moment", "changes settings within a step: precision of matrix product is tf32"),
        ("casts", "precision 'fp32' was requested, but the network computes addmm in bfloat16 (2 a step)"),
    ],
)
@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_settings_changed_in_a_step_make_the_case_invalid(name, reason, mode):
    torch.set_num_threads(1)
    with pytest.raises(InvalidMeasurement, match=r"settings|computes") as caught:
        checked(f"settings_changed:{name}", mode=mode)
    assert reason in str(caught.value).replace("mm in bfloat16 (3 a step), ", "").replace("linear", "addmm")


def test_a_whole_measurement_ends_invalid_where_a_step_changes_settings(tmp_path):
    status, outcome, _ = run_worker(tmp_path, case_of("settings_changed:matmul"))
    assert (status, outcome.status) == (3, "invalid"), outcome.error
    assert outcome.error.startswith("settings changed while the case was measured: precision of matrix product")


@pytest.mark.parametrize(("name", "dtype"), [("half", "bfloat16"), ("double", "float64")])
@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
def test_parameters_of_another_precision_make_the_case_invalid(name, dtype, precision):
    with pytest.raises(InvalidMeasurement) as caught:
        built(f"settings_changed:{name}", precision=precision)
    assert f"a.weight, a.bias, h.weight and 1 more are {dtype}" in str(caught.value)


def test_other_parameters_and_buffers_are_named():
    assert built("settings_changed:named").warnings[1:] == (
        "parameter_dtype: codes is int8 instead of float32.",
        "buffer_dtype: table is bfloat16.",
    )


def test_autocast_that_the_network_switches_off_is_not_mixed_precision():
    with pytest.raises(InvalidMeasurement, match="no product or convolution used bfloat16"):
        checked("settings_changed:refuses_autocast", precision="amp_bf16")
    assert checked("tiny:make", precision="amp_bf16") == ()
    assert checked("lenet5", precision="amp_fp16") == ()
    assert checked("squeezenet1_1", precision="fp32", mode="inference") == ()


@pytest.mark.filterwarnings("ignore")
def test_integer_products_are_not_fp32():
    with pytest.raises(InvalidMeasurement, match="quantized integers"):
        checked("settings_changed:quantized", mode="inference")


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("name", ["Lazy", "LazyHead"])
def test_lazy_layers_are_measured(name, mode):
    outcome = measure(case_of(f"shapes:{name}", mode=mode), RankContext())
    ((_, found),) = outcome.ranks
    # 8 filters of 3 x 3 x 3 on 14 x 14 positions, and 8 x 14 x 14 x 10 weights (twice with the head of training).
    head = 2 if (name, mode) == ("LazyHead", "training") else 1
    assert found.forward_macs == 8 * 27 * 196 + head * 8 * 196 * 10
    assert found.parameters >= 8 * 27 + 8 * 196 * 10


@pytest.mark.parametrize("way", [build, build_on_meta])
def test_lazy_layers_have_shapes_before_anything_counts_them(way):
    module = way("shapes:Lazy").module
    assert module.h.weight.shape == (10, 8 * 14 * 14)
    assert module.n.num_batches_tracked.is_meta or module.n.num_batches_tracked == 0
    assert module.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LazyUnused", "model 'shapes:LazyUnused' has lazy layers that a forward pass does not use: never.weight"),
        (
            "LazyFails",
            "has lazy layers, but the forward pass with inputs of (2, 3, 16, 16) that initialises them",
        ),
        ("Distributed", "is wrapped in Distributed; return the network without this wrapper"),
        (
            "Unclear",
            "returns a dictionary of 'features': a tensor of shape (2, 64), 'classes': a tensor of shape (2, 10)",
        ),
        ("Dense", "returns a dictionary of 'out': a tensor of shape (2, 21, 16, 16) for 2 images"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(name, message):
    with pytest.raises(BadInput) as caught:
        built(f"shapes:{name}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["parallel", "parallel_inside", "compiled", "compiled_inside"])
def test_wrappers_are_taken_off_and_named(name):
    workload = built(f"shapes:{name}")
    assert {type(part).__name__ for part in workload.module.modules()} == {"Net", "Linear"}
    (warning,) = workload.warnings
    assert ("torch.compile" if "compiled" in name else "DataParallel") in warning
    assert checked(f"shapes:{name}") == ()
    assert workload.module.h._compiled_call_impl is None


@pytest.mark.parametrize("name", ["WithLoss", "WithFeatures", "WithProbabilities", "Dictionary", "Object"])
def test_what_a_network_gives_beside_the_scores_is_no_auxiliary_head(name):
    workload = built(f"shapes:{name}")
    (images,), labels = next(workload.batches)
    outputs = workload.module(images)
    scores = main_head_scores(outputs)
    assert scores.shape == (4, 10)
    assert auxiliary_head_scores(outputs, scores) == []
    assert training_loss(outputs, labels).item() == pytest.approx(
        torch.nn.functional.cross_entropy(scores, labels).item()
    )
    workload.step()


def test_a_second_tensor_of_scores_is_an_auxiliary_head():
    workload = built("shapes:WithHead")
    (images,), labels = next(workload.batches)
    scores, head, _ = outputs = workload.module(images)
    loss = torch.nn.functional.cross_entropy
    assert training_loss(outputs, labels).item() == pytest.approx(
        (loss(scores, labels) + 0.3 * loss(head, labels)).item()
    )


def test_a_network_without_a_head_is_measured_in_inference_and_refused_in_training():
    ((_, found),) = measure(case_of("shapes:Headless", mode="inference"), RankContext()).ranks
    assert found.forward_macs == 64 * 32
    with pytest.raises(BadInput, match=r"has no class scores .* and cannot be trained"):
        built("shapes:Headless")
    with pytest.raises(BadInput, match="has no trainable parameter and cannot be trained"):
        built("shapes:Frozen")


@pytest.mark.parametrize("name", ["Nan", "NanBeside", "NanLater"])
def test_outputs_that_are_not_finite_make_inference_invalid(name):
    with pytest.raises(InvalidMeasurement, match=r"outputs are not finite after (the first step|\d+ timed steps)"):
        measure(case_of(f"shapes:{name}", mode="inference"), RankContext())


def test_outputs_without_fractions_are_fine():
    require_finite_outputs({"a": [torch.arange(3), None, "text", torch.ones(2).to(torch.float8_e5m2)]}, "one step")
    require_finite_outputs(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "one step")
    with pytest.raises(InvalidMeasurement, match="1 of 2 outputs"):
        require_finite_outputs([{"a": torch.tensor([1.0, float("-inf")])}], "one step")


def test_a_network_that_gives_classes_instead_of_scores_is_one_line():
    with pytest.raises(BadInput, match=r"returns a tensor of shape \(2,\) for 2 images"):
        built("shapes:Integers", mode="inference")


@pytest.mark.slow
def test_a_compiled_case_that_compiles_nothing_is_invalid(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    case = dataclasses.replace(case_of("tiny:make"), compile="default")
    status, outcome, _ = run_worker(tmp_path, case)
    assert (status, outcome.status) == (3, "invalid"), outcome.error
    assert "PyTorch compiled no part of the network" in outcome.error
