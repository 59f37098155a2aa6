"""`dlbench collect`: rebuild Parquet parts from attempt folders, and merge parts."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench import units
from dlbench.campaign import results_maintenance
from dlbench.commands.arguments import add_command, add_results_folder
from dlbench.errors import BadInput
from dlbench.messages import say


def add(commands: Any) -> None:
    parser = add_command(commands, "collect", _collect, "--merge")
    add_results_folder(parser)
    parser.add_argument(
        "--wait", action="store_true", help="wait for attempts of other nodes, and close those of dead processes"
    )
    parser.add_argument(
        "--merge", action="store_true", help="merge all Parquet parts into one file per month, which load faster"
    )


def _collect(options: argparse.Namespace) -> None:
    from dlbench.launch import claims, supervise
    from dlbench.launch.results_folder import check_folder
    from dlbench.results import store

    root = options.results
    if not root.is_dir():
        raise BadInput(f"results folder '{root}' does not exist; check --results")
    check_folder(root, make=False)
    closed = results_maintenance.close_open_attempts(root)
    unseen = supervise.open_on_other_nodes(root)
    if unseen and options.wait:
        say(f"waiting up to {claims.DEAD_AFTER_S:.0f} s for {units.count_text(len(unseen), 'attempt')} of other nodes")
        closed += sum(
            len(supervise.recover_open_attempts(root, [folder])) for folder in claims.abandoned_heartbeats(unseen)
        )
        unseen = supervise.open_on_other_nodes(root)
    store.drop_contained_parts(root)
    rebuilt = results_maintenance.rebuild_parts(root, results_maintenance.attempts_without_part(root))
    say(f"{root}/: attempts closed: {closed}; Parquet parts rebuilt: {rebuilt}")
    if unseen:
        say(
            f"left open: {units.count_text(len(unseen), 'attempt')} of processes on other nodes, which may still run; "
            f"use --wait to wait {claims.DEAD_AFTER_S:.0f} s and close those of dead processes"
        )
    if options.merge:
        results_maintenance.merge_all_parts(root)
