"""Trainings in Parquet: one file per training, one row per epoch."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlbench.errors import StoreError
from dlbench.results.training_records import TrainingRun
from dlbench.suites.training import Training

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "trainings"
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
_CURVES = ("epoch_s", "training_loss", "validation_loss", "training_accuracy", "validation_accuracy")


def _scalars() -> list[str]:
    return [f.name for f in dataclasses.fields(TrainingRun) if f.name not in (*_CURVES, "training", "warnings")]


SCHEMA: pa.Schema = pa.schema(
    [pa.field(f.name, _TYPES[str(f.type)]) for f in dataclasses.fields(Training) if f.name != "learning_rate"]
    + [
        pa.field(f.name, _TYPES[str(f.type).removesuffix(" | None")])
        for f in dataclasses.fields(TrainingRun)
        if f.name in _scalars()
    ]
    + [pa.field("warnings", pa.list_(pa.string())), pa.field("epoch", pa.int64())]
    + [pa.field(name, pa.float64()) for name in _CURVES]
)


def rows(run: TrainingRun) -> list[dict[str, Any]]:
    """One row per epoch; what is of the whole training stands in each."""
    head = {name: run.training[name] for name in SCHEMA.names if name in run.training and name != "learning_rate"}
    head |= {name: getattr(run, name) for name in (*_scalars(), "warnings")}
    curves = {name: getattr(run, name) for name in _CURVES}
    return [
        head | {"epoch": i + 1} | {name: values[i] if i < len(values) else None for name, values in curves.items()}
        for i in range(len(run.epoch_s))
    ]


def write(folder: Path, run: TrainingRun) -> Path:
    """The run as `training-<run_id>.parquet` in the folder's trainings."""
    place = folder / FOLDER / f"training-{run.run_id}.parquet"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows(run), schema=SCHEMA), place)
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}") from None
    return place


def read(sources: Sequence[str | Path]) -> pd.DataFrame:
    """The epochs of all trainings in these results folders; files that cannot be read are passed over."""
    tables = []
    for source in sources:
        found = [str(source)] if Path(source).exists() else glob.glob(str(source))  # noqa: PTH207
        for folder in map(Path, found):
            for file in sorted((folder / FOLDER).glob("training-*.parquet")):
                try:
                    tables.append(pq.read_table(file).select(SCHEMA.names).cast(SCHEMA))
                except (pa.ArrowException, OSError, KeyError):
                    continue
    epochs: pd.DataFrame = pa.concat_tables(tables or [SCHEMA.empty_table()]).to_pandas()
    return epochs
