"""Ceilings of a device: matrix products and convolutions in FLOP/s, copy and triad in bytes/s.

Operands are random (data changes power and clocks), results are written to preallocated memory, and the samples of one
shape are queued without waiting. Shapes that the device does not support, or that exceed their share of the time, get
a row with the reason. The best matrix product and copy run again for two seconds each: a burst can be faster than what
the device keeps up at its power limit.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from dlbench.affinity import allowed_cores
from dlbench.errors import BadInput, UnknownName
from dlbench.free_memory import allocatable_bytes
from dlbench.results.bounds_records import SUSTAINED_SUFFIX, Ceiling, CeilingRun, is_flop_rate, to_json
from dlbench.suites.case import DEVICES, Case
from dlbench.worker import accelerators
from dlbench.worker.counting.operation_macs import convolution_macs
from dlbench.worker.devices import clock_for_device, device_identity, find_device
from dlbench.worker.jobs.job_answer import write_job_answer
from dlbench.worker.machine.software import read_text_or_none
from dlbench.worker.machine.system import CPU_FOLDER, cuda_device_properties
from dlbench.worker.meters.host_watch import HostWatch
from dlbench.worker.precision import set_precision, supported_precisions
from dlbench.worker.progress import enter_phase
from dlbench.worker.timing import Clock, time_calls_by_host, time_queued_calls

#: One sample lasts about this long [s], in as many calls as that takes: a stamp costs microseconds.
SAMPLE_S = {"cuda": 0.002, "cpu": 0.01}
MIN_SAMPLES, MAX_SAMPLES = 5, 50
#: Time of a sustained ceiling [s], and of each of its samples; the largest share of the budget for all of them.
SUSTAINED_S, SUSTAINED_SAMPLE_S, SUSTAINED_SHARE = 2.0, 0.05, 0.3
#: What is measured again for seconds: kinds of ceilings.
SUSTAINED_KINDS = ("matmul", "copy")
#: A shape is skipped if one call is expected to exceed these fractions of its share and of the remaining time.
#: Estimates from small shapes are too long if launch overhead dominates.
MAX_SHARES, MAX_OF_LEFT = 0.7, 0.1
#: Minimum time for each shape, even if the budget is spent [s].
MIN_SHARE_S = 0.05
#: Arrays of copy and triad: multiple of the last-level cache, and maximum fraction of free memory. A GPU cache keeps
#: part of written data: with 4 times its size a copy would appear 10 % too fast.
CACHES, MEMORY_SHARE = {"cuda": 16, "cpu": 4}, 1 / 8
MIN_ARRAY_BYTES = 64 * 2**20

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "amp_bf16": torch.bfloat16, "amp_fp16": torch.float16}
#: Products alone, by `torch._scaled_mm`: no network computes in it here.
FP8 = "fp8"

#: M, N, K of (M x K) @ (K x N): square, near a multiple of 128, and narrow in each dimension.
MATMULS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "cpu": (
        *((n, n, n) for n in (256, 512, 1024, 2048)),
        *((n, n, n) for n in (1023, 1025)),
        *((64, 2048, 2048), (2048, 64, 2048), (2048, 2048, 64)),
    ),
    "cuda": (
        *((n, n, n) for n in (1024, 2048, 4096, 8192, 16384)),
        *((n, n, n) for n in (4095, 8191)),
        *((128, 8192, 8192), (8192, 128, 8192), (8192, 8192, 128), (4096, 8192, 16384)),
    ),
}


@dataclass(frozen=True)
class ConvShape:
    """A convolution with padding R // 2: C x H x H input, M filters of R x R."""

    C: int
    H: int
    M: int
    R: int
    stride: int = 1


#: VGG-16 conv1_2 and conv4_2, ResNet's 3x3 and 1x1 of early and late stages, a first layer.
CONVS = (
    ConvShape(1024, 14, 256, 1),
    ConvShape(256, 14, 256, 3),
    ConvShape(64, 56, 256, 1),
    ConvShape(64, 56, 64, 3),
    ConvShape(3, 224, 64, 7, 2),
    ConvShape(512, 28, 512, 3),
    ConvShape(64, 224, 64, 3),
)
CONV_BATCH = {"cpu": 4, "cuda": 128}
LAYOUTS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Microbenchmark:
    """A ceiling to be measured, and the function that creates its call with operands."""

    ceiling: Ceiling
    prepare: Callable[[], Callable[[], Any]]


def measure_ceilings(device_name: str, budget_s: float, wanted: Sequence[str] = ()) -> CeilingRun:
    """All ceilings of one device, in about `budget_s` seconds.

    Args:
        device_name: as a case names it.
        budget_s: time to measure [s].
        wanted: precisions; none for all that the device computes in.

    Raises:
        UnknownName, BadInput: no such kind of device or precision, or no time.
        DeviceUnavailable: it is not there.
    """
    if device_name not in DEVICES:
        raise UnknownName("device", device_name, DEVICES)
    if not (math.isfinite(budget_s) and budget_s > 0):
        raise BadInput(f"the time budget is {budget_s} s; it must be above 0 s")
    device = find_device(Case("none", device=device_name))
    clock = clock_for_device(device)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    computed = [*supported_precisions(device), *([FP8] if _has_fp8(device) else [])]
    for name in wanted:
        if name not in computed:
            raise UnknownName("precision", name, computed, "--precision")
    every = list(microbenchmarks(device, wanted or computed))
    waiting = list(every)
    host = HostWatch()
    host.read_before_window()
    sustained_s = min(SUSTAINED_S, SUSTAINED_SHARE * budget_s / (1 + len(wanted or computed)))
    ends_s = time.perf_counter() + budget_s - sustained_s * (1 + len(wanted or computed))
    done: list[Ceiling] = []
    with torch.inference_mode():
        while waiting:
            left_s = ends_s - time.perf_counter()
            share_s = max(MIN_SHARE_S, left_s / len(waiting))
            most_s = max(MAX_SHARES * share_s, MAX_OF_LEFT * left_s)
            done.append(_measure_ceiling(waiting.pop(0), device, clock, share_s, most_s, done))
        done += [_measure_sustained(one, clock, sustained_s) for one in _fastest_benchmarks(every, done)]
    host.read_after_window()
    return CeilingRun(device_identity(device), tuple(done), busy_share=host.busy_share)


def microbenchmarks(device: torch.device, wanted: Sequence[str]) -> Iterator[Microbenchmark]:
    """Return all microbenchmarks; small shapes of each precision first, to estimate the time of large ones."""
    for size in array_sizes(device):
        yield _copy_benchmark(size, device)
        yield _triad_benchmark(size, device)
    for precision in wanted:
        for shape in sorted(MATMULS[cpu_or_cuda(device)], key=math.prod):
            yield _matmul_benchmark(shape, precision, device)
        if precision == FP8:
            continue
        convs = [_conv_benchmark(shape, layout, precision, device) for shape in CONVS for layout in LAYOUTS]
        yield from sorted(convs, key=lambda microbenchmark: microbenchmark.ceiling.flop or 0)


def cpu_or_cuda(device: torch.device) -> str:
    """Return whose sizes the device takes: "cpu", or "cuda" for any GPU."""
    return "cpu" if device.type == "cpu" else "cuda"


def array_sizes(device: torch.device) -> list[int]:
    """Return two array sizes [bytes], both larger than the caches if memory allows."""
    if device.type == "cuda":
        cache = cuda_device_properties(device.index or 0)["l2_cache_bytes"] or 0
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type in accelerators.KINDS:
        cache = accelerators.accelerator_facts(device)["l2_cache_bytes"] or 0
        free = accelerators.free_bytes(device) or MIN_ARRAY_BYTES * round(1 / MEMORY_SHARE)
    else:
        cache, free = last_level_cache_bytes(), allocatable_bytes()
    first = max(MIN_ARRAY_BYTES, CACHES[cpu_or_cuda(device)] * cache)
    most = int(free * MEMORY_SHARE)
    factor = 2 if device.type == "cpu" else 4
    # Never empty: an array that does not fit gives a row with the reason.
    return sorted({max(2**20, min(size, most) // 2**20 * 2**20) for size in (first, factor * first)})


def last_level_cache_bytes() -> int:
    """Return the total size of the last-level caches of the usable cores; 0 if unknown.

    An array is distributed over the caches of all cores.
    """
    last: dict[str, int] = {}
    for core in allowed_cores():
        caches = [
            (
                _parse_cache_size(read_text_or_none(folder / "size") or ""),
                read_text_or_none(folder / "shared_cpu_list") or str(core),
            )
            for folder in CPU_FOLDER.glob(f"cpu{core}/cache/index*")
        ]
        if caches:
            size, sharing = max(caches)
            last[sharing] = size
    return sum(last.values())


def _parse_cache_size(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text[:-1].isdigit() and text[-1] in units else 0


def _random_array(size: int, device: torch.device) -> torch.Tensor:
    """fp32 of `size` bytes: one random MiB over and over, since a CPU draws numbers far slower than it moves them."""
    return torch.randn(2**18, device=device).repeat(size // 2**20)


def _copy_benchmark(size: int, device: torch.device) -> Microbenchmark:
    def prepare() -> Callable[[], Any]:
        source = _random_array(size, device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return Microbenchmark(Ceiling("copy", None, f"{size // 2**20} MiB", bytes=2 * size), prepare)


def _triad_benchmark(size: int, device: torch.device) -> Microbenchmark:
    """a = b + s c, counted as in McCalpin's STREAM: two arrays read, one written, no write-allocate."""

    def prepare() -> Callable[[], Any]:
        b, c = _random_array(size, device), _random_array(size, device)
        a = torch.empty_like(b)
        return lambda: torch.add(b, c, alpha=3.0, out=a)

    return Microbenchmark(Ceiling("triad", None, f"{size // 2**20} MiB", bytes=3 * size), prepare)


def _matmul_benchmark(shape: tuple[int, int, int], precision: str, device: torch.device) -> Microbenchmark:
    m, n, k = shape
    dtype, result_dtype = (DTYPES[precision],) * 2 if precision != FP8 else (torch.float8_e4m3fn, torch.bfloat16)

    def prepare() -> Callable[[], Any]:
        left = torch.randn(m, k, device=device).to(dtype)
        if precision == FP8:
            # The right operand must lie column by column.
            turned, one = torch.randn(n, k, device=device).to(dtype).t(), torch.ones((), device=device)
            return lambda: torch._scaled_mm(
                left, turned, scale_a=one, scale_b=one, out_dtype=result_dtype, use_fast_accum=True
            )
        set_precision(precision, device.type)
        right, out = torch.randn(k, n, device=device).to(dtype), torch.empty(m, n, device=device, dtype=result_dtype)
        return lambda: torch.mm(left, right, out=out)

    moved = (m * k + k * n) * dtype.itemsize + m * n * result_dtype.itemsize
    return Microbenchmark(Ceiling("matmul", precision, f"{m} x {n} x {k}", flop=2 * m * n * k, bytes=moved), prepare)


def _has_fp8(device: torch.device) -> bool:
    """Whether the device multiplies 8-bit floats: NVIDIA Ada and later."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 9)


def _conv_benchmark(shape: ConvShape, layout: str, precision: str, device: torch.device) -> Microbenchmark:
    batch, padding = CONV_BATCH[cpu_or_cuda(device)], shape.R // 2
    side = (shape.H + 2 * padding - shape.R) // shape.stride + 1
    x_shape, w_shape = (batch, shape.C, shape.H, shape.H), (shape.M, shape.C, shape.R, shape.R)
    out_shape = (batch, shape.M, side, side)

    def prepare() -> Callable[[], Any]:
        set_precision(precision, device.type)
        to: dict[str, Any] = {"dtype": DTYPES[precision], "memory_format": LAYOUTS[layout]}
        x, w = torch.randn(x_shape, device=device).to(**to), torch.randn(w_shape, device=device).to(**to)
        return lambda: functional.conv2d(x, w, stride=shape.stride, padding=padding)

    words = f"{batch} {shape.C} {shape.H} {shape.H} -> {shape.M}, {shape.R}x{shape.R}/{shape.stride}, {layout}"
    moved = sum(map(math.prod, (x_shape, w_shape, out_shape))) * DTYPES[precision].itemsize
    flop = 2 * convolution_macs(x_shape, w_shape, out_shape, transposed=False)
    return Microbenchmark(Ceiling("conv", precision, words, flop=flop, bytes=moved), prepare)


def _measure_ceiling(
    microbenchmark: Microbenchmark,
    device: torch.device,
    clock: Clock,
    share_s: float,
    most_s: float,
    done: Sequence[Ceiling],
) -> Ceiling:
    """Measure one ceiling; return its samples, or the reason for missing samples."""
    ceiling = microbenchmark.ceiling
    enter_phase(f"{ceiling.kind} {ceiling.precision or ''} {ceiling.shape}")
    expected_s = _expected_call_s(ceiling, done)
    if expected_s > most_s:
        left = f"but only {most_s:.2g} s are available"
        return replace(ceiling, error=f"skipped: one call takes about {expected_s:.2g} s, {left}")
    return _sample_ceiling(ceiling, microbenchmark, clock, SAMPLE_S[cpu_or_cuda(device)], share_s)


def _sample_ceiling(
    ceiling: Ceiling, microbenchmark: Microbenchmark, clock: Clock, sample_s: float, share_s: float
) -> Ceiling:
    """Add the samples of a ceiling, or the reason for missing samples."""
    try:
        time_s, calls = sample_call_times(microbenchmark.prepare(), clock, sample_s, share_s)
    except (RuntimeError, MemoryError) as error:
        return replace(ceiling, error=f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}")
    return replace(ceiling, time_s=time_s, calls=calls)


def _fastest_benchmarks(every: Sequence[Microbenchmark], done: Sequence[Ceiling]) -> list[Microbenchmark]:
    """Return the microbenchmark with the best rate of each precision, of the kinds that are measured for seconds."""
    best: dict[tuple[str, str | None], tuple[float, Microbenchmark]] = {}
    for one, found in zip(every, done, strict=True):
        if found.kind in SUSTAINED_KINDS and found.time_s:
            rate = ((found.flop if is_flop_rate(found.kind) else found.bytes) or 0) / min(found.time_s)
            key = (found.kind, found.precision)
            if key not in best or rate > best[key][0]:
                best[key] = (rate, one)
    return [one for _, one in best.values()]


def _measure_sustained(microbenchmark: Microbenchmark, clock: Clock, time_s: float) -> Ceiling:
    """Measure one ceiling again, for `time_s` without a pause [s]."""
    ceiling = replace(microbenchmark.ceiling, kind=f"{microbenchmark.ceiling.kind}{SUSTAINED_SUFFIX}")
    enter_phase(f"{ceiling.kind} {ceiling.precision or ''} {ceiling.shape}")
    return _sample_ceiling(ceiling, microbenchmark, clock, min(SUSTAINED_SAMPLE_S, time_s / MIN_SAMPLES), time_s)


def _expected_call_s(ceiling: Ceiling, done: Sequence[Ceiling]) -> float:
    """Time of one call [s] at the best rate of this kind and precision so far; 0 where there is none."""
    if not ceiling.flop:
        return 0.0
    alike = [c for c in done if (c.kind, c.precision) == (ceiling.kind, ceiling.precision) and c.time_s and c.flop]
    return min((ceiling.flop * min(c.time_s) / (c.flop or 1) for c in alike), default=0.0)


def sample_call_times(
    call: Callable[[], Any], clock: Clock, sample_s: float, share_s: float
) -> tuple[tuple[float, ...], int]:
    """Samples of the time of one call [s], and how many calls each is over.

    Args:
        sample_s: how long one sample should at least last [s].
        share_s: how long all of it may take [s]; exceeded up to twice where fewer than `MIN_SAMPLES` would fit.
    """
    began_s = time.perf_counter()
    time_calls_by_host(call, clock)  # holds the search for an algorithm
    once_s = time_calls_by_host(call, clock)
    calls = max(1, math.ceil(sample_s / max(once_s, 1e-7)))
    if calls > 1:
        # The single call held the gap between two stamps: what many take is nearer to the truth.
        once_s = time_calls_by_host(call, clock, calls) / calls
        calls = max(1, math.ceil(sample_s / max(once_s, 1e-7)))
    left_s = share_s - (time.perf_counter() - began_s)
    fitting = int(left_s / max(once_s * calls, 1e-7))
    # At most about twice the share, the two calls before included: else the shapes behind would have no time.
    least = max(1, min(MIN_SAMPLES, int(2 * share_s / max(once_s * calls, 1e-7)) - 2))
    count = min(MAX_SAMPLES, max(least, fitting))

    def run_calls() -> None:
        for _ in range(calls):
            call()

    return tuple(time_s / calls for time_s in time_queued_calls(run_calls, clock, count)), calls


def handle_request(request: dict[str, Any], folder: Path) -> int:
    """Measure the ceilings of the request; return the exit status."""
    device, budget_s = request.get("device", "auto"), float(request.get("budget_s", 45.0))
    return write_job_answer(folder, lambda: to_json(measure_ceilings(device, budget_s, request.get("precisions", ()))))
