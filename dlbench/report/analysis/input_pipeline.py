"""What limits a step that loads its images, and how many processes would feed its device."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: A step that takes at most so many times the step of the device alone is limited by the device.
DEVICE_BOUND = 1.05


@dataclass(frozen=True)
class PipelineVerdict:
    """What limits: "device", "decode", "storage" or "loader"; and the loader processes that would feed the device."""

    limit: str
    workers: int


def pipeline_verdict(
    step_s: float, device_step_s: float, loader_batch_s: float, read_s: float, decode_s: float, workers: int
) -> PipelineVerdict:
    """The verdict on one case.

    Args:
        step_s: time of a step with its loading [s].
        device_step_s: of a step whose batch is at hand [s].
        loader_batch_s: of a batch of the loader alone, with `workers` processes [s].
        read_s: reading the files of a batch, summed over processes [s].
        decode_s: decoding and augmenting them, likewise [s]. Both are NaN where the loader does not time them apart.
        workers: processes of the loader; 0: the process that computes loads as well.

    Returns:
        The number of processes supposes that each does as much as one of those that were measured: cores and storage
        are not asked.
    """
    needed = max(1, math.ceil(max(1, workers) * loader_batch_s / device_step_s))
    if step_s <= DEVICE_BOUND * device_step_s:
        return PipelineVerdict("device", needed)
    if math.isnan(read_s) or math.isnan(decode_s):
        return PipelineVerdict("loader", needed)
    return PipelineVerdict("storage" if read_s > decode_s else "decode", needed)
