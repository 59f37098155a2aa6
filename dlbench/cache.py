"""Folder of cached files, which dlbench can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder, which `dlbench clean` removes; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlbench"
