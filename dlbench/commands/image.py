"""`dlbench image import`: download a site's container image."""

import argparse
from pathlib import Path
from typing import Any

from dlbench import bundled_files
from dlbench.commands.arguments import add_command, add_flag
from dlbench.errors import BadInput
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "image", _run_image_command, "import --site nvidia-pyxis")
    parser.add_argument(
        "action",
        choices=("import", "recipes"),
        help="import: download the image; recipes: copy the recipes that build one",
    )
    parser.add_argument("--site", help="site profile: a TOML file, or a name from `dlbench sites`")
    add_flag(parser, "--force", "download the image again, even if it exists")


def _run_image_command(options: argparse.Namespace) -> None:
    if options.action == "recipes":
        folder = bundled_files.copy_file(bundled_files.RECIPES, Path("containers"))
        say(f"recipes written to {folder}/; see {folder}/README.md")
        return
    if not options.site:
        raise BadInput("`dlbench image import` needs --site; run `dlbench sites` to list the profiles")
    from dlbench.launch import images, sites

    found = images.import_image(sites.load_site(options.site).container, options.force, say)
    print(f"{found.image} {found.digest}")
