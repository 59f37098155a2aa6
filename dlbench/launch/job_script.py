"""Parts of job scripts that no scheduler changes: a job, its environment, its container, and quoting for the shell."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlbench.errors import BadInput
from dlbench.launch.containers import CommandRequirements, ContainerWrapping, Mount
from dlbench.launch.runtimes import RUNTIME_RECORDS
from dlbench.launch.sites import PLAIN_PATH, Site

#: Placeholder for the job id, which is set only when the script runs. No validated value can contain it.
JOB_ID_MARK = "\x1f"

_HOST_LIBRARIES = r"""
# Runtimes mount the host's driver and network libraries: list them for the records.
DLBENCH_HOST_LIBRARIES=$(
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null |
    awk '/lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|ibverbs|mlx5|pmi2|pmix)\.so/ {print $NF}' |
    xargs -r readlink -f | sort -u | paste -sd : -
) || true
export DLBENCH_HOST_LIBRARIES
"""


@dataclass(frozen=True)
class Job:
    """One campaign, or the part that one job (or array) measures."""

    suite: str  # its name
    suite_file: str  # absolute
    results: str  # absolute
    overrides: tuple[str, ...] = ()
    checkout: str | None = None  # absolute; git checkout of dlbench, unless it is installed
    nodes: int = 1
    ranks_per_node: int = 1
    array: int = 1  # how many tasks share the cases
    throttle: int | None = None  # how many of them run at a time
    user: str = ""  # "uid:gid"
    image_digest: str | None = None  # of an image file, as `dlbench image import` recorded it
    all_gpus: bool = False  # request every GPU of a node, also where fewer ranks run

    @property
    def has_several_ranks(self) -> bool:
        """Whether any case needs more than one rank."""
        return self.nodes * self.ranks_per_node > 1


def assemble_script(title: str, directives: Sequence[str], by_hand: str, *sections: Sequence[str]) -> str:
    """Join the sections of a job script below its head.

    Args:
        title: first words of its first comment.
        directives: with their mark, such as ``#SBATCH --nodes=1``.
        by_hand: lines below the directives, which end with the check that a job runs the script.
        sections: lines of each; an empty section is left out.
    """
    head = [
        "#!/bin/bash",
        f"# {title}, written by `dlbench submit`.",
        *directives,
        "# shellcheck disable=SC1003,SC1112,SC2016,SC2088 # single-quoted text is literal",
        "set -euo pipefail",
        by_hand,
    ]
    return "\n\n".join("\n".join(lines) for lines in (head, *sections) if lines) + "\n"


def container_wrapping(site: Site, job: Job, gpus: bool, nodes: int) -> ContainerWrapping:
    """Return how the site's container runtime wraps the commands of a job."""
    variables = [name for name, _ in _exported_variables(site, job)]
    if site.container.runtime != "none":
        variables += ["DLBENCH_CONTAINER_RUNTIME", "DLBENCH_CONTAINER_IMAGE", "DLBENCH_HOST_LIBRARIES"]
    needs = CommandRequirements(
        workdir=job.checkout or job.results,
        mounts=_job_mounts(site, job),
        variables=tuple(variables),
        gpus=gpus,
        mpi=site.slurm.mpi not in (None, "none"),
        nodes=nodes,
        user=job.user,
        name=f"dlbench-{JOB_ID_MARK}",
        options=site.container.options,
    )
    return RUNTIME_RECORDS[site.container.runtime].wrap(site.container.image or "", needs)


def _job_mounts(site: Site, job: Job) -> tuple[Mount, ...]:
    """Return the mounts: those of the site, then results and checkout unless already inside one."""
    mounts = list(site.container.mounts)
    for path in (job.results, job.checkout):
        if path and not any(m.source == m.target and Path(path).is_relative_to(m.source) for m in mounts):
            mounts.append(Mount(path, path))
    return tuple(mounts)


def _exported_variables(site: Site, job: Job) -> list[tuple[str, str]]:
    # A module in the current folder must not replace one of the standard library.
    exports = {"PYTHONSAFEPATH": "1"} | dict(site.environment)
    if job.checkout:
        # Before the site's own value.
        exports["PYTHONPATH"] = ":".join(filter(None, (job.checkout, exports.get("PYTHONPATH"))))
    if site.network.interface:
        exports |= {"NCCL_SOCKET_IFNAME": site.network.interface, "GLOO_SOCKET_IFNAME": site.network.interface}
    limits = {
        "DLBENCH_SET_POWER_LIMIT": site.gpus.set_power_limit,
        "DLBENCH_LOCK_CLOCK": site.gpus.lock_clock,
        "DLBENCH_UNLOCK_CLOCK": site.gpus.unlock_clock,
    }
    return [*exports.items(), *((name, command) for name, command in limits.items() if command)]


def environment_setup_lines(site: Site, job: Job, wrapping: ContainerWrapping) -> list[str]:
    """Return the lines that load modules and set variables."""
    lines = [f"results={quote_for_shell(job.results)}"]
    if site.software.modules:
        lines += [
            "# `module` is a shell function. It may be undefined in batch jobs, and it reads unset variables.",
            "set +eu",
            "# shellcheck disable=SC1091",
            "type module >/dev/null 2>&1 || . /etc/profile",
            "set -e",
            f"module load {quote_command(site.software.modules)}",
            "set -u",
        ]
    exports = [*_exported_variables(site, job), *wrapping.environment.items()]
    container = site.container
    if container.runtime == "none" and job.checkout and "PYTHONPATH" not in site.environment:
        exports.remove(("PYTHONPATH", job.checkout))
        # Before the value of modules or user; inside an image only this value.
        lines.append(f'export PYTHONPATH={quote_for_shell(job.checkout)}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    if container.runtime != "none":
        exports.append(("DLBENCH_CONTAINER_RUNTIME", container.runtime))
    lines += [f"export {name}={quote_for_shell(value)}" for name, value in exports]
    if wrapping.digest:
        lines += [
            f"digest=$({quote_command(wrapping.digest)})",
            f'export DLBENCH_CONTAINER_IMAGE={quote_for_shell(container.image or "")}@"$digest"',
        ]
    elif container.runtime != "none":
        digest = f"@{job.image_digest}" if job.image_digest else ""
        lines.append(f"export DLBENCH_CONTAINER_IMAGE={quote_for_shell(f'{container.image}{digest}')}")
    return lines + (_HOST_LIBRARIES.strip().splitlines() if container.runtime != "none" else [])


def override_options(job: Job) -> str:
    """Return the `-P` options of a job, each after a space."""
    return "".join(f" -P {quote_for_shell(override)}" for override in job.overrides)


def bash_array(name: str, argv: Sequence[str]) -> str:
    """Format a bash array `name=(...)`; if long, one line per option, and one for the remaining arguments."""
    if len(line := f"{name}=({quote_command(argv)})") <= 120:
        return line
    lines: list[list[str]] = []
    for word in argv:
        awaits_value = lines and len(lines[-1]) == 1 and lines[-1][0].startswith("-") and "=" not in lines[-1][0]
        follows_words = lines and not lines[-1][0].startswith("-")
        if word.startswith("-") or not (awaits_value or follows_words):
            lines.append([])
        lines[-1].append(word)
    return f"{name}=(\n" + "\n".join(f"  {quote_command(line)}" for line in lines) + "\n)"


def quote_for_shell(word: str) -> str:
    """Quote an argument for the shell; `JOB_ID_MARK` becomes the job id."""
    # shlex does not quote commas and a leading '='; shellcheck warns about these in arrays.
    parts = [
        f"'{part}'" if (quoted := shlex.quote(part)) == part and ("," in part or part[0] == "=") else quoted
        for part in word.split(JOB_ID_MARK)
    ]
    return '"$SLURM_JOB_ID"'.join("" if part == "''" and len(parts) > 1 else part for part in parts)


def quote_command(argv: Iterable[str]) -> str:
    """Quote arguments and join them by spaces."""
    return " ".join(quote_for_shell(word) for word in argv)


def check_paths_and_gpus(site: Site, job: Job) -> None:
    """Check that directives and runtimes accept the paths of a job, and that the nodes have enough GPUs.

    Raises BadInput: a path has characters other than letters, digits and . _ + @ = / -, or a node has too few GPUs.
    """
    for path, what in ((job.results, "the results folder"), (job.checkout or "/", "the folder of dlbench")):
        if not PLAIN_PATH.fullmatch(path):
            chars = "letters, digits and . _ + @ = / -"
            raise BadInput(f"{what} '{path}' cannot be used in a job script; use only {chars}")
    if site.has_gpus and job.ranks_per_node > site.gpus.per_node:
        raise BadInput(
            f"{job.suite} needs {job.ranks_per_node} GPUs per node; {site.file} has {site.gpus.per_node} "
            f"(gpus.per_node)"
        )
