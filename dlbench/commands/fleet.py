"""`dlbench fleet`: find nodes and devices that are slower than the others."""

import argparse
from typing import Any

from dlbench.commands import arguments
from dlbench.exit_codes import NOT_DECIDED, OK, SOME_FAILED
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = arguments.add_command(commands, "fleet", _run_fleet_command, "results --list")
    arguments.add_results_to_read(parser)
    parser.add_argument(
        "--false-alarms",
        type=_parse_fraction,
        default=0.05,
        metavar="SHARE",
        help="probability of at least one false alarm in the whole fleet (default: 0.05)",
    )
    parser.add_argument(
        "--margin",
        type=_parse_fraction,
        default=0.01,
        metavar="SHARE",
        help="smallest deviation from the median to report (default: 0.01 = 1 %%)",
    )
    parser.add_argument("--since", metavar="DATE", help="use only measurements from this date on")
    arguments.add_path(
        parser, "--map", metavar="FOLDER", help="plot the speed of all nodes and save the figure in FOLDER"
    )
    arguments.add_flag(parser, "--list", "print only the slow nodes, in Slurm's syntax")
    arguments.add_format_option(parser)
    parser.epilog = f"exit status: 0 no outlier, 1 outliers, 2 cannot decide\n\n{parser.epilog}"


def _run_fleet_command(options: argparse.Namespace) -> int:
    from dlbench.node_list import compress_nodes
    from dlbench.report.analysis import fleet
    from dlbench.report.listings import fleet as listing
    from dlbench.results.aggregation import parse_since_date

    rows = fleet.read_fleet_processes(options.sources, parse_since_date(options.since) if options.since else None)
    found = fleet.compare_fleet(rows, fleet.read_fleet_ceilings(options.sources), options.false_alarms, options.margin)
    if options.map:
        from dlbench.report.figures import plots_fleet

        arguments.save_figure(lambda: plots_fleet.fleet_map(found.slowdowns), options.map)
    if options.list:
        print(compress_nodes(found.nodes_with_outliers))
    else:
        arguments.print_tables(options.format, listing.outliers_table(found), listing.distributions_table(found))
    say(listing.summary_line(found))
    return SOME_FAILED if found.outliers else OK if found.tests else NOT_DECIDED


def _parse_fraction(text: str) -> float:
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a value between 0 and 1, such as 0.05 or 5%")
    return value
