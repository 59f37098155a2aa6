"""How many steps a trial takes before it says what fits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dlbench.errors import InvalidMeasurement
from dlbench.worker.jobs.fit_check import run_until_peak_memory


class Standin:
    """Counts its steps; up to one of them gradients are infinite, so that the optimizer is skipped and the scale falls.

    The optimizer has a state from the beginning, as Adagrad's.
    """

    def __init__(self, scaled, finite_from):
        self.steps, self.finite_from, self.scale = 0, finite_from, 65536.0
        self.scaler = SimpleNamespace(get_scale=lambda: self.scale) if scaled else None
        self.optimizer = SimpleNamespace(state={"weight": "sum"})

    def step(self):
        self.steps += 1
        if self.steps < self.finite_from:
            self.scale /= 2


@pytest.mark.parametrize(
    ("scaled", "finite_from", "steps"), [(False, 1, 2), (True, 1, 2), (True, 3, 4), (False, 100, 2)]
)
def test_two_whole_steps_are_taken(scaled, finite_from, steps):
    workload = Standin(scaled, finite_from)
    run_until_peak_memory(workload)
    assert workload.steps == steps


def test_gradients_that_are_never_finite_say_nothing_of_memory():
    with pytest.raises(InvalidMeasurement, match="in 20 steps"):
        run_until_peak_memory(Standin(True, 100))
