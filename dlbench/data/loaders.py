"""The loader that a case asks for: PyTorch's DataLoader, or NVIDIA DALI."""

import math
import os
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler

from dlbench.data.image_files import ImageSet, find_images
from dlbench.data.jpeg import PREFETCH, JpegBatches, JpegDataset, require_enough_classes
from dlbench.data.photographs import photograph_folder
from dlbench.errors import BadInput
from dlbench.free_memory import available_bytes
from dlbench.models import BuiltModel
from dlbench.suites.case import Case


def open_batches(case: Case, built: BuiltModel, rank: int = 0) -> JpegBatches:
    """The loader that the case asks for; its processes start with the first batch.

    Raises:
        BadInput: the network takes no images, the folder has none or more classes than the network, or the loader's
            processes would not fit into memory.
    """
    if built.task.name != "classification" or len(built.input_shape) != 3 or built.input_shape[0] not in (1, 3):
        raise BadInput(
            f"data 'jpeg' needs a network that classifies images, and {built.name} does not; set data = \"synthetic\""
        )
    images = find_images(case.data_path or photograph_folder())
    require_enough_classes(f"the images of '{case.data_path}'", images.num_classes, built)
    if case.loader == "dali":
        from dlbench.data import dali

        return dali.open_batches(case, built, images, rank)
    _require_loader_memory(case, built)
    if len(images.files) < case.batch_size * case.world_size:
        # An epoch shorter than a batch would give none.
        times = math.ceil(case.batch_size * case.world_size / len(images.files))
        images = ImageSet(images.files * times, images.num_classes, images.num_others)
    dataset = JpegDataset(images, built.input_shape, case.mode == "training")
    sampler: Any = DistributedSampler(
        dataset, case.world_size, rank, shuffle=True, seed=case.protocol.seed, drop_last=True
    )
    several = case.loader_workers > 0
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=case.batch_size,
        sampler=sampler,
        num_workers=case.loader_workers,
        drop_last=True,
        pin_memory=case.device == "cuda",
        persistent_workers=several,
        prefetch_factor=PREFETCH if several else None,
    )
    return JpegBatches(loader, images.num_others)


def _require_loader_memory(case: Case, built: BuiltModel) -> None:
    """Raise BadInput if prefetched batches do not fit into memory, or into the shared memory that transfers them."""
    batch_bytes = 4 * case.batch_size * math.prod(built.input_shape)
    needed = case.loader_workers * PREFETCH * batch_bytes
    place = os.statvfs("/dev/shm")
    free, where = min((available_bytes(), "memory"), (place.f_bavail * place.f_frsize, "/dev/shm"))
    if needed > free:
        raise BadInput(
            f"loader_workers is {case.loader_workers}: {PREFETCH} prefetched batches per worker need "
            f"{needed / 2**30:.1f} GiB in total, but {where} has {free / 2**30:.1f} GiB; use fewer workers or a "
            f"smaller batch"
        )
