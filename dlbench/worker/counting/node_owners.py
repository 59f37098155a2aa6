"""Owners of autograd nodes: a node belongs to the module whose forward pass created it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


class AutogradNodeTracker:
    """Tracker of running modules and of the autograd nodes they create."""

    def __init__(self) -> None:
        self._running: list[str] = []
        self._owner_of_node: dict[int, str] = {}
        #: Number of the next autograd node (numbers ascend).
        self.next_node = _next_autograd_sequence_number()

    @property
    def innermost_module(self) -> str | None:
        """Path of the innermost running module; None outside modules."""
        return self._running[-1] if self._running else None

    def enter_module(self, path: str) -> None:
        """Enter the module with this path."""
        self.assign_new_nodes()
        self._running.append(path)

    def leave_module(self) -> None:
        """Leave the innermost module."""
        self.assign_new_nodes()
        self._running.pop()

    def assign_new_nodes(self, owner: str | None = None) -> None:
        """Assign the nodes created since the last call to `owner`, or to the running module."""
        newest, owner = _next_autograd_sequence_number(), self.innermost_module if owner is None else owner
        if owner is not None:
            self._owner_of_node.update(dict.fromkeys(range(self.next_node, newest), owner))
        self.next_node = newest

    def module_path_of_node(self, node: Any) -> str | None:
        """Return the path of the module of a node; None if created outside modules."""
        return self._owner_of_node.get(node._sequence_nr())

    def clear_nodes(self) -> None:
        """Delete all nodes, at the end of a step."""
        self._running.clear()
        self._owner_of_node.clear()


@contextmanager
def hook_forward_calls(
    network: nn.Module, entering: Callable[[str], None], leaving: Callable[[Any], None]
) -> Iterator[None]:
    """Every module calls `entering` with its path first, and `leaving` with its output (None if it ended early)."""
    with ExitStack() as hooks:
        for path, module in network.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(lambda *_, p=path: entering(p), prepend=True))
            hooks.enter_context(module.register_forward_hook(lambda *call: leaving(call[-1]), always_call=True))
        yield


def _next_autograd_sequence_number() -> int:
    number: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return number
