"""Attempt folders: the durable truth of a campaign. Every path inside a results folder is made here.

    results/attempts/<attempt_id>/
      owner.json     who measures (host, process), written first
      request.json   what is to be measured; the worker's input (case.json in earlier versions)
      stdout.txt  stderr.txt
      result.json    the worker's outcome, written last by the worker, by rename
      record.json    how the attempt ended, written last of all by the supervisor, by rename

Standard library only: planning, watching and collecting work on a login node without any install.
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
from dlbench.errors import DlbenchError, StoreError
from dlbench.json_text import load_json
from dlbench.results.records import DONE_STATUSES, FINAL_STATUSES, Outcome, Record, from_dict
from dlbench.suites import request as requests
from dlbench.suites.case import Case


@dataclass(frozen=True)
class Attempt:
    """One try at one case: a folder and what it is for."""

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
        """The name of the folder and of the Parquet part: time, case and chance, so that no two are ever equal."""
        return self.folder.name

    @property
    def key(self) -> DoneKey:
        """Under which key it counts as done."""
        return self.suite, self.suite_version, self.case.id, self.system_key, self.network_key


#: How `create` names an attempt.
_NAME = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}-[0-9a-f]{6}")
#: What names a measurement that need not be made again: suite, suite version, case, hardware and software, network.
DoneKey = tuple[str, int, str, str, str]


#: Names hardware and software: one name for all, or one by the kind of device that a case runs on.
SystemKeys = str | Mapping[str, str]


def key_on(keys: SystemKeys, device: str) -> str:
    """What a case on this kind of device is measured on; "" where nobody knows."""
    return keys if isinstance(keys, str) else keys.get(device, "")


def key_of(record: Record) -> DoneKey:
    """Under which key the record counts as done."""
    return record.suite, record.suite_version, record.case_id, record.system_key or "", record.network_key or ""


def attempts_folder(root: Path) -> Path:
    """Where the attempts of the results folder `root` lie."""
    return root / "attempts"


def create(
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

    The results folder `root` must be there. The attempt starts later than every earlier one of the same case that is
    known here, whatever the clocks of the hosts say: the latest attempt counts.

    Args:
        earlier: the names of such attempts, of whatever case.
        facts: see `dlbench.results.records.shared_facts`.

    Raises:
        StoreError: the folder cannot be written.
    """
    now = _later_than((name for name in earlier if case.id in name), datetime.now(UTC))
    name = f"{now:%Y%m%dT%H%M%S}-{case.id}-{secrets.token_hex(3)}"
    folder = attempts_folder(root) / name
    attempt = Attempt(folder, case, suite, suite_version, system_key, now.isoformat(), label, network_key)
    making = temporary_name(attempt.folder)
    try:
        attempts_folder(root).mkdir(exist_ok=True)
        making.mkdir()
        head = {
            "suite": suite,
            "suite_version": suite_version,
            "system_key": system_key,
            "started_at": attempt.started_at,
            "label": label,
            "network_key": network_key,
        }
        write_atomically(making / "owner.json", json.dumps(owner | head, indent=1))
        requests.write(making, requests.measure(case, facts))
        making.rename(attempt.folder)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise StoreError(f"cannot write {attempt.folder}: {error.strerror or error}") from error
    return attempt


def _later_than(names: Iterable[str], now: datetime) -> datetime:
    """`now`, or where a clock is behind the one that the latest of the attempts' names is from, the second after it."""
    latest = max((name[:15] for name in names if _NAME.fullmatch(name)), default="")
    if latest <= f"{now:%Y%m%dT%H%M%S}":
        return now
    try:
        return datetime.strptime(latest, "%Y%m%dT%H%M%S").replace(tzinfo=UTC) + timedelta(seconds=1)
    except (ValueError, OverflowError):
        return now


def outcome_of(folder: Path) -> Outcome | None:
    """What the worker left in `folder`, or None where it left nothing whole.

    Raises:
        StoreError: there is a result, and it cannot be read now: that is no verdict on the case.
    """
    try:
        return Outcome.from_json(read_text(folder / "result.json"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"cannot read {folder / 'result.json'}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Close an attempt.

    Raises:
        StoreError: the folder cannot be written, or the results folder is gone.
    """
    try:
        folder.mkdir(exist_ok=True)  # somebody's network may have removed it
        write_atomically(folder / "record.json", record.to_json())
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error


def heads(root: Path, among: Iterable[Path] | None = None) -> Iterator[tuple[Path, Record]]:
    """The closed attempts of `root`, oldest first, each with its record without samples.

    Args:
        among: only these folders are looked at, as `folders` gave them.
    """
    for folder in folders(root) if among is None else among:
        try:
            record = Record.from_json(read_text(folder / "record.json"), folder.name)
            Case.from_dict(record.case)
        except (OSError, ValueError, TypeError, DlbenchError):
            continue  # cut off, damaged, or of a version that knows other axes: not ours to judge
        yield folder, record


def full_record(folder: Path, head: Record) -> Record:
    """The record with the samples of all ranks."""
    outcome = outcome_of(folder)
    return dataclasses.replace(head, ranks=outcome.ranks if outcome else ())


def final_keys(root: Path, among: Iterable[Path] | None = None) -> set[DoneKey]:
    """What needs no further attempt in `root`: measured, or out of memory."""
    return {key_of(record) for folder, record in heads(root, among) if has_ended(folder, record)}


def has_ended(folder: Path, record: Record, has_part: bool = False) -> bool:
    """Whether the attempt needs no other one: out of memory, or measured, and the samples are still there.

    Args:
        folder: of the attempt.
        record: how it ended.
        has_part: the samples are known to be in a Parquet part.
    """
    if record.status not in DONE_STATUSES:
        return record.status in FINAL_STATUSES
    return has_part or (folder / "result.json").exists()


def case_id_of(name: str) -> str:
    """The case that an attempt's name names; "" where it is none that `create` gave."""
    return name[16:28] if _NAME.fullmatch(name) else ""


def unclosed(root: Path, among: Iterable[Path] | None = None) -> Iterator[tuple[Attempt, dict[str, Any]]]:
    """Attempts without a record, and their owners: running now, or left behind by a supervisor that was killed.

    Args:
        among: only these folders are looked at, as `folders` gave them.
    """
    for folder in folders(root) if among is None else among:
        if (folder / "record.json").exists():
            continue
        try:
            owner = load_json(read_text(folder / "owner.json"))
            case = requests.case_of(requests.read(folder))
            attempt: Attempt = from_dict(Attempt, owner | {"folder": folder, "case": case})
        except (OSError, ValueError, TypeError, DlbenchError):
            # Killed between making the folder and writing its two files: nothing was measured there. Or of a version
            # that knows other axes, which will close it.
            continue
        yield attempt, owner


def folders(root: Path, case_id: str | None = None) -> list[Path]:
    """The attempts' folders, oldest first; of one case, and those that others named, where a case is given.

    Only names are looked at: a new case beside 10 000 attempts must not open them all.

    Raises:
        StoreError: the folder cannot be read.
    """
    folder = attempts_folder(root)
    try:
        found = os.listdir(folder)  # noqa: PTH208 (a third of the time that pathlib takes)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror or error}") from error
    if case_id is not None:
        found = [name for name in found if f"-{case_id}-" in name or not _NAME.fullmatch(name)]
    return [folder / name for name in sorted(found) if not name.startswith(".")]
