"""A whole step as one CUDA graph: captured once, then replayed, so that the host starts one piece of work a step.

As PyTorch's notes on CUDA graphs describe it for a whole network: warm-up in a stream of its own, gradients freed, then
capture. Tensors of the step keep their addresses: batches from the host are copied into those of the first.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from dlbench.errors import InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.tasks import Batch, map_batch_tensors, unique_batch_tensors
from dlbench.worker.failures import out_of_memory_text

#: Steps before the capture: libraries choose their algorithms and the optimizer creates its state.
NUM_WARMUP_STEPS = 3


class CapturableWorkload(Protocol):
    """What a capture needs of a workload."""

    case: Case
    batches: Iterator[Batch]
    optimizer: torch.optim.Optimizer | None

    def step(self) -> tuple[Any, ...]: ...

    def infer(self) -> Any: ...

    def release_step_state(self) -> None: ...


class CapturedStep:
    """A captured step of a workload; `replay` runs it with the next batch."""

    def __init__(self, workload: CapturableWorkload) -> None:
        """Warm up and capture.

        Raises:
            InvalidMeasurement: the step cannot be captured, for example because it waits for the device.
            torch.OutOfMemoryError: the graph does not fit into memory.
        """
        self._batches = workload.batches
        self._batch = next(self._batches)
        # A single batch on the device is the graph's own.
        self._copies = workload.case.data != "synthetic"
        if self._copies:
            self._batch = map_batch_tensors(torch.clone, self._batch)
        workload.batches = itertools.repeat(self._batch)
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(NUM_WARMUP_STEPS):
                workload.step()
        current.wait_stream(side)
        # Gradients that the captured step writes must lie in the memory of the graph.
        workload.release_step_state()
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                self.output: Any = workload.infer() if workload.optimizer is None else workload.step()
        except RuntimeError as error:
            if out_of_memory_text(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InvalidMeasurement(
                f'the step cannot be captured as a CUDA graph: {reason}; set cuda_graph = "off"'
            ) from error

    def replay(self) -> Any:
        """Start the step with the next batch; return the outputs of inference."""
        if self._copies:
            for kept, new in zip(
                unique_batch_tensors(self._batch), unique_batch_tensors(next(self._batches)), strict=True
            ):
                kept.copy_(new, non_blocking=True)
        self._graph.replay()
        return self.output
