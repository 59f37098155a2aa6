"""Whether this Python can measure: its packages, PyTorch and what that sees, NCCL."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from dlbench.launch.doctor.gpu import nvidia_devices
from dlbench.launch.doctor.machine import Finding, Place

#: Modules by what they are needed for, each with the package that brings it.
_FOR_MEASURING = {"torch": "torch", "torchvision": "torchvision", "psutil": "psutil", "pynvml": "nvidia-ml-py"}
_FOR_KEEPING = {"pyarrow": "pyarrow"}
_FOR_REPORTING = {
    **{name: name for name in ("numpy", "pandas", "scipy", "matplotlib", "jinja2", "duckdb")},
    "fpdf": "fpdf2",
}


def check_python(place: Place) -> Iterator[Finding]:
    """The interpreter that runs this."""
    yield Finding("python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def check_packages(place: Place) -> Iterator[Finding]:
    """Whether this Python can measure, keep and report, told without the seconds that importing takes."""
    if missing := _missing(_FOR_MEASURING):
        yield Finding(
            "packages",
            "fail",
            f"{sys.executable} has no {', '.join(missing)}",
            "software.python in the profile must name the Python that has them; a container's image must bring them, "
            f"see containers/README.md; or: {_pip(missing)}",
        )
    if missing := _missing(_FOR_KEEPING):
        yield Finding(
            "packages",
            "warn",
            f"{sys.executable} has no {', '.join(missing)}: the results stay in their attempts' folders",
            f"`dlbench collect` makes Parquet of them where pyarrow is installed: {_pip(missing)}",
        )
    if missing := _missing(_FOR_REPORTING):
        yield Finding(
            "packages",
            "warn",
            f"{sys.executable} has no {', '.join(missing)}: `dlbench report` and its kin need them",
            f"an image made by containers/ has them; or: {_pip(missing)}",
        )


def _missing(packages: Mapping[str, str]) -> list[str]:
    return [package for module, package in packages.items() if find_spec(module) is None]


def _pip(packages: list[str]) -> str:
    return f"{sys.executable} -m pip install {' '.join(packages)}"


def check_torch(place: Place) -> Iterator[Finding]:
    """PyTorch and what it sees."""
    answer = place.run([sys.executable, "-m", "dlbench.worker", "--probe"], 180.0)
    facts = _last_json(answer.out) if answer else None
    if facts is None:
        said = (
            ([*answer.err.strip().splitlines(), ""][-2] if answer.err.strip() else "nothing") if answer else "no answer"
        )
        inside = place.runtime != "none"
        yield Finding(
            "torch",
            "note" if inside or not place.environment.get("SLURM_JOB_ID") else "fail",
            f"this Python cannot measure: {said}",
            "planning, submitting and watching work without; what measures is the Python "
            + (
                "in the image"
                if inside
                else "of the jobs: pip install torch torchvision pyarrow psutil nvidia-ml-py there"
            ),
        )
        return
    built = f"for CUDA {facts['cuda_version']}" if facts.get("cuda_version") else "without CUDA"
    devices = facts.get("devices") or []
    names = [str(device.get("name")) for device in devices]
    sees = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "no GPU"
    yield Finding("torch", "ok", f"{facts.get('torch_version')}, built {built}; sees {sees}")
    if not devices and nvidia_devices(place):
        yield _blind_torch(place, bool(facts.get("cuda_version")))
    if devices and facts.get("nccl_version"):
        yield Finding("nccl", "ok", str(facts["nccl_version"]))
    elif devices:
        mend = (
            "this PyTorch is built without it, or its library is missing: torch.distributed.is_nccl_available() tells"
        )
        yield Finding("nccl", "warn", "PyTorch names no version of NCCL: several GPUs cannot work together", mend)


def _blind_torch(place: Place, with_cuda: bool) -> Finding:
    text = "the node has NVIDIA devices, and PyTorch sees none"
    if not with_cuda:
        return Finding(
            "torch", "fail", text, "this PyTorch is built without CUDA: install one that is, or use the image"
        )
    if place.environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        value = place.environment["CUDA_VISIBLE_DEVICES"]
        return Finding(
            "torch", "fail", text, f"CUDA_VISIBLE_DEVICES is '{value}', which hides all: ask Slurm for a GPU"
        )
    return Finding(
        "torch",
        "fail",
        text,
        "in a container: NVIDIA_VISIBLE_DEVICES=all and NVIDIA_DRIVER_CAPABILITIES=compute,utility bring libcuda in; "
        "on the host: the driver may be older than this PyTorch's CUDA wants",
    )


def _last_json(text: str) -> dict[str, Any] | None:
    for line in reversed(text.strip().splitlines()):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        return values if isinstance(values, dict) else None
    return None
