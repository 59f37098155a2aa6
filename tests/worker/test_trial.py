"""How many steps a trial takes before it says what fits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dlbench.worker.trial import take_steps


class Standin:
    """Counts its steps; the optimizer has its state from one of them on, as where gradients were infinite before."""

    def __init__(self, scaled, state_from):
        self.steps, self.state_from = 0, state_from
        self.scaler = object() if scaled else None
        self.optimizer = SimpleNamespace(state={})

    def step(self):
        self.steps += 1
        if self.steps >= self.state_from:
            self.optimizer.state["weight"] = "momentum"


@pytest.mark.parametrize(
    ("scaled", "state_from", "steps"), [(False, 1, 2), (True, 1, 2), (True, 3, 4), (False, 100, 2), (True, 100, 20)]
)
def test_a_step_with_the_optimizers_state_in_place_is_always_among_them(scaled, state_from, steps):
    workload = Standin(scaled, state_from)
    take_steps(workload)
    assert workload.steps == steps
