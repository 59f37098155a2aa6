"""Files of text appear whole or not at all."""

from __future__ import annotations

import os
import threading

import pytest

from dlbench.atomic_file import write_atomically


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "metrics.csv"
    write_atomically(path, ["a,b\n", "1,2\n"])
    assert path.read_text() == "a,b\n1,2\n"

    def parts():
        yield "a,b\n"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, parts())
    assert path.read_text() == "a,b\n1,2\n"
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, "x")
    reader.join(10)
    assert read == ["x"]
    assert pipe.is_fifo()
