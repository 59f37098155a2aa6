"""Networks by name: built-in ones, those of torchvision and timm, and users' own.

- ``resnet50``: built-in, from the catalogue.
- ``efficientnet_b0``: any torchvision classification model outside the catalogue, then any timm model.
- ``torchvision:resnet50``, ``timm:resnet50``: the model of that library, if a built-in one has the same name.
- ``package.module:factory``: a callable without arguments that returns a `torch.nn.Module`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from dlbench.errors import BadInput, UnknownName
from dlbench.models import alexnet, external, googlenet, lenet, overfeat, resnet, vgg
from dlbench.models.loss import training_loss
from dlbench.suites.catalog import CATALOG

__all__ = ["BUILDERS", "BuiltModel", "available", "build", "build_on_meta", "check", "training_loss"]

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": lenet.lenet5,
    "lenet5_sparse_c3": lenet.lenet5_sparse_c3,
    "alexnet": alexnet.alexnet,
    "alexnet_owt": alexnet.alexnet_owt,
    "overfeat_fast": overfeat.overfeat_fast,
    "vgg11": vgg.vgg11,
    "vgg13": vgg.vgg13,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "googlenet": googlenet.googlenet,
    "googlenet_floor": googlenet.googlenet_floor,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet50_v1_5": resnet.resnet50_v1_5,
    "resnet101_v1_5": resnet.resnet101_v1_5,
    "resnet152_v1_5": resnet.resnet152_v1_5,
}


@dataclass(frozen=True)
class BuiltModel:
    """A network with its input shape and number of classes."""

    module: nn.Module
    input_shape: tuple[int, ...]  # (C, H, W) of one image
    num_classes: int  # 0 for a network without class scores
    name: str
    warnings: tuple[str, ...] = ()  # warnings for the record


def build(name: str, training: bool = True) -> BuiltModel:
    """Build network `name`, with initial weights.

    Args:
        name: see the module docstring.
        training: include training-only auxiliary heads; without them inference needs less memory.

    Raises:
        UnknownName: the name is unknown; the message suggests the nearest name.
        BadInput: a user's factory cannot be imported, raises, or returns no network.
    """
    if name in BUILDERS:
        facts = CATALOG[name]
        module = BUILDERS[name]()
        return BuiltModel(
            module if training else _without_auxiliary(module), facts.input_shape, facts.num_classes, name
        )
    found = _finder(name)(training)
    return BuiltModel(found.module, found.input_shape, found.num_classes, name, found.warnings)


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

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def check(name: str) -> None:
    """Check that `name` can be built, without building it.

    Raises:
        UnknownName, BadInput: as `build`; errors of a factory occur only when it is built.
    """
    if name not in BUILDERS:
        _finder(name)


def _finder(name: str) -> Callable[[bool], external.LoadedModel]:
    """Return the builder of a network outside the catalogue, for training or inference."""
    library, colon, rest = name.partition(":")
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
    raise UnknownName("model", name, available(), hint="`dlbench models --all` lists all.")


def _without_auxiliary(module: nn.Module) -> nn.Module:
    if isinstance(module, googlenet.GoogLeNet):
        module.drop_auxiliary()
    return module


def available() -> list[str]:
    """Return all names that `build` accepts, except factories: built-in, torchvision, timm."""
    return list(dict.fromkeys((*BUILDERS, *external.torchvision_names(), *external.timm_names())))
