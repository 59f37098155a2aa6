"""Networks that are not ours: torchvision's, timm's, and those of somebody's own factory."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torchvision
from torch import nn

from dlbench.errors import BadInput, UnknownName

#: What a factory's network is fed when neither it nor its module says otherwise.
DEFAULT_INPUT_SHAPE = (3, 224, 224)
DEFAULT_NUM_CLASSES = 1000

#: A network, the (C, H, W) of its images, and its number of classes.
Found = tuple[nn.Module, tuple[int, ...], int]


@cache
def torchvision_names() -> tuple[str, ...]:
    """All classification models of the installed torchvision."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


@cache
def timm_names() -> tuple[str, ...]:
    """All models of timm, or none where it is not installed."""
    if importlib.util.find_spec("timm") is None:
        return ()
    import timm

    return tuple(timm.list_models())


def from_torchvision(name: str) -> Found:
    """A torchvision classification model without weights.

    Raises:
        UnknownName: torchvision has none of that name.
    """
    if name not in torchvision_names():
        raise UnknownName("torchvision model", name, torchvision_names())
    # Their own initialisation of these two draws truncated normals one by one, for seconds, and warns of it.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    size = weights.transforms().crop_size[0]
    smallest = weights.meta.get("min_size", (1, 1))
    # ViT and Swin are built for one size; the rest take 224, at which they are compared everywhere, if it is enough.
    fixed = getattr(module, "image_size", None)
    side = fixed if isinstance(fixed, int) else (size if name == "inception_v3" else max(224, *smallest))
    return module, (3, side, side), len(weights.meta["categories"])


def from_timm(name: str) -> Found:
    """A timm model without weights.

    Raises:
        BadInput: timm is not installed.
        UnknownName: timm has none of that name.
    """
    if not timm_names():
        raise BadInput(f"model 'timm:{name}' needs timm, which is not installed; pip install timm")
    if name.partition(".")[0] not in timm_names():
        raise UnknownName("timm model", name, timm_names())
    import timm

    module: nn.Module = timm.create_model(name, pretrained=False)
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]  # timm's own attribute
    return module, tuple(config["input_size"]), int(config["num_classes"])


def from_factory(module_name: str, factory_name: str) -> Found:
    """What somebody's own callable gives; `input_shape` and `num_classes` are taken from the network or the callable.

    Raises:
        BadInput: it cannot be imported, raises, or gives no network.
    """
    name = f"{module_name}:{factory_name}"
    factory = find_factory(module_name, factory_name)
    try:
        module = factory()
    except Exception as error:  # whatever somebody's code raises is theirs, and one line of it helps them most
        raise BadInput(f"model '{name}': the factory raised {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"model '{name}': the factory gave a {type(module).__name__}, not a torch.nn.Module")
    shape = getattr(module, "input_shape", getattr(factory, "input_shape", DEFAULT_INPUT_SHAPE))
    classes = getattr(module, "num_classes", getattr(factory, "num_classes", DEFAULT_NUM_CLASSES))
    return module, tuple(shape), int(classes)


def find_factory(module_name: str, factory_name: str) -> Callable[[], object]:
    """The callable `module_name:factory_name`, looked for in the current folder too.

    Raises:
        BadInput: the module cannot be imported, or has no such callable.
    """
    name = f"{module_name}:{factory_name}"
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs somebody's code
        raise BadInput(f"model '{name}': cannot import '{module_name}': {type(error).__name__}: {error}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName("factory", factory_name, callables, where=f"module '{module_name}'")
    found: Callable[[], object] = factory
    return found
