"""Trainings in Parquet: one file per training, one row per epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dlbench.errors import BadInput
from dlbench.results import bounds_store, parts
from dlbench.results.bounds_schema import read_run_table
from dlbench.results.row_validation import why_not_one_line
from dlbench.results.training_records import TrainingRun
from dlbench.suites.training import Training

if TYPE_CHECKING:
    import pandas as pd

TRAININGS_FOLDER = "trainings"
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
_ADDED_LATER = ("weights", "save_weights")  # which older files lack
_CURVE_COLUMNS = ("epoch_s", "training_loss", "validation_loss", "training_accuracy", "validation_accuracy")
_OTHER_COLUMNS = (*_CURVE_COLUMNS, "training", "warnings")
_SCALAR_COLUMNS = tuple(f.name for f in dataclasses.fields(TrainingRun) if f.name not in _OTHER_COLUMNS)

SCHEMA: pa.Schema = pa.schema(
    [pa.field(f.name, _TYPES[str(f.type)]) for f in dataclasses.fields(Training) if f.name != "learning_rate"]
    + [
        pa.field(f.name, _TYPES[str(f.type).removesuffix(" | None")])
        for f in dataclasses.fields(TrainingRun)
        if f.name in _SCALAR_COLUMNS
    ]
    + [pa.field("warnings", pa.list_(pa.string())), pa.field("epoch", pa.int64())]
    + [pa.field(name, pa.float64()) for name in _CURVE_COLUMNS]
)


def epoch_rows(run: TrainingRun) -> list[dict[str, Any]]:
    """Return one row per epoch; each row repeats the values of the whole training."""
    head = {name: run.training[name] for name in SCHEMA.names if name in run.training and name != "learning_rate"}
    head |= {name: getattr(run, name) for name in (*_SCALAR_COLUMNS, "warnings")}
    curves = {name: getattr(run, name) for name in _CURVE_COLUMNS}
    return [
        head | {"epoch": i + 1} | {name: values[i] if i < len(values) else None for name, values in curves.items()}
        for i in range(len(run.epoch_s))
    ]


def write_training(folder: Path, run: TrainingRun) -> Path:
    """Write one training to the results folder `folder`; return the file. Raises StoreError if it cannot be written."""
    target = folder / TRAININGS_FOLDER / f"training-{run.run_id}.parquet"
    return parts.write_part(target, pa.Table.from_pylist(epoch_rows(run), schema=SCHEMA))


def read_trainings(sources: Sequence[str | Path]) -> pd.DataFrame:
    """Read the epochs of all trainings in these sources; unreadable files are skipped with a `SkippedPart` warning."""
    files = bounds_store.files_in_stores(sources, TRAININGS_FOLDER, "training-*.parquet")
    epochs: pd.DataFrame = read_run_table(files, SCHEMA, _require_valid_epochs).to_pandas()
    return epochs


def _require_valid_epochs(table: pa.Table) -> None:
    """Raise ValueError if a row does not describe an epoch of a valid training."""
    for row in table.to_pylist():
        run = {"training": {}, **row, **{name: [row[name]] for name in _CURVE_COLUMNS}}
        TrainingRun.from_dict(run)
        setting = {f.name: row[f.name] for f in dataclasses.fields(Training)}
        try:
            Training.from_dict({name: v for name, v in setting.items() if v is not None or name not in _ADDED_LATER})
        except BadInput as error:
            raise ValueError(str(error)) from error
        for name in ("model", "run_id", "suite"):
            if reason := why_not_one_line(row[name]):
                raise ValueError(f"its {name} {reason}")
        if row["epoch"] is None or row["epoch"] < 1:
            raise ValueError(f"epoch is {row['epoch']}; it must be at least 1")
