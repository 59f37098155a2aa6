"""Batches of JPEG files: read, decoded, augmented as in training on ImageNet, and handed over by a DataLoader.

Training: a random crop of 8 to 100 % of the area, resized to the network's side, and a flip of every second image.
Inference: the shorter side resized to 256/224 of the network's, and the crop in the middle. Both are normalised.
"""

import contextlib
import io
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from dlbench.data.image_files import ImageFile, ImageSet
from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.models import BuiltModel
from dlbench.tasks import Batch

#: Mean and standard deviation of ImageNet's channels, as in torchvision's references.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: A file that cannot be decoded is replaced by the next one, at most this many times in a row.
_MAX_TRIES = 20
#: A loader whose processes die more often than this ends the case.
MAX_RESTARTS = 3
#: Batches that each process prefetches: PyTorch's default.
PREFETCH = 2
#: Maximum number of broken files in a warning.
MAX_FILE_NAMES = 5


class JpegDataset(Dataset[tuple[Tensor, int, Tensor]]):
    """Item i: image, label, and [number of the broken file it stands for or -1, reading time, decoding time]."""

    def __init__(self, images: ImageSet, shape: tuple[int, ...], training: bool) -> None:
        self.files: tuple[ImageFile, ...] = images.files
        self.num_others = images.num_others
        channels, side = shape[0], shape[-1]
        self._mode = "RGB" if channels == 3 else "L"
        means = (MEAN, STD) if channels == 3 else ((0.5,), (0.25,))
        cut: list[Any] = [v2.Resize(round(side * 256 / 224), antialias=True), v2.CenterCrop(side)]
        if training:
            cut = [v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip()]
        self._transform = v2.Compose([*cut, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*means)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        broken = -1
        for i in range(index, index + _MAX_TRIES):
            file = self.files[i % len(self.files)]
            began_s = time.perf_counter()
            try:
                data = file.read()
                read_s = time.perf_counter()
                # Pillow, which uses libjpeg-turbo: torchvision's own decoder is to be removed.
                image = pil_to_tensor(Image.open(io.BytesIO(data)).convert(self._mode))
            except (OSError, SyntaxError, ValueError):  # what Pillow raises
                broken = i % len(self.files) if broken < 0 else broken
                continue
            image = self._transform(image)
            facts = (broken, read_s - began_s, time.perf_counter() - read_s)
            return image, file.label, torch.tensor(facts, dtype=torch.float64)
        raise _UndecodableImage(
            f"{_MAX_TRIES} successive files cannot be decoded; the first is {self.files[broken].name}"
        )

    def names_of_broken_files(self, facts: Tensor) -> set[str]:
        """The names of the broken files that items with these facts stand for."""
        numbers = facts[:, 0]
        return {self.files[int(i)].name for i in numbers[numbers >= 0]}


class _UndecodableImage(InvalidMeasurement):
    def __init__(self, text: str) -> None:
        # From a process of the loader, PyTorch puts its traceback in front of the message.
        super().__init__(text.strip().rpartition(f"{_UndecodableImage.__name__}: ")[2])


@dataclass
class JpegBatches:
    """Endless batches on the host; counts waiting time, decoding time and broken files."""

    loader: Any  # DataLoader, or DALI's iterator
    num_others: int
    broken: set[str] = field(default_factory=set)
    restarts: list[str] = field(default_factory=list)
    #: For the batches since `reset_waiting_time`: how long their consumer waited, and what their images took to read
    #: and decode [s].
    wait_s: float = 0.0
    read_s: float = 0.0
    decode_s: float = 0.0
    num_batches: int = 0
    #: The same for the last window that was closed [s].
    window_wait_s: float | None = None
    #: Whether reading and decoding are timed.
    times_parts: bool = True
    _iterator: Any = None
    _epoch: int = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        began_s = time.perf_counter()
        images, labels, *facts = self._next_batch()
        self.wait_s += time.perf_counter() - began_s
        self.num_batches += 1
        for of_images in facts:
            self.read_s += float(of_images[:, 1].sum())
            self.decode_s += float(of_images[:, 2].sum())
            self.broken |= self.loader.dataset.names_of_broken_files(of_images)
        return (images,), labels

    def reset_waiting_time(self) -> None:
        """Reset the sums."""
        self.wait_s = self.read_s = self.decode_s = 0.0
        self.num_batches = 0

    def store_window_waiting_time(self) -> None:
        """Store the waiting time since `reset_waiting_time` as that of the window."""
        self.window_wait_s = self.wait_s

    def process_ids(self) -> list[int]:
        """The loader's own processes."""
        workers = getattr(self._iterator, "_workers", None) or ()
        return [worker.pid for worker in workers if worker.pid is not None]

    def close(self) -> None:
        """End the loader's processes."""
        iterator, self._iterator = self._iterator, None
        # It keeps its processes from epoch to epoch, and would take up those that have ended.
        self.loader._iterator = None
        with contextlib.suppress(Exception):
            iterator._shutdown_workers()

    def warnings(self) -> tuple[str, ...]:
        """Return warnings for the record."""
        found = [*unused_file_warnings(self.broken, self.num_others)]
        if self.restarts:
            times = f"{len(self.restarts)} times" if len(self.restarts) > 1 else "once"
            found.append(
                f"loader_restarted: the loader was restarted {times}, because one of its processes died: "
                f"{self.restarts[0]}"
            )
        return tuple(found)

    def _next_batch(self) -> Any:
        while True:
            try:
                if self._iterator is None:
                    self._start_epoch()
                return next(self._iterator)
            except StopIteration:
                self._start_epoch()
            except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
                # Also where a process died while it handed a batch over: its connection is then reset or gone.
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                self.close()
                self.restarts.append((str(error) or type(error).__name__).splitlines()[0])
                if len(self.restarts) > MAX_RESTARTS:
                    raise InvalidMeasurement(
                        f"processes of the loader died {len(self.restarts)} times: {self.restarts[-1]}"
                    ) from None

    def _start_epoch(self) -> None:
        sampler: Any = self.loader.sampler
        sampler.set_epoch(self._epoch)
        self._epoch += 1
        # PyTorch's handler would raise wherever this process is when one of the loader's dies; `next` sees it as well.
        handler = signal.getsignal(signal.SIGCHLD)
        self._iterator = iter(self.loader)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)


def unused_file_warnings(broken: set[str], num_others: int = 0) -> Iterator[str]:
    """Warnings about files of a folder that were not used."""
    if broken:
        names = ", ".join(sorted(broken)[:MAX_FILE_NAMES])
        yield f"broken_images: {len(broken)} files cannot be decoded and were replaced by others: {names}."
    if num_others:
        yield f"other_files: {num_others} files or folders are not JPEG or cannot be read; they were not used."


def require_enough_classes(images: str, num_classes: int, built: BuiltModel) -> None:
    """Raise BadInput if these images have more classes than the network."""
    # Without class scores, labels are not used.
    if built.task.has_classes and num_classes > max(1, built.num_classes):
        raise BadInput(f"{images} have labels of {num_classes} classes, but {built.name} has {built.num_classes}")
