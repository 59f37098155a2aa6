"""Stores with all that dlbench writes, and ways in which each of their files can be damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlbench.campaign.tuning import suite_name
from dlbench.launch import attempts
from dlbench.results import store
from dlbench.results.bounds_records import ProfileRun, parse_run_json
from dlbench.results.bounds_schema import write_layers
from dlbench.results.records import Outcome, Record
from dlbench.results.training_records import TrainingRun
from dlbench.results.training_store import write_training
from dlbench.suites import worker_request as requests
from dlbench.suites.case import Case, Protocol
from dlbench.suites.training import Training
from tests.fakes import bounds
from tests.fakes import records as fakes

#: Short windows, so that what runs such a suite with a stand-in is quick.
PROTOCOL = Protocol(min_time_s=1.0)
CASES = (
    Case("lenet5", batch_size=64, protocol=PROTOCOL),
    Case("lenet5", "inference", batch_size=64, protocol=PROTOCOL),
    Case("alexnet", batch_size=4, nodes=2, protocol=PROTOCOL),
)


#: Its images are files.
LOADING = Case("lenet5", batch_size=64, device="cpu", data="jpeg", loader_workers=1, protocol=PROTOCOL)
#: What `dlbench tune` measured: the default setting, and with one thread.
TUNED = tuple(
    Case("lenet5", batch_size=64, device="cpu", threads=threads, protocol=Protocol(min_time_s=0.5))
    for threads in (0, 1)
)
TRAINING = Training("lenet5", max_epochs=3)


def healthy(root: Path) -> list[str]:
    """Fill a results folder as dlbench would: a campaign, of which one attempt failed, a search, a training, bounds.

    Returns:
        The ids of all attempts.
    """
    made = [
        fakes.record(case, fakes.CPU, number, step_s=(0.01, 0.011, 0.012) * 10) for number, case in enumerate(CASES)
    ]
    made.append(fakes.record(Case("vgg16", batch_size=4, protocol=PROTOCOL), fakes.CPU, 9, "crashed"))
    loading = {"loader_batch_s": 0.03, "loader_read_s": 0.001, "loader_decode_s": 0.07, "device_step_s": 0.009}
    made.append(fakes.record(LOADING, fakes.CPU, 10, step_s=(0.03, 0.031) * 15, data_wait_s=0.6, **loading))
    name = suite_name(TUNED[0], {"mode", "device", "batch_size"}, "throughput")
    for number, (case, step_s) in enumerate(zip(TUNED, (0.01, 0.008), strict=True), 20):
        about = {"suite": name, "label": "throughput"}
        made.append(fakes.record(case, fakes.CPU, number, step_s=(step_s, 1.1 * step_s) * 15, **about))
    for record in made:
        store.append_record(root, record)
        _leave_folder(root, record)
    bounds.add(root, fakes.CPU)
    folder = root / "profiles" / "p"
    write_layers(folder, parse_run_json(ProfileRun, (folder / "profile.json").read_text()))
    (root / "tuned-lenet5-training.toml").write_text(
        'name = "tuned-lenet5-training"\nversion = 1\n\n[axes]\nmodel = "lenet5"\nbatch_size = 64\nthreads = 1\n'
    )
    leave_training(root, "t")
    return [record.attempt_id for record in made]


def leave_training(root: Path, run_id: str) -> None:
    """Leave a training that reached its target after three epochs where `dlbench train` does."""
    run = TrainingRun(
        TRAINING.to_dict(), TRAINING.learning_rate_or_default, "reached", 0.98, (1.0, 2.0, 3.0), (2.0, 1.0, 0.5), (2.1, 1.2, 0.8),
        (0.5, 0.9, 0.99), (0.5, 0.9, 0.98), epochs_to_target=3, time_to_target_s=3.0, num_training=1437,
        num_validation=360, parameters=61_706, trained_parameters=61_706, hostname="fake-laptop", run_id=run_id,
        suite="teaching", started_at="2026-11-20T09:00:00+00:00",
    )  # fmt: skip
    write_training(root, run)
    folder = root / "trainings" / run.run_id
    folder.mkdir()
    requests.write_request(folder, {"kind": "train", "training": TRAINING.to_dict()})
    (folder / "result.json").write_text(run.to_json())


def _leave_folder(root: Path, record: Record) -> None:
    folder = attempts.attempts_folder(root) / record.attempt_id
    folder.mkdir(parents=True)
    head = {name: getattr(record, name) for name in ("suite", "suite_version", "system_key", "started_at", "label")}
    (folder / "owner.json").write_text(json.dumps({"host": "gone", "pid": 2**22, **head}))
    requests.write_request(folder, {"kind": "measure", "case": record.case})
    (folder / "result.json").write_text(Outcome(record.status, record.error, record.ranks).to_json())
    attempts.write_record(folder, record)


#: Does its harm in a store; gives the attempts that may be harmed by it.
Damage = Callable[[Path, random.Random], set[str]]
NESTED = "[" * 100_000
TEXTS = (
    *(
        "",
        " ",
        "x",
        "x" * 300,
        "../../../ESCAPED",
        "/ESCAPED",
        "a\nb",
        "a\0b",
        "=1+1",
        "<script>",
        "%",
        "{}",
        "[]",
        "null",
    ),
    *("NaN", "1", "-1", "{", '{"confidence": "x"}', '{"confidence": 7}', '{"devices": 3}', '{"devices": [3]}'),
    *('{"min_time_s": 1e999}', '{"a": ' * 300, NESTED, "9" * 5000, "é" * 100, "x" * 200_000),
)
NUMBERS = (0, 1, -1, 3, 7, 2**31, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-320, 1e300, 1e15)
ANYTHING: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**40, 2**70, 10**400, 1.5, float("nan"), "", "x", "../../../ESCAPED", [], {}, [[]], [None]),
    *({"a": 1}, ["a", 1, None], "x" * 100_000),
)


def _part(root: Path, rng: random.Random) -> tuple[Path, set[str]]:
    found = sorted(p for p in root.glob("*.parquet") if p.is_file() and not p.is_symlink() and p.stat().st_size > 100)
    if not found:
        return root / "none.parquet", set()
    part = rng.choice(found)
    return part, _ids(part)


def _ids(part: Path) -> set[str]:
    try:
        return {str(i) for i in pq.ParquetFile(part).read(columns=["attempt_id"])["attempt_id"].to_pylist()}
    except Exception:
        return set()


def _rewrite(root: Path, rng: random.Random, change: Callable[[pa.Table, random.Random], pa.Table]) -> set[str]:
    part, ids = _part(root, rng)
    if ids:
        try:
            table = change(pq.ParquetFile(part).read(), rng)
            part.unlink()
            pq.write_table(table, part)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, KeyError, OSError):
            pass  # no such file can be written
    return ids


def _column(table: pa.Table, rng: random.Random) -> str:
    keys = ("attempt_id", "rank", "case_id", "suite", "suite_version", "status", "model", "mode", "precision")
    more = ("batch_size", "device", "protocol", "started_at", "finished_at", "world_size", "step_s", "system_details")
    names = [n for n in (*keys, *more) if n in table.column_names] if rng.random() < 0.6 else table.column_names
    return rng.choice(names)


def _set(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def value(root: Path, rng: random.Random) -> set[str]:
    """One value is another one of the same type."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        name = _column(table, rng)
        kind = table.schema.field(name).type
        values = table[name].cast(pa.int64()).to_pylist() if pa.types.is_timestamp(kind) else table[name].to_pylist()
        values[rng.randrange(len(values))] = _odd(kind, rng)
        made = pa.array(values, pa.int64()).cast(kind) if pa.types.is_timestamp(kind) else pa.array(values, kind)
        return _set(table, name, made)

    return _rewrite(root, rng, change)


def _odd(kind: pa.DataType, rng: random.Random) -> Any:
    if rng.random() < 0.2:
        return None
    if pa.types.is_list(kind):
        return [_odd(kind.value_type, rng) for _ in range(rng.choice((0, 1, 40)))]
    if pa.types.is_string(kind):
        return rng.choice(TEXTS)
    if pa.types.is_floating(kind):
        return rng.choice(FLOATS)
    return rng.random() < 0.5 if pa.types.is_boolean(kind) else rng.choice(NUMBERS)


def bytes_in_text(root: Path, rng: random.Random) -> set[str]:
    """A text is no UTF-8."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        name = rng.choice([f.name for f in table.schema if pa.types.is_string(f.type)])
        values = [None if v is None else v.encode() for v in table[name].to_pylist()]
        values[0] = b"\xff\xfe\xfa"
        binary = pa.array(values, pa.binary())
        return _set(table, name, pa.Array.from_buffers(pa.string(), len(binary), binary.buffers()))

    return _rewrite(root, rng, change)


def column_type(root: Path, rng: random.Random) -> set[str]:
    """A column has another type."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        name = _column(table, rng)
        column = table[name].combine_chunks()
        rows = len(column)
        others: list[Callable[[], Any]] = [
            lambda: pa.array([[1, 2]] * rows),
            lambda: pa.array([{"a": 1}] * rows),
            lambda: pa.array([b"\xff"] * rows),
            lambda: pa.array(["x"] * rows),
            lambda: pa.array([1.5] * rows),
            lambda: pa.array([7] * rows),
            lambda: pa.array([True] * rows),
            lambda: pa.nulls(rows),
            lambda: pa.array([2**64 - 1] * rows, pa.uint64()),
            lambda: (
                pa.array([{"k": 1}] * rows, pa.map_(pa.string(), pa.int64())) if False else pa.nulls(rows, pa.date32())
            ),
            lambda: column.cast(pa.string()),
            lambda: column.cast(pa.large_string()),
            lambda: column.dictionary_encode(),
            lambda: column.cast(pa.int32()),
            lambda: column.cast(pa.float32()),
            lambda: column.cast(pa.decimal128(38, 2)),
            lambda: column.cast(pa.large_list(pa.float32())),
        ]
        return _set(table, name, rng.choice(others)())

    return _rewrite(root, rng, change)


def columns_dropped(root: Path, rng: random.Random) -> set[str]:
    """Columns are missing."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        return table.drop_columns(list({_column(table, rng) for _ in range(rng.choice((1, 3, 60)))}))

    return _rewrite(root, rng, change)


def columns_doubled(root: Path, rng: random.Random) -> set[str]:
    """A column is there twice."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        name = _column(table, rng)
        return table.append_column(name, table[name])

    return _rewrite(root, rng, change)


def columns_added(root: Path, rng: random.Random) -> set[str]:
    """Columns that nobody knows, very many of them."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        more = {
            f"{rng.choice(('c', 'rank.', '../', chr(10)))}{i}": pa.nulls(table.num_rows, pa.int8()) for i in range(2000)
        }
        return pa.table({**{n: table[n] for n in table.column_names}, **more}, metadata=table.schema.metadata)

    return _rewrite(root, rng, change)


def rows_changed(root: Path, rng: random.Random) -> set[str]:
    """No rows, doubled, shuffled or some of them."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        rows = list(range(table.num_rows))
        taken = rng.choice(([], rows + rows, rows[::-1], rows[:1], rows * 50))
        return table.take(pa.array(taken, pa.int64()))

    return _rewrite(root, rng, change)


def metadata(root: Path, rng: random.Random) -> set[str]:
    """The file's own metadata say something else."""

    def change(table: pa.Table, rng: random.Random) -> pa.Table:
        version = rng.choice((b"", b"99", b"-1", b"x", b"\xff", b"9" * 5000))
        return table.replace_schema_metadata({b"dlbench_schema_version": version, b"\xff": b"\xff"})

    return _rewrite(root, rng, change)


def bytes_changed(root: Path, rng: random.Random) -> set[str]:
    """The bytes of a file, of any kind, are not those that were written."""
    files = sorted(f for f in root.rglob("*") if f.is_file() and not f.is_symlink())
    if not files:
        return set()
    file = rng.choice(files)
    harmed = _ids(file) if file.suffix == ".parquet" and file.parent == root else set()
    content = file.read_bytes()
    at = rng.randrange(len(content) + 1)
    flipped = bytearray(content)
    for _ in range(rng.choice((1, 20))):
        if flipped:
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    file.write_bytes(
        rng.choice(
            (
                b"",
                content[:at],
                bytes(flipped),
                b"PAR1",
                b"PARE" + content[4:-4] + b"PARE",
                content * 2,
                os.urandom(999),
            )
        )
    )
    return harmed | _of_folder(root, file)


def _of_folder(root: Path, file: Path) -> set[str]:
    """The attempt whose folder holds a file; its part is whole all the same."""
    return set()


def json_changed(root: Path, rng: random.Random) -> set[str]:
    """A JSON file holds other values."""
    files = sorted(f for f in root.rglob("*.json") if f.is_file())
    if not files:
        return set()
    file = rng.choice(files)
    try:
        values = json.loads(file.read_text())
    except (ValueError, OSError, RecursionError):
        return set()
    place, key = {"": values}, ""
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
        place = place[key]
        key = rng.choice(sorted(place)) if isinstance(place, dict) else rng.randrange(len(place))
    action = rng.random()
    if action < 0.2 and isinstance(place, dict) and key != "":
        del place[key]
        file.write_text(json.dumps(values))
    elif action < 0.3:
        file.write_bytes(
            rng.choice((NESTED.encode(), b"\xff\xfe", b"9" * 5000, b"[]", b"null", b'"x"', b'{"a": ' * 9999))
        )
    elif action < 0.4 and isinstance(place, dict):
        place[rng.choice(("attempt_id", "model", "zz", "status"))] = rng.choice(ANYTHING)
        file.write_text(json.dumps(values.get("", values) if isinstance(values, dict) else values))
    else:
        sys_limit = rng.choice(ANYTHING)
        try:
            place[key] = sys_limit
            file.write_text(json.dumps(place[""] if key == "" else values))
        except ValueError:
            file.write_text('{"attempt_id": ' + "9" * 6000 + "}")
    return set()


def file_replaced(root: Path, rng: random.Random) -> set[str]:
    """Where a file or folder was there is something else, or nothing."""
    found = sorted(p for p in root.rglob("*") if not p.is_symlink())
    if not found:
        return set()
    path = rng.choice(found)
    harmed = set().union(*(_ids(p) for p in [path] if p.suffix == ".parquet" and p.parent == root), set())
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    _odd_thing(path, rng)
    return harmed


def _odd_thing(path: Path, rng: random.Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    what = rng.randrange(7)
    if what == 0:
        path.mkdir()
    elif what == 1:
        os.mkfifo(path)
    elif what == 2:
        path.symlink_to(path.name)
    elif what == 3:
        path.symlink_to("nowhere")
    elif what == 4:
        path.symlink_to("..")
    elif what == 5:
        path.write_bytes(b"")


def thing_added(root: Path, rng: random.Random) -> set[str]:
    """Something lies there that no dlbench wrote."""
    folder = rng.choice(
        (root, root / "attempts", root / "ceilings", root / "profiles", root / "sub" / "folder", root / "jobs")
    )
    name = rng.choice(
        ("x", "\n", "é", "x" * 230, "=1", "a=b", "model=", "rank=x", "status=ok", "..x", "\udcff\udcfe", "-o")
    )
    ending = rng.choice(("", ".parquet", ".json", ".toml", ".tmp"))
    path = folder / f"{rng.choice(('', 'ceilings-', 'merged-', 'allreduce-', '20'))}{name}{ending}"
    if path.exists() or path.is_symlink() or (folder.exists() and not folder.is_dir()):
        return set()
    _odd_thing(path, rng)
    return set()


def copied_elsewhere(root: Path, rng: random.Random) -> set[str]:
    """A part once more, whole or in part, under other names and in folders whose names tell columns."""
    part, ids = _part(root, rng)
    if not ids:
        return set()
    table = pq.ParquetFile(part).read()
    if len(set(table.column_names)) < len(table.column_names):
        return set()
    folder = root / rng.choice(("copy", "model=resnet50", "status=", "rank=x", "attempt_id=..%2f..%2fESCAPED", "a/b/c"))
    if folder.exists() or folder.is_symlink():
        return set()
    folder.mkdir(parents=True)
    if rng.random() < 0.5:
        for _ in range(3):
            table = table.drop_columns([_column(table, rng)])
    pq.write_table(table.slice(0, rng.choice((1, table.num_rows))), folder / "part-0.parquet")
    return set()


def other_parquet(root: Path, rng: random.Random) -> set[str]:
    """A Parquet file of ceilings, all-reduces or layers has other columns or values."""
    files = sorted(f for f in root.rglob("*.parquet") if f.parent != root and f.is_file())
    if not files:
        return set()
    file = rng.choice(files)
    try:
        table = pq.ParquetFile(file).read()
        name = rng.choice(table.column_names)
        rows = table.num_rows
        kind = table.schema.field(name).type
        changed = rng.choice(
            (
                lambda: table.drop_columns([name]),
                lambda: _set(table, name, pa.array([{"a": 1}] * rows)),
                lambda: _set(table, name, pa.array(["x"] * rows)),
                lambda: _set(table, name, pa.array([None] * rows, kind)),
                lambda: _set(table, name, pa.array([_odd(kind, rng) for _ in range(rows)], kind)),
                lambda: table.append_column(name, table[name]),
                lambda: table.slice(0, 0),
            )
        )()
        pq.write_table(changed, file)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, KeyError, OSError):
        pass
    return set()


DAMAGES: tuple[Damage, ...] = (
    *(value, value, value, column_type, column_type, bytes_in_text, columns_dropped, columns_doubled, columns_added),
    *(rows_changed, metadata, bytes_changed, json_changed, json_changed, json_changed, file_replaced, thing_added),
    *(copied_elsewhere, other_parquet),
)
