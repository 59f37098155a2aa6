"""Input and output of the checks: a context, its commands, findings. Tests use a context of their own."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlbench.launch.sites import Site

# Levels: ok; note: information; warn: measures less or worse; fail: does not work.
MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    check: str
    level: str
    text: str
    mend: str = ""


@dataclass(frozen=True)
class CommandResult:
    """Output and exit status of a command."""

    status: int
    out: str
    err: str = ""

    def last_stderr_line(self, otherwise: str) -> str:
        """Return the last line of its errors, or `otherwise` if it printed none."""
        return (self.err.strip().splitlines() or [otherwise])[-1]


#: Result of a command that is missing or hangs.
NO_ANSWER = CommandResult(-1, "", "no answer")


def run_command(argv: Sequence[str], timeout_s: float = 30.0) -> CommandResult:
    """Run a command; return `NO_ANSWER` if it is missing or hangs."""
    try:
        done = subprocess.run(
            argv, capture_output=True, errors="replace", timeout=timeout_s, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return NO_ANSWER
    return CommandResult(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class CheckContext:
    """The machine to check, or a substitute in tests."""

    site: Site | None = None
    results: Path | None = None
    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[..., CommandResult] = run_command
    which: Callable[[str], str | None] = shutil.which
    #: A file in the results folder, just created by the job's first node; all nodes must see it.
    token: Path | None = None
    #: Whether the check runs at the start of a job: missing things are then failures.
    in_job: bool = False

    def read(self, path: str) -> str | None:
        """Return the stripped text of the file; None if it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether the path exists."""
        return (self.root / path.lstrip("/")).exists()

    def matching_paths(self, pattern: str) -> list[str]:
        """Return the names that match the pattern below the root."""
        return sorted(path.name for path in self.root.glob(pattern.lstrip("/")))

    @property
    def slurm_job_id(self) -> str | None:
        """Id of the Slurm job in which the check runs."""
        return self.environment.get("SLURM_JOB_ID")

    @property
    def container_runtime(self) -> str:
        """Container runtime of the site profile, or "none"."""
        return self.site.container.runtime if self.site else "none"


Check = Callable[[CheckContext], Iterable[Finding]]
