"""What a network's tensors take in memory, found out on the meta device: nothing is allocated, no device is needed."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlbench.models import BuiltModel, training_loss


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage that an operation makes until it is freed; `peak` is the most that lived at once [bytes].

    This is what the framework's allocator would be asked for; its rounding and the libraries' workspace come on top.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: dict[int, int] = {}  # storage by identity -> bytes

    def watch(self, tensor: Tensor) -> None:
        """Count a tensor that was made outside, such as a parameter."""
        storage = tensor.untyped_storage()
        identity = storage._cdata
        if identity in self._known:
            return
        self._known[identity] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, identity)

    def _freed(self, identity: int) -> None:
        self.live -= self._known.pop(identity, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.watch(leaf)
        return result


def inference_peak_elements(model: BuiltModel, batch_size: int = 2) -> int:
    """Elements of activations that live at once in one inference pass, per image, the input left out.

    Args:
        model: on the meta device.
        batch_size: images in the pass that is followed.
    """
    module = model.module.eval()
    x = torch.empty(batch_size, *model.input_shape, device="meta")
    memory = LiveBytes()
    with torch.inference_mode(), memory:
        module(x)
    return memory.peak // (x.element_size() * batch_size)


def saved_elements(model: BuiltModel, batch_size: int = 2) -> int:
    """Elements saved by the forward pass for the backward one, per image, in fp32; parameters and the input left out.

    Args:
        model: on the meta device.
        batch_size: images in the pass that is followed.
    """
    module = model.module.train()
    x = torch.empty(batch_size, *model.input_shape, device="meta")
    own = {_storage(t) for t in (*module.parameters(), *module.buffers(), x)}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        training_loss(module(x), torch.zeros(batch_size, dtype=torch.long, device="meta"))
    saved_bytes: int = sum(t.untyped_storage().nbytes() for t in saved.values())
    return saved_bytes // (x.element_size() * batch_size)


def _storage(tensor: Tensor | nn.Parameter) -> int:
    return int(tensor.untyped_storage()._cdata)
