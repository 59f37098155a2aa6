"""What the checks look at and what they say: a place, commands run there, findings. A test puts a place of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlbench.launch.sites import Site

# Levels of a finding: ok, as it should be; note, worth knowing; warn, measures but less or worse; fail, will not work.
MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: str
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str = ""


def run_command(argv: Sequence[str], timeout_s: float = 30.0) -> Answer | None:
    """Run a command; None when it is not there or hangs."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Place:
    """Where the doctor looks: a machine, or what a test puts in its stead."""

    site: Site | None = None
    results: Path | None = None
    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[..., Answer | None] = run_command
    which: Callable[[str], str | None] = shutil.which
    #: A file in the results folder that the job's first node has just made: every node must see it.
    token: Path | None = None
    #: Whether a job asks, which is about to start: what it needs must be there.
    in_job: bool = False

    def read(self, path: str) -> str | None:
        """The file's text without blanks around it; None where it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether the path is there."""
        return (self.root / path.lstrip("/")).exists()

    def names(self, pattern: str) -> list[str]:
        """Names of what matches the pattern under the root."""
        return sorted(path.name for path in self.root.glob(pattern.lstrip("/")))

    @property
    def node(self) -> str:
        """What Slurm calls this node, or its host name."""
        return self.environment.get("SLURMD_NODENAME") or socket.gethostname()

    @property
    def runtime(self) -> str:
        """The container runtime of the site's profile, or "none"."""
        return self.site.container.runtime if self.site else "none"


Check = Callable[[Place], Iterator[Finding]]
