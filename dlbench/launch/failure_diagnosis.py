"""Diagnosis of a failed case of several ranks: which rank failed first, and its error output.

Each rank leaves files in the attempt's folder (`dlbench.worker.ranks.rank_status`): its process, its stderr, how it
ended. A killed rank does not report its end; its launcher reports it. Lost connections that other ranks report are
consequences.
"""

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench import units
from dlbench.json_text import read_json_object
from dlbench.launch import claims
from dlbench.launch.launchers import WORKER_MODULE
from dlbench.launch.processes import ATTEMPT_FOLDER_VARIABLE, last_phase, last_stderr_message, tail_lines
from dlbench.results.records import DONE_STATUSES

#: Messages of launchers about a killed process: (pattern, meaning of its group).
_KILLED_MESSAGES = (
    (re.compile(r"spawn: rank (\d+) .*was killed by signal (\d+)"), "rank"),
    (re.compile(r"process rank (\d+) with PID \d+ .*exited on\s+signal (\d+)", re.DOTALL), "rank"),
    (re.compile(r"PID (\d+) RUNNING AT"), "pid"),
    (re.compile(r"exitcode: -(?P<signal>\d+)\) local_rank: (?P<local>\d+)"), "rank"),
    (re.compile(r"failed \(exitcode: -\d+\) local_rank: (\d+) \(pid: \d+\)"), "rank"),
    (
        re.compile(r"srun: error: \S+: task (\d+): (?:Out Of Memory|Killed|Segmentation fault|Aborted|Terminated)"),
        "rank",
    ),
)
#: Prefixes of output lines that come from launchers, not from ranks.
LAUNCHER_PREFIXES = ("phase:", "spawn:", "srun:", "slurmstepd")
#: Slurm's message on stderr after the kernel killed a task at its memory limit, on any node.
_OUT_OF_MEMORY = re.compile(
    r"^(?:srun|slurmstepd).*(?:Out Of Memory|OUT_OF_MEMORY|oom[-_]kill|OOM Killed)", re.IGNORECASE
)
#: Time for the launcher to stop the other ranks after one rank reported a failure [s].
FAILURE_GRACE_S = 15.0


@dataclass(frozen=True)
class RankFiles:
    """Files of one rank; `end` is empty if it reported no end."""

    number: int
    host: str
    pid: int
    end: dict[str, Any]
    phase: str
    last_words: str

    def describe(self, world_size: int) -> str:
        """Name of the rank, such as "rank 3 of 8 on node07"."""
        return f"rank {self.number} of {world_size}" + (f" on {self.host}" if self.host else "")


def read_rank_files(folder: Path) -> list[RankFiles]:
    """Return the ranks that started, by number."""
    found = []
    for file in sorted((folder / "ranks").glob("*.pid.json")):
        number = int(file.name.partition(".")[0])
        begun = read_json_object(file) or {}
        end = read_json_object(folder / "ranks" / f"{number}.end.json") or {}
        text = folder / "stderr.txt" if number == 0 else folder / "ranks" / f"{number}.err"
        phase = str(end.get("phase") or last_phase(text))
        last = last_stderr_message(text, LAUNCHER_PREFIXES)
        found.append(RankFiles(number, str(begun.get("host", "")), int(begun.get("pid", 0)), end, phase, last))
    return sorted(found, key=lambda rank: rank.number)


def has_rank_failed(folder: Path) -> bool:
    """Whether a rank reported a failure and the launcher had enough time to stop the others.

    The time is measured by this process: the clock of the rank's node may differ.
    """
    for file in (folder / "ranks").glob("*.end.json"):
        end = read_json_object(file) or {}
        if (
            end
            and end.get("status") not in DONE_STATUSES
            and claims.FILE_CHANGE_TIMER.time_since_change_s(file) > FAILURE_GRACE_S
        ):
            return True
    return False


def diagnose_failed_case(folder: Path, world_size: int, oom_kill: bool) -> tuple[str, str] | None:
    """Return status and error of a failed case, with the rank that failed first; None without any trace."""
    ranks = read_rank_files(folder)
    ended = [rank for rank in ranks if rank.end.get("status") not in (None, *DONE_STATUSES)]
    failed = sorted(ended, key=lambda rank: float(rank.end.get("at_s", 0.0)))
    own = [r for r in failed if not r.end.get("lost_peer") and r.end["status"] != "preempted"]
    killed = _first_rank_reported_killed(folder, ranks) or ([r for r in ranks if not r.end] if failed else [])
    if killed and not own:
        return _diagnose_killed_ranks(killed, world_size, oom_kill)
    if failed:
        first = (own or failed)[0]
        return first.end["status"], f"{first.describe(world_size)} in phase '{first.phase}': {first.end['error']}"
    if ranks and len(ranks) < world_size:
        came = {r.number for r in ranks}
        numbers = [str(n) for n in range(world_size) if n not in came]
        missing = f"{'ranks' if len(numbers) > 1 else 'rank'} {', '.join(numbers)}"
        output = f"{folder}/stderr.txt"
        return "crashed", f"{missing} of {world_size} did not start; see the launcher's output in {output}"
    return None


def slurm_reported_oom(folder: Path) -> bool:
    """Whether Slurm reported out of memory; the kernel's own counter covers only this node."""
    return any(_OUT_OF_MEMORY.match(line) for line in tail_lines(folder / "stderr.txt", 65_536))


def describe_where_ranks_hang(folder: Path, world_size: int) -> str:
    """Describe where each rank was when a hung case was stopped, unusual ranks first."""
    ranks = read_rank_files(folder)
    places: dict[str, list[int]] = {}
    for rank in ranks:
        place = str(rank.end.get("error") or "").partition(", at ")[2] or "?"
        words = f"in phase '{rank.phase}' at {place}" if rank.end else f"in phase '{rank.phase}' at an unknown line"
        places.setdefault(words, []).append(rank.number)
    for number in range(world_size):
        if number not in {rank.number for rank in ranks}:
            places.setdefault("not started", []).append(number)
    groups = sorted(places.items(), key=lambda item: len(item[1]))
    return "; ".join(f"rank {units.list_text(numbers, 8)} {words}" for words, numbers in groups[:4])


def kill_leftover_processes(folder: Path) -> int:
    """Kill all processes of this attempt that still run on this machine; return their number.

    A process is one of them if it was started as the worker of this folder, or has the folder in its environment.
    Others may have the folder in their arguments: the caller's `timeout`, `srun` or editor.
    """
    started_as = b"\0" + os.fsencode(WORKER_MODULE) + b"\0" + os.fsencode(str(folder)) + b"\0"
    mark = os.fsencode(f"{ATTEMPT_FOLDER_VARIABLE}={folder}")
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208 (after every case; pathlib takes twice the time)
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid != os.geteuid():  # noqa: PTH116
                continue
            if started_as in _read_proc(f"/proc/{name}/cmdline") or mark in _read_proc(f"/proc/{name}/environ").split(
                b"\0"
            ):
                os.kill(int(name), signal.SIGKILL)
                count += 1
    return count


def _read_proc(file: str) -> bytes:
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123
        return opened.read()


def _diagnose_killed_ranks(killed: list[RankFiles], world_size: int, oom_kill: bool) -> tuple[str, str]:
    names = ", ".join(rank.describe(world_size) for rank in killed[:4])
    verb = "were" if len(killed) > 1 else "was"
    phase = f" in phase '{killed[0].phase}'" if killed[0].phase else ""
    words = f"; last line of stderr: {killed[0].last_words}" if killed[0].last_words else "; stderr is empty"
    if oom_kill:
        return "oom", f"{names} {verb} killed by the kernel's out-of-memory killer{phase}{words}"
    return "crashed", f"{names} {verb} killed{phase}{words}"


def _first_rank_reported_killed(folder: Path, ranks: list[RankFiles]) -> list[RankFiles]:
    """Return the first rank that the launcher reported as killed; it killed later ones itself."""
    text = "\n".join(tail_lines(folder / "stderr.txt", 65_536) + tail_lines(folder / "stdout.txt", 65_536))
    for pattern, kind in _KILLED_MESSAGES:
        match = pattern.search(text)
        if match is None:
            continue
        number = int(match.groupdict().get("local") or match.group(1))
        found = [r for r in ranks if (r.pid if kind == "pid" else r.number) == number and not r.end]
        if found:
            return found
    return []
