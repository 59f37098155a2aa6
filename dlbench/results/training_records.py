"""What a training left: its curves, epoch by epoch, and whether and when it met its target. No torch, no pyarrow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dlbench.json_text import dump_json, load_json
from dlbench.results.records import from_dict
from dlbench.safe_names import short_repr

#: reached: the target was met; not_reached: not within all epochs; diverged: the loss is not finite.
STATUSES = ("reached", "not_reached", "diverged")


@dataclass(frozen=True)
class TrainingRun:
    """One training. Lists have one entry per epoch; accuracies are None where the task has no classes."""

    training: dict[str, Any]  # as Training.to_dict gives it
    learning_rate: float
    status: str
    best_value: float | None  # of the target's metric
    epoch_s: tuple[float, ...]  # from the start of the training to the end of the epoch, evaluations included
    training_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    training_accuracy: tuple[float, ...] = ()
    validation_accuracy: tuple[float, ...] = ()
    epochs_to_target: int | None = None
    time_to_target_s: float | None = None
    energy_to_target_j: float | None = None
    energy_j: float | None = None  # of the whole training
    energy_source: str = "none"
    num_training: int = 0  # samples of an epoch
    num_validation: int = 0
    parameters: int = 0
    trained_parameters: int = 0  # those that are not frozen
    device_name: str = ""
    hostname: str = ""
    warnings: tuple[str, ...] = field(default=())
    run_id: str = ""
    suite: str = ""
    started_at: str = ""

    def to_json(self) -> str:
        """The run as JSON text."""
        return dump_json(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> TrainingRun:
        """The run that `to_json` wrote. Raises ValueError where it is none."""
        return TrainingRun.from_dict(load_json(text))

    @staticmethod
    def from_dict(values: Any) -> TrainingRun:
        """The run with these fields, of plain JSON types. Raises ValueError where it is none."""
        run: TrainingRun = from_dict(TrainingRun, values)
        if run.status not in STATUSES:
            raise ValueError(f"its status {short_repr(run.status)} is unknown")
        if run.status == "reached" and None in (run.epochs_to_target, run.time_to_target_s):
            raise ValueError("it reached its target, but its epochs or time to the target are missing")
        return run
