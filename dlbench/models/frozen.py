"""Transfer learning: a network whose layers are frozen, except the last one."""

from torch import nn

from dlbench.errors import BadInput


def freeze_all_but_last(module: nn.Module, num_classes: int) -> None:
    """Freeze all parameters except those of the last layer, so that backward and update leave them out.

    Normalisation still computes the statistics of its batches, as in usual fine-tuning loops. Raises BadInput, without
    the model's name, if the network has no parameters.
    """
    last = last_layer_name(module, num_classes)
    module.requires_grad_(False)
    module.get_submodule(last).requires_grad_(True)


def last_layer_name(module: nn.Module, num_classes: int) -> str:
    """Return the name of the last layer with weights: the last with one output per class, where there is one.

    Layers of auxiliary heads, whose names have "aux", are left out.
    """
    with_weights: dict[str, nn.Module] = {
        name: part
        for name, part in module.named_modules()
        if "aux" not in name and next(part.parameters(recurse=False), None) is not None
    }
    if not with_weights:
        raise BadInput("has no parameters to freeze")
    heads: list[str] = [
        name
        for name, part in with_weights.items()
        if num_classes in (getattr(part, "out_features", None), getattr(part, "out_channels", None))
    ]
    return (heads or list(with_weights))[-1]
