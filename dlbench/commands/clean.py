"""`dlbench clean`: remove files that dlbench cached."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    add_command(commands, "clean", _run_clean_command, "")


def _run_clean_command(_: argparse.Namespace) -> None:
    import shutil

    from dlbench.cache import cache_folder
    from dlbench.errors import StoreError

    folder = cache_folder()
    if not folder.is_dir():
        say(f"nothing to remove: {folder} does not exist")
        return
    try:
        freed = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(f"cannot remove {error.filename or folder}: {error.strerror or error}") from error
    say(f"removed {folder}: {freed / 2**20:.0f} MiB")
