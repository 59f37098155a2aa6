"""Result types of `dlbench ceilings`, `profile` and `allreduce`: plain data, SI units, JSON, no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dlbench.json_text import dump_json, load_json
from dlbench.results.records import from_dict

BOUNDS_VERSION = 1
#: Kinds of ceiling: the first two in FLOP/s, the others in bytes read and written per second.
FLOP_KINDS = ("matmul", "conv")
BYTE_KINDS = ("copy", "triad")
#: The best shape of a kind again, for seconds without a pause: what the device keeps up at its power and temperature.
#: Bounds are not taken from these.
SUSTAINED_SUFFIX = "_sustained"


def is_flop_rate(kind: str) -> bool:
    """Whether the rate of this kind is in FLOP/s, not in bytes/s."""
    return kind.removesuffix(SUSTAINED_SUFFIX) in FLOP_KINDS


@dataclass(frozen=True)
class DeviceIdentity:
    """The measured device, as far as bounds depend on it."""

    system_key: str  # as in the records of `dlbench run`
    device_kind: str  # cuda | cpu
    device_name: str | None = None
    device_uuid: str | None = None
    hostname: str = ""
    cpu_model: str | None = None
    torch_version: str = ""
    dlbench_version: str = ""
    torch_threads: int | None = None


@dataclass(frozen=True)
class Ceiling:
    """One repeated operation of one shape. `time_s`: samples, seconds per call, each over `calls` calls."""

    kind: str  # matmul | conv | copy | triad | matmul_sustained | copy_sustained
    precision: str | None  # as a case names it; None for copy and triad, which move fp32
    shape: str  # matmul: "M x N x K"; conv: "N C H W -> M, R x S / stride, layout"; copy and triad: "n MiB"
    error: str | None = None  # reason for missing samples
    flop: int | None = None  # of one call
    bytes: int | None = None  # of one call, read + written, each operand and result once
    calls: int = 1
    time_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class CeilingRun:
    """All ceilings of one device, measured in one process."""

    where: DeviceIdentity
    ceilings: tuple[Ceiling, ...]
    run_id: str = ""
    started_at: str = ""
    busy_share: float | None = None  # share of the cores that others used meanwhile


@dataclass(frozen=True)
class AllReduce:
    """All-reduces of one message size. `time_s`: seconds of each repetition, on the slowest rank."""

    size_bytes: int
    time_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class AllReduceRun:
    """All-reduces (fp32 sums) between the same ranks, over message sizes."""

    where: DeviceIdentity  # of the first rank
    nodes: int
    ranks: int
    backend: str
    transport: str | None  # from `dlbench.worker.jobs.allreduce`
    sizes: tuple[AllReduce, ...]
    warning: str | None = None
    run_id: str = ""
    started_at: str = ""


@dataclass(frozen=True)
class LayerTime:
    """One module of a network: its own time per step (without its children), and the work of one step.

    Work is counted for the whole batch. Moved bytes are `elements` times the size of the precision, plus `fixed_bytes`
    of tensors without floating-point numbers.
    """

    layer: str
    kind: str  # the class of the module
    forward_s: tuple[float, ...] = ()  # one per profiled step
    backward_s: tuple[float, ...] = ()
    forward_flop: int = 0
    backward_flop: int = 0
    forward_elements: int = 0
    backward_elements: int = 0
    forward_fixed_bytes: int = 0
    backward_fixed_bytes: int = 0
    note: str | None = None  # why FLOP are a lower bound or a mean


@dataclass(frozen=True)
class ProfileRun:
    """One profiled case: its layers, the rest of the step, and steps with and without hooks [s]."""

    where: DeviceIdentity
    case: dict[str, Any]
    layers: tuple[LayerTime, ...]
    #: Time per profiled step outside layers: "input", "loss", "optimizer", "measuring", and "between" (containers).
    parts_s: dict[str, tuple[float, ...]] = field(default_factory=dict)
    #: Minimum bytes that the optimizer moves in one step: parameters, gradients and state.
    optimizer_bytes: int = 0
    step_s: tuple[float, ...] = ()  # without hooks
    hooked_step_s: tuple[float, ...] = ()  # the profiled ones, between the steps without
    clock: str = ""
    run_id: str = ""
    started_at: str = ""
    busy_share: float | None = None  # share of the cores that others used meanwhile
    network_key: str = ""  # definition of the network; "" for catalogue networks, and in earlier profiles


#: Required values that identify the case of a profile.
_CASE_KEYS = {"model", "mode", "precision", "batch_size", "optimizer"}
Run = TypeVar("Run", CeilingRun, ProfileRun, AllReduceRun)


def to_json(run: CeilingRun | ProfileRun | AllReduceRun) -> str:
    """Format `run` as JSON; NaN and infinities become null."""
    return dump_json({"dlbench_bounds_version": BOUNDS_VERSION, **dataclasses.asdict(run)})


def parse_run_json(kind: type[Run], text: str, **more: str) -> Run:
    """Parse a run that `to_json` wrote, with other values of the fields in `more`. Raises ValueError if it is none."""
    values = load_json(text)
    run: Run = from_dict(kind, values | more if isinstance(values, dict) else values)
    if isinstance(run, ProfileRun) and not _CASE_KEYS.issubset(run.case):
        raise ValueError("the case is incomplete")
    return run
