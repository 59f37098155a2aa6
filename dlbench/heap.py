"""Setting of the C library: keep freed memory of tensors (CPU) and large arrays (report), or return it.

By default glibc returns large freed blocks to the kernel and allocates them again in the next step. Every step then
has thousands of page faults; their number depends on the address of the heap, and step times differ by a third between
processes: LeNet-5 in training, batch 64, one thread, took 1,600 to 1,700 faults and 11 to 17 ms a step in five of six
processes, and 260 faults and 8.5 ms in the sixth; with freed memory kept, no faults and 7 to 9 ms in five of six.
`protocol.heap = "keep"` keeps it, as PyTorch's own allocator does on a GPU and tcmalloc or jemalloc, where loaded, do
on a CPU; "system" keeps the default of the C library.
"""

import ctypes

# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_MAX_THRESHOLD = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory in this process from now on; return False if the C library does not support it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Separately mapped blocks would be returned at once, regardless of the threshold.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _MAX_THRESHOLD))
