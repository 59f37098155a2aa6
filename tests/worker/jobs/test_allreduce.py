"""`dlbench allreduce` from end to end, between two real ranks on the CPU."""

from __future__ import annotations

import json
import math

import pytest
import torch

from dlbench.__main__ import main
from dlbench.results import bounds_schema, bounds_store
from dlbench.worker.jobs import allreduce
from dlbench.worker.ranks import transport


@pytest.mark.parametrize("ranks", [1, 2, 3, 64, 4096, 10**6])
def test_sums_over_many_repetitions_stay_finite(ranks):
    parts = allreduce.split_repetitions(200, ranks)
    assert sum(parts) == 200
    assert math.isfinite(float(torch.tensor(float(ranks)) ** max(parts)))


def test_one_rank_has_no_bus_bandwidth():
    assert bounds_schema.bus_bandwidth(4096, 1e-3, 1) is None
    assert bounds_schema.bus_bandwidth(4096, 1e-3, 4) == pytest.approx(1.5 * 4096e3)


def test_a_log_that_the_user_asked_for_leaves_the_way_unknown_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(transport, "has_nvlink", lambda device: False)
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    monkeypatch.delenv("NCCL_DEBUG_FILE", raising=False)
    transport.enable_nccl_log("token")
    found = transport.find_transport("nccl", torch.device("cpu"), 2, True)
    assert found.used is None
    assert found.warning.startswith("transport_unknown: NCCL_DEBUG was already set")
    assert transport.find_transport("nccl", torch.device("cpu"), 1, True).warning is None
    log = tmp_path / "dlbench-nccl-token-1.log"
    log.write_text("node:1:1 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via SHM/direct/direct")
    monkeypatch.setenv("NCCL_DEBUG_FILE", str(log))
    assert transport.find_transport("nccl", torch.device("cpu"), 2, True).used == "shared_memory"


def test_all_reduces_between_two_ranks_are_printed_and_kept(tmp_path, capsys):
    sizes = ["--min-bytes", "4096", "--max-bytes", "8192"]
    assert main(["allreduce", "--device", "cpu", *sizes, "--results", str(tmp_path), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)["rows"]
    kept = bounds_store.read_bounds([tmp_path]).all_reduces
    assert kept["size_bytes"].tolist() == [row["size_bytes"] for row in printed] == [4096, 8192]
    assert set(kept["ranks"]) == {2}
    assert (set(kept["backend"]), set(kept["transport"])) == ({"gloo"}, {"sockets"})
    for row, line in zip(kept.to_dict("records"), printed, strict=True):
        assert len(row["time_s"]) == line["repetitions"] >= 5
        assert line["low_s"] <= row["median_s"] <= line["high_s"]
        # Between two ranks each link carries the message once.
        assert row["bus_bytes_per_s"] == pytest.approx(row["algorithm_bytes_per_s"])
        assert row["bus_bytes_per_s"] == pytest.approx(row["size_bytes"] / row["median_s"])
