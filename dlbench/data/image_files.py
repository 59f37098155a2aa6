"""Image files of a folder: ImageNet's layout (a folder for each class), a flat folder, or WebDataset's tar shards."""

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from dlbench.errors import BadInput

_JPEG_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class ImageFile:
    """One JPEG: a whole file, or a part of a shard; and its class."""

    path: str
    label: int
    offset: int = 0
    size: int | None = None  # None: to the end of the file

    @property
    def name(self) -> str:
        """Its file and, in a shard, where it begins."""
        return self.path if self.size is None else f"{self.path} at byte {self.offset}"

    def read(self) -> bytes:
        """The bytes of the JPEG. Raises OSError where they cannot be read."""
        with open(self.path, "rb") as file:  # noqa: PTH123  # Path.open takes longer, a hundred times a batch
            file.seek(self.offset)
            return file.read() if self.size is None else file.read(self.size)


@dataclass(frozen=True)
class ImageSet:
    """The images that were found, the number of their classes, and of files and folders that were left out."""

    files: tuple[ImageFile, ...]
    num_classes: int
    num_others: int
    class_names: tuple[str, ...] = ()  # of folders, by label; shards have none


def find_images(path: str | Path) -> ImageSet:
    """The JPEG files below `path`, by name. Raises BadInput if the folder is missing, unreadable, or has none."""
    root = Path(path).expanduser()
    if root.is_file() and root.suffix == ".tar":
        return _images_in_shards([root], root)
    if not root.is_dir():
        raise BadInput(f"data_path '{path}': the folder does not exist")
    try:
        shards = sorted(p for p in root.iterdir() if p.suffix == ".tar")
    except OSError as error:
        raise BadInput(f"data_path '{path}' cannot be read: {error.strerror}") from None
    return _images_in_shards(shards, root) if shards else _images_in_folder(root)


def _images_in_folder(root: Path) -> ImageSet:
    found: list[tuple[str, str]] = []
    unreadable: list[OSError] = []
    num_others = 0
    for folder, _, names in os.walk(root, onerror=unreadable.append, followlinks=True):
        relative = os.path.relpath(folder, root)
        kind = "" if relative == "." else Path(relative).parts[0]
        images = [name for name in names if name.lower().endswith(_JPEG_SUFFIXES)]
        num_others += len(names) - len(images)
        found += [(kind, os.path.join(folder, name)) for name in images]  # noqa: PTH118  # a million of them
    if not found:
        why = f"{unreadable[0].filename}: {unreadable[0].strerror}" if unreadable else f"{num_others} other files"
        raise BadInput(f"data_path '{root}' contains no JPEG file ({why})")
    found.sort()
    class_names = tuple(sorted({kind for kind, _ in found}))
    labels = {kind: label for label, kind in enumerate(class_names)}
    files = tuple(ImageFile(path, labels[kind]) for kind, path in found)
    return ImageSet(files, len(class_names), num_others + len(unreadable), class_names)


def _parse_label(text: bytes) -> int:
    """The number of a class. Raises ValueError if it is none."""
    number = int(text)
    if number < 0:
        raise ValueError(f"a shard has class number {number}; class numbers must be at least 0")
    return number


def _images_in_shards(shards: list[Path], root: Path) -> ImageSet:
    """Shards hold KEY.jpg and KEY.cls, the number of its class, one behind the other."""
    found: list[ImageFile] = []
    num_others = 0
    for shard in shards:
        labels: dict[str, int] = {}
        images: list[tuple[str, int, int]] = []
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    key, ending = os.path.splitext(member.name)  # noqa: PTH122
                    if ending.lower() in _JPEG_SUFFIXES:
                        images.append((key, member.offset_data, member.size))
                    elif ending == ".cls" and (text := tar.extractfile(member)) is not None:
                        labels[key] = _parse_label(text.read())
                    else:
                        num_others += member.isfile()
        except (tarfile.TarError, OSError, ValueError) as error:
            raise BadInput(f"data_path: shard {shard} cannot be read: {error}") from None
        found += [ImageFile(str(shard), labels.get(key, 0), offset, size) for key, offset, size in images]
    if not found:
        raise BadInput(f"data_path '{root}' has shards, but none contains a JPEG file")
    return ImageSet(tuple(found), 1 + max(image.label for image in found), num_others)
