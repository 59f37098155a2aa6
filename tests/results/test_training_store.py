"""Trainings are read as far as their files describe one; each other file is named in one line."""

from __future__ import annotations

import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlbench.report.chapters.convergence import convergence_section
from dlbench.results.store import SkippedPart
from dlbench.results.training_store import read_trainings
from tests.fakes import damage


@pytest.fixture
def results(tmp_path):
    damage.leave_training(tmp_path / "results", "good")
    damage.leave_training(tmp_path / "results", "other")
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("epoch", None, "epoch is None; it must be at least 1"),
        ("epoch", 0, "epoch is 0; it must be at least 1"),
        ("status", "done", "its status 'done' is unknown"),
        ("epochs_to_target", None, "its epochs or time to the target are missing"),
        ("num_training", None, "num_training of TrainingRun is None, not a whole number"),
        ("optimizer", "sdg", "unknown optimizer 'sdg' in train.optimizer; did you mean 'sgd'?"),
        ("seed", None, "train: seed is None; it must be a whole number"),
        ("model", "a\nb", "its model must be a text of one line"),
    ],
)
def test_a_training_with_an_impossible_value_is_named_and_the_others_are_read(results, column, value, reason):
    file = results / "trainings" / "training-other.parquet"
    table = pq.read_table(file)
    place = table.column_names.index(column)
    values = [value, *table[column].to_pylist()[1:]]
    pq.write_table(table.set_column(place, column, pa.array(values, table.schema.field(column).type)), file)
    with pytest.warns(SkippedPart) as caught:
        epochs = read_trainings([results])
    (message,) = [str(w.message) for w in caught]
    assert message.startswith(f"cannot read {file}: ")
    assert reason in message
    assert list(epochs["run_id"]) == ["good"] * 3
    assert convergence_section(epochs).finding.startswith("1 of 1 training reached the target")


def test_a_file_of_an_older_dlbench_without_the_weights_is_a_training_too(results):
    file = results / "trainings" / "training-other.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["weights", "save_weights"]), file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(read_trainings([results])["run_id"]) == {"good", "other"}
