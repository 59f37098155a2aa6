"""`dlbench collect`: rebuild Parquet parts from attempt folders, and merge parts."""

import argparse
from typing import Any

from dlbench import units
from dlbench.commands.arguments import add_command, add_flag, add_results_folder
from dlbench.errors import BadInput
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "collect", _run_collect_command, "--merge")
    add_results_folder(parser)
    add_flag(parser, "--wait", "also record attempts of killed runs on other nodes, after waiting to detect them")
    add_flag(parser, "--merge", "merge all Parquet parts into one file per month, which loads faster")


def _run_collect_command(options: argparse.Namespace) -> None:
    from dlbench.campaign import results_maintenance
    from dlbench.launch import claims, results_folder, supervise
    from dlbench.results import store

    root = options.results
    if not root.is_dir():
        raise BadInput(f"results folder '{root}' does not exist; check --results")
    results_folder.require_writable_folder(root, make=False)
    closed = results_maintenance.close_interrupted_attempts(root)
    unseen = supervise.unfinished_attempts_on_other_nodes(root)
    if unseen and options.wait:
        say(
            f"waiting up to {claims.DEAD_AFTER_S:.0f} s to see if the processes of "
            f"{units.count_text(len(unseen), 'attempt')} on other nodes are alive"
        )
        closed += sum(
            len(supervise.recover_open_attempts(root, [folder])) for folder in claims.heartbeats_of_dead_owners(unseen)
        )
        unseen = supervise.unfinished_attempts_on_other_nodes(root)
    store.drop_contained_parts(root)
    rebuilt = results_maintenance.rebuild_parquet_parts(root, results_maintenance.attempts_missing_in_parquet(root))
    say(f"{root}/: unfinished attempts recorded: {closed}; Parquet parts rebuilt: {rebuilt}")
    if unseen:
        say(
            f"not recorded: {units.count_text(len(unseen), 'attempt')} on other nodes, whose processes may still run; "
            f"use --wait to wait {claims.DEAD_AFTER_S:.0f} s and record those of killed runs"
        )
    if options.merge:
        results_maintenance.merge_all_parquet_parts(root)
