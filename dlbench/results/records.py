"""Record types, from the worker to the store: plain data, SI units, JSON, no torch, no pyarrow.

A worker process fills one `Measurement` and one `System` per rank; rank 0 gathers them into an `Outcome`, which is
`result.json`. The supervisor adds attempt, suite and exit status: a `Record`. One record
becomes one Parquet row per rank (`schema.py`). Raw samples are kept; every statistic is derived from them later.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlbench.json_text import dump_json, load_json
from dlbench.safe_names import short_repr, why_unsafe_name

SCHEMA_VERSION = 1
#: ok: reached the confidence target; unstable: measured, but stopped at a limit; other statuses have an error.
STATUSES = ("ok", "unstable", "oom", "timeout", "crashed", "invalid", "preempted")
#: Statuses with usable samples: the case counts as done and is not measured again.
DONE_STATUSES = ("ok", "unstable")
#: Statuses that end a case: out of memory would fail again. Only `--fresh` tries again.
FINAL_STATUSES = (*DONE_STATUSES, "oom")
#: Reasons for lower clocks that a user set: recorded, but not throttling.
CHOSEN_CLOCK_REASONS = ("applications_clocks", "display_clocks")
#: The power limit, the normal throttle reason under load. Other reasons mean a problem of cooling, supply or board.
POWER_CAP_REASON = "sw_power_cap"
#: Scopes of energy meters that all ranks of a node share.
SHARED_SCOPES = ("package", "node")
#: Share of the cores that other processes may use before a warning.
BUSY_SHARE = 0.05
#: Relative difference between energy counter and power integral before a warning: sensors of A100 and H100 sample 25
#: ms of every 100 ms.
ENERGY_TOLERANCE = 0.05
#: Windows shorter than this get a warning about their energy [s].
SHORT_ENERGY_WINDOW_S = 5.0


@dataclass(frozen=True)
class Measurement:
    """Measured values of one rank. None means not measured; 0 is never used for that.

    Step i runs from event i to event i+1, so that the steps sum to the device's window; forward, backward (with the
    loss) and optimizer lie inside the same steps. Energy is that of the whole window, gross.
    """

    # Who measured.
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    device_name: str | None = None
    device_uuid: str | None = None
    # Raw samples, one per timed step [s].
    step_s: tuple[float, ...] = ()
    forward_s: tuple[float, ...] = ()
    backward_s: tuple[float, ...] = ()
    optimizer_s: tuple[float, ...] = ()
    clock: str | None = None  # "cuda_event" | "host"
    # The window.
    window_s: float | None = None  # host clock, synchronised at both ends
    device_window_s: float | None = None  # sum of the steps by the device's clock
    warmup_steps: int | None = None
    warmup_s: float | None = None
    warmup_step_s: tuple[float, ...] = ()
    steady: bool | None = None  # the drift test passed before the window opened
    stop_reason: str | None = None  # "target" | "max_time" | "max_steps"
    phase_stride: int = 1  # forward, backward, optimizer were timed in every n-th step, starting with the first
    # Getting there [s].
    import_s: float | None = None
    build_s: float | None = None
    first_step_s: float | None = None  # holds compilation and algorithm search
    # What a sample is: an image, or a sequence of so many tokens.
    sample_unit: str = "img"  # img | seq
    items_per_sample: int = 1
    # Work of a step of this batch. MAC and FLOP per sample, so that the batch cannot be counted twice.
    parameters: int | None = None
    forward_macs: int | None = None
    forward_flop: int | None = None
    backward_flop: int | None = None
    pytorch_forward_flop: int | None = None  # PyTorch's own counter, as a check
    pytorch_backward_flop: int | None = None
    executed_flop: int | None = None  # forward, backward, and what activation checkpointing runs again
    flop_partial: str | None = None  # names of uncounted operations that may do arithmetic: FLOP are lower bounds
    flop_varies: bool | None = None  # work differs between steps: FLOP are means over several
    # Energy.
    energy_j: float | None = None
    energy_source: str = "none"  # nvml_counter | nvml_power | rapl | amdsmi | none
    energy_scope: str | None = None  # device | module | package | node
    energy_window_s: float | None = None  # what energy_j stands for: average power = energy_j / energy_window_s
    energy_counter_j: float | None = None  # by the counter alone, in the same window
    energy_integral_j: float | None = None  # of the sampled power, over the same time
    energy_note: str | None = None  # reason for a missing energy, or a remark
    idle_power_w: float | None = None
    power_time_s: tuple[float, ...] = ()  # from the opening of the window
    power_w: tuple[float, ...] = ()
    energy_module_j: float | None = None  # superchips: the whole module with its CPU, in the window, by sampled power
    # Memory [bytes].
    memory_allocated_peak_bytes: int | None = None
    memory_reserved_peak_bytes: int | None = None
    memory_device_used_bytes: int | None = None
    memory_device_total_bytes: int | None = None
    memory_rss_peak_bytes: int | None = None
    parameter_bytes: int | None = None  # with buffers
    gradient_bytes: int | None = None
    optimizer_state_bytes: int | None = None
    activation_bytes: int | None = None  # saved for backward
    buffer_bytes: int | None = None  # those in parameter_bytes
    # State of the device, before, during (lowest clock, highest temperature) and after.
    sm_clock_before_mhz: float | None = None
    sm_clock_min_mhz: float | None = None
    sm_clock_after_mhz: float | None = None
    sm_clock_max_mhz: float | None = None  # the highest the device can do
    memory_clock_mhz: float | None = None
    temperature_before_c: float | None = None
    temperature_max_c: float | None = None
    temperature_after_c: float | None = None
    power_limit_w: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    other_processes: int | None = None  # on the same device
    # Errors of the device's memory before the case and after its window; None without ECC or without NVML.
    ecc_corrected_volatile_before: int | None = None  # since the driver was loaded
    ecc_corrected_volatile_after: int | None = None
    ecc_uncorrected_volatile_before: int | None = None
    ecc_uncorrected_volatile_after: int | None = None
    ecc_corrected_aggregate_before: int | None = None  # in the device's life
    ecc_corrected_aggregate_after: int | None = None
    ecc_uncorrected_aggregate_before: int | None = None
    ecc_uncorrected_aggregate_after: int | None = None
    rows_remapped_corrected_before: int | None = None  # memory rows replaced because of corrected errors
    rows_remapped_corrected_after: int | None = None
    rows_remapped_uncorrected_before: int | None = None
    rows_remapped_uncorrected_after: int | None = None
    remap_pending_before: bool | None = None  # a row is replaced at the next reset of the device
    remap_pending_after: bool | None = None
    remap_failed_before: bool | None = None
    remap_failed_after: bool | None = None
    xid_events: tuple[int, ...] | None = None  # numbers that the driver reported during the case
    # What the kernel did for this process in the window.
    page_faults: int | None = None  # without disk access: mostly memory that was freed and allocated again
    kernel_time_s: float | None = None  # of its CPU time
    # Communication, where several ranks train together.
    communicator: str | None = None  # nccl | gloo | mpi: transport of the gradients
    transport: str | None = None  # nvlink | p2p | shared_memory | infiniband | libfabric | sockets: the slowest in use
    gradient_allreduce_s: float | None = None  # one all-reduce of all gradients in DDP's buckets, measured separately
    unsynced_step_s: tuple[float, ...] = ()  # the same step without gradient synchronisation, after the window
    # Where image files are loaded, in the window or, alone, after it.
    data_wait_s: float | None = None  # of the window: how long steps waited for their batches
    loader_batch_s: float | None = None  # time per batch of the loader alone
    loader_read_s: float | None = None  # of this, summed over its processes: reading the files
    loader_decode_s: float | None = None  # and decoding and augmenting them
    device_step_s: float | None = None  # the step alone, its batch at hand
    loader_cpu_s: float | None = None  # CPU time of the loader's processes in the window
    loader_memory_bytes: int | None = None  # their memory, what they share counted in parts
    # Sanity.
    loss_first: float | None = None
    loss_last: float | None = None
    fingerprint_deviation: float | None = None  # from the same network in fp32 on the CPU, relative
    fingerprint_limit: float | None = None  # what rounding explains; beyond it the case is invalid
    fingerprint_of: str | None = None  # loss, outputs or gradient that came nearest to its limit
    warnings: tuple[str, ...] = ()  # "code: sentence"
    facts_from: str | None = None  # the attempt whose `SHARED_FACTS` these are; None where they are of this process


#: Facts that are the same in every process of a case and need extra passes: counted work, memory split, and on a CPU
#: the allocator peak.
SHARED_FACTS = (
    *("forward_macs", "forward_flop", "backward_flop", "pytorch_forward_flop", "pytorch_backward_flop"),
    *("executed_flop", "flop_partial", "flop_varies"),
    *("parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "activation_bytes", "buffer_bytes"),
    "memory_allocated_peak_bytes",
)
#: The codes of warnings that belong to these facts.
_FACT_WARNINGS = ("flop_unknown", "flop_partial", "flop_varies", "memory_unknown", "precision_unchecked")


@dataclass(frozen=True)
class System:
    """Machine, container and software of one rank, as far as known."""

    hostname: str = ""
    cpu_model: str | None = None
    cpu_cores: int | None = None  # physical, as this process may use
    cpu_threads: int | None = None  # logical, as this process may use
    memory_bytes: int | None = None
    device_kind: str = "cpu"  # cuda | cpu
    device_name: str | None = None
    device_count: int = 0
    driver_version: str | None = None
    os: str | None = None
    kernel: str | None = None
    python_version: str | None = None
    torch_version: str | None = None
    torchvision_version: str | None = None
    cuda_version: str | None = None
    cudnn_version: str | None = None
    nccl_version: str | None = None
    torch_threads: int | None = None
    container_runtime: str | None = None
    container_image: str | None = None
    dlbench_version: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    slurm_job_id: str | None = None
    # Settings of the CPU, part of `system_key` (`dlbench.worker.machine.system.system_key`).
    job_threads: int | None = None  # torch's threads of one process of the job; `torch_threads` is this rank's share
    node_cpu_cores: int | None = None  # physical, of the whole node
    node_cpu_threads: int | None = None  # logical, of the whole node
    node_memory_bytes: int | None = None  # of the whole node; `memory_bytes` is what the job may use
    cpu_quota: float | None = None  # CPU quota of the control group, in logical cores
    cpu_binding: str | None = None  # variables that bind threads to cores
    firmware: str | None = None  # versions: "BIOS 2.3.6, VBIOS 96.00.89.00.01" of the node and of this device
    #: Everything else: devices with their limits, loaded libraries, environment, Slurm job; JSON types only.
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Contents of `result.json`: system and measurement per rank, and status."""

    status: str
    error: str | None = None
    ranks: tuple[tuple[System, Measurement], ...] = ()

    def to_json(self) -> str:
        """Format the outcome as JSON; NaN and infinities become null."""
        ranks = [{"system": dataclasses.asdict(s), "measurement": dataclasses.asdict(m)} for s, m in self.ranks]
        return dump_json({"status": self.status, "error": self.error, "ranks": ranks})

    @staticmethod
    def from_json(text: str) -> Outcome:
        """Parse an outcome that `to_json` wrote; keys of newer versions are ignored. Raises ValueError."""
        values = load_json(text)
        if not isinstance(values, dict) or values.get("status") not in STATUSES:
            raise ValueError("it was not written by a dlbench worker")
        ranks = values.get("ranks")
        if not isinstance(ranks, list) or not all(isinstance(rank, dict) for rank in ranks):
            raise ValueError("'ranks' is not a list of JSON objects")
        pairs = tuple((from_dict(System, r.get("system")), from_dict(Measurement, r.get("measurement"))) for r in ranks)
        outcome: Outcome = from_dict(Outcome, values | {"ranks": []})
        return dataclasses.replace(outcome, ranks=pairs)


@dataclass(frozen=True)
class Record:
    """Record of one attempt at one case, with any status."""

    attempt_id: str
    case_id: str
    suite: str
    suite_version: int
    case: dict[str, Any]  # as Case.to_dict gives it
    started_at: str  # ISO 8601, UTC
    finished_at: str
    status: str
    error: str | None = None
    exit_code: int | None = None
    wall_s: float | None = None  # of the whole attempt: start-up, warm-up, window, writing
    system_key: str | None = None  # names the hardware and software stack
    ranks: tuple[tuple[System, Measurement], ...] = ()
    schema_version: int = SCHEMA_VERSION
    label: str | None = None  # side and setting of `dlbench ab`, such as "b: env.OMP_NUM_THREADS=1"
    network_key: str | None = None  # definition of the network; "" for catalogue networks

    def to_json(self) -> str:
        """Format the record as JSON, without its ranks (they are in `result.json`)."""
        return dump_json({f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "ranks"})

    @staticmethod
    def from_json(text: str, folder_name: str = "") -> Record:
        """Parse a record that `to_json` wrote, without ranks. Raises ValueError if it is none.

        `folder_name` is the attempt id to use if the text has no valid one.
        """
        values = load_json(text)
        if isinstance(values, dict) and folder_name and why_unsafe_name(values.get("attempt_id")):
            values = values | {"attempt_id": folder_name}
        record: Record = from_dict(Record, values)
        if record.status not in STATUSES:
            raise ValueError(f"its status {short_repr(record.status)} is unknown")
        return record


def reusable_facts(record: Record) -> dict[str, Any] | None:
    """`SHARED_FACTS` of a measured record, for later processes of its case; None where it has not all of them.

    Ranks of one case differ in what they hold, so a case of several has none.
    """
    if record.status not in DONE_STATUSES or len(record.ranks) != 1:
        return None
    _, measured = record.ranks[0]
    facts = {name: getattr(measured, name) for name in SHARED_FACTS}
    facts["warnings"] = [w for w in measured.warnings if w.partition(":")[0] in _FACT_WARNINGS]
    # Missing facts may be found by another process.
    if any(w.partition(":")[0] not in ("flop_partial", "flop_varies") for w in facts["warnings"]):
        return None
    return facts | {"facts_from": measured.facts_from or record.attempt_id}


def parse_system_details(text: object) -> dict[str, Any]:
    """Parse `system_details`; empty if it is not from a worker."""
    try:
        details = load_json(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    if not isinstance(details, dict):
        return {}
    kinds: dict[str, type] = {"devices": list, "libraries": list, "environment": dict, "precision_switches": dict}
    whole: dict[str, Any] = {k: v for k, v in details.items() if isinstance(v, kinds.get(k, object))}
    if "devices" in whole:
        whole["devices"] = [device for device in whole["devices"] if isinstance(device, dict)]
    return whole


def from_dict(cls: type, values: Any) -> Any:
    """Build an instance of dataclass `cls`, also those in its fields; unknown keys are ignored, lists become tuples.

    Raises ValueError if it is not a dictionary, a required field is missing, or a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is {short_repr(values)}; it must be an object with fields")
    made, names = {}, vars(sys.modules[cls.__module__])
    for f in dataclasses.fields(cls):
        if f.name in values:
            assert isinstance(f.type, str), f"{cls.__module__} must import annotations: types are checked by their text"
            made[f.name] = _check_type(values[f.name], f.type, f"{f.name} of {cls.__name__}", names)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ValueError(f"{cls.__name__} has no {f.name}")
    return cls(**made)


def _check_type(value: Any, wanted: str, what: str, names: Mapping[str, Any]) -> Any:
    """Check that `value` has the type of a field's annotation, in which `names` are those of its module.

    Null is allowed in arrays of numbers.
    """
    optional, wanted = wanted.endswith(" | None"), wanted.removesuffix(" | None")
    if value is None and optional:
        return None
    if wanted.startswith("tuple[") and wanted.endswith(", ...]"):
        if isinstance(value, list | tuple):
            of = f"{wanted[6:-6]} | None" if wanted[6:-6] in _TYPE_NAMES else wanted[6:-6]
            if of == "float | None" and set(map(type, value)) == {float}:  # samples: thousands in a window
                return tuple(value)
            return tuple(_check_type(item, of, what, names) for item in value)
    elif wanted == "dict[str, tuple[float, ...]]":
        if isinstance(value, dict):
            return {key: _check_type(item, wanted[10:-1], what, names) for key, item in value.items()}
    elif isinstance(kind := names.get(wanted), type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_dict(kind, value)
    elif wanted not in _TYPE_NAMES or _matches_annotation(value, wanted):
        return tuple(value) if isinstance(value, list) else value
    raise ValueError(f"{what} is {short_repr(value)}, not {_TYPE_NAMES.get(wanted, 'a list of such')}")


#: Field types, as messages describe them.
_TYPE_NAMES = {
    "str": "a text",
    "int": "a whole number of up to 63 bits",
    "float": "a number",
    "bool": "true or false",
    "dict[str, Any]": "an object",
}


def _matches_annotation(value: Any, wanted: str) -> bool:
    plain = {"str": str, "bool": bool, "dict[str, Any]": dict}
    if wanted in plain:
        return isinstance(value, plain[wanted])
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or (wanted == "float" and isinstance(value, float))


def printable_text(text: str | None, limit: int = 2000) -> str | None:
    """Make a foreign text safe for terminals and reports: no control characters, limited length."""
    if text is None:
        return None
    clean = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text[: 2 * limit])
    return clean if len(clean) <= limit else f"{clean[:limit]} ... ({len(text)} characters)"
