"""Networks by name: built-in ones, those of torchvision and timm, and users' own.

- ``resnet50``: ours, in the catalogue; ``gpt2_small@256`` for sequences of 256 tokens.
- ``efficientnet_b0``: any torchvision classification model that is not in the catalogue, then any of timm's.
- ``torchvision:resnet50``, ``timm:resnet50``: the other library's, where ours has the same name.
- ``frozen:resnet50``: any of these with all layers frozen except the last, as in transfer learning.
- ``package.module:factory``: a callable without arguments that gives a `torch.nn.Module`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from dlbench.errors import BadInput, UnknownName
from dlbench.models import (
    alexnet,
    frozen,
    fully_connected,
    googlenet,
    lenet,
    overfeat,
    recurrent,
    resnet,
    transformer,
    vgg,
)
from dlbench.suites.catalog import LENGTH_SIGN, find_model
from dlbench.tasks import TASKS, Batch, Task
from dlbench.tasks.classification import CLASSIFICATION
from dlbench.tasks.outputs import require_targets

__all__ = ["BUILDERS", "BuiltModel", "build", "build_on_meta", "check_model_name", "list_networks"]

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": lenet.lenet5,
    "lenet5_sparse_c3": lenet.lenet5_sparse_c3,
    "alexnet": alexnet.alexnet,
    "alexnet_owt": alexnet.alexnet_owt,
    "overfeat_fast": overfeat.overfeat_fast,
    **vgg.BUILDERS,
    "googlenet": googlenet.googlenet,
    "googlenet_floor": googlenet.googlenet_floor,
    **resnet.BUILDERS,
    "mlp": fully_connected.mlp,
    "deep_autoencoder": fully_connected.deep_autoencoder,
    "conv_autoencoder": fully_connected.conv_autoencoder,
    "lstm_lm": recurrent.lstm_lm,
    "transformer_base": transformer.transformer_base,
    "gpt2_small": transformer.gpt2_small,
}


@dataclass(frozen=True)
class BuiltModel:
    """A network with its input shape and number of classes."""

    module: nn.Module
    input_shape: tuple[int, ...]  # (C, H, W) of an image, (T,) of tokens, (S, T) of source and target tokens
    num_classes: int  # or the vocabulary; 0 for a network that has neither
    name: str = ""
    warnings: tuple[str, ...] = ()  # for the record
    task: Task = CLASSIFICATION

    def make_batch(self, size: int, device: torch.device | str) -> Batch:
        """Random inputs and targets of `size` samples. Raises BadInput if a user's `make_batch` is wrong."""
        batch = self.task.make_batch(size, self.input_shape, self.num_classes, torch.device(device))
        if self.task.has_classes and self.num_classes:
            require_targets(batch[1], self.num_classes, self.name)
        return batch

    @property
    def items_per_sample(self) -> int:
        """Tokens of a sequence that throughput counts; 1 for an image."""
        return self.task.items_per_sample(self.input_shape)


def build(name: str, training: bool = True) -> BuiltModel:
    """Build network `name`, with initial weights.

    Args:
        name: see the module docstring.
        training: include training-only auxiliary heads; without them inference needs less memory.

    Raises:
        UnknownName: the name is unknown; the message suggests the nearest name.
        BadInput: a user's factory cannot be imported, raises, or returns no network.
    """
    facts = find_model(name)
    if facts is not None:
        module = BUILDERS[name.partition(LENGTH_SIGN)[0]]()
        if isinstance(module, googlenet.GoogLeNet) and not training:
            module.remove_auxiliary_heads()
        return BuiltModel(module, facts.input_shape, facts.num_classes, name, task=TASKS[facts.task])
    return dataclasses.replace(_find_external_builder(name)(training), name=name)


def build_on_meta(name: str, training: bool = True) -> BuiltModel:
    """Build a network on the meta device: shapes without data; allocates at most the weights of one layer at a time."""
    try:
        with torch.device("meta"):
            return build(name, training)
    except UnknownName:
        raise
    except (BadInput, NotImplementedError, RuntimeError):
        # Some constructors compute with tensor values (RegNet's widths), which meta lacks: then only parameters go to
        # meta. Other errors occur again.
        with _parameters_on_meta():
            built = build(name, training)
        return dataclasses.replace(built, module=built.module.to("meta"))


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    register = nn.Module.register_parameter

    def register_meta_parameter(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_meta_parameter  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def check_model_name(name: str) -> None:
    """Check that `name` can be built, without building it. Raises as `build`, but for the errors of a factory."""
    if find_model(name) is None:
        _find_external_builder(name)


def _find_external_builder(name: str) -> Callable[[bool], BuiltModel]:
    """Return the builder of a network outside the catalogue, for training or inference."""
    from dlbench.models import external  # imports torchvision, which takes seconds

    library, colon, rest = name.partition(":")
    if colon and library == "frozen":
        check_model_name(rest)
        return lambda training: _build_with_frozen_layers(rest, training)
    if colon and library == "torchvision":
        return external.torchvision_builder(rest)
    if colon and library == "timm":
        return external.timm_builder(rest)
    if colon:
        return external.factory_builder(library, rest)
    if name in external.torchvision_names():
        return external.torchvision_builder(name)
    if external.is_timm_name(name):
        return external.timm_builder(name)
    raise UnknownName("model", name, list_networks(), hint="`dlbench models --all` lists all.")


def _build_with_frozen_layers(name: str, training: bool) -> BuiltModel:
    built = build(name, training)
    try:
        frozen.freeze_all_but_last(built.module, built.num_classes)
    except BadInput as error:
        raise BadInput(f"model 'frozen:{name}' {error}") from None
    return built


def list_networks() -> list[str]:
    """Return all names that `build` accepts, except factories: built-in, torchvision, timm."""
    from dlbench.models import external

    return list(dict.fromkeys((*BUILDERS, *external.torchvision_names(), *external.timm_names())))
