"""A translation network of two inputs goes from plan to report: each command that images have, in sequences and tokens."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dlbench
from dlbench.__main__ import main

NETWORK = """
    from torch import nn

    class Translator(nn.Module):
        task = "translation"
        input_shape = (5, 7)

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 8)
            self.encoder, self.decoder = (nn.LSTM(8, 8, batch_first=True) for _ in range(2))
            self.output = nn.Linear(8, 11)

        def forward(self, source, target):
            _, state = self.encoder(self.embedding(source))
            return self.output(self.decoder(self.embedding(target), state)[0])
"""
SUITE = """
    name = "own"
    [axes]
    model = "own_translator:Translator"
    batch_size = 4
    devices_per_node = [1, 2]
    [protocol]
    processes = 1
    warmup_max_time_s = 1.0
    min_time_s = 0.2
    min_steps = 20
    max_time_s = 1.0
    idle_time_s = 0.05
"""
MACS = 5 * 8 * 64 + 7 * 8 * 64 + 7 * 8 * 11  # per sequence: two LSTM layers of 4 x 8 x (8 + 8), and the output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the network, its suite, and results of one rank and of two."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_translator.py").write_text(textwrap.dedent(NETWORK))
    (folder / "s.toml").write_text(textwrap.dedent(SUITE))
    argv = [sys.executable, "-m", "dlbench", "run", "s.toml", "-P", "device=cpu", "--results", "r"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "seq/s" in done.stderr
    assert "tok/s" in done.stderr
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


# Three fresh processes, each of which imports PyTorch.
@pytest.mark.slow
def test_a_network_of_two_inputs_is_measured_in_sequences_and_tokens_by_one_rank_and_by_two(folder):
    cases = dlbench.metrics(folder / "r").sort_values("devices_per_node")
    assert len(cases) == 2
    assert cases["item_throughput"].tolist() == pytest.approx((7 * cases["throughput"]).tolist())
    # The state that the encoder starts from needs no gradient.
    assert cases["flop_per_image"].iloc[0] == 2 * MACS + 2 * (2 * MACS - 4 * 8 * 8)
    assert cases["memory_allocated"].gt(0).all()


@pytest.mark.slow
def test_every_command_that_reads_results_counts_in_sequences(capsys):
    assert main(["export", "r", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 2
    assert main(["show", rows[0]["attempt_id"], "--results", "r"]) == 0
    assert "tok/s" in capsys.readouterr().out
    assert main(["report", "r", "-o", "report"]) == 0
    page = Path("report/index.html").read_text()
    assert 'id="scaling"' in page
    assert "seq/s" in page
    assert "tok/s" in page
