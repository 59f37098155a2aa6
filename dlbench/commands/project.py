"""`dlbench project`: project time, energy and cost of a whole training from measured results."""

import argparse
import sys
from typing import Any

from dlbench import bundled_files
from dlbench.commands.arguments import add_command, add_format_option, print_tables

#: A larger value is a typing error.
MAX_IMAGES = 10**18


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands, "project", _run_project_command, "results --model resnet50 --images 1281167 --epochs 90"
    )
    parser.add_argument("results", nargs="*", default=["results"], help="results folders, Parquet files or patterns")
    parser.add_argument("--model", action="append", metavar="NAME", help="only this network; repeatable")
    parser.add_argument("--images", type=int, required=True, metavar="M", help="images per epoch (ImageNet: 1281167)")
    parser.add_argument("--epochs", type=float, required=True, metavar="N", help="number of epochs")
    parser.add_argument("--prices", metavar="FILE", help="TOML file with prices, or `example` for the bundled one")
    add_format_option(parser)


def _run_project_command(options: argparse.Namespace) -> None:
    from dlbench.errors import BadInput
    from dlbench.report.analysis.projection import read_prices
    from dlbench.report.listings.projection import projection_table
    from dlbench.results import store

    if options.images > MAX_IMAGES:
        raise BadInput(f"--images {options.images} is above the limit of {MAX_IMAGES:.0e}")
    prices = read_prices(bundled_files.find_file("price list", options.prices)) if options.prices is not None else None
    table = projection_table(store.load(options.results), options.images, options.epochs, options.model, prices)
    print_tables(options.format, table)
    if options.format == "csv":
        for note in table.notes:
            print(note, file=sys.stderr)
