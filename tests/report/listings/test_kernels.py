"""Kernels of oneDNN by its log."""

from dlbench.report.listings.networks import kernels_table

LOG = """onednn_verbose,v1,info,oneDNN v3.7.1
onednn_verbose,v1,primitive,create:cache_miss,cpu,convolution,jit:avx512_core,forward_training,src:f32,,,mb1,9.0
onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_training,src:f32,,,mb1,2.5
onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_training,src:f32,,,mb1,0.5
onednn_verbose,exec,cpu,reorder,simple:any,undef,src_f32,,,2x16,1
a line of the network itself
onednn_verbose,v1,primitive,exec,cpu,broken
"""


def test_calls_and_time_are_summed_by_kernel_and_creation_is_not_counted():
    rows = [list(row) for row in kernels_table(LOG).rows]
    assert rows == [
        ["convolution", "jit:avx512_core", "forward_training", 2, 0.003, 0.75],
        ["reorder", "simple:any", "undef", 1, 0.001, 0.25],
    ]


def test_a_log_without_kernels_is_an_empty_table():
    assert list(kernels_table("").rows) == []
