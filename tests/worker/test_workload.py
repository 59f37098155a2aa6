"""The step itself: what it leaves, how inference runs, and that its data stay what they were."""

from __future__ import annotations

import contextlib
import weakref

import pytest
import torch
from torch._dynamo.utils import counters

from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.worker import workload as module
from dlbench.worker.workload import OPTIMIZERS, build_workload

CPU = torch.device("cpu")


def gradient_norm(workload):
    return float(torch.stack([p.grad.norm() for p in workload.module.parameters()]).norm())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_are_after_many_steps_on_one_batch_what_they_were_in_the_first(optimizer):
    workload = build_workload(Case("lenet5", batch_size=1, optimizer=optimizer, device="cpu"), CPU)
    workload.step()
    first, first_loss = gradient_norm(workload), workload.read_loss()
    for _ in range(300):
        workload.step()
    assert gradient_norm(workload) == pytest.approx(first, rel=0.01)
    assert workload.read_loss() == pytest.approx(first_loss, rel=0.01)


def test_a_step_leaves_its_output_and_loss_as_the_usual_loop_does_until_they_are_to_be_forgotten():
    workload = build_workload(Case("lenet5", batch_size=2, device="cpu"), CPU)
    workload.step()
    assert workload.output.shape == (2, 10)
    assert workload.read_loss() > 0
    workload.release_step_state()
    assert workload.output is None
    assert workload.loss is None
    assert all(p.grad is None for p in workload.module.parameters())


def test_a_workload_is_gone_at_once_when_nobody_needs_it_any_more():
    """Its DistributedDataParallel must end before the process group does, not when garbage is collected."""
    workload = build_workload(Case("lenet5", batch_size=2, device="cpu"), CPU)
    workload.step()
    gone = weakref.ref(workload)
    del workload
    assert gone() is None


def test_a_backward_pass_that_fails_keeps_no_graph():
    workload = build_workload(Case("lenet5", batch_size=2, device="cpu"), CPU)

    def refuse(gradient):
        raise RuntimeError("no room")

    handle = next(workload.module.parameters()).register_hook(refuse)
    with pytest.raises(RuntimeError, match="no room"):
        workload.step()
    assert workload.output is None
    assert workload.loss is None
    handle.remove()
    workload.step()
    assert workload.loss is not None


def test_inference_runs_in_its_mode_entered_once_for_many_steps_or_by_each_step():
    workload = build_workload(Case("lenet5", "inference", batch_size=2, device="cpu"), CPU)
    seen = []
    workload.module.register_forward_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    workload.step()
    with workload.inference_context():
        assert torch.is_inference_mode_enabled()
        workload.step()
    assert seen == [True, True]
    assert not torch.is_inference_mode_enabled()
    with build_workload(Case("lenet5", batch_size=2, device="cpu"), CPU).inference_context():
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("triton", "Triton is not installed"),
        ("headers", "needs Python's headers, and /nowhere/Python.h does not exist"),
    ],
)
def test_what_compiling_for_a_gpu_lacks_is_said_before_it_fails_late(monkeypatch, missing, words):
    monkeypatch.setattr(module, "_require_compiler", lambda: None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if missing == "triton" else name)
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: "/nowhere")
    with pytest.raises(BadInput, match=words):
        module.compile_if_asked(torch.nn.Identity(), Case("lenet5", compile="default"), torch.device("cuda"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_and_images_have_the_type_of_the_case(precision):
    counters.clear()  # of what earlier tests compiled in this process
    workload = build_workload(Case("lenet5", batch_size=2, precision=precision, device="cpu"), CPU)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    workload.step()
    assert {p.dtype for p in workload.module.parameters()} == {dtype}
    assert workload.output.dtype == dtype
    assert workload.scaler is None
    assert workload.check_work_and_precision() == ()
    assert workload.warnings == ()


def test_threads_and_denormals_are_those_of_the_case_and_are_read_back():
    before = torch.get_num_threads()
    try:
        workload = build_workload(Case("lenet5", batch_size=2, threads=1, flush_denormals="on", device="cpu"), CPU)
        assert torch.get_num_threads() == 1
        assert float(torch.full((1,), 1e-38) * 1e-3) == 0
        workload.settings.require_unchanged()
        torch.set_flush_denormal(False)
        with pytest.raises(InvalidMeasurement, match="flushing of denormals is off instead of on"):
            workload.settings.require_unchanged()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def test_more_threads_than_cores_are_refused():
    with pytest.raises(BadInput, match="threads is 4096, but this process may use"):
        build_workload(Case("lenet5", threads=4096, device="cpu"), CPU)


def test_a_prefetched_batch_is_copied_in_a_stream_of_its_own_before_its_step(monkeypatch):
    log = []

    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            log.append("wait")

    @contextlib.contextmanager
    def inside(stream):
        log.append("copy")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: log.append("keep"))
    monkeypatch.setattr(Case, "require_compatible_axes", lambda case: None)
    workload = build_workload(Case("lenet5", batch_size=2, data="synthetic_host", prefetch="on", device="cuda"), CPU)
    workload.step()
    workload.step()
    assert log == ["copy", "wait", "keep", "keep"] * 2
