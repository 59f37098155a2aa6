"""External networks: those of torchvision, timm, and users' factories."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from dlbench.errors import BadInput, UnknownName
from dlbench.models.loss import describe_outputs, main_scores
from dlbench.models.wrappers import initialise_lazy, unwrap
from dlbench.names import excerpt

#: Default input shape of a factory's network; the number of classes is taken from its outputs, if possible.
DEFAULT_INPUT_SHAPE = (3, 224, 224)
DEFAULT_NUM_CLASSES = 1000
#: Of one image: 4 TB in single precision.
_MAX_NUMBERS = 10**12


class LoadedModel(NamedTuple):
    """A network, its image shape (C, H, W), its number of classes (0: no class scores), and warnings."""

    module: nn.Module
    input_shape: tuple[int, ...]
    num_classes: int
    warnings: tuple[str, ...] = ()


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return all classification models of the installed torchvision."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


@cache
def timm_names() -> tuple[str, ...]:
    """Return all models of timm; empty if it is not installed."""
    if importlib.util.find_spec("timm") is None:
        return ()
    import timm

    return tuple(timm.list_models())


def is_timm_name(name: str) -> bool:
    """Whether timm has the model; the name may have a dot and a tag of pretrained weights."""
    return name.partition(".")[0] in timm_names()


def torchvision_builder(name: str) -> Callable[[bool], LoadedModel]:
    """Return the builder of a torchvision classification model without weights, for training or inference.

    Raises:
        UnknownName: torchvision has no such model.
    """
    if name not in torchvision_names():
        raise UnknownName("torchvision model", name, torchvision_names())
    return lambda training: _from_torchvision(name, training)


def timm_builder(name: str) -> Callable[[bool], LoadedModel]:
    """Return the builder of a timm model without weights.

    Raises:
        BadInput: timm is not installed.
        UnknownName: timm has no such model.
    """
    if not timm_names():
        raise BadInput(f"model 'timm:{name}' needs timm, which is not installed; run: pip install timm")
    if not is_timm_name(name):
        raise UnknownName("timm model", name, timm_names())
    return lambda _: _from_timm(name)


def factory_builder(module_name: str, factory_name: str) -> Callable[[bool], LoadedModel]:
    """Return the builder that calls a user's `module_name:factory_name`, searched also in the current folder.

    Raises:
        BadInput: the module cannot be imported or has no such callable. The builder raises it if the factory raises or
        returns no network, or one with wrong input or output shapes.
    """
    factory = _find_factory(module_name, factory_name)
    return lambda _: _from_factory(f"{module_name}:{factory_name}", factory)


def _from_torchvision(name: str, training: bool) -> LoadedModel:
    options: dict[str, bool] = {}
    if name in ("googlenet", "inception_v3"):
        # Their initialisation draws truncated normals one by one, which takes seconds, and warns.
        options = {"init_weights": False, "aux_logits": training}
    module: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    # ViT and Swin have a fixed size; other models use 224, the usual size for comparison, if allowed.
    side = getattr(module, "image_size", None)
    if name == "inception_v3":
        side = weights.transforms().crop_size[0]
    elif not isinstance(side, int):
        side = max(224, *weights.meta.get("min_size", (1, 1)))
    return LoadedModel(module, (3, side, side), len(weights.meta["categories"]))


def _from_timm(name: str) -> LoadedModel:
    import timm

    module: nn.Module = timm.create_model(name, pretrained=False)
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]  # timm's own attribute
    return LoadedModel(module, tuple(config["input_size"]), int(config["num_classes"]))


def _find_factory(module_name: str, factory_name: str) -> Callable[[], object]:
    name = f"{module_name}:{factory_name}"
    _look_here()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # an import runs user code
        raise BadInput(f"model '{name}': cannot import '{module_name}': {type(error).__name__}: {error}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName("factory", factory_name, callables, where=f"module '{module_name}'")
    found: Callable[[], object] = factory
    return found


def _look_here() -> None:
    """Add the current folder to the import path: after the standard library, before installed packages.

    Before the standard library, a user's `random.py` would replace that of Python.
    """
    here = str(Path.cwd())
    if here in sys.path:
        return
    packages = [i for i, path in enumerate(sys.path) if Path(path).name in ("site-packages", "dist-packages")]
    sys.path.insert(packages[0] if packages else len(sys.path), here)


def _from_factory(name: str, factory: Callable[[], object]) -> LoadedModel:
    """Build the network of a factory; `input_shape` and `num_classes` come from the network, else from the factory."""
    try:
        module = factory()
    except (Exception, SystemExit) as error:  # user code may raise anything: report one line
        raise BadInput(f"model '{name}': the factory raised {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"model '{name}': the factory returned a {type(module).__name__}, not a torch.nn.Module")
    try:
        module, warnings = unwrap(module)
    except BadInput as error:
        raise BadInput(f"model '{name}' {error}") from None
    said_shape = getattr(module, "input_shape", getattr(factory, "input_shape", DEFAULT_INPUT_SHAPE))
    if not isinstance(said_shape, Sequence) or not said_shape or not all(map(_is_positive, said_shape)):
        raise BadInput(
            f"model '{name}': input_shape is {excerpt(said_shape)}; it must be whole numbers above zero, such as "
            "(3, 224, 224)"
        )
    if math.prod(said_shape) > _MAX_NUMBERS:
        raise BadInput(f"model '{name}': input_shape {excerpt(said_shape)} is more than any memory holds")
    said_classes = getattr(module, "num_classes", getattr(factory, "num_classes", None))
    headless = said_classes == 0 and not isinstance(said_classes, bool | float)
    if said_classes is not None and not headless and not _is_positive(said_classes):
        raise BadInput(
            f"model '{name}': num_classes is {said_classes!r}; it must be a whole number above zero, "
            "or 0 for a network without class scores"
        )
    shape = tuple(said_shape)
    try:
        initialise_lazy(module, shape)
    except BadInput as error:
        raise BadInput(f"model '{name}' {error}") from error.__cause__
    return LoadedModel(module, shape, 0 if headless else _num_classes(name, module, shape, said_classes), warnings)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _num_classes(name: str, module: nn.Module, shape: tuple[int, ...], said: int | None) -> int:
    """Return the number of classes: the declared one, checked on the meta device, else that of the outputs.

    A label outside the outputs crashes the whole process on CUDA, without a clear message.
    """
    batch_size = 2
    try:
        outputs = _outputs_on_meta(module, torch.empty(batch_size, *shape, device="meta"))
    except Exception:  # not every network runs on meta; a real error occurs in the first step
        return said or DEFAULT_NUM_CLASSES
    scores = main_scores(outputs)
    if scores is None or scores.dim() != 2 or len(scores) != batch_size:
        raise BadInput(
            f"model '{name}' returns {describe_outputs(outputs)} for {batch_size} images of {shape}; class scores "
            f"of shape ({batch_size}, num_classes) are needed, in a dictionary as 'logits'"
        )
    if said is not None and said > scores.shape[1]:
        raise BadInput(f"model '{name}' declares num_classes = {said}, but returns scores of {scores.shape[1]} classes")
    return said or scores.shape[1]


def _outputs_on_meta(module: nn.Module, images: Tensor) -> Any:
    modes = {m: m.training for m in module.modules()}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    on_meta = {key: tensor.to("meta") for key, tensor in tensors.items()}
    try:
        with torch.no_grad():
            return torch.func.functional_call(module.eval(), on_meta, (images,))
    finally:
        for part, training in modes.items():
            part.training = training
