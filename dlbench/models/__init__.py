"""The networks by name: our own, torchvision's, timm's, and anybody's.

- ``resnet50``: ours, in the catalogue.
- ``efficientnet_b0``: any torchvision classification model that is not in the catalogue, then any of timm's.
- ``torchvision:resnet50``, ``timm:resnet50``: the other library's, where ours has the same name.
- ``package.module:factory``: a callable without arguments that gives a `torch.nn.Module`.
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
    """A network and what it must be fed."""

    module: nn.Module
    input_shape: tuple[int, ...]  # (C, H, W) of one image
    num_classes: int  # 0 for a network without class scores
    name: str
    warnings: tuple[str, ...] = ()  # for the record


def build(name: str, training: bool = True) -> BuiltModel:
    """The network called `name`, with fresh weights.

    Args:
        name: as the head of this module says.
        training: with the auxiliary heads that only training has; without them inference needs less memory.

    Raises:
        UnknownName: nobody knows the name; a near one is offered.
        BadInput: somebody's own factory cannot be imported, raises, or gives no network.
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
    """As `build`, on the meta device: shapes without data, and at most one layer's weights allocated at a time."""
    try:
        with torch.device("meta"):
            return build(name, training)
    except UnknownName:
        raise
    except (BadInput, NotImplementedError, RuntimeError):
        # Some constructors compute with tensors (RegNet's widths), which meta cannot: there, only parameters go to
        # meta. What is wrong for another reason is wrong again.
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
    """See whether `name` can be built, without building it.

    Raises:
        UnknownName, BadInput: as `build`; that a factory raises or gives no network is only seen when it is built.
    """
    if name not in BUILDERS:
        _finder(name)


def _finder(name: str) -> Callable[[bool], external.LoadedModel]:
    """What builds a network that is not ours, for training or not."""
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
    """All names that `build` takes, factories aside: ours first, then torchvision's, then timm's."""
    return list(dict.fromkeys((*BUILDERS, *external.torchvision_names(), *external.timm_names())))
