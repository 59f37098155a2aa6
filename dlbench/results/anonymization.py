"""Anonymized results for publication: without hosts, users, paths, environment and jobs.

Of system `details` only the keys listed here are kept. Measured values are unchanged.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dlbench.atomic_file import save_text
from dlbench.results import bounds_schema, bounds_store, store
from dlbench.results.bounds_records import ProfileRun, to_json
from dlbench.results.parts import ROW_GROUP, open_file_atomically, write_part
from dlbench.results.reader import StoreReader
from dlbench.results.records import parse_system_details
from dlbench.results.schema import LONG_TEXT, SCHEMA

#: Free texts, which may contain private data.
_TEXT_COLUMNS = ("suite", "error", "label", "warnings", "energy_note", "throttle_reasons", "warning")
#: Keys of `system_details` that are not private and matter for the figures.
_KEPT_DETAILS = (
    *("system_key", "precision_switches", "cudnn_benchmark", "cpu_capability", "cpu_governor", "cpu_frequency_mhz"),
    *("cpu_quota", "numa_nodes", "numa_nodes_online", "load_average_before"),
)
_KEPT_DEVICE_FACTS = ("name", "memory_bytes", "multiprocessors", "compute_capability", "l2_cache_bytes")
#: Shorter user names are not replaced in texts (they may be ordinary words); their paths are removed anyway.
_HOME_FOLDER = re.compile(r"/(?:home|users?)/([^/\s:'\"]{3,})", re.IGNORECASE)
#: Paths below /sys/class are not private.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?!sys/class/)(?:[^/\s:'\"]+/)+([^/\s:'\"]*)")


class Anonymizer:
    """Anonymizer of host names, user names and paths in texts; equal names get equal replacements."""

    def __init__(self, hosts: Iterable[str | None], texts: Iterable[str | None] = ()) -> None:
        """Collect the names of all hosts, and of users whose home folders occur in `texts`."""
        users = {user for text in texts for user in _HOME_FOLDER.findall(text or "")}
        self._users = sorted(users, key=lambda u: (-len(u), u))
        names = sorted({host for host in hosts if isinstance(host, str) and host})
        self._hosts = {name: f"node{i}" for i, name in enumerate(names, 1)}
        self._short_names = {name.partition(".")[0]: self._hosts[name] for name in reversed(names)}
        words = self._hosts.keys() | self._short_names.keys()
        # The longest first: otherwise n10 would become the replacement of n1 followed by 0.
        alternatives = "|".join(re.escape(word) for word in sorted(words, key=lambda w: (-len(w), w)))
        self._pattern = re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])") if words else None

    def anonymize_host(self, name: str | None) -> str | None:
        """Return the replacement of a host: node1, node2, ... in order of host names."""
        return self._hosts.get(name, name) if name else name

    def anonymize_text(self, text: str | None) -> str | None:
        """Replace hosts by node names, users by "user", and absolute paths by file names."""
        if not text:
            return text
        text = _ABSOLUTE_PATH.sub(lambda match: f".../{match[1]}" if "." in match[1] else "...", text)
        for user in self._users:
            text = re.sub(rf"(?<![\w-]){re.escape(user)}(?![\w-])", "user", text)
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._hosts.get(match[0]) or self._short_names[match[0]], text)

    def anonymize_value(self, value: Any) -> Any:
        """Anonymize every text in a list or dictionary."""
        if isinstance(value, str):
            return self.anonymize_text(value)
        if isinstance(value, list):
            return [self.anonymize_value(v) for v in value]
        if isinstance(value, dict):
            return {k: self.anonymize_value(v) for k, v in value.items()}
        return value


def hashed_device_name(uuid: str | None) -> str | None:
    """Return an anonymous but distinct name of a device."""
    return f"device-{hashlib.sha256(uuid.encode()).hexdigest()[:12]}" if uuid else uuid


def write_records(sources: Sequence[str | Path], target: Path, private: bool = False) -> int:
    """Write all records of `sources` to one Parquet file, and ceilings and profiles next to it; return their number.

    The folder of `target` is created if missing; `private` data are kept if asked for. Raises StoreError if a source
    does not exist, or `target` cannot be written.
    """
    reader = StoreReader.from_sources(sources)
    ceilings, all_reduces = bounds_store.read_bounds_tables(sources)
    profiles = bounds_store.read_profiles(sources)
    kinds = ((ceilings, "ceilings-all.parquet"), (all_reduces, "allreduce-all.parquet"))
    hosts = [host for table, _ in kinds for host in table["hostname"].unique().to_pylist()]
    hosts += [run.where.hostname for run in profiles]
    names, texts = (set(), set()) if private else _collect_names_and_texts(reader)
    scrubber = Anonymizer([*hosts, *names], texts)
    num_rows = _write_rows(target, reader, None if private else scrubber)
    store.warn_about_skipped_parts(list(dict.fromkeys(reader.problems)))
    for table, name in kinds:
        if table.num_rows:
            folder = target.parent / bounds_schema.CEILINGS_FOLDER
            shown = table if private else _anonymize_table(table, scrubber, "hostname", "device_uuid")
            write_part(folder / name, shown)
    for number, run in enumerate(profiles, 1):
        folder = target.parent / bounds_schema.PROFILES_FOLDER / f"{number:03}"
        profile = run if private else _anonymize_profile(run, scrubber)
        save_text(folder / "profile.json", to_json(profile))
        bounds_schema.write_layers(folder, profile)
    return num_rows


def _collect_names_and_texts(reader: StoreReader) -> tuple[set[str | None], set[str | None]]:
    """Return the names of all hosts, and all distinct texts that may contain names."""
    hosts: set[str | None] = set()
    texts: set[str | None] = set()
    columns = [*(name for name in _TEXT_COLUMNS if name in SCHEMA.names), LONG_TEXT, "system_container_image"]
    for table in reader.attempt_tables(["system_hostname", *columns]):
        hosts.update(table["system_hostname"].unique().to_pylist())
        for column in (table[name] for name in columns):
            texts.update((pc.list_flatten(column) if pa.types.is_list(column.type) else column).unique().to_pylist())
    return hosts, texts


def _write_rows(target: Path, reader: StoreReader, scrubber: Anonymizer | None) -> int:
    """Write all rows, anonymized if a scrubber is given; return their number."""
    num_rows = 0
    with open_file_atomically(target) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for table in reader.attempt_tables(SCHEMA.names):
            for begin in range(0, table.num_rows, ROW_GROUP):
                rows = table.slice(begin, ROW_GROUP)
                writer.write_table((rows if scrubber is None else anonymize_records(rows, scrubber)).cast(SCHEMA))
                num_rows += rows.num_rows
    return num_rows


def _anonymize_profile(run: ProfileRun, scrubber: Anonymizer) -> ProfileRun:
    where = dataclasses.replace(
        run.where,
        hostname=scrubber.anonymize_host(run.where.hostname) or "",
        device_uuid=hashed_device_name(run.where.device_uuid),
    )
    return dataclasses.replace(
        run, where=where, case=scrubber.anonymize_value(run.case), run_id=scrubber.anonymize_text(run.run_id) or ""
    )


def anonymize_records(records: pa.Table, scrubber: Anonymizer) -> pa.Table:
    """Return the rows of a store, anonymized."""
    table = _anonymize_table(records, scrubber, "system_hostname", "device_uuid")
    table = _map_texts_of_column(table, "system_container_image", lambda image: image and PurePosixPath(image).name)
    table = _map_texts_of_column(table, "system_slurm_job_id", lambda _: None)
    return _map_texts_of_column(table, LONG_TEXT, lambda text: _anonymize_details(text, scrubber))


def _anonymize_table(table: pa.Table, scrubber: Anonymizer, host: str, device: str) -> pa.Table:
    table = _map_texts_of_column(_map_texts_of_column(table, host, scrubber.anonymize_host), device, hashed_device_name)
    for name in (name for name in _TEXT_COLUMNS if name in table.column_names):
        table = _map_texts_of_column(table, name, scrubber.anonymize_text)
    return table


def _map_texts_of_column(table: pa.Table, name: str, change: Callable[[str | None], str | None]) -> pa.Table:
    """Change the texts of a column, or those in its lists; each different text once."""
    index = table.column_names.index(name)
    column = table[name].combine_chunks()
    changed = [_map_texts(chunk, change) for chunk in getattr(column, "chunks", [column])]
    return table.set_column(index, table.schema.field(index), pa.chunked_array(changed, column.type))


def _map_texts(column: pa.Array, change: Callable[[str | None], str | None]) -> pa.Array:
    kind = column.type
    if pa.types.is_list(kind):
        ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), dtype=np.int32)
        texts = _map_texts(pc.list_flatten(column), change)
        return pa.ListArray.from_arrays(pa.array(np.r_[np.int32(0), ends]), texts, kind, mask=column.is_null())
    encoded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
    texts = pa.array(map(change, encoded.dictionary.to_pylist()), encoded.dictionary.type)
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(encoded.indices, texts)
    return texts.take(encoded.indices)


def _anonymize_details(text: str | None, scrubber: Anonymizer) -> str | None:
    if not text:
        return text
    details = parse_system_details(text)
    kept = {name: scrubber.anonymize_value(details[name]) for name in _KEPT_DETAILS if name in details}
    if details.get("devices"):
        kept["devices"] = [{n: d[n] for n in _KEPT_DEVICE_FACTS if n in d} for d in details["devices"]]
    if "libraries" in details:
        kept["libraries"] = sorted({PurePosixPath(str(path)).name for path in details["libraries"]})
    return json.dumps(kept, sort_keys=True)
