"""Networks built and counted once for all tests of one run; everything lies on the meta device."""

from __future__ import annotations

from functools import cache

from dlbench.facts.layer_totals import LayerTotals, sum_layers
from dlbench.models import BuiltModel, build_on_meta
from dlbench.worker.counting.flops import CountedWork, count_step_flop, suppress_warnings
from dlbench.worker.counting.layers import LayerRow, network_layers


@cache
def built(name: str) -> BuiltModel:
    with suppress_warnings():
        return build_on_meta(name)


@cache
def counted(name: str) -> CountedWork:
    """Forward and backward of a training step, auxiliary heads included."""
    return count_step_flop(built(name))


@cache
def counted_layers(name: str) -> tuple[LayerRow, ...]:
    """Without auxiliary heads."""
    return tuple(network_layers(built(name)))


@cache
def counted_facts(name: str) -> LayerTotals:
    """Of convolutions and FC layers; attention and recurrent layers are of another kind."""
    rows = [row for row in counted_layers(name) if row.kind != "other"]
    return sum_layers(rows, built(name).input_shape)
