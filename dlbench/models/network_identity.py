"""Identity of networks, as a key: a user's network can change while its name stays.

The key of a factory's network is a digest of its source and of its structure. Both are needed: an edited `forward` may
not change the structure, and a factory that reads a configuration file can build different networks from the same
source.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dlbench.errors import BadInput
from dlbench.models import BuiltModel, build_on_meta
from dlbench.suites.catalog import find_model

#: Libraries whose versions are already in the system key.
_PACKAGES_IN_SYSTEM_KEY = ("torch", "torchvision")


def is_user_network(name: str) -> bool:
    """Whether the name is that of a user's factory, `package.module:factory`."""
    library, colon, _ = name.removeprefix("frozen:").partition(":")
    return bool(colon) and library not in ("torchvision", "timm")


def library_version_key(name: str) -> str:
    """Return the key of a network without factory: the version of timm for timm models, else "".

    The catalogue's networks are dlbench's, and torchvision's version follows that of torch, which the system's key
    holds. The version of timm changes independently, and with it the computation of a network (fused attention in 0.9).
    """
    name = name.removeprefix("frozen:")
    if find_model(name) is not None or name.startswith("torchvision:"):
        return ""
    from dlbench.models import external  # imports torchvision, which takes seconds

    if name in external.torchvision_names():
        return ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"timm-{importlib.metadata.version('timm')}"
    return ""


def user_network_key(name: str, built: BuiltModel | None) -> str:
    """Return the key (12 hex digits) of the network of a factory whose module is already imported.

    Args:
        name: `package.module:factory`.
        built: the network, on any device; None if it could not be built: the key then uses only the source.
    """
    what = {
        "sources": sorted(user_source_files(name).values()),
        "version": _library_version(name.removeprefix("frozen:").partition(":")[0]),
        "structure": None if built is None else _describe_structure(built),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def user_source_files(name: str) -> dict[str, str]:
    """Return the loaded files of user code, with their digests.

    These are all modules except those of dlbench, Python and installed packages. Call it in a process that loaded no
    other network.
    """
    found = {}
    for module in list(sys.modules.values()):
        file = _user_code_file(module)
        if file is not None:
            with contextlib.suppress(OSError):
                found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def try_build_on_meta(name: str) -> BuiltModel | None:
    """Build the network on meta; None if that fails. Raises BadInput if it differs from what its factory states."""
    try:
        return build_on_meta(name)
    except (Exception, SystemExit) as error:  # runs user code
        if isinstance(error, BadInput) and error.__cause__ is None:
            raise
        return None


def _user_code_file(module: ModuleType) -> Path | None:
    try:
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or getattr(module, "__name__", "") == "__main__":
            return None
        if _is_library_file(file) or _is_library_file(os.path.realpath(file)):
            return None
    except Exception:  # a module may be any object with any attributes
        return None
    return Path(file).resolve()


def _is_library_file(file: str) -> bool:
    """Whether the file is one of dlbench, of Python or of an installed package."""
    return "/site-packages/" in file or "/dist-packages/" in file or file.startswith(_library_folders())


@cache
def _library_folders() -> tuple[str, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders = [str(Path(__file__).parents[1]), *(path for path in paths if path)]
    return tuple(f"{name.rstrip('/')}/" for folder in folders for name in (folder, os.path.realpath(folder)))


def _library_version(module: str) -> str | None:
    """Return the version of the installed package of a factory; None for a user module."""
    package = module.partition(".")[0]
    if package in _PACKAGES_IN_SYSTEM_KEY or _user_code_file(sys.modules.get(package, sys)) is not None:
        return None
    names = importlib.metadata.packages_distributions().get(package, [])
    return ", ".join(f"{name}-{importlib.metadata.version(name)}" for name in sorted(set(names)))


def _describe_structure(built: BuiltModel) -> list[Any]:
    """Describe the structure of the network without weights, independent of PyTorch's version."""
    module = built.module
    tensors = [*module.named_parameters(), *module.named_buffers()]
    parts = [(name, type(part).__qualname__, _declared_layer_settings(part)) for name, part in module.named_modules()]
    shapes = [(name, str(tuple(t.shape)), str(t.dtype), t.requires_grad) for name, t in tensors]
    return [built.input_shape, built.num_classes, shapes, parts]


def _declared_layer_settings(part: Any) -> list[tuple[str, str]]:
    """Return the settings that PyTorch layers declare as constant, such as the stride of a convolution."""
    names = sorted({str(name) for name in getattr(part, "__constants__", ())})
    values = [(name, getattr(part, name, None)) for name in names]
    return [(name, repr(value)) for name, value in values if isinstance(value, int | float | str | bool | tuple)]
