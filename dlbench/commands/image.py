"""`dlbench image import`: download a site's container image."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench.commands.arguments import (
    add_command,
)
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "image", _image, "import --site nvidia-pyxis")
    parser.add_argument("action", choices=("import",), help="download the image and record its digest")
    parser.add_argument("--site", required=True, help="site profile: a TOML file, or name of a file in slurm/")
    parser.add_argument("--force", action="store_true", help="download it again")


def _image(options: argparse.Namespace) -> int:
    from dlbench.launch import images
    from dlbench.launch.sites import load_site

    found = images.import_image(load_site(options.site).container, options.force, say)
    print(f"{found.image} {found.digest}")
    return 0
