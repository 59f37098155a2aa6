"""`dlbench train`: train networks on real data, up to a target."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands import arguments, worker_job
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.results.training_records import TrainingRun
    from dlbench.suites.training import Training


def add_parser(commands: Any) -> None:
    parser = arguments.add_command(commands, "train", _run_train_command, "teaching -P model=mlp")
    arguments.add_suite_argument(parser)
    arguments.add_results_folder(parser)
    parser.add_argument("--timeout", default="24h", metavar="TIME", help="time limit of one training (default: 24h)")
    arguments.add_format_option(parser)


def _run_train_command(options: argparse.Namespace) -> int:
    from dlbench.launch.results_folder import require_writable_folder
    from dlbench.report.chapters.convergence import training_table, write_training_curves
    from dlbench.results import training_store
    from dlbench.suites.training import load_trainings

    suite, trainings = load_trainings(options.suite, options.overrides)
    timeout_s = worker_job.parse_positive_time(options.timeout, "--timeout")
    place = options.results / training_store.TRAININGS_FOLDER
    require_writable_folder(place)
    num_failed = 0
    for number, training in enumerate(trainings, 1):
        run = _run_training(training, suite, place, timeout_s)
        outcome = "failed" if run is None else _training_result_text(run)
        say(f"[{number}/{len(trainings)}] {_training_setting_text(training)}  {outcome}")
        if run is None:
            num_failed += 1
        else:
            training_store.write_training(options.results, run)
    epochs = training_store.read_trainings([options.results])
    if not epochs.empty:
        epochs = epochs[epochs["suite"] == suite]
        arguments.print_tables(options.format, training_table(epochs))
        say(f"curves: {', '.join(str(path) for path in write_training_curves(epochs, place))}")
        say(f"next: `dlbench report {options.results}` builds the report")
    return SOME_FAILED if num_failed else OK


def _run_training(training: Training, suite: str, place: Path, timeout_s: float) -> TrainingRun | None:
    """Run one training in a separate process; if it fails, print the reason and return None."""
    from dlbench.results.training_records import TrainingRun

    run_id, started_at = arguments.new_run_name(training.model.replace("/", "_").replace(":", "_"))
    text = worker_job.run_worker({"kind": "train", "training": training.to_dict()}, place / run_id, timeout_s)
    if text is None:
        return None
    return dataclasses.replace(TrainingRun.from_json(text), run_id=run_id, suite=suite, started_at=started_at)


def _training_setting_text(training: Training) -> str:
    extra = [f"dropout {training.dropout:g}"] if training.dropout else []
    extra += [training.precision] if training.precision != "fp32" else []
    extra += [f"seed {training.seed}"] if training.seed else []
    return "  ".join([f"{training.model:<16} {training.optimizer:<8} lr {training.learning_rate_or_default:g}", *extra])


def _training_result_text(run: TrainingRun) -> str:
    from dlbench import units

    best = "no finite value" if run.best_value is None else f"best {run.training['target_metric']} {run.best_value:.4g}"
    if run.time_to_target_s is None:
        return f"{run.status} after {len(run.epoch_s)} epochs; {best}"
    return f"target reached in {run.epochs_to_target} epochs, {units.seconds_text(run.time_to_target_s)}; {best}"
