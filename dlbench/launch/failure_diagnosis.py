"""After a case of several ranks: which of them failed first, its last words, and an end to all that it left behind.

Each rank leaves files in the attempt's folder (`dlbench.worker.ranks.rank_status`): its process, its stderr, how it
ended. A rank that was killed leaves no end; its launcher reports it. What the other ranks report about a lost
connection is only a consequence.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text
from dlbench.json_text import load_json
from dlbench.launch import claims
from dlbench.launch.processes import MARK, tail
from dlbench.results.records import DONE_STATUSES

#: What launchers say about a process that was killed: (pattern, what its group names).
_KILLED = (
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
#: Begin of lines in which launchers speak, beside those of the ranks.
LAUNCHER_WORDS = ("phase:", "spawn:", "srun:", "slurmstepd")
#: What Slurm says on stderr when the kernel ended a task at the limit of its step's memory, on whichever node.
_OUT_OF_MEMORY = re.compile(
    r"^(?:srun|slurmstepd).*(?:Out Of Memory|OUT_OF_MEMORY|oom[-_]kill|OOM Killed)", re.IGNORECASE
)
#: The launcher has so long to end the others after one rank said that it failed [s].
FAILURE_GRACE_S = 15.0


@dataclass(frozen=True)
class Rank:
    """What one rank left behind; `end` is empty where it said nothing."""

    number: int
    host: str
    pid: int
    end: dict[str, Any]
    phase: str
    last_words: str

    def name(self, world_size: int) -> str:
        """Such as "rank 3 of 8 on node07"."""
        return f"rank {self.number} of {world_size}" + (f" on {self.host}" if self.host else "")


def ranks_of(folder: Path) -> list[Rank]:
    """The ranks that began, by number."""
    found = []
    for file in sorted((folder / "ranks").glob("*.pid.json")):
        number = int(file.name.partition(".")[0])
        begun = _read(file)
        end = _read(folder / "ranks" / f"{number}.end.json")
        text = folder / "stderr.txt" if number == 0 else folder / "ranks" / f"{number}.err"
        lines = [line.strip() for line in tail(text) if line.strip()]
        phases = [line.partition(":")[2].strip() for line in lines if line.startswith("phase:")]
        words = [line for line in lines if not line.startswith(LAUNCHER_WORDS)]
        found.append(
            Rank(
                number,
                str(begun.get("host", "")),
                int(begun.get("pid", 0)),
                end,
                str(end.get("phase") or (phases[-1] if phases else "")),
                words[-1][:300] if words else "",
            )
        )
    return sorted(found, key=lambda rank: rank.number)


def has_failed(folder: Path) -> bool:
    """Whether a rank has said so long ago that the launcher should have ended the others by now.

    How long is what this process has watched: the rank's node may have another clock.
    """
    for file in (folder / "ranks").glob("*.end.json"):
        end = _read(file)
        if end and end.get("status") not in DONE_STATUSES and claims.WATCH.silent_s(file) > FAILURE_GRACE_S:
            return True
    return False


def verdict(folder: Path, world_size: int, oom_kill: bool) -> tuple[str, str] | None:
    """Status and error of a failed case, with the rank that failed first; None where no rank said or left anything."""
    ranks = ranks_of(folder)
    failed = sorted((r for r in ranks if r.end.get("status") not in (None, *DONE_STATUSES)), key=_when)
    own = [r for r in failed if not r.end.get("lost_peer") and r.end["status"] != "preempted"]
    if own:
        first = own[0]
        return first.end["status"], f"{first.name(world_size)} in phase '{first.phase}': {first.end['error']}"
    killed = _said_killed(folder, ranks) or ([r for r in ranks if not r.end] if failed else [])
    if killed:
        return _killed(killed, world_size, oom_kill)
    if failed:
        first = failed[0]
        return first.end["status"], f"{first.name(world_size)} in phase '{first.phase}': {first.end['error']}"
    if ranks and len(ranks) < world_size:
        came = {r.number for r in ranks}
        missing = ", ".join(str(n) for n in range(world_size) if n not in came)
        return "crashed", f"rank {missing} of {world_size} never began; the launcher's words are in {folder}/stderr.txt"
    return None


def said_out_of_memory(folder: Path) -> bool:
    """Whether Slurm has said so; a kernel counts its own victims alone, and the ranks may be on another node."""
    return any(_OUT_OF_MEMORY.match(line) for line in tail(folder / "stderr.txt", 65_536))


def where_they_stood(folder: Path, world_size: int) -> str:
    """For a case that hung: where each rank stood when it was ended, the odd ones first."""
    ranks = ranks_of(folder)
    places: dict[str, list[int]] = {}
    for rank in ranks:
        said = str(rank.end.get("error") or "")
        place = said.partition(", at ")[2] or "?"
        words = f"in phase '{rank.phase}' at {place}" if rank.end else f"in phase '{rank.phase}', silent"
        places.setdefault(words, []).append(rank.number)
    for number in range(world_size):
        if number not in {rank.number for rank in ranks}:
            places.setdefault("never began", []).append(number)
    groups = sorted(places.items(), key=lambda item: len(item[1]))
    return "; ".join(f"rank {_numbers(numbers)} {words}" for words, numbers in groups[:4])


def end_leftovers(folder: Path) -> int:
    """Kill what still runs of this attempt on this machine, wherever its launcher put it; gives how many there were.

    Ranks carry the attempt's folder, which is named by time and chance, among their arguments, and what they start in
    its environment.
    """
    wanted = os.fsencode(str(folder))
    mark = os.fsencode(f"{MARK}={folder}")
    count = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if entry.stat().st_uid != os.geteuid():
                continue
            said = (entry / "cmdline").read_bytes().split(b"\0"), (entry / "environ").read_bytes().split(b"\0")
            if wanted in said[0] or mark in said[1]:
                os.kill(int(entry.name), signal.SIGKILL)
                count += 1
    return count


def _killed(killed: list[Rank], world_size: int, oom_kill: bool) -> tuple[str, str]:
    names = ", ".join(rank.name(world_size) for rank in killed[:4])
    phase = f" in phase '{killed[0].phase}'" if killed[0].phase else ""
    words = f"; last words: {killed[0].last_words}" if killed[0].last_words else "; it left no last words"
    if oom_kill:
        return "oom", f"{names} was ended by the kernel for want of memory{phase}{words}"
    return "crashed", f"{names} was killed{phase}{words}"


def _said_killed(folder: Path, ranks: list[Rank]) -> list[Rank]:
    """The ranks that the launcher found killed, the first named alone: later ones it killed itself."""
    text = "\n".join(tail(folder / "stderr.txt", 65_536) + tail(folder / "stdout.txt", 65_536))
    for pattern, kind in _KILLED:
        match = pattern.search(text)
        if match is None:
            continue
        number = int(match.groupdict().get("local") or match.group(1))
        found = [r for r in ranks if (r.pid if kind == "pid" else r.number) == number and not r.end]
        if found:
            return found
    return []


def _when(rank: Rank) -> float:
    return float(rank.end.get("at_s", 0.0))


def _numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = load_json(read_text(path))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
