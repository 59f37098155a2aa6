"""Looks at networks before a campaign: can each be found, which one is it, and which files is it made of.

A user's factory is looked at in a child process of its own. Its code may print, start threads, end the process or
crash; none of that reaches the answer about the others, and each network's files are told apart.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from dlbench.errors import DlbenchError
from dlbench.models import check
from dlbench.models.identity import build_for_key, is_own, library_key, own_key, source_files
from dlbench.worker.ranks.rank_status import die_with_launcher

#: How long a factory may take to build its network on meta [s]; after it the key holds the source alone.
BUILD_LIMIT_S = 60.0


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of one network."""

    error: str | None = None  # why it cannot be built, in one line
    key: str = ""  # see `dlbench.models.identity`
    files: dict[str, str] = field(default_factory=dict)  # of the user's own code, with their digests


def look_at(name: str) -> NetworkFacts:
    """What is known of the network called `name`. To be called before CUDA is initialised, which a fork breaks."""
    if is_own(name):
        return _in_child(name)
    try:
        check(name)
    except DlbenchError as error:
        return NetworkFacts(error=str(error))
    return NetworkFacts(key=library_key(name))


def _in_child(name: str) -> NetworkFacts:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with suppress(BaseException):
            die_with_launcher()
            _answer(name, writing)
        os._exit(0)
    os.close(writing)
    try:
        lines = _lines(reading)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if lines:
        return NetworkFacts(**json.loads(lines[-1]))
    code = os.waitstatus_to_exitcode(status)
    how = f"exit status {code}" if code >= 0 else f"signal {-code}"
    return NetworkFacts(error=f"model '{name}': importing it ended the process with {how}")


def _answer(name: str, pipe: int) -> None:
    """Writes a line once the module is imported, and a second one once the network is built."""
    try:
        check(name)
    except DlbenchError as error:
        _send(pipe, NetworkFacts(error=str(error)))
        _send(pipe, NetworkFacts(error=str(error)))
        return
    _send(pipe, NetworkFacts(key=own_key(name, None), files=source_files(name)))
    built = build_for_key(name)
    _send(pipe, NetworkFacts(key=own_key(name, built), files=source_files(name)))


def _send(pipe: int, facts: NetworkFacts) -> None:
    text = json.dumps(asdict(facts)).encode() + b"\n"
    while text:
        text = text[os.write(pipe, text) :]


def _lines(pipe: int) -> list[bytes]:
    """The whole lines that arrive: two, or fewer where the child ends or takes too long over the second."""
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
