"""Trainings to a target: the table [train] of a suite, whose lists multiply as the axes of cases do.

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
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlbench import shipped
from dlbench.errors import BadInput, UnknownName
from dlbench.suites.case import COMPILE_MODES, DEVICES, OPTIMIZERS, PRECISIONS, SWITCHES, check_types
from dlbench.toml_file import read_toml

TARGET_METRICS = ("accuracy", "loss")
#: Where a training does not name its own: the values that bring mlp and lenet5 to 97 % on the digits.
LEARNING_RATES = {"sgd": 0.02, "adam": 1e-3, "adamw": 1e-3, "adagrad": 1e-2, "rmsprop": 1e-3}
DIGITS = "digits"


@dataclass(frozen=True)
class Training:
    """One training: what is trained, how, on which data, and when it is good enough."""

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
    device: str = "auto"

    def __post_init__(self) -> None:
        known = {
            "optimizer": OPTIMIZERS,
            "precision": PRECISIONS,
            "compile": COMPILE_MODES,
            "target_metric": TARGET_METRICS,
            "stop_at_target": SWITCHES,
            "device": DEVICES,
        }
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise UnknownName(name, getattr(self, name), choices, "train")
        for name in ("batch_size", "max_epochs"):
            if getattr(self, name) < 1:
                raise BadInput(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"train.dropout is {self.dropout}; it must be from 0 to below 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate >= 0):
            raise BadInput(f"train.learning_rate is {self.learning_rate}; it must be above 0")

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate or LEARNING_RATES[self.optimizer]

    def is_reached(self, value: float) -> bool:
        """Whether a value of the metric meets the target."""
        return value >= self.target_value if self.target_metric == "accuracy" else value <= self.target_value

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Training:
        """The training that `to_dict` described. Raises BadInput where a key or a value is wrong."""
        return Training(**check_types(Training, values, "train"))


def load_trainings(path: str, overrides: Sequence[str] = ()) -> tuple[str, list[Training]]:
    """The name of a suite and its trainings, each once.

    Args:
        path: a TOML file, or the name of a suite.
        overrides: such as ``max_epochs=5``; each replaces one key of [train].

    Raises:
        BadInput: the suite cannot be read, has no [train], or a key or a value is wrong.
    """
    file = read_toml(shipped.find("suite", path), "a suite")
    table = file.table("train")
    if "model" not in table:
        raise BadInput(f"{file.path} has no table [train] that names a model, so there is nothing to train")
    types = {f.name: str(f.type) for f in dataclasses.fields(Training)}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or key.strip() not in types:
            raise UnknownName("key", key.strip(), types, f"-P {override}")
        table[key.strip()] = [_parsed(part.strip(), types[key.strip()]) for part in text.split(",")]
    lists = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
    found = [
        Training.from_dict(dict(zip(lists, setting, strict=True))) for setting in itertools.product(*lists.values())
    ]
    return file.get("name", str, file.path.stem), list(dict.fromkeys(found))


def _parsed(text: str, wanted: str) -> Any:
    """The text as the type of its field; what does not fit stays a text, and the check of types says so."""
    try:
        return {"int": int, "float": float}.get(wanted, str)(text)
    except ValueError:
        return text
