"""Which exceptions mean that memory ran out, in the words of PyTorch, cuDNN, NCCL and Triton."""

from __future__ import annotations

import pytest
import torch

from dlbench.worker.failures import classify_failure


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB of which 1.00 GiB is free.",
        "CUDA error: out of memory",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "NCCL error in: ProcessGroupNCCL.cpp:1, ncclUnhandledCudaError\nLast error:\nCuda failure 2 'out of memory'",
        "Last error:\nFailed to CUDA calloc async 4194304 bytes",
        "Triton Error [CUDA]: out of memory",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_memory_that_ran_out_is_oom_in_everybodys_words(text):
    status, said = classify_failure(RuntimeError(text))
    assert status == "oom"
    # PyTorch drops the errors of cuDNN's algorithms: only likely.
    certainty = "probably " if "find an engine" in text else ""
    assert said.startswith(f"{certainty}out of memory on the device")


@pytest.mark.parametrize("text", ["CUDA error: an illegal memory access was encountered", "NCCL error: invalid usage"])
def test_other_errors_are_none(text):
    assert classify_failure(RuntimeError(text))[0] == "crashed"


@pytest.mark.parametrize("library", ["CUBLAS", "CUDNN"])
@pytest.mark.parametrize(("free_bytes", "status"), [(2**20, "oom"), (2**34, "crashed")])
def test_a_handle_that_cannot_be_made_is_memory_where_none_is_left(monkeypatch, library, free_bytes, status):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free_bytes, 2**36))
    error = RuntimeError(f"CUDA error: {library}_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
    assert classify_failure(error)[0] == status


def test_what_was_needed_and_what_there_was_is_said():
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB of which 1.00 GiB is free."
    _, said = classify_failure(torch.OutOfMemoryError(text))
    assert said == "out of memory on the device: 2.00 GiB more needed, 1.00 GiB free of 4.00 GiB"
