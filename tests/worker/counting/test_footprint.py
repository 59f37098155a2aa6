"""What tensors take in memory, by hand."""

from __future__ import annotations

import torch

from dlbench.worker.counting.footprint import LiveMemoryMode


def test_live_bytes_follow_every_storage_until_it_is_freed():
    with LiveMemoryMode() as memory:
        first = torch.empty(100, device="meta")
        second = first * 2
        view = second.view(10, 10)
        assert (memory.live, memory.peak) == (800, 800)
        del first
        assert memory.live == 400
        del second
        assert memory.live == 400  # the view holds it
        del view
        third = torch.empty(50, device="meta")
    assert (memory.live, memory.peak) == (200, 800)
    del third
    assert memory.live == 0


def test_real_tensors_are_followed_too():
    with LiveMemoryMode() as memory:
        kept = torch.ones(64).exp() + 1
    assert memory.peak == 4 * 64 * 2
    assert memory.live == 4 * kept.numel()
