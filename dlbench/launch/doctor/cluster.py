"""Checks of network, MPI, and Slurm with its plugins."""

import re
import resource
from collections.abc import Iterator

from dlbench.launch.doctor.machine import NO_ANSWER, CheckContext, Finding

#: Messages of srun about an MPI plugin that does not load.
_MPI_PLUGIN_ERROR = re.compile(r"can ?not load|Unable to load|Invalid MPI type")


def check_network(context: CheckContext) -> Iterator[Finding]:
    """Check network interfaces and InfiniBand, for several nodes."""
    interfaces = [name for name in context.matching_paths("/sys/class/net/*") if name != "lo"]
    wanted = context.site.network.interface if context.site else None
    if wanted and wanted not in interfaces:
        text = f"interface {wanted} does not exist here; found: {', '.join(interfaces) or 'lo'}"
        mend = "set network.interface in the profile to an interface of the compute nodes; `ip -br addr` lists them"
        yield Finding("network", "fail" if context.slurm_job_id else "note", text, mend)
    boards = context.matching_paths("/sys/class/infiniband/*")
    yield Finding("network", "ok", f"{', '.join(interfaces) or 'lo only'}; InfiniBand: {', '.join(boards) or 'none'}")
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if boards and limit != resource.RLIM_INFINITY:
        text = f"locked memory is limited to {limit // 1024} KiB: NCCL will not use InfiniBand"
        mend = "ulimit -l unlimited; in Docker --ulimit memlock=-1; in Slurm PropagateResourceLimitsExcept=MEMLOCK"
        yield Finding("memlock", "warn", text, mend)


def check_mpi(context: CheckContext) -> Iterator[Finding]:
    """Check MPI, and how srun would start it."""
    program = next((name for name in ("mpirun", "mpiexec") if context.which(name)), None)
    if program:
        lines = context.run([program, "--version"]).out.strip().splitlines() or ["gives no version"]
        yield Finding("mpi", "ok", f"{program}: {lines[0]}")
    else:
        yield Finding("mpi", "note", "mpirun is not on PATH; only the launcher 'mpirun' needs it")
    wanted = context.site.slurm.mpi if context.site else None
    if wanted and context.which("srun"):
        answer = context.run(["srun", "--mpi=list"])
        listed = answer.out + answer.err
        if wanted not in re.split(r"[\s,:]+", listed):
            text = f"srun has no --mpi={wanted}: every rank would run alone, as rank 0 of 1"
            yield Finding("mpi", "fail", text, f"set slurm.mpi to one of: {' '.join(listed.split()) or 'nothing'}")
        else:
            yield from _check_mpi_plugin(context, wanted)


def _check_mpi_plugin(context: CheckContext, wanted: str) -> Iterator[Finding]:
    """Test that srun loads the plugin: a listed plugin can still lack a library."""
    # With --test-only, srun loads the plugin before it requests resources.
    how = ["--overlap", "--nodes=1"] if context.slurm_job_id else ["--test-only"]
    answer = context.run(["srun", f"--mpi={wanted}", *how, "--ntasks=1", "true"], 60.0)
    if answer.status == 0 or answer is NO_ANSWER:
        return
    if _MPI_PLUGIN_ERROR.search(answer.err):
        reason = next((line for line in answer.err.splitlines() if "load" in line), answer.err.strip())
        text = f"srun lists --mpi={wanted} but cannot load it: {reason.removeprefix('srun: error:').strip()}"
        mend = "ask the administrators to install the missing library, or change or remove slurm.mpi"
        yield Finding("mpi", "fail", text, mend)
    elif context.slurm_job_id:
        yield Finding("mpi", "fail", f"a job step with --mpi={wanted} fails: {' '.join(answer.err.split())}")


def check_slurm(context: CheckContext) -> Iterator[Finding]:
    """Check Slurm, the partition of the profile, and the pyxis plugin."""
    if context.site and context.site.scheduler != "slurm":
        return
    if not context.which("sbatch"):
        mend = "submit from a login node of the cluster" if context.site else ""
        yield Finding("slurm", "note", "sbatch is not installed here", mend)
        return
    answer = context.run(["scontrol", "ping"])
    if "UP" not in answer.out:
        said = ((answer.out + answer.err).strip().splitlines() or ["no output"])[-1]
        level = "fail" if context.site else "warn"
        yield Finding(
            "slurm", level, f"Slurm's controller is down: {said}", "try again later, or ask the administrators"
        )
        return
    version = context.run(["sbatch", "--version"])
    yield Finding("slurm", "ok", f"{version.out.strip() or 'Slurm'}; {answer.out.strip().splitlines()[0]}")
    partition = context.site.slurm.partition if context.site else None
    for name in partition.split(",") if partition else []:
        if context.run(["scontrol", "show", "partition", name]).status != 0:
            mend = "set slurm.partition to a partition that `sinfo -s` lists"
            yield Finding("slurm", "fail", f"partition '{name}' does not exist", mend)
    if context.container_runtime == "pyxis":
        if "--container-image" in context.run(["srun", "--help"]).out:
            yield Finding("pyxis", "ok", "srun has --container-image")
        else:
            text = "srun has no --container-image: the pyxis plugin is not installed"
            mend = 'ask the administrators to install it, or set container.runtime = "enroot"'
            yield Finding("pyxis", "fail", text, mend)
    if context.run(["sacct", "--noheader", "--allocations", "--jobs=1"]).status != 0:
        yield Finding(
            "slurm", "note", "Slurm has no accounting (sacct): only the results show which past jobs succeeded"
        )


def check_pbs(context: CheckContext) -> Iterator[Finding]:
    """Check PBS and the queue of the profile, where the profile uses PBS."""
    if context.site is None or context.site.scheduler != "pbs":
        return
    if not context.which("qsub"):
        yield Finding("pbs", "note", "qsub is not installed here", "submit from a login node of the cluster")
        return
    answer = context.run(["qstat", "-B"])
    if answer.status != 0:
        text = f"the PBS server does not answer: {' '.join(answer.err.split())}"
        yield Finding("pbs", "fail", text, "try again later, or ask the administrators")
        return
    yield Finding("pbs", "ok", context.run(["qsub", "--version"]).out.strip() or "PBS answers")
    queue = context.site.partition
    if queue and context.run(["qstat", "-Q", queue]).status not in (0, NO_ANSWER.status):
        yield Finding("pbs", "fail", f"queue '{queue}' does not exist", "set pbs.queue to a queue of `qstat -Q`")
