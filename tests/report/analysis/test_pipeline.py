"""What limits a step that loads files, by hand."""

from __future__ import annotations

import math

import pytest

from dlbench.report.analysis.pipeline import Verdict, verdict


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        # Two processes bring a batch every 0.2 s, and the device takes 0.1 s: four would feed it.
        ((0.2, 0.1, 0.2, 0.01, 0.3, 2), Verdict("decode", 4)),
        ((0.2, 0.1, 0.2, 0.3, 0.01, 2), Verdict("storage", 4)),
        ((0.104, 0.1, 0.02, 0.01, 0.3, 2), Verdict("device", 1)),
        # Without processes of its own the one that computes loads: as one process.
        ((0.4, 0.1, 0.3, 0.01, 0.3, 0), Verdict("decode", 3)),
        # DALI does not time reading and decoding apart.
        ((0.2, 0.1, 0.2, math.nan, math.nan, 2), Verdict("loader", 4)),
    ],
)
def test_the_verdict_names_what_limits_and_the_workers_that_feed_the_device(figures, expected):
    assert verdict(*figures) == expected
