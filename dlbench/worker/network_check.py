"""Check of networks before a campaign: whether each can be built, its identity key, and its source files.

A user's factory is checked in a separate child process: its code may print, start threads, exit or crash without
affecting other networks, and its source files are listed separately.
"""

import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from dlbench.errors import DlbenchError
from dlbench.models import check_model_name
from dlbench.models.network_identity import (
    is_user_network,
    library_version_key,
    try_build_on_meta,
    user_network_key,
    user_source_files,
)
from dlbench.worker.ranks.rank_status import end_with_parent

#: Time limit for building a network on the meta device [s]; afterwards its key uses only the source.
BUILD_LIMIT_S = 60.0


@dataclass(frozen=True)
class NetworkFacts:
    """Facts of one network."""

    error: str | None = None  # one-line reason if it cannot be built
    key: str = ""  # see `dlbench.models.network_identity`
    files: dict[str, str] = field(default_factory=dict)  # of the user's own code, with their digests


def check_network(name: str) -> NetworkFacts:
    """Return the facts of network `name`. Call before CUDA is initialised: a fork breaks CUDA."""
    if is_user_network(name):
        return _check_model_in_child(name)
    try:
        check_model_name(name)
    except DlbenchError as error:
        return NetworkFacts(error=str(error))
    return NetworkFacts(key=library_version_key(name))


def _check_model_in_child(name: str) -> NetworkFacts:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with suppress(BaseException):
            end_with_parent()
            _send_import_and_build_facts(name, writing)
        os._exit(0)
    os.close(writing)
    try:
        lines = _read_answer_lines(reading)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if lines:
        return NetworkFacts(**json.loads(lines[-1]))
    code = os.waitstatus_to_exitcode(status)
    how = f"exit status {code}" if code >= 0 else f"signal {-code}"
    return NetworkFacts(error=f"model '{name}': its import ended the process with {how}")


def _send_import_and_build_facts(name: str, pipe: int) -> None:
    """Write one line after importing the module, and a second one after building the network."""
    try:
        check_model_name(name)
    except DlbenchError as error:
        _send_facts(pipe, NetworkFacts(error=str(error)))
        _send_facts(pipe, NetworkFacts(error=str(error)))
        return
    _send_facts(pipe, NetworkFacts(key=user_network_key(name, None), files=user_source_files(name)))
    try:
        built = try_build_on_meta(name)
    except DlbenchError as error:
        _send_facts(pipe, NetworkFacts(error=str(error)))
        return
    _send_facts(pipe, NetworkFacts(key=user_network_key(name, built), files=user_source_files(name)))


def _send_facts(pipe: int, facts: NetworkFacts) -> None:
    text = json.dumps(asdict(facts)).encode() + b"\n"
    while text:
        text = text[os.write(pipe, text) :]


def _read_answer_lines(pipe: int) -> list[bytes]:
    """Read complete lines: two, or fewer if the child ends or exceeds the time limit."""
    received = b""
    deadline: float | None = None
    while received.count(b"\n") < 2:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([pipe], [], [], left_s)[0]:
            break
        piece = os.read(pipe, 65_536)
        if not piece:
            break
        received += piece
        if deadline is None and b"\n" in received:
            deadline = time.monotonic() + BUILD_LIMIT_S
    return received.split(b"\n")[:-1]
