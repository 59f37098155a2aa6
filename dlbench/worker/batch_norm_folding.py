"""Batch normalisation folded into the convolution or product before it, for inference."""

import torch
from torch import Tensor, nn

from dlbench.errors import InvalidMeasurement
from dlbench.tasks.outputs import find_nested_tensors

#: Largest difference of an output, relative to the largest one: folding rounds weights once more.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def fold_batch_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the network with its batch normalisations folded, and warnings.

    Args:
        module: in evaluation mode.
        inputs: of one sample, on its device: both networks must give the same outputs for it.

    Raises:
        InvalidMeasurement: torch.fx cannot trace the network, or the outputs differ.
    """
    from torch.fx.experimental.optimization import fuse

    before = _count_batch_norms(module)
    try:
        folded = fuse(module)
    except Exception as error:  # what a trace runs into is up to the network
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidMeasurement(
            f"fold_batch_norm is 'on', but torch.fx cannot trace the network: {reason}; set it to \"off\""
        ) from error
    if _count_batch_norms(folded) == before:
        return module, ("nothing_folded: no batch normalisation follows a convolution or matrix product.",)
    kept = next(module.parameters())
    with torch.inference_mode():
        cast = tuple(x.to(kept.dtype) if x.is_floating_point() else x for x in inputs)
        for was, now in zip(find_nested_tensors(module(*cast)), find_nested_tensors(folded(*cast)), strict=True):
            off, largest = float((now - was).abs().max()), float(was.abs().max())
            if not off <= _TOLERANCE[kept.dtype] * largest:
                raise InvalidMeasurement(
                    f"folding batch normalisation changes an output by {off:.3g}, more than rounding explains; the "
                    f"largest output is {largest:.3g}"
                )
    return folded, ()


def _count_batch_norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for part in module.modules())
