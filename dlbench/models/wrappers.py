"""Removal of wrappers that a user's factory puts around a network or its parts, but that a case controls."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from dlbench.errors import BadInput


def unwrap(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Remove `torch.compile` and `DataParallel` from the network; return a warning that lists them.

    The number of devices and compilation are axes of a case: inside the network they would change the measurement
    under the same label.

    Raises:
        BadInput: a part is wrapped for distributed training already.
    """
    removed: dict[str, int] = {}
    module = _remove_wrappers(module, removed)
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            bare = _remove_wrappers(child, removed)
            if bare is not child:
                setattr(part, name, bare)
        if getattr(part, "_compiled_call_impl", None) is not None:
            part._compiled_call_impl = None
            removed["torch.compile"] = removed.get("torch.compile", 0) + 1
    if not removed:
        return module, ()
    names = " and ".join(sorted(removed))
    return module, (
        f"unwrapped: the network was wrapped in {names}, which dlbench removed; instead of wrapping it, set "
        f"devices_per_node or compile in the suite.",
    )


def _remove_wrappers(module: nn.Module, removed: dict[str, int]) -> nn.Module:
    while True:
        if isinstance(module, DistributedDataParallel) or type(module).__name__.startswith("FullyShardedDataParallel"):
            raise BadInput(
                f"is wrapped in {type(module).__name__}; return the network without this wrapper: dlbench adds it"
            )
        # The class of a compiled module is in torch._dynamo, which takes a second to import.
        compiled: Any = getattr(module, "_orig_mod", None) if type(module).__name__ == "OptimizedModule" else None
        if compiled is not None:
            removed["torch.compile"] = removed.get("torch.compile", 0) + 1
            module = compiled
        elif isinstance(module, DataParallel):
            removed["DataParallel"] = removed.get("DataParallel", 0) + 1
            module = module.module
        else:
            return module


def initialise_lazy(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Give lazy parameters their shapes by a forward pass, as their documentation asks.

    The optimizer, DistributedDataParallel and all counts need them. Training-only parts need a second pass in training
    mode.

    Raises:
        BadInput: the pass fails, or leaves parameters without a shape.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        for training in (False, True):
            waiting = _lazy_tensors(module)
            if not waiting:
                return
            device = next(iter(waiting.values())).device
            with torch.no_grad():
                module.train(training)(*(tensor.to(device) for tensor in inputs))
    except Exception as error:  # a network's own code runs here
        reason = (str(error).splitlines() or [""])[0]
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise BadInput(
            f"has lazy layers, but the forward pass with inputs of {shapes} that initialises them failed: "
            f"{type(error).__name__}: {reason}"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    if left := _lazy_tensors(module):
        raise BadInput(f"has lazy layers that a forward pass does not use: {', '.join(list(left)[:3])}")


def _lazy_tensors(module: nn.Module) -> dict[str, Tensor]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor for name, tensor in tensors if is_lazy(tensor)}
