"""Memory of a network's tensors, determined without data, allocation or device."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlbench.worker.memory import storage_id


class LiveMemoryMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that follows every storage until it is freed; `peak` is the maximum alive at once [bytes].

    This is the memory requested from the framework's allocator, without its rounding and workspaces of libraries.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: dict[int, int] = {}  # storage by identity -> bytes

    def count_outside_tensor(self, tensor: Tensor) -> None:
        """Count a tensor created outside, such as a parameter."""
        storage, identity = tensor.untyped_storage(), storage_id(tensor)
        if identity in self._known:
            return
        self._known[identity] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._on_storage_freed, identity)

    def _on_storage_freed(self, identity: int) -> None:
        self.live -= self._known.pop(identity, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count_outside_tensor(leaf)
        return result
