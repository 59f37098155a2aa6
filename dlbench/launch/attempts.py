"""Attempt folders: the primary storage of all results. Paths inside a results folder are defined here.

    results/attempts/<attempt_id>/
      owner.json     the measuring process and its host, written first
      request.json   the case to measure; the worker's input (case.json in earlier versions)
      stdout.txt  stderr.txt
      result.json    the worker's outcome, written last by the worker, by rename
      record.json    how the attempt ended, written last of all by the supervisor, by rename

Standard library only: `plan`, `status` and `submit` work on a login node without installation.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text, temporary_name, write_atomically
from dlbench.errors import DlbenchError, StoreError, convert_write_errors
from dlbench.json_text import load_json
from dlbench.results.records import DONE_STATUSES, FINAL_STATUSES, Outcome, Record, from_dict
from dlbench.safe_names import short_repr
from dlbench.suites import worker_request as requests
from dlbench.suites.case import Case


@dataclass(frozen=True)
class Attempt:
    """One attempt at measuring one case, with its folder."""

    folder: Path
    case: Case
    suite: str
    suite_version: int
    system_key: str
    started_at: str
    label: str | None = None
    network_key: str = ""

    @property
    def id(self) -> str:
        """Name of the folder and of the Parquet part: time, case id and a random part, so that it is unique."""
        return self.folder.name

    @property
    def key(self) -> DoneKey:
        """Key under which the attempt counts as done."""
        return self.suite, self.suite_version, self.case.id, self.system_key, self.network_key


#: Names of attempts, as `create_attempt` makes them.
_ATTEMPT_NAME = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}-[0-9a-f]{6}")
#: Identifies a measurement that is not repeated: suite, suite version, case, system, network.
DoneKey = tuple[str, int, str, str, str]


#: Key of hardware and software: one for all cases, or one per kind of device.
SystemKeys = str | Mapping[str, str]


def system_key_of_device_kind(keys: SystemKeys, device: str) -> str:
    """Return the system key for this kind of device; "" if unknown."""
    return keys if isinstance(keys, str) else keys.get(device, "")


def record_key(record: Record) -> DoneKey:
    """Return the key under which the record counts as done."""
    return record.suite, record.suite_version, record.case_id, record.system_key or "", record.network_key or ""


def attempts_folder(root: Path) -> Path:
    """Return the folder of all attempts in the results folder `root`."""
    return root / "attempts"


def create_attempt(
    root: Path,
    case: Case,
    suite: str,
    suite_version: int,
    system_key: str,
    owner: dict[str, Any],
    label: str | None = None,
    network_key: str = "",
    earlier: Iterable[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Attempt:
    """Make the folder of a new attempt with its `owner.json` and `request.json`, all at once: by a rename.

    The results folder `root` must exist. The start time is later than that of every known earlier attempt of the same
    case, even if the clocks of the hosts differ: the latest attempt counts.

    Args:
        earlier: names of earlier attempts, of any case.
        facts: see `dlbench.results.records.reusable_facts`.

    Raises:
        StoreError: the folder cannot be written.
    """
    now = _new_start_time((name for name in earlier if case.id in name), datetime.now(UTC))
    name = f"{now:%Y%m%dT%H%M%S}-{case.id}-{secrets.token_hex(3)}"
    folder = attempts_folder(root) / name
    attempt = Attempt(folder, case, suite, suite_version, system_key, now.isoformat(), label, network_key)
    making = temporary_name(attempt.folder)
    try:
        attempts_folder(root).mkdir(exist_ok=True)
        making.mkdir()
        names = ("suite", "suite_version", "system_key", "started_at", "label", "network_key")
        head = {name: getattr(attempt, name) for name in names}
        write_atomically(making / "owner.json", json.dumps(owner | head, indent=1))
        requests.write_request(making, requests.measure_request(case, facts))
        making.rename(attempt.folder)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise StoreError(f"cannot write {attempt.folder}: {error.strerror or error}") from error
    return attempt


def _new_start_time(names: Iterable[str], now: datetime) -> datetime:
    """Return `now`, or one second after the latest attempt if that lies in the future (clocks differ)."""
    latest = max((name[:15] for name in names if _ATTEMPT_NAME.fullmatch(name)), default="")
    if latest <= f"{now:%Y%m%dT%H%M%S}":
        return now
    try:
        return datetime.strptime(latest, "%Y%m%dT%H%M%S").replace(tzinfo=UTC) + timedelta(seconds=1)
    except (ValueError, OverflowError):
        return now


def read_worker_outcome(folder: Path) -> Outcome | None:
    """The worker's outcome in `folder`; None if missing or incomplete. Raises StoreError if it cannot be read now."""
    try:
        return Outcome.from_json(read_text(folder / "result.json"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"cannot read {folder / 'result.json'}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Close an attempt. Raises StoreError if the folder cannot be written, or the results folder is gone."""
    with convert_write_errors(folder):
        folder.mkdir(exist_ok=True)  # the user's network may have removed it
        write_atomically(folder / "record.json", record.to_json())


def find_closed_attempts(
    root: Path, among: Iterable[Path] | None = None, problems: list[str] | None = None
) -> Iterator[tuple[Path, Record]]:
    """Iterate over the closed attempts of `root`, oldest first, each with its record without samples.

    Args:
        among: only these folders, as returned by `list_attempt_folders`.
        problems: receives a line for each record that cannot be read.
    """
    for folder in list_attempt_folders(root) if among is None else among:
        try:
            record = Record.from_json(read_text(folder / "record.json"), folder.name)
            Case.from_dict(record.case)
        except (FileNotFoundError, NotADirectoryError):
            continue  # not closed
        except (OSError, ValueError, TypeError, DlbenchError) as error:
            # Incomplete, damaged, or of a version with other axes.
            if problems is not None:
                words = error.strerror if isinstance(error, OSError) else error
                problems.append(f"cannot read {folder / 'record.json'}: {short_repr(str(words), 200)[1:-1]}; skipped")
            continue
        yield folder, record


def read_full_record(folder: Path, head: Record) -> Record:
    """Return the record with the samples of all ranks."""
    outcome = read_worker_outcome(folder)
    return dataclasses.replace(head, ranks=outcome.ranks if outcome else ())


def finished_keys(root: Path, among: Iterable[Path] | None = None) -> set[DoneKey]:
    """Return the keys that need no further attempt in `root`: measured, or out of memory."""
    return {record_key(record) for folder, record in find_closed_attempts(root, among) if is_case_done(folder, record)}


def is_case_done(folder: Path, record: Record, has_part: bool = False) -> bool:
    """Whether no further attempt is needed: out of memory, or measured, with its samples in the folder or a part."""
    if record.status not in DONE_STATUSES:
        return record.status in FINAL_STATUSES
    return has_part or (folder / "result.json").exists()


def attempt_case_id(name: str) -> str:
    """Return the case id in the name of an attempt; "" for other names."""
    return name[16:28] if _ATTEMPT_NAME.fullmatch(name) else ""


def find_open_attempts(root: Path, among: Iterable[Path] | None = None) -> Iterator[tuple[Attempt, dict[str, Any]]]:
    """Iterate over attempts (of `among`) without a record, and their owners: running, or with a killed supervisor."""
    for folder in list_attempt_folders(root) if among is None else among:
        if (folder / "record.json").exists():
            continue
        try:
            owner = load_json(read_text(folder / "owner.json"))
            case = requests.requested_case(requests.read_request(folder))
            attempt: Attempt = from_dict(Attempt, owner | {"folder": folder, "case": case})
        except (OSError, ValueError, TypeError, DlbenchError):
            # Killed before both files were written: nothing was measured. Or of a version with other axes, which will
            # close it.
            continue
        yield attempt, owner


def list_attempt_folders(root: Path, case_id: str | None = None) -> list[Path]:
    """List the attempt folders, oldest first; with `case_id` only those of the case and foreign names.

    Only names are read: a new case among 10 000 attempts must not open them all. Raises StoreError if that fails.
    """
    folder = attempts_folder(root)
    try:
        found = os.listdir(folder)  # noqa: PTH208 (a third of the time that pathlib takes)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror or error}") from error
    if case_id is not None:
        own = f"-{case_id}-"
        # Length and hyphen tell foreign names in a fraction of the time of the pattern.
        found = [name for name in found if own in name or len(name) != 35 or name[28] != "-"]
    return [folder / name for name in sorted(found) if not name.startswith(".")]
