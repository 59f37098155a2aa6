"""Checks of GPUs (driver, NVML permissions, clocks, other users) and of CPU energy counters."""

import re
from collections.abc import Iterator, Mapping

from dlbench.launch.doctor.machine import NO_ANSWER, CheckContext, Finding


def nvidia_device_files(context: CheckContext) -> list[str]:
    return [name for name in context.matching_paths("/dev/nvidia*") if re.fullmatch(r"nvidia\d+", name)]


def check_gpu(context: CheckContext) -> Iterator[Finding]:
    """Check GPU, driver, NVML permissions, clocks and other users."""
    devices = nvidia_device_files(context)
    if not devices:
        lacks = context.site is not None and context.site.has_gpus and context.slurm_job_id
        mend = "the job has no GPU; check gpus.request and gpus.per_node in the profile" if lacks else ""
        yield Finding("gpu", "fail" if lacks else "note", "no NVIDIA device found", mend)
        return
    answer = context.run(["nvidia-smi", f"--query-gpu={','.join(_GPU_COLUMNS)}", "--format=csv,noheader,nounits"])
    if answer.status != 0:
        said = (answer.out or answer.err).strip().splitlines()[:1]
        said = ["nvidia-smi is not installed"] if answer is NO_ANSWER else said
        text = f"{len(devices)} NVIDIA devices found, but the driver does not answer: {' '.join(said)}"
        mend = "on a host: load or repair the driver; in a container: add 'utility' to NVIDIA_DRIVER_CAPABILITIES"
        yield Finding("driver", "fail", text, mend)
        return
    for line in answer.out.strip().splitlines():
        yield from _check_one_gpu(dict(zip(_GPU_COLUMNS, (value.strip() for value in line.split(",")), strict=False)))
    yield from _check_other_gpu_processes(context)


_GPU_COLUMNS = ("index", "name", "driver_version", "power.draw", "power.limit", "clocks.sm", "clocks.max.sm",
                "clocks_throttle_reasons.active", "temperature.gpu", "memory.used", "mig.mode.current")  # fmt: skip
#: Bits of NVML's reasons for lower clocks that spoil a measurement; idle (1) and application clocks (2) do not.
_THROTTLE_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


def _check_one_gpu(gpu: Mapping[str, str]) -> Iterator[Finding]:
    name = f"GPU {gpu.get('index')}"
    limit = f"power limit {gpu.get('power.limit')} W"
    yield Finding("gpu", "ok", f"{name}: {gpu.get('name')}, driver {gpu.get('driver_version')}, {limit}")
    refused = [key for key, value in gpu.items() if "Insufficient" in value or "No permission" in value]
    if refused:
        text = f"{name}: the driver does not let this user read {', '.join(refused)}"
        mend = "records will lack energy and clocks; ask the administrators to let users read NVML"
        yield Finding("nvml", "warn", text, mend)
    elif not re.fullmatch(r"\d+(\.\d+)?", gpu.get("power.draw", "")):
        yield Finding("nvml", "warn", f"{name}: no power reading ({gpu.get('power.draw')})", "records will lack energy")
    bits = gpu.get("clocks_throttle_reasons.active", "")
    active = int(bits, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", bits) else 0
    reasons = [text for bit, text in _THROTTLE_REASONS.items() if active & bit]
    if reasons:
        clock = f"{gpu.get('clocks.sm')} of {gpu.get('clocks.max.sm')} MHz, {gpu.get('temperature.gpu')} °C"
        mend = "let the GPU cool down, or use another node; otherwise records get a warning"
        yield Finding("clocks", "warn", f"{name}: throttled by {', '.join(reasons)} at {clock}", mend)
    if gpu.get("mig.mode.current") == "Enabled":
        text = f"{name}: MIG is on: a MIG instance is slower than the whole device and has no energy reading"
        yield Finding("gpu", "warn", text)


def _check_other_gpu_processes(context: CheckContext) -> Iterator[Finding]:
    answer = context.run(["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"])
    users = answer.out.strip().splitlines() if answer.status == 0 else []
    if users:
        text = f"{len(users)} other processes use these GPUs: {'; '.join(users[:3])}"
        yield Finding("gpu users", "warn", text, "request the node exclusively (slurm.exclusive = true), or wait")


def check_energy(context: CheckContext) -> Iterator[Finding]:
    """Check the energy counters of the CPU (RAPL)."""
    if not context.exists("/sys/class/powercap/intel-rapl:0"):
        yield Finding("cpu energy", "note", "no RAPL counters on this machine: records will lack CPU energy")
    elif context.read("/sys/class/powercap/intel-rapl:0/energy_uj") is None:
        mend = "ask the administrators to run: chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        yield Finding("cpu energy", "note", "only root may read the RAPL counters", mend)
    else:
        yield Finding("cpu energy", "ok", "RAPL counters are readable")
