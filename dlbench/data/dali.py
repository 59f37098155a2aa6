"""Batches of JPEG files by NVIDIA DALI: the same crops, flips and normalisation as by `dlbench.data.jpeg`.

DALI reads and decodes in threads of this process: `loader_workers` is their number. On a GPU it decodes there. It reads
folders, not shards, and stops at a file that it cannot decode, whose record is then invalid with DALI's reason.
"""

from dataclasses import dataclass
from typing import Any

from dlbench.data.image_files import ImageSet
from dlbench.data.jpeg import MEAN, STD, JpegBatches
from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.models import BuiltModel
from dlbench.suites.case import Case

#: Shares of the area that training crops, and ratios of width to height, as of torchvision's RandomResizedCrop.
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass
class DaliBatches(JpegBatches):
    """Endless batches of DALI's iterator, on the device; reading and decoding are not timed apart."""

    times_parts: bool = False

    def process_ids(self) -> list[int]:
        """No process: DALI has threads."""
        return []

    def close(self) -> None:
        """End DALI's threads."""
        self.loader = None

    def _next_batch(self) -> Any:
        try:
            (found,) = next(self.loader)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            # Its first lines name operator and stack; the reason is behind "Error".
            reason = next((line for line in lines if "rror" in line and "ncountered" not in line), lines[0])
            raise InvalidMeasurement(f"DALI cannot load the images: {reason}") from None
        return found["images"], found["labels"].flatten().long()


def open_batches(case: Case, built: BuiltModel, images: ImageSet, rank: int) -> JpegBatches:
    """The batches of this rank. Raises BadInput if DALI is not installed, or the images lie in shards."""
    try:
        from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy
    except ImportError as error:
        raise BadInput(
            f"loader 'dali' needs NVIDIA DALI, which cannot be imported ({error}); pip install nvidia-dali-cuda120, or "
            'set loader = "torch"'
        ) from None
    if images.files[0].size is not None:
        raise BadInput("loader 'dali' reads folders, but these images are in shards; set loader = \"torch\"")
    pipeline = _build_pipeline(case, built, images, rank)
    iterator = DALIGenericIterator(
        [pipeline],
        ["images", "labels"],
        reader_name="files",
        last_batch_policy=LastBatchPolicy.DROP,
        auto_reset=True,
        prepare_first_batch=False,  # so that a broken file is met by `_next_batch`
    )
    return DaliBatches(_repeat_forever(iterator), images.num_others)


def _repeat_forever(iterator: Any) -> Any:
    while True:
        yield from iterator


def _build_pipeline(case: Case, built: BuiltModel, images: ImageSet, rank: int) -> Any:
    from nvidia.dali import fn, pipeline_def, types

    channels, side = built.input_shape[0], built.input_shape[-1]
    means, deviations = (MEAN, STD) if channels == 3 else ((0.5,), (0.25,))
    training, on_gpu = case.mode == "training", case.device == "cuda"
    kind = types.RGB if channels == 3 else types.GRAY

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=case.batch_size,
        num_threads=max(1, case.loader_workers),
        device_id=_cuda_device_index() if on_gpu else None,
        seed=case.protocol.seed + rank,
    )
    def load_images() -> Any:
        # Repeated, so that an epoch fills at least one batch of each rank.
        times = -(-case.batch_size * case.world_size // len(images.files))
        encoded, labels = fn.readers.file(
            files=[file.path for file in images.files] * times,
            labels=[file.label for file in images.files] * times,
            random_shuffle=True,
            shard_id=rank,
            num_shards=case.world_size,
            name="files",
            dont_use_mmap=True,  # a file that changes while it is mapped would end the process
        )
        where = "mixed" if on_gpu else "cpu"
        if training:
            found = fn.decoders.image_random_crop(
                encoded, device=where, output_type=kind, random_area=_AREA, random_aspect_ratio=_RATIO
            )
            found = fn.resize(found, resize_x=side, resize_y=side)
        else:
            found = fn.decoders.image(encoded, device=where, output_type=kind)
            found = fn.resize(found, resize_shorter=round(side * 256 / 224))
        found = fn.crop_mirror_normalize(
            found,
            dtype=types.FLOAT,
            output_layout="CHW",
            crop=(side, side),
            mean=[255 * mean for mean in means],
            std=[255 * deviation for deviation in deviations],
            mirror=fn.random.coin_flip() if training else 0,
        )
        return found, labels.gpu() if on_gpu else labels

    return load_images()


def _cuda_device_index() -> int:
    import torch

    return torch.cuda.current_device()
