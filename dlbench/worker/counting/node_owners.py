"""Which module of a network a node of autograd belongs to: that during whose forward pass autograd numbered it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class NodeOwners:
    """Follows the modules that run, and what autograd numbers meanwhile."""

    def __init__(self) -> None:
        self._running: list[str] = []
        self._owner_of_node: dict[int, str] = {}
        #: Autograd numbers its nodes upwards; the next one will have this number.
        self.next_node = _next_number()

    @property
    def running(self) -> str | None:
        """The path of the innermost module that runs now; None outside of all."""
        return self._running[-1] if self._running else None

    def enter(self, path: str) -> None:
        """The module of this path begins to run."""
        self.assign_new()
        self._running.append(path)

    def leave(self) -> None:
        """The innermost module ends."""
        self.assign_new()
        self._running.pop()

    def assign_new(self, owner: str | None = None) -> None:
        """What autograd has numbered since the last call belongs to `owner`, or else to the module that runs."""
        newest, owner = _next_number(), self.running if owner is None else owner
        if owner is not None:
            self._owner_of_node.update(dict.fromkeys(range(self.next_node, newest), owner))
        self.next_node = newest

    def of(self, node: Any) -> str | None:
        """The path of the node's module; None where it was made outside of all."""
        return self._owner_of_node.get(node._sequence_nr())

    def clear(self) -> None:
        """Forget all nodes: those of the next step are others."""
        self._running.clear()
        self._owner_of_node.clear()


def hook_modules(network: nn.Module, entering: Callable[[str], None], leaving: Callable[[Any], None]) -> list[Any]:
    """Call these when a module of `network` begins, with its path, and ends, with its output; gives the hooks' handles.

    The output is None where a module ended early.
    """
    handles: list[Any] = []
    for path, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: entering(path), prepend=True))
        handles.append(module.register_forward_hook(lambda module, args, output: leaving(output), always_call=True))
    return handles


def _next_number() -> int:
    number: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return number
