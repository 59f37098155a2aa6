"""`dlbench allreduce` from end to end, between two real ranks on the CPU."""

from __future__ import annotations

import json

import pytest

from dlbench.__main__ import main
from dlbench.results import bounds_store


def test_all_reduces_between_two_ranks_are_printed_and_kept(tmp_path, capsys):
    sizes = ["--min-bytes", "4096", "--max-bytes", "8192"]
    assert main(["allreduce", "--device", "cpu", *sizes, "--results", str(tmp_path), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)["rows"]
    kept = bounds_store.read([tmp_path]).all_reduces
    assert kept["size_bytes"].tolist() == [row["size_bytes"] for row in printed] == [4096, 8192]
    assert set(kept["ranks"]) == {2}
    assert (set(kept["backend"]), set(kept["transport"])) == ({"gloo"}, {"sockets"})
    for row, line in zip(kept.to_dict("records"), printed, strict=True):
        assert len(row["time_s"]) == line["repetitions"] >= 5
        assert line["low_s"] <= row["median_s"] <= line["high_s"]
        # Between two ranks each link carries the message once.
        assert row["bus_bytes_per_s"] == pytest.approx(row["algorithm_bytes_per_s"])
        assert row["bus_bytes_per_s"] == pytest.approx(row["size_bytes"] / row["median_s"])
