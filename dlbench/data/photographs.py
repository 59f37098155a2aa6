"""A set of JPEG files that needs no download: crops of photographs that ship with packages dlbench already needs.

The files are about as large as ImageNet's: 500 x 375 pixels in the median and 114,660 bytes on average. They show parts
of three photographs: they serve to measure a pipeline, not to train.
"""

import importlib.util
import io
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import pil_to_tensor

from dlbench.cache import cache_folder
from dlbench.errors import BadInput

NUM_FILES, NUM_CLASSES = 2_048, 8
MEDIAN_WIDTH, MEDIAN_HEIGHT = 500, 375
#: Package, and the photograph in it.
_PHOTOGRAPH_FILES = (
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)
#: Noise of a camera's sensor, without which enlarged crops would compress too well; of 255.
_NOISE_SD = 6.5
_JPEG_QUALITY = 96


def photograph_folder(num_files: int = NUM_FILES) -> Path:
    """Return the folder of the set; create it if needed. If several processes create it, the first one wins."""
    folder = cache_folder() / f"photographs-1-{num_files}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".photographs-", dir=folder.parent))
    except OSError as error:
        raise BadInput(f"cannot write to {folder.parent}: {error.strerror}; set XDG_CACHE_HOME") from None
    try:
        for number, data in enumerate(_jpeg_files(num_files)):
            place = made / f"class_{number % NUM_CLASSES:02}"
            place.mkdir(exist_ok=True)
            (place / f"{number:05}.jpg").write_bytes(data)
        made.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise BadInput(f"cannot write to {made}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _jpeg_files(num_files: int) -> Iterator[bytes]:
    sources = [pil_to_tensor(Image.open(path).convert("RGB")) for path in _installed_photographs()]
    generator = torch.Generator().manual_seed(0)
    for number in range(num_files):
        height, width = _random_photograph_size(generator)
        crop = _random_crop(sources[number % len(sources)], height / width, generator)
        image = functional.interpolate(crop[None].float(), (height, width), mode="bilinear", antialias=True)[0]
        image = image + _NOISE_SD * torch.randn(image.shape, generator=generator)
        file = io.BytesIO()
        pixels = image.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
        yield file.getvalue()


def _installed_photographs() -> list[Path]:
    found = []
    for package, name in _PHOTOGRAPH_FILES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(place, name)
            found += [path] if path.is_file() else []
    if not found:
        raise BadInput(
            "data 'jpeg' makes its images from photographs in matplotlib or scikit-learn, but neither is installed; "
            "run pip install scikit-learn, or set data_path to a folder of JPEG files"
        )
    return found


def _random_photograph_size(generator: torch.Generator) -> tuple[int, int]:
    """Height and width: log-normal around ImageNet's median; a quarter of the images stand upright."""
    factor = math.exp(0.15 * float(torch.randn((), generator=generator)))
    sides = round(MEDIAN_HEIGHT * factor), round(MEDIAN_WIDTH * factor)
    return sides[::-1] if float(torch.rand((), generator=generator)) < 0.25 else sides


def _random_crop(image: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """A random part of at least half of each side that fits, of this ratio of height to width."""
    _, height, width = image.shape
    largest = min(height / ratio, float(width))
    side = largest * (0.5 + 0.5 * float(torch.rand((), generator=generator)))
    h, w = round(side * ratio), round(side)
    top, left = (int(torch.randint(free + 1, (), generator=generator)) for free in (height - h, width - w))
    return image[:, top : top + h, left : left + w]
