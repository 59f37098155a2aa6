"""External networks: those of torchvision, timm, and users' factories."""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from dlbench.errors import BadInput, UnknownName
from dlbench.models import BuiltModel
from dlbench.models.wrappers import initialise_lazy, unwrap
from dlbench.safe_names import short_repr
from dlbench.tasks import Batch, Task, map_batch_tensors
from dlbench.tasks.user_task import network_or_factory_attribute, user_task

#: Default input shape of a factory's network; the number of classes is taken from its outputs, if possible.
DEFAULT_INPUT_SHAPE = (3, 224, 224)
DEFAULT_NUM_CLASSES = 1000
#: Maximum numbers in one input: 4 TB in single precision.
_MAX_INPUT_VALUES = 10**12


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


def torchvision_builder(name: str) -> Callable[[bool], BuiltModel]:
    """The builder of a torchvision classification model without weights. Raises UnknownName if there is none."""
    if name not in torchvision_names():
        raise UnknownName("torchvision model", name, torchvision_names())
    return lambda training: _build_torchvision(name, training)


def timm_builder(name: str) -> Callable[[bool], BuiltModel]:
    """The builder of a timm model without weights. Raises BadInput without timm, UnknownName without the model."""
    if not timm_names():
        raise BadInput(f"model 'timm:{name}' needs timm, which is not installed; run: pip install timm")
    if not is_timm_name(name):
        raise UnknownName("timm model", name, timm_names())
    return lambda _: _build_timm(name)


def factory_builder(module_name: str, factory_name: str) -> Callable[[bool], BuiltModel]:
    """Return the builder that calls a user's `module_name:factory_name`, searched also in the current folder.

    Raises:
        BadInput: the module cannot be imported or has no such callable. The builder raises it if the factory raises or
        returns no network, or one with wrong input or output shapes.
    """
    name = f"{module_name}:{factory_name}"
    factory = _find_factory(name, module_name, factory_name)
    return lambda _: _build_from_factory(name, factory)


def _build_torchvision(name: str, training: bool) -> BuiltModel:
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
    return BuiltModel(module, (3, side, side), len(weights.meta["categories"]))


def _build_timm(name: str) -> BuiltModel:
    import timm

    module: nn.Module = timm.create_model(name, pretrained=False)
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]  # timm's own attribute
    return BuiltModel(module, tuple(config["input_size"]), int(config["num_classes"]))


def _find_factory(name: str, module_name: str, factory_name: str) -> Callable[[], object]:
    _import_from_current_folder()
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


def _import_from_current_folder() -> None:
    """Add the current folder to the import path: after the standard library, before installed packages.

    Before the standard library, a user's `random.py` would replace that of Python.
    """
    here = str(Path.cwd())
    if here in sys.path:
        return
    packages = [i for i, path in enumerate(sys.path) if Path(path).name in ("site-packages", "dist-packages")]
    sys.path.insert(packages[0] if packages else len(sys.path), here)


def _build_from_factory(name: str, factory: Callable[[], object]) -> BuiltModel:
    """Build the network of a factory; `input_shape` and `num_classes` come from the network, else from the factory."""
    try:
        module = factory()
    except (Exception, SystemExit) as error:  # user code may raise anything: report one line
        raise BadInput(f"model '{name}': the factory raised {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BadInput(f"model '{name}': the factory returned a {type(module).__name__}, not a torch.nn.Module")
    try:
        module, warnings = unwrap(module)
        return _to_built_model(module, factory, warnings)
    except BadInput as error:
        raise BadInput(f"model '{name}' {error}") from error.__cause__


def _to_built_model(module: nn.Module, factory: object, warnings: tuple[str, ...]) -> BuiltModel:
    """The network with its input shape, classes and task. Raises BadInput, without its name, if one is wrong."""
    task = user_task(module, factory)
    shape = _input_shape(network_or_factory_attribute(module, factory, "input_shape", DEFAULT_INPUT_SHAPE), task)
    num_classes = network_or_factory_attribute(module, factory, "num_classes")
    may_lack = task.name == "classification"
    headless = may_lack and num_classes == 0 and not isinstance(num_classes, bool | float)
    if num_classes is not None and not headless and not _is_positive_integer(num_classes):
        or_none = ", or 0 if the network returns no class scores" if may_lack else ""
        raise BadInput(
            f"has num_classes {num_classes!r}; it must be a whole number of {task.classes} above zero{or_none}"
        )
    size = 2
    # This check must not change the random numbers of the process.
    with torch.random.fork_rng(devices=[]):
        with torch.device("cpu"):
            # Without a declared number of classes, all targets are class 0.
            batch = None if headless else task.make_batch(size, shape, num_classes or 1, torch.device("cpu"))
        inputs = (torch.randn(size, *shape),) if batch is None else batch[0]
    initialise_lazy(module, inputs)
    found = 0 if batch is None else _num_classes(task, module, batch, num_classes)
    return BuiltModel(module, shape, found, warnings=warnings, task=task)


def _input_shape(value: Any, task: Task) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or not value or not all(map(_is_positive_integer, value)):
        raise BadInput(
            f"has input_shape {short_repr(value)}; it must be whole numbers above zero, such as (3, 224, 224)"
        )
    shape = tuple(value)
    if task.num_dimensions not in (None, len(shape)):
        example = {1: "(128,), the sequence length", 2: "(128, 128), source and target sequence length"}
        raise BadInput(
            f"has input_shape {shape}, but task '{task.name}' needs a shape such as {example[task.num_dimensions or 1]}"
        )
    if math.prod(shape) > _MAX_INPUT_VALUES:
        raise BadInput(f"has input_shape {short_repr(value)}, which does not fit into any memory")
    return shape


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _num_classes(task: Task, module: nn.Module, batch: Batch, num_classes: int | None) -> int:
    """The number of classes: the declared one, checked by a forward pass on meta, else that of the outputs."""
    on_meta = map_batch_tensors(lambda tensor: tensor.to("meta"), batch)
    try:
        outputs = outputs_on_meta(module, on_meta[0])
    except Exception:  # not every network runs on meta; the first step reports other errors
        return num_classes or (DEFAULT_NUM_CLASSES if task.has_classes else 0)
    return task.check_output(outputs, on_meta, num_classes)


def outputs_on_meta(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """What a forward pass gives for inputs on meta, computed without numbers; raises what the network raises."""
    modes = {m: m.training for m in module.modules()}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    on_meta = {key: tensor.to("meta") for key, tensor in tensors.items()}
    try:
        with torch.no_grad():
            return torch.func.functional_call(module.eval(), on_meta, inputs)
    finally:
        for part, training in modes.items():
            part.training = training
