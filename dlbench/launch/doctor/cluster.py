"""What lies between the nodes: network, MPI, Slurm with its plugins."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator

from dlbench.launch.doctor.machine import Finding, Place

#: How srun speaks of a plugin of MPI that is there and does not work.
_NOT_LOADED = re.compile(r"can ?not load|Unable to load|Invalid MPI type")


def check_network(place: Place) -> Iterator[Finding]:
    """Interfaces and InfiniBand, for several nodes."""
    interfaces = [name for name in place.names("/sys/class/net/*") if name != "lo"]
    wanted = place.site.network.interface if place.site else None
    if wanted and wanted not in interfaces:
        yield Finding(
            "network",
            "fail" if place.environment.get("SLURM_JOB_ID") else "note",
            f"there is no interface {wanted} here, only {', '.join(interfaces) or 'lo'}",
            "network.interface in the profile must name one of the compute nodes'; `ip -br addr` lists them",
        )
    boards = place.names("/sys/class/infiniband/*")
    yield Finding("network", "ok", f"{', '.join(interfaces) or 'lo only'}; InfiniBand: {', '.join(boards) or 'none'}")
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if boards and limit != resource.RLIM_INFINITY:
        yield Finding(
            "memlock",
            "warn",
            f"only {limit // 1024} KiB may be locked in memory: NCCL will fall back from InfiniBand",
            "ulimit -l unlimited; in Docker --ulimit memlock=-1; in Slurm PropagateResourceLimitsExcept=MEMLOCK",
        )


def check_mpi(place: Place) -> Iterator[Finding]:
    """MPI, and the way srun would start it."""
    program = next((name for name in ("mpirun", "mpiexec") if place.which(name)), None)
    if program:
        answer = place.run([program, "--version"])
        lines = answer.out.strip().splitlines() if answer else []
        yield Finding("mpi", "ok", f"{program}: {lines[0] if lines else 'gives no version'}")
    else:
        yield Finding("mpi", "note", "no mpirun on PATH; srun starts ranks without it")
    wanted = place.site.slurm.mpi if place.site else None
    if wanted and place.which("srun"):
        answer = place.run(["srun", "--mpi=list"])
        listed = answer.out + answer.err if answer else ""
        if wanted not in re.split(r"[\s,:]+", listed):
            yield Finding(
                "mpi",
                "fail",
                f"srun does not know --mpi={wanted}: every rank would believe that it is alone",
                f"slurm.mpi must be one of: {' '.join(listed.split()) or 'nothing'}",
            )
        else:
            yield from _mpi_loads(place, wanted)


def _mpi_loads(place: Place, wanted: str) -> Iterator[Finding]:
    """A plugin can be listed and yet lack a library of its own: only trying shows it."""
    if place.environment.get("SLURM_JOB_ID"):
        how = ["--overlap", "--nodes=1", "--ntasks=1"]
    else:
        how = ["--test-only", "--ntasks=1"]  # srun loads the plugin before it asks for anything
    answer = place.run(["srun", f"--mpi={wanted}", *how, "true"], 60.0)
    said = answer.err if answer else ""
    if answer and answer.status != 0 and _NOT_LOADED.search(said):
        reason = next((line for line in said.splitlines() if "load" in line), said.strip())
        yield Finding(
            "mpi",
            "fail",
            f"srun lists --mpi={wanted} and cannot load it: {reason.removeprefix('srun: error:').strip()}",
            "the site must install what the plugin needs; or take another slurm.mpi, or none",
        )
    elif answer and answer.status != 0 and place.environment.get("SLURM_JOB_ID"):
        yield Finding("mpi", "fail", f"a step with --mpi={wanted} fails: {' '.join(said.split())}")


def check_slurm(place: Place) -> Iterator[Finding]:
    """The batch system, the profile's partition, and the pyxis plugin."""
    if not place.which("sbatch"):
        wanted = place.site is not None
        yield Finding(
            "slurm", "note", "sbatch is not here", "submit from a login node of the cluster" if wanted else ""
        )
        return
    answer = place.run(["scontrol", "ping"])
    if answer is None or "UP" not in answer.out:
        said = ((answer.out + answer.err).strip().splitlines() or ["nothing said"])[-1] if answer else "no answer"
        level = "fail" if place.site else "warn"
        yield Finding("slurm", level, f"Slurm's controller is not up: {said}", "wait, or ask the site")
        return
    version = place.run(["sbatch", "--version"])
    yield Finding("slurm", "ok", f"{version.out.strip() if version else 'Slurm'}; {answer.out.strip().splitlines()[0]}")
    partition = place.site.slurm.partition if place.site else None
    for name in partition.split(",") if partition else []:
        answer = place.run(["scontrol", "show", "partition", name])
        if answer is None or answer.status != 0:
            yield Finding("slurm", "fail", f"there is no partition '{name}'", "`sinfo -s` lists them: slurm.partition")
    if place.runtime == "pyxis":
        answer = place.run(["srun", "--help"])
        if answer is None or "--container-image" not in answer.out:
            yield Finding("pyxis", "fail", "srun has no --container-image: the plugin is not here",
                          'ask the site, or take container.runtime = "enroot"')  # fmt: skip
        else:
            yield Finding("pyxis", "ok", "srun has --container-image")
    answer = place.run(["sacct", "--noheader", "--allocations", "--jobs=1"])
    if answer is None or answer.status != 0:
        yield Finding(
            "slurm", "note", "no accounting (sacct): what became of old jobs is read from the results instead"
        )
