"""oneDNN's log goes into a file, and stdout is what it was."""

import pytest
import torch

from dlbench.errors import BadInput
from dlbench.report.listings.networks import kernels_table
from dlbench.worker.onednn import LOG_NAME, record_verbose_log


def test_the_log_names_the_kernel_of_a_convolution(tmp_path, capfd):
    convolution, images = torch.nn.Conv2d(8, 16, 3), torch.randn(2, 8, 16, 16)
    record_verbose_log(lambda: convolution(images), torch.device("cpu"), tmp_path)
    print("after")
    assert any(row[0] == "convolution" for row in kernels_table((tmp_path / LOG_NAME).read_text()).rows)
    assert capfd.readouterr().out == "after\n"


def test_another_device_is_refused_in_one_line(tmp_path):
    with pytest.raises(BadInput, match="run on a CPU only"):
        record_verbose_log(lambda: None, torch.device("cuda"), tmp_path)
