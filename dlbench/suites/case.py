"""One case (the setting to measure) and its protocol (how it is measured). Plain data, no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from dlbench import units
from dlbench.errors import BadInput, UnknownName
from dlbench.safe_names import short_repr
from dlbench.toml_file import require_type

MODES = ("training", "inference")
#: amp_*: autocast with weights in fp32. bf16, fp16: weights, inputs and the whole step in that type.
PRECISIONS = ("fp32", "tf32", "amp_bf16", "amp_fp16", "bf16", "fp16")
MEMORY_FORMATS = ("channels_first", "channels_last")
COMPILE_MODES = ("off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
#: These capture CUDA graphs themselves.
_GRAPH_MODES = ("reduce-overhead", "max-autotune")
OPTIMIZERS = ("sgd", "adam", "adamw", "adagrad", "rmsprop")
#: How the update runs: one parameter after the other, many in one call, or all in one kernel. "auto": PyTorch's choice.
OPTIMIZER_IMPLS = ("auto", "plain", "foreach", "fused")
#: "synthetic": one random batch, already on the device; "synthetic_host": pinned host batches copied in each step.
#: "jpeg": image files, decoded, augmented and copied while the device computes.
DATA_SOURCES = ("synthetic", "synthetic_host", "jpeg")
#: Beside PyTorch's DataLoader: NVIDIA DALI, which decodes on the GPU.
LOADERS = ("torch", "dali")
#: "auto" becomes the kind of device that is there before a case is created, so that a case always contains its device.
#: "cuda" is NVIDIA's and AMD's; "xpu" (Intel) and "mps" (Apple) are untried.
DEVICES = ("auto", "cuda", "cpu", "xpu", "mps")
ENERGY_CHOICES = ("auto", "none")
#: On a CPU: "keep" freed memory for the next step, or return it to the "system" (page faults make steps uneven).
HEAPS = ("keep", "system")
#: "auto": NCCL between GPUs, Gloo between CPUs, and no group for a single rank; a name creates a group even for one
#: rank.
BACKENDS = ("auto", "nccl", "gloo", "mpi")
SWITCHES = ("off", "on")
#: Format of gradients during communication: unchanged, or compressed to 16 bits.
COMM_HOOKS = ("none", "fp16", "bf16")
#: The usual confidence level, which is not printed.
USUAL_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Protocol:
    """How a case is measured: warm-up, window, stopping, limits.

    A window ends when it has lasted `min_time_s`, has `min_steps` steps, and the half-width of the `confidence`
    interval of the median step time is at most `target_half_width` of that median (see `dlbench.worker.stopping` for
    how often this is checked); at `max_time_s` or `max_steps` it ends in any case and the case is recorded as
    unstable. Fewer than 20 steps give no interval.
    """

    warmup_min_steps: int = 5
    warmup_min_time_s: float = 1.0
    warmup_max_time_s: float = 60.0
    min_time_s: float = 5.0
    min_steps: int = 30
    max_time_s: float = 60.0
    max_steps: int = 100_000
    confidence: float = USUAL_CONFIDENCE
    target_half_width: float = 0.005
    timeout_s: float = 900.0
    energy: str = "auto"
    idle_time_s: float = 2.0
    seed: int = 0
    heap: str = "keep"
    #: Whether the result is compared with fp32 on the CPU (`dlbench.worker.fingerprint`); a wrong case is `invalid`.
    fingerprint: str = "off"
    #: Warm-up goes on until the device is this warm [°C]; 0: its temperature does not matter.
    warmup_until_c: float = 0.0

    def __post_init__(self) -> None:
        for name in ("warmup_min_steps", "min_steps", "max_steps"):
            require_valid(getattr(self, name) >= 1, f"protocol.{name}", getattr(self, name), "at least 1")
        for name in ("warmup_min_time_s", "warmup_max_time_s", "min_time_s", "idle_time_s"):
            require_valid(getattr(self, name) >= 0, f"protocol.{name}", getattr(self, name), "at least 0 s")
        for name in ("max_time_s", "timeout_s"):
            require_valid(getattr(self, name) > 0, f"protocol.{name}", getattr(self, name), "above 0 s")
        require_valid(
            0 <= self.warmup_until_c <= 120, "protocol.warmup_until_c", self.warmup_until_c, "from 0 to 120 °C"
        )
        require_valid(0.5 <= self.confidence <= 0.9999, "protocol.confidence", self.confidence, "from 0.5 to 0.9999")
        require_valid(
            0 < self.target_half_width < 1, "protocol.target_half_width", self.target_half_width, "between 0 and 1"
        )
        require_valid(self.min_time_s <= self.max_time_s, "protocol.min_time_s", self.min_time_s, "at most max_time_s")
        require_valid(self.min_steps <= self.max_steps, "protocol.min_steps", self.min_steps, "at most max_steps")
        require_choices(self, {"energy": ENERGY_CHOICES, "heap": HEAPS, "fingerprint": SWITCHES}, "protocol")


@dataclass(frozen=True)
class Case:
    """The setting that one process (per device) measures: one network, one mode, one value of every axis."""

    model: str
    mode: str = "training"
    precision: str = "fp32"
    memory_format: str = "channels_first"
    batch_size: int = 32
    device: str = "cpu"
    nodes: int = 1
    devices_per_node: int = 1
    compile: str = "off"
    optimizer: str = "sgd"
    data: str = "synthetic"
    #: The number of the process: a case is measured in several (`processes` of a suite), each with its own number.
    repeat: int = 0
    #: Data-parallel training: how DistributedDataParallel reduces gradients.
    backend: str = "auto"
    bucket_cap_mb: int = 25
    gradient_as_bucket_view: str = "off"
    static_graph: str = "off"
    comm_hook: str = "none"
    optimizer_impl: str = "auto"
    #: With data "jpeg": what loads the files, in how many processes (DALI: threads) beside the one that trains, and
    #: from which folder.
    loader: str = "torch"
    loader_workers: int = 0
    data_path: str = ""  # "" is the set that dlbench makes of photographs that ship with its packages
    #: The whole step (forward, in training also backward and optimizer) as one CUDA graph.
    cuda_graph: str = "off"
    cudnn_benchmark_limit: int = 10  # algorithms that cuDNN tries per convolution; 0 is all
    prefetch: str = "off"  # batches from the host are copied in a stream of their own, one step ahead
    fold_batch_norm: str = "off"  # inference: into the layer before it
    freeze: str = "off"  # inference, compiled: weights become constants, in the layout that kernels want
    flush_denormals: str = "off"  # on the CPU: numbers below 1e-38 become zero
    threads: int = 0  # of a CPU process; 0 is PyTorch's choice
    #: Settings of the GPU itself, in force for this case alone; 0: as the device is. See docs/power.md.
    power_cap_w: int = 0
    clock_mhz: int = 0
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        require_choices(self, CHOICES)
        for axis in ("batch_size", "nodes", "devices_per_node", "bucket_cap_mb"):
            require_valid(getattr(self, axis) >= 1, axis, getattr(self, axis), "at least 1")
        for axis in ("repeat", "loader_workers", "cudnn_benchmark_limit", "threads", "power_cap_w", "clock_mhz"):
            require_valid(getattr(self, axis) >= 0, axis, getattr(self, axis), "at least 0")
        if self.optimizer_impl == "fused" and self.optimizer == "rmsprop":
            raise BadInput("optimizer_impl is 'fused', but PyTorch has no fused RMSprop; use plain or foreach")

    def require_compatible_axes(self) -> None:
        """Check that the axes fit together, once the device is known. Raises BadInput if two exclude each other."""
        for axis, device in DEVICE_OF_AXIS.items():
            if self.device not in (device, "auto") and axis in changed_axes(self):
                where = "a GPU" if device == "cuda" else "a CPU"
                raise BadInput(
                    f"{axis} is '{getattr(self, axis)}', which works on {where} only; remove it, or exclude these "
                    f"cases by device"
                )
        if self.freeze == "on" and self.compile == "off":
            raise BadInput("freeze is 'on', but compile is 'off'; set compile = \"default\"")
        if self.cuda_graph == "on" and self.compile in _GRAPH_MODES:
            raise BadInput(
                f"cuda_graph is 'on', but compile '{self.compile}' captures graphs itself; set compile to "
                f"max-autotune-no-cudagraphs or default"
            )
        if self.cuda_graph == "on" and (self.is_distributed or self.data == "jpeg"):
            what = "several ranks" if self.is_distributed else "data 'jpeg'"
            raise BadInput(f"cuda_graph is 'on', but a CUDA graph does not support {what}; set cuda_graph = \"off\"")

    @property
    def world_size(self) -> int:
        """Number of ranks: one per device, over all nodes."""
        return self.nodes * self.devices_per_node

    @property
    def is_distributed(self) -> bool:
        """Whether a process group is created: for several ranks, or if a backend is named."""
        return self.world_size > 1 or self.backend != "auto"

    @cached_property
    def id(self) -> str:
        """Id of this case: 12 hex digits; equal cases have equal ids, on any machine and in any version.

        Values equal to their default are omitted, so that an axis added later does not change the ids of older cases.
        """
        canonical = json.dumps(_fields_without_defaults(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @cached_property
    def first_process_id(self) -> str:
        """The id of the case's first process: equal for all processes of one case."""
        return self.id if self.repeat == 0 else dataclasses.replace(self, repeat=0).id

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain JSON types, the protocol as a nested dictionary."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Case:
        """Build a case from the result of `to_dict`. Raises BadInput for an unknown key, a wrong type or range."""
        if not isinstance(values, dict):
            raise BadInput(f"a case must be an object with axes as keys, not {short_repr(values)}")
        rest = dict(values)
        protocol = make_protocol(rest.pop("protocol", {}))
        return Case(protocol=protocol, **check_field_types(Case, rest, "case"))


CHOICES: dict[str, tuple[str, ...]] = {
    "mode": MODES,
    "precision": PRECISIONS,
    "memory_format": MEMORY_FORMATS,
    "device": DEVICES,
    "compile": COMPILE_MODES,
    "optimizer": OPTIMIZERS,
    "optimizer_impl": OPTIMIZER_IMPLS,
    "data": DATA_SOURCES,
    "loader": LOADERS,
    "backend": BACKENDS,
    "gradient_as_bucket_view": SWITCHES,
    "static_graph": SWITCHES,
    "comm_hook": COMM_HOOKS,
    **dict.fromkeys(("cuda_graph", "prefetch", "fold_batch_norm", "freeze", "flush_denormals"), SWITCHES),
}
#: The only kind of device on which an axis may differ from its default.
DEVICE_OF_AXIS = {
    **dict.fromkeys(("cuda_graph", "cudnn_benchmark_limit", "prefetch", "power_cap_w", "clock_mhz"), "cuda"),
    **dict.fromkeys(("flush_denormals", "threads"), "cpu"),
}
#: Names of all axes, in the order in which they are combined and listed.
AXES: tuple[str, ...] = tuple(f.name for f in fields(Case) if f.name != "protocol")
#: Values that are not understood by themselves.
_NAMES = {
    "synthetic": "synthetic data",
    "synthetic_host": "synthetic data copied from host memory",
    "jpeg": "JPEG files",
    "torch": "DataLoader",
    "dali": "DALI",
}
#: Default value of each axis.
AXIS_DEFAULTS = {f.name: f.default for f in fields(Case) if f.name in AXES}


def changed_axes(case: Case) -> list[str]:
    """Return the axes whose value is not the default, in their order."""
    return [axis for axis in AXES if getattr(case, axis) != AXIS_DEFAULTS[axis]]


def describe_axis(axis: str, value: object) -> str:
    """Describe one value of an axis: "compile default", "8 threads"; "" for what needs no words, its plain default."""
    return "" if value == AXIS_DEFAULTS.get(axis) else describe_axis_value(axis, value)


def describe_axis_value(axis: str, value: object) -> str:
    """Name one value of an axis, so that it is understood without its heading: "2 loader workers", "JPEG files"."""
    if axis in ("threads", "loader_workers"):
        return units.count_text(int(str(value)), axis.replace("_", " ").removesuffix("s"))
    if axis in ("power_cap_w", "clock_mhz"):
        return f"{value} {'W' if axis == 'power_cap_w' else 'MHz'}"
    if axis == "bucket_cap_mb":
        return f"buckets of {value} MB"
    if CHOICES.get(axis) == SWITCHES:
        return axis.replace("_", " ")
    named = axis in ("compile", "cudnn_benchmark_limit", "comm_hook")
    return f"{axis.replace('_', ' ')} {value}" if named else _NAMES.get(str(value), str(value))


def make_protocol(values: dict[str, Any], where: str = "protocol") -> Protocol:
    """Build a protocol from plain values; errors about unknown keys and wrong types contain `where`."""
    return Protocol(**check_field_types(Protocol, values, where))


def check_field_types(cls: type, values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Check the types of `values`; make integers floats where required. Raises UnknownName for a key, or BadInput."""
    if not isinstance(values, dict):
        raise BadInput(f"{where} must be a table of keys and values, not {short_repr(values)}")
    types = {f.name: _TYPES[f.type] for f in fields(cls) if f.type in _TYPES}
    for key in values:
        if key not in types:
            kind = {Case: "axis", Protocol: "protocol key"}.get(cls, "key")
            raise UnknownName(kind, key, types, where)
    return {key: require_type(value, types[key], key, where) for key, value in values.items()}


#: Annotation of a field -> type of its values.
_TYPES: dict[Any, type] = {"str": str, "int": int, "float": float}


def require_valid(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raise BadInput: the value of `name` is not what it must be, unless the condition holds."""
    if not condition:
        raise BadInput(f"{name} is {value}; it must be {wanted}")


def require_choices(values: object, choices: Mapping[str, Sequence[str]], table: str = "") -> None:
    """Raise UnknownName for the first field of `values` whose value is not among its choices."""
    for name, known in choices.items():
        if getattr(values, name) not in known:
            raise UnknownName(name, getattr(values, name), known, f"{table}.{name}" if table else "")


def _fields_without_defaults(value: Any) -> dict[str, Any]:
    """Return the fields of dataclass `value` that differ from their defaults, also nested ones."""
    differing: dict[str, Any] = {}
    for f in fields(value):
        current = getattr(value, f.name)
        if f.default is not dataclasses.MISSING and current == f.default:
            continue  # checked first: a large campaign calls this for 10 000 cases
        if dataclasses.is_dataclass(current):
            nested = _fields_without_defaults(current)
            if nested:
                differing[f.name] = nested
        else:
            # 20 and 20.0 seconds are the same protocol.
            differing[f.name] = float(current) if f.type == "float" else current
    return differing
