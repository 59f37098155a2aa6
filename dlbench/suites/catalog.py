"""Catalogue of the built-in networks: facts that are available without torch, for example on a login node.

The counts are plain integers, so that plan, audit and report need no torch. A test builds every network and compares
each integer with the count from the actual modules.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from dlbench.errors import BadInput
from dlbench.facts.csv_files import read_csv_rows

#: Separates the name of a network from the length of its sequences: ``gpt2_small@256``.
LENGTH_SIGN = "@"


@dataclass(frozen=True)
class Model:
    """One network. MAC and FLOP are per sample; weights leave biases out, parameters count them.

    `attention_macs` are those of products of activations with each other, which have no weights; `recurrent_macs` those
    of LSTM layers. What backward does beyond or below twice the forward pass is in `training_flop`.
    """

    name: str  # name in suites
    title: str  # as in tables
    family: str
    input_shape: tuple[int, ...]  # C, H, W; T tokens; S source and T target tokens
    parameters: int  # in training, with those of auxiliary heads
    training_flop: int  # forward and backward, auxiliary heads included
    source: str
    num_classes: int = 0  # or size of the vocabulary; 0: the network has neither
    conv_layers: int = 0
    conv_weights: int = 0
    conv_macs: int = 0
    fc_layers: int = 0
    fc_weights: int = 0
    fc_macs: int = 0
    auxiliary_parameters: int = 0  # of heads that only training has
    task: str = "classification"
    attention_macs: int = 0
    recurrent_weights: int = 0
    recurrent_macs: int = 0
    longest: int = 0  # maximum length of a sequence [tokens]; 0: its length is fixed

    @property
    def sample_unit(self) -> str:
        """The unit of a sample: an image or a sequence."""
        return "img" if len(self.input_shape) == 3 else "seq"

    @property
    def num_inference_parameters(self) -> int:
        """Parameters of the network without auxiliary heads."""
        return self.parameters - self.auxiliary_parameters

    @property
    def forward_macs(self) -> int:
        """MACs of the forward pass of one sample, without auxiliary heads."""
        return self.conv_macs + self.fc_macs + self.attention_macs + self.recurrent_macs

    @property
    def forward_flop(self) -> int:
        """FLOP of the forward pass of one sample in inference."""
        return 2 * self.forward_macs


def _parse_model(row: dict[str, str]) -> Model:
    values: dict[str, Any] = {name: row.pop(name) for name in ("name", "title", "family", "task", "source")}
    values["input_shape"] = tuple(map(int, row.pop("input_shape").split()))
    return Model(**values | {name: int(number or 0) for name, number in row.items()})


#: All networks by name, the classic ones in order of their years.
CATALOG: dict[str, Model] = {row["name"]: _parse_model(row) for row in read_csv_rows("catalog.csv")}


def find_model(name: str) -> Model | None:
    """The network `name`, which may end in a length; None if not in the catalogue. Raises BadInput for the length."""
    base, sign, length = name.partition(LENGTH_SIGN)
    model = CATALOG.get(base)
    if model is None or not sign:
        return model
    if not model.longest:
        raise BadInput(f"model '{name}': {base} does not take sequences, so it has no length; write '{base}'")
    if not length.isascii() or not length.isdigit() or not 1 <= int(length) <= model.longest:
        raise BadInput(f"model '{name}': {base} takes sequences of 1 to {model.longest} tokens, not '{length}'")
    return _scale_to_length(model, name, int(length))


def _scale_to_length(model: Model, name: str, length: int) -> Model:
    """`model` for sequences of `length` tokens: attention grows with its square, all else with it."""
    before = model.input_shape[-1]

    def scale_macs(macs: int) -> int:
        return macs // before * length

    found = dataclasses.replace(
        model,
        name=name,
        title=f"{model.title} ({length} tok)",
        input_shape=(length,) * len(model.input_shape),
        fc_macs=scale_macs(model.fc_macs),
        recurrent_macs=scale_macs(model.recurrent_macs),
        attention_macs=model.attention_macs // before**2 * length**2,
    )
    # What backward leaves out is the same for any length: an LSTM's gradient to the state that it starts from.
    left_out = 6 * model.forward_macs - model.training_flop
    return dataclasses.replace(found, training_flop=6 * found.forward_macs - left_out)
