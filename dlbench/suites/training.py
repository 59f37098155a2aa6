"""Trainings to a target: the table [train] of a suite. Every combination of its lists is a training, as for axes.

[train]
model = ["mlp", "lenet5"]
optimizer = ["sgd", "adam"]
data = "digits"                  # or a folder with train/ and val/, each with a folder of JPEG files for each class
target_metric = "accuracy"       # of the validation; or "loss"
target_value = 0.97
max_epochs = 30
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlbench import bundled_files
from dlbench.errors import BadInput, UnknownName
from dlbench.suites.case import CHOICES, SWITCHES, check_field_types, require_choices, require_valid
from dlbench.suites.suite import convert_text_to_type, field_annotation, parse_value_list
from dlbench.toml_file import read_toml

TARGET_METRICS = ("accuracy", "loss")
#: Default learning rates: with these, mlp and lenet5 reach 97 % on the digits.
LEARNING_RATES = {"sgd": 0.02, "adam": 1e-3, "adamw": 1e-3, "adagrad": 1e-2, "rmsprop": 1e-3}
DIGITS = "digits"
_CHOICES = {
    **{name: CHOICES[name] for name in ("optimizer", "precision", "compile", "device")},
    "target_metric": TARGET_METRICS,
    "stop_at_target": SWITCHES,
}


@dataclass(frozen=True)
class Training:
    """One training: network, settings, data and target."""

    model: str
    optimizer: str = "sgd"
    learning_rate: float = 0.0  # 0: the one of `LEARNING_RATES`
    dropout: float = 0.0
    precision: str = "fp32"
    compile: str = "off"
    batch_size: int = 64
    data: str = DIGITS
    target_metric: str = "accuracy"
    target_value: float = 0.97
    stop_at_target: str = "on"
    max_epochs: int = 30
    seed: int = 0
    weights: str = ""  # a file of weights to start from; those of another name or shape are left out
    save_weights: str = ""  # a file to write the trained weights to
    device: str = "auto"

    def __post_init__(self) -> None:
        require_choices(self, _CHOICES, "train")
        for name in ("batch_size", "max_epochs"):
            require_valid(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        require_valid(0 <= self.dropout < 1, "train.dropout", self.dropout, "from 0 to below 1")
        require_valid(self.learning_rate >= 0, "train.learning_rate", self.learning_rate, "at least 0")

    @property
    def learning_rate_or_default(self) -> float:
        """The learning rate, or the default of the optimizer."""
        return self.learning_rate or LEARNING_RATES[self.optimizer]

    def is_target_reached(self, value: float) -> bool:
        """Whether a value of the metric meets the target."""
        return value >= self.target_value if self.target_metric == "accuracy" else value <= self.target_value

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Training:
        """Build a training from the result of `to_dict`. Raises BadInput if a key or a value is wrong."""
        return Training(**check_field_types(Training, values, "train"))


def load_trainings(path: str, overrides: Sequence[str] = ()) -> tuple[str, list[Training]]:
    """Return the name of a suite (or TOML file) and its trainings, each once.

    Args:
        overrides: such as ``max_epochs=5``; each replaces one key of [train].

    Raises:
        BadInput: the suite cannot be read, has no [train], or a key or a value is wrong.
    """
    file = read_toml(bundled_files.find_file("suite", path), "a suite")
    table = file.table("train")
    if "model" not in table:
        raise BadInput(f'{file.path} has no table [train] with a model; add for example: [train] model = "mlp"')
    known = [f.name for f in dataclasses.fields(Training)]
    file.require_known(table, known, "train")
    for override in overrides:
        key, equals, text = (part.strip() for part in override.partition("="))
        if not equals or key not in known:
            raise UnknownName("key", key, known, f"-P {override}")
        table[key] = [convert_text_to_type(part.strip(), field_annotation(Training, key)) for part in text.split(",")]
    lists = {key: parse_value_list(key, value, file.file_and_line(key, "train")) for key, value in table.items()}
    settings = (dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values()))
    return file.get("name", str, file.path.stem), list(dict.fromkeys(map(Training.from_dict, settings)))
