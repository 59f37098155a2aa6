"""Capture and replay of a step, with a stand-in for CUDA's graphs, whose replay runs the captured step again."""

from __future__ import annotations

import contextlib

import pytest
import torch

from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.worker.workload import build_workload

CPU = torch.device("cpu")


class FakeStream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def graphs(monkeypatch):
    """Counts captures and replays; what is set as `error` is raised in the next capture."""

    class Graph:
        captured = replayed = 0
        error: Exception | None = None

        def replay(self):
            Graph.replayed += 1

    @contextlib.contextmanager
    def capture(graph):
        Graph.captured += 1
        yield
        if Graph.error:
            raise Graph.error

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    # The case is of a GPU; its tensors are on the CPU.
    monkeypatch.setattr(Case, "require_compatible_axes", lambda case: None)
    return Graph


def workload_of(mode="training", **axes):
    return build_workload(Case("lenet5", mode, batch_size=2, device="cuda", cuda_graph="on", **axes), CPU)


def test_a_captured_step_is_replayed_and_keeps_its_loss(graphs):
    workload = workload_of()
    workload.capture_cuda_graph()
    loss = workload.loss
    assert workload.step() == ()
    assert workload.step() == ()
    assert (graphs.captured, graphs.replayed) == (1, 2)
    assert workload.loss is loss
    assert workload.read_loss() > 0


def test_batches_from_the_host_are_copied_into_the_tensors_of_the_graph(graphs):
    workload = workload_of(data="synthetic_host")
    workload.capture_cuda_graph()
    kept = next(workload.batches)[0][0]
    before = kept.clone()
    workload.step()
    after = next(workload.batches)[0][0]
    assert after.data_ptr() == kept.data_ptr()
    assert not torch.equal(after, before)


def test_inference_returns_the_outputs_of_the_graph(graphs):
    workload = workload_of("inference")
    with workload.inference_context():
        workload.capture_cuda_graph()
        assert workload.infer() is workload.captured.output
    assert graphs.replayed == 1


def test_what_looks_at_operations_runs_them_without_the_graph(graphs):
    workload = workload_of()
    workload.capture_cuda_graph()
    with workload.without_cuda_graph():
        workload.step()
    assert graphs.replayed == 0
    assert workload.captured is not None


def test_a_step_that_cannot_be_captured_is_invalid_in_one_line(graphs):
    graphs.error = RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")
    with pytest.raises(InvalidMeasurement, match="cannot be captured as a CUDA graph: CUDA error: operation not"):
        workload_of().capture_cuda_graph()


def test_a_graph_that_does_not_fit_is_out_of_memory(graphs):
    graphs.error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(torch.OutOfMemoryError):
        workload_of().capture_cuda_graph()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop"])
def test_the_number_of_the_step_is_counted_on_the_device(graphs, optimizer):
    assert workload_of(optimizer=optimizer).optimizer.defaults["capturable"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"device": "cpu"}, "cuda_graph is 'on', which works on a GPU only"),
        ({"device": "cuda", "compile": "reduce-overhead"}, "compile 'reduce-overhead' captures graphs itself"),
        ({"device": "cuda", "devices_per_node": 2}, "a CUDA graph does not support several ranks"),
        ({"device": "cuda", "data": "jpeg"}, "a CUDA graph does not support data 'jpeg'"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(axes, message):
    with pytest.raises(BadInput, match=message):
        Case("lenet5", cuda_graph="on", **axes).require_compatible_axes()
