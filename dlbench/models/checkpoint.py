"""Weights of a network in a file of PyTorch: pretrained ones to start from, and trained ones to keep."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dlbench import units
from dlbench.errors import BadInput

#: Keys under which training scripts store the weights beside other things.
_STATE_DICT_KEYS = ("state_dict", "model", "model_state_dict")
_MAX_NAMES = 3


def load_weights(module: nn.Module, path: str) -> tuple[str, ...]:
    """Load the weights in file `path` whose name and shape fit; return a warning that names the others.

    Args:
        path: a file of `torch.save(module.state_dict(), path)`; "": nothing is loaded.

    Raises:
        BadInput: the file cannot be read, or nothing in it fits.
    """
    if not path:
        return ()
    try:
        # weights_only: a foreign file must not run code.
        found = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"weights '{path}' cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever unpickling raises
        raise BadInput(f"weights '{path}' is not a weights file of PyTorch ({type(error).__name__})") from None
    if not isinstance(found, Mapping):
        raise BadInput(f"weights '{path}' contains a {type(found).__name__}, not the weights of a network")
    state = next((found[key] for key in _STATE_DICT_KEYS if isinstance(found.get(key), Mapping)), found)
    own = module.state_dict()
    # DistributedDataParallel puts "module." before each name.
    named = {str(name).removeprefix("module."): value for name, value in state.items()}
    fitting = {
        name: value
        for name, value in named.items()
        if isinstance(value, Tensor) and name in own and value.shape == own[name].shape
    }
    if not fitting:
        raise BadInput(f"weights '{path}' has none of the network's weights, such as '{next(iter(own), '')}'")
    module.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    if not left:
        return ()
    return (
        f"weights_left: {units.list_text(left, _MAX_NAMES)} keep their random initial values, because '{path}' has no "
        f"weights of this name and shape.",
    )


def save_weights(module: nn.Module, path: str) -> None:
    """Write the weights to file `path`, if one is named. Raises BadInput if that fails."""
    if not path:
        return
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    try:
        torch.save(state, Path(path).expanduser())
    except (OSError, RuntimeError) as error:
        raise BadInput(f"save_weights '{path}' cannot be written: {str(error).splitlines()[0]}") from None
