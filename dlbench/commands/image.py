"""`dlbench image import`: fetches a site's container image."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench.commands.arguments import (
    add_command,
)
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "image", _image)
    parser.add_argument("action", choices=("import",))
    parser.add_argument("--site", required=True, help="a site profile, or the name of one in slurm/")
    parser.add_argument("--force", action="store_true", help="fetch it again")


def _image(options: argparse.Namespace) -> int:
    from dlbench.launch import images
    from dlbench.launch.sites import load_site

    found = images.import_image(load_site(options.site).container, options.force, say)
    print(f"{found.image} {found.digest}")
    return 0
