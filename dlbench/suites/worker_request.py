"""Requests to worker processes. `python -m dlbench.worker FOLDER` executes the request in FOLDER/request.json.

| kind | other keys | result.json |
|---|---|---|
| measure | case, facts | the `Outcome` of the case, with any status |
| profile | case, time_s, trace_steps | a `ProfileRun` |
| ceilings | device, budget_s, precisions | a `CeilingRun` |
| allreduce | case, sizes_bytes | an `AllReduceRun` |
| train | training | a `TrainingRun` |
| predict | case | memory by batch, see `dlbench.worker.jobs.fit_check` |
| fit | case, limit_bytes | the peaks of memory |

`facts`, where there are any, is what an earlier process of the case found that is the same in every process, see
`dlbench.results.records.reusable_facts`.

All kinds but `measure` leave error.json instead where there is no result: {"status": ..., "text": ...}.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text, write_atomically
from dlbench.errors import BadInput, UnknownName
from dlbench.json_text import load_json
from dlbench.suites.case import Case

REQUEST_FILE = "request.json"
#: Attempts of earlier versions contain only a case.
EARLIER_REQUEST_FILE = "case.json"
KINDS = ("measure", "profile", "ceilings", "allreduce", "train", "predict", "fit")


def measure_request(case: Case, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The request to measure a case."""
    request = {"kind": "measure", "case": case.to_dict()}
    return request | {"facts": dict(facts)} if facts else request


def write_request(folder: Path, request: dict[str, Any]) -> None:
    """Put the request into the folder. Raises OSError if it cannot be written."""
    write_atomically(folder / REQUEST_FILE, json.dumps(request, indent=1))


def read_request(folder: Path) -> dict[str, Any]:
    """The request in the folder. Raises OSError or ValueError if it cannot be read, BadInput for an unknown kind."""
    if not (folder / REQUEST_FILE).exists() and (folder / EARLIER_REQUEST_FILE).exists():
        return {"kind": "measure", "case": load_json(read_text(folder / EARLIER_REQUEST_FILE))}
    request = load_json(read_text(folder / REQUEST_FILE))
    if not isinstance(request, dict):
        raise BadInput("a worker request must be a JSON object")
    if request.get("kind") not in KINDS:
        raise UnknownName("kind of request", request.get("kind"), KINDS)
    return request


def requested_case(request: dict[str, Any]) -> Case:
    """The case that the request is about. Raises BadInput if it has none, or one that cannot be used."""
    case = request.get("case")
    if not isinstance(case, dict):
        raise BadInput(f"a worker request of kind '{request.get('kind')}' needs a case")
    return Case.from_dict(case)
