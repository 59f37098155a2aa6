"""`dlbench clean`: remove files that dlbench made for itself and can make again."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench.commands.arguments import add_command
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    add_command(commands, "clean", _clean, "")


def _clean(_: argparse.Namespace) -> int:
    import shutil

    from dlbench.cache import cache_folder

    folder = cache_folder()
    if not folder.is_dir():
        say(f"nothing to remove: there is no {folder}")
        return 0
    freed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder)
    say(f"removed {folder}: {freed / 2**20:.0f} MiB")
    return 0
