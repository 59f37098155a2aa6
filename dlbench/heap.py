"""What the C library does with the memory of freed tensors on a CPU, and of large arrays in a report.

By default glibc gives large blocks back to the kernel when they are freed and takes them again in the next step. Then
every step pays for thousands of page faults, how many depends on where the heap happens to lie, and so the same network
is faster or slower by a third from process to process: LeNet-5 in training, batch 64, one thread, took 1,600 to 1,700
faults and 11 to 17 ms a step in five of six processes, and 260 faults and 8.5 ms in the sixth; with freed memory kept,
no faults and 7 to 9 ms in five of six. `protocol.heap = "keep"` keeps it, as PyTorch's own allocator does on a GPU and
tcmalloc or jemalloc, where loaded, do on a CPU; "system" leaves the C library as it is.
"""

from __future__ import annotations

import ctypes

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """From now on this process gives freed memory back to the kernel no more; False where the C library can't do so."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Blocks that were mapped by themselves would go back at once, whatever the threshold.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
