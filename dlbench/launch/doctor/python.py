"""Checks of Python: packages, PyTorch, visible devices, NCCL."""

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from dlbench.launch.doctor.gpu import nvidia_device_files
from dlbench.launch.doctor.machine import CheckContext, Finding

#: Purpose -> modules, each with the package that contains it.
_MEASURING_PACKAGES = {
    **{name: name for name in ("torch", "torchvision", "numpy", "psutil")},
    "pynvml": "nvidia-ml-py",
    "PIL": "pillow",
}
_TERMINAL_PACKAGES = {"rich": "rich", "argcomplete": "argcomplete"}
_STORAGE_PACKAGES = {"pyarrow": "pyarrow"}
_REPORT_PACKAGES = {name: name for name in ("pandas", "scipy", "matplotlib", "jinja2", "duckdb", "ruptures", "typst")}


def check_python(context: CheckContext) -> Iterator[Finding]:
    """Report the Python interpreter."""
    yield Finding("python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def check_packages(context: CheckContext) -> Iterator[Finding]:
    """Check the packages for measuring, storing and reporting, without importing them (slow)."""
    other_python = "set software.python in the profile to a Python that has these packages"
    other_python = f"{other_python} (container images: see containers/README.md), or install these packages"
    collect = "run `dlbench collect` with a Python that has pyarrow, or install it"
    image = "images built from containers/ have these packages; elsewhere, install them"
    for level, packages, effect, advice in (
        ("fail", _MEASURING_PACKAGES, "", other_python),
        ("warn", _STORAGE_PACKAGES, ": results stay in one folder per process, without Parquet files", collect),
        ("warn", _REPORT_PACKAGES, ": needed by `dlbench report` and `dlbench compare`", image),
        ("note", _TERMINAL_PACKAGES, ": needed for the progress bar or shell completion", "install them"),
    ):
        if missing := [package for module, package in packages.items() if find_spec(module) is None]:
            text = f"{sys.executable} has no {', '.join(missing)}{effect}"
            install = f"{sys.executable} -m pip install {' '.join(missing)}"
            yield Finding("packages", level, text, f"{advice}: {install}")


def check_torch(context: CheckContext) -> Iterator[Finding]:
    """Check PyTorch and the devices it sees."""
    answer = context.run([sys.executable, "-m", "dlbench.worker", "--probe"], 180.0)
    facts = _parse_last_json_line(answer.out)
    if facts is None:
        inside = context.container_runtime != "none"
        level = "note" if inside or not context.slurm_job_id else "fail"
        mend = "plan, submit and status do not need PyTorch; "
        mend += (
            "only the Python inside the container image needs PyTorch"
            if inside
            else "the Python of the jobs needs PyTorch: pip install torch torchvision pyarrow psutil nvidia-ml-py"
        )
        yield Finding("torch", level, f"this Python cannot measure: {answer.last_stderr_line('nothing')}", mend)
        return
    built = f"for CUDA {facts['cuda_version']}" if facts.get("cuda_version") else "without CUDA"
    devices = facts.get("devices") or []
    names = [str(device.get("name")) for device in devices]
    sees = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "no GPU"
    yield Finding("torch", "ok", f"{facts.get('torch_version')}, built {built}; visible devices: {sees}")
    if not devices and nvidia_device_files(context):
        text = "the node has NVIDIA devices, but PyTorch sees none"
        yield Finding("torch", "fail", text, _no_gpu_advice(context, bool(facts.get("cuda_version"))))
    if devices and facts.get("nccl_version"):
        yield Finding("nccl", "ok", str(facts["nccl_version"]))
    elif devices:
        mend = "this PyTorch is built without NCCL, or the NCCL library is missing"
        mend = f"{mend}; check torch.distributed.is_nccl_available()"
        yield Finding("nccl", "warn", "PyTorch has no NCCL: cases on several GPUs will fail", mend)


def _no_gpu_advice(context: CheckContext, with_cuda: bool) -> str:
    if not with_cuda:
        return "this PyTorch is built without CUDA; install a CUDA build, or use the image"
    if context.environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        value = context.environment["CUDA_VISIBLE_DEVICES"]
        return f"CUDA_VISIBLE_DEVICES is '{value}', which hides all GPUs; request a GPU from Slurm"
    return (
        "in a container: set NVIDIA_VISIBLE_DEVICES=all and NVIDIA_DRIVER_CAPABILITIES=compute,utility; on the "
        "host: update the driver if it is too old for this PyTorch's CUDA"
    )


def _parse_last_json_line(text: str) -> dict[str, Any] | None:
    for line in reversed(text.strip().splitlines()):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        return values if isinstance(values, dict) else None
    return None
