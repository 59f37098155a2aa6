"""Classification of exceptions: status and one-line error of the record."""

import re
import sys
import traceback

import torch

from dlbench.errors import DlbenchError, InvalidMeasurement
from dlbench.free_memory import allocatable_bytes
from dlbench.units import bytes_text
from dlbench.worker.progress import current_phase

#: Message of PyTorch's CPU allocator (c10/core/CPUAllocator.cpp), which raises a plain RuntimeError.
CPU_OUT_OF_MEMORY = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")
#: The driver, cuBLAS, cuDNN (also by its newer names, such as CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED), NCCL
#: and Triton, when an allocation outside PyTorch's cache fails.
CUDA_OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|CUDA (driver )?error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_\w*ALLOC"
    r"|Cuda failure .*'out of memory'|Failed to CUDA \w*alloc|\[CUDA\]: out of memory"
)
#: Message after no cuDNN algorithm fits into memory: PyTorch tries all and drops their errors.
NO_ENGINE = re.compile(r"unable to find an engine to execute this computation")
#: Message of cuBLAS and cuDNN if a handle cannot be created: no memory, or a broken library. It counts as memory if
#: less is free than a handle with its kernels needs [bytes].
NO_HANDLE = re.compile(r"(CUBLAS|CUDNN)_STATUS_NOT_INITIALIZED")
HANDLE_BYTES = 512 * 2**20
#: Message of an index outside its table: of an embedding on the CPU, and of all on CUDA.
INDEX_OUTSIDE = re.compile(r"index out of range in self|device-side assert triggered")


def classify_failure(error: BaseException) -> tuple[str, str]:
    """Return status and error text of a case that ended with `error`."""
    for cause in _exception_chain(error):
        memory = out_of_memory_text(cause)
        if memory is not None:
            return "oom", memory
    if isinstance(error, InvalidMeasurement):
        return "invalid", str(error)
    if isinstance(error, DlbenchError):
        return "crashed", str(error)
    text = f"{type(error).__name__}: {_first_sentence(str(error))}"
    if INDEX_OUTSIDE.search(text):
        text += "; a token, position or label is out of range: check the network's input_shape and num_classes"
    return "crashed", text


def report_failure(error: BaseException, who: str = "") -> tuple[str, str]:
    """Print status and error text on stderr, below the traceback of an unexpected error; return both."""
    if not isinstance(error, DlbenchError) or error.__cause__ is not None:
        traceback.print_exception(error)
    status, text = classify_failure(error)
    print(f"{who}{status} in phase {current_phase()}: {text}", file=sys.stderr, flush=True)
    return status, text


def _first_sentence(text: str) -> str:
    """The first line of a message, and the second if the first ends with a colon ("backend='inductor' raised:")."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or "no message"


def out_of_memory_text(error: BaseException) -> str | None:
    """Return needed and available memory if `error` means out of memory; else None."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and CUDA_OUT_OF_MEMORY.search(text)
    ):
        return _cuda_memory_sentence(text)
    if isinstance(error, RuntimeError) and NO_ENGINE.search(text):
        return f"probably out of memory on the device (no cuDNN algorithm fits): {text.splitlines()[0]}"
    if isinstance(error, RuntimeError) and NO_HANDLE.search(text) and _is_gpu_full():
        return f"probably out of memory on the device (a library handle does not fit): {text.splitlines()[0]}"
    asked = CPU_OUT_OF_MEMORY.search(text) if isinstance(error, RuntimeError) else None
    if asked:
        return f"out of memory on the CPU: {bytes_text(int(asked.group(1)))} more needed, {_available_memory_text()}."
    if isinstance(error, MemoryError):
        return f"out of memory on the CPU: {text or 'allocation refused'}, {_available_memory_text()}."
    if isinstance(error, ImportError) and "failed to map segment" in text:
        return f"out of memory on the CPU: the libraries themselves do not fit, {_available_memory_text()}."
    return None


def _available_memory_text() -> str:
    try:
        return f"{bytes_text(allocatable_bytes())} available"
    except DlbenchError:
        return "available memory is unknown"


def _is_gpu_full() -> bool:
    try:
        return torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < HANDLE_BYTES
    except RuntimeError:  # a failed device does not answer
        return False


def _cuda_memory_sentence(text: str) -> str:
    needed = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
    room = re.search(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", text)
    sentence = "out of memory on the device"
    if needed:
        sentence += f": {needed.group(1)} more needed"
    if room:
        sentence += f", {room.group(2)} free of {room.group(1)}"
    return sentence if needed or room else f"{sentence}: {text.splitlines()[0]}"


def _exception_chain(error: BaseException) -> list[BaseException]:
    """Return `error` and its causes, newest first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
