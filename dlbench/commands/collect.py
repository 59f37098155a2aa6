"""`dlbench collect`: rebuilds Parquet parts from the attempts' folders, and merges parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dlbench import units
from dlbench.campaign import existing
from dlbench.commands.arguments import (
    add_command,
    some_path,
)
from dlbench.errors import BadInput
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "collect", _collect)
    parser.add_argument("--results", type=some_path, default=Path("results"), help="(default: results)")
    parser.add_argument("--wait", action="store_true", help="close attempts of other nodes that give no sign of life")
    parser.add_argument("--merge", action="store_true", help="put all parts into one file, which reads faster")


def _collect(options: argparse.Namespace) -> int:
    from dlbench.launch import attempts, claims, supervise
    from dlbench.launch.results_folder import check_folder
    from dlbench.results import store

    root = options.results
    if not root.is_dir():
        raise BadInput(f"no results at '{root}': there is no such folder")
    check_folder(root, make=False)
    closed = existing.close_left_open(root)
    unseen = supervise.invisible(root)
    if unseen and options.wait:
        say(f"watching {units.counted(len(unseen), 'attempt')} for a sign of life, up to {claims.SILENCE_S:.0f} s")
        closed += sum(len(supervise.recover(root, [folder])) for folder in claims.abandoned(unseen))
        unseen = supervise.invisible(root)
    store.drop_doubles(root)
    stored = store.attempt_ids(root, thorough=True)
    missing = [(folder, head) for folder, head in attempts.heads(root) if head.attempt_id not in stored]
    rebuilt = existing.rebuild_parts(root, missing)
    say(f"{root}/: attempts closed: {closed}; Parquet parts rebuilt: {rebuilt}")
    if unseen:
        say(
            f"left open: {units.counted(len(unseen), 'attempt')} of runs that cannot be seen from here, at work on "
            f"another node or dead with it; --wait watches for {claims.SILENCE_S:.0f} s and closes those of the dead"
        )
    if options.merge and (merged := store.merge(root)):
        say(f"all parts are now in {merged}")
    return 0
