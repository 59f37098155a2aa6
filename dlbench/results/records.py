"""The types that travel from the worker to the store: plain data, SI units, JSON in and out, no torch, no pyarrow.

A worker process fills one `Measurement` and one `System` per rank; rank 0 gathers them into an `Outcome`, which is
`result.json`. The supervisor adds what only it knows (attempt, suite, exit status) and that is a `Record`. One record
becomes one Parquet row per rank (`schema.py`). Raw samples are kept; every statistic is derived from them later.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dlbench.json_text import dump_json, load_json
from dlbench.names import excerpt, why_unsafe

SCHEMA_VERSION = 1
#: ok: met its confidence target; unstable: kept, but stopped at a cap; the others carry an error.
STATUSES = ("ok", "unstable", "oom", "timeout", "crashed", "invalid", "preempted")
#: Statuses with usable samples: such a case counts as done and is not measured again.
DONE_STATUSES = ("ok", "unstable")
#: Statuses that end a case: what is too large for the memory is so the next time too. Only `--fresh` tries it again.
FINAL_STATUSES = (*DONE_STATUSES, "oom")
#: Reasons of a lower clock that somebody chose: they are recorded, but they are no throttling.
CHOSEN_CLOCKS = ("applications_clocks", "display_clocks")
#: The reason that heavy work on a healthy device has: its power limit. Others say that something is wrong with cooling,
#: supply or board.
POWER_CAP = "sw_power_cap"
#: Scopes of energy meters that all ranks of a node share.
SHARED_SCOPES = ("package", "node")
#: Other work may take this share of the cores before it is said.
BUSY_SHARE = 0.05
#: Counter and integral of an energy may differ by this share before it is said: the sensors of A100 and H100 see 25 ms
#: in 100 ms.
ENERGY_TOLERANCE = 0.05
#: An energy of a window shorter than this [s] is kept with a warning.
SHORT_ENERGY_WINDOW_S = 5.0


@dataclass(frozen=True)
class Measurement:
    """Everything one rank measured. None means that it was not or could not be measured, never 0.

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
    steady: bool | None = None  # the drift test was passed before the window opened
    stop_reason: str | None = None  # "target" | "max_time" | "max_steps"
    phase_stride: int = 1  # forward, backward, optimizer were taken in every so many-th step, from the first on
    # Getting there [s].
    import_s: float | None = None
    build_s: float | None = None
    first_step_s: float | None = None  # holds compilation and algorithm search
    # Work of a step of this batch. MAC and FLOP per image, so that the batch cannot be counted twice.
    parameters: int | None = None
    forward_macs: int | None = None
    forward_flop: int | None = None
    backward_flop: int | None = None
    pytorch_forward_flop: int | None = None  # PyTorch's own counter, as a check
    pytorch_backward_flop: int | None = None
    executed_flop: int | None = None  # forward, backward, and what activation checkpointing runs again
    flop_partial: str | None = None  # names of operations that may multiply and are not counted: FLOP are lower bounds
    flop_varies: bool | None = None  # the work differs from step to step: FLOP are means over several
    # Energy.
    energy_j: float | None = None
    energy_source: str = "none"  # nvml_counter | nvml_power | rapl | amdsmi | none
    energy_scope: str | None = None  # device | module | package | node
    energy_window_s: float | None = None  # what energy_j stands for: average power = energy_j / energy_window_s
    energy_counter_j: float | None = None  # by the counter alone, in the same window
    energy_integral_j: float | None = None  # of the sampled power, over the same time
    energy_note: str | None = None  # why there is none, or what to know about it
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
    # What the kernel did for this process in the window.
    page_faults: int | None = None  # without disk: memory that was given back and taken again, mostly
    kernel_time_s: float | None = None  # of its CPU time
    # Communication, where several ranks train together.
    communicator: str | None = None  # nccl | gloo | mpi: what carried the gradients
    transport: str | None = None  # nvlink | p2p | shared_memory | infiniband | libfabric | sockets: the slowest in use
    gradient_allreduce_s: float | None = None  # one all-reduce of all gradients, in DDP's buckets, by itself
    unsynced_step_s: tuple[float, ...] = ()  # the same step without gradient synchronisation, after the window
    # Sanity.
    loss_first: float | None = None
    loss_last: float | None = None
    warnings: tuple[str, ...] = ()  # "code: sentence"
    facts_from: str | None = None  # the attempt whose `SHARED_FACTS` these are; None where they are of this process


#: What is the same in every process of a case, and costs passes of its own: counted work, the split of memory, and on a
#: CPU the allocator's peak.
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
    """The machine, container and software that one rank ran on, as far as they can be known."""

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
    # What tells settings of one CPU apart (`dlbench.worker.machine.system.system_key`).
    job_threads: int | None = None  # torch's threads of one process of the job; `torch_threads` is this rank's share
    node_cpu_cores: int | None = None  # physical, of the whole node
    node_cpu_threads: int | None = None  # logical, of the whole node
    node_memory_bytes: int | None = None  # of the whole node; `memory_bytes` is what the job may use
    cpu_quota: float | None = None  # logical cores' worth of time that the control group allows
    cpu_binding: str | None = None  # variables that bind threads to cores
    #: Everything else: devices with their limits, loaded libraries, environment, Slurm job; JSON types only.
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a worker leaves behind as `result.json`: per rank a system and a measurement, and how it ended."""

    status: str
    error: str | None = None
    ranks: tuple[tuple[System, Measurement], ...] = ()

    def to_json(self) -> str:
        """The outcome as JSON text; NaN and infinities become null."""
        ranks = [{"system": dataclasses.asdict(s), "measurement": dataclasses.asdict(m)} for s, m in self.ranks]
        return dump_json({"status": self.status, "error": self.error, "ranks": ranks})

    @staticmethod
    def from_json(text: str) -> Outcome:
        """The outcome that `to_json` wrote; keys from a newer version are passed over.

        Raises:
            ValueError: not JSON, or not such an outcome.
        """
        values = load_json(text)
        if not isinstance(values, dict) or values.get("status") not in STATUSES:
            raise ValueError("not an outcome of a dlbench worker")
        ranks = values.get("ranks")
        if not isinstance(ranks, list) or not all(isinstance(rank, dict) for rank in ranks):
            raise ValueError("its ranks are no list of objects")
        pairs = tuple((from_dict(System, r.get("system")), from_dict(Measurement, r.get("measurement"))) for r in ranks)
        outcome: Outcome = from_dict(Outcome, values | {"ranks": []})
        return dataclasses.replace(outcome, ranks=pairs)


@dataclass(frozen=True)
class Record:
    """One attempt at one case, whatever came of it."""

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
    label: str | None = None  # what sets its side of `dlbench ab` apart, such as "b: env.OMP_NUM_THREADS=1"
    network_key: str | None = None  # which network the model's name stood for; "" where the name alone tells

    def to_json(self) -> str:
        """The record as JSON text without its ranks, which stand in `result.json` beside it."""
        return dump_json({f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "ranks"})

    @staticmethod
    def from_json(text: str, folder_name: str = "") -> Record:
        """The record that `to_json` wrote, without ranks.

        Args:
            text: what `record.json` holds.
            folder_name: the attempt's id where the text has none that may become a path.

        Raises:
            ValueError: not JSON, or not a record.
        """
        values = load_json(text)
        if isinstance(values, dict) and folder_name and why_unsafe(values.get("attempt_id")):
            values = values | {"attempt_id": folder_name}
        record: Record = from_dict(Record, values)
        if record.status not in STATUSES:
            raise ValueError(f"its status is {excerpt(record.status)}")
        return record


def shared_facts(record: Record) -> dict[str, Any] | None:
    """`SHARED_FACTS` of a measured record, for later processes of its case; None where it has not all of them.

    Ranks of one case differ in what they hold, so a case of several has none.
    """
    if record.status not in DONE_STATUSES or len(record.ranks) != 1:
        return None
    _, measured = record.ranks[0]
    facts = {name: getattr(measured, name) for name in SHARED_FACTS}
    facts["warnings"] = [w for w in measured.warnings if w.partition(":")[0] in _FACT_WARNINGS]
    # What could not be found out may be found out by another process.
    if any(w.partition(":")[0] not in ("flop_partial", "flop_varies") for w in facts["warnings"]):
        return None
    return facts | {"facts_from": measured.facts_from or record.attempt_id}


def details_of(text: object) -> dict[str, Any]:
    """What `system_details` holds; nothing where it is not what a worker writes."""
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
    """An instance of the dataclass `cls`; keys it does not know are passed over, lists become tuples.

    Fields of other dataclasses are made by the caller.

    Raises:
        ValueError: no dictionary, a field without default is missing, or a value is of another type than its field.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is {excerpt(values)}, no object with fields")
    made = {}
    for f in dataclasses.fields(cls):
        if f.name in values:
            made[f.name] = _typed(values[f.name], str(f.type), f"{f.name} of {cls.__name__}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ValueError(f"{cls.__name__} has no {f.name}")
    return cls(**made)


def _typed(value: Any, wanted: str, what: str) -> Any:
    """`value` if it is of the type that a field's annotation names: of a number in an array null is none as well."""
    optional, wanted = wanted.endswith(" | None"), wanted.removesuffix(" | None")
    if value is None and optional:
        return None
    if wanted in ("tuple[float, ...]", "tuple[int, ...]", "tuple[str, ...]"):
        if isinstance(value, list | tuple):
            return tuple(_typed(item, f"{wanted[6:-6]} | None", what) for item in value)
    elif wanted not in _KINDS or _is_kind(value, wanted):
        return tuple(value) if isinstance(value, list) else value
    raise ValueError(f"{what} is {excerpt(value)}, not {_KINDS.get(wanted, 'a list of such')}")


#: The types of fields that a file can hold, in words.
_KINDS = {
    "str": "a text",
    "int": "a whole number of up to 63 bits",
    "float": "a number",
    "bool": "true or false",
    "dict[str, Any]": "an object",
}


def _is_kind(value: Any, wanted: str) -> bool:
    if wanted == "str":
        return isinstance(value, str)
    if wanted == "bool":
        return isinstance(value, bool)
    if wanted == "dict[str, Any]":
        return isinstance(value, dict)
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or (wanted == "float" and isinstance(value, float))


def printable(text: str | None, limit: int = 2000) -> str | None:
    """A text from somebody else's code, made fit for terminals and reports: no control characters, not without end."""
    if text is None:
        return None
    clean = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text[: 2 * limit])
    return clean if len(clean) <= limit else f"{clean[:limit]} ... ({len(text)} characters)"
