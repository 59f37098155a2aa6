"""Text files that are written whole or not at all: a full disk must not cost the report that was there before."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write the parts one behind the other, by temporary file and rename.

    Raises:
        OSError: there is no room, or no right; what was at `path` is as before.
    """
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        path.write_text("".join(parts), encoding="utf-8")
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
