"""Every number that a report may show: its name, unit, meaning and derivation. Reports show nothing else.

`derive` computes them from the store's rows; the definitions are those of the measurement contract, and the report
prints this table as its list of definitions.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dlbench import units
from dlbench.table import Cell, default_cell_text, number_or_none


@dataclass(frozen=True)
class Metric:
    """One number of one attempt. `unit` is "1" for a pure number and "%" for a fraction that is shown as percent."""

    name: str  # the column in metrics.csv
    title: str  # above a column or beside an axis
    unit: str
    better: str  # "higher" | "lower" | "none"
    description: str
    derivation: str

    @property
    def heading(self) -> str:
        """Title with its unit, for an axis or a column: ``Throughput [img/s]``."""
        return self.title if self.unit == "1" else f"{self.title} [{self.unit}]"

    def format(self, value: float | None, significant: int = 3) -> str:
        """`value` with its unit as people read it; an en dash where it is missing."""
        if value is None or not math.isfinite(value):
            return units.MISSING
        if self.unit in _FORMAT_OF_UNIT:
            return _FORMAT_OF_UNIT[self.unit](value, significant)
        if self.unit.startswith("FLOP"):
            return units.rate_text(value, self.unit, significant)
        if self.unit.startswith("J/"):
            return units.quantity_text(value, self.unit, significant)
        if self.unit == "1":
            # A count is whole, however large.
            return default_cell_text(int(value)) if float(value).is_integer() else units.number_text(value, significant)
        return f"{units.number_text(value, significant)} {self.unit}"

    def cell_text(self, cell: Cell) -> str:
        """`show` for a cell of a table."""
        return self.format(number_or_none(cell))


_FORMAT_OF_UNIT: dict[str, Callable[[float, int], str]] = {
    "s": units.seconds_text,
    "B": units.bytes_text,
    # The digits of a share beyond the second mean little.
    "%": lambda value, significant: units.percent_text(value, min(2, significant)),
}

# Laid out by hand: name, title, unit and direction; what it is; how it is derived.
# fmt: off
_ALL_METRICS = (
    Metric("step_time", "Step time", "s", "lower",
        "Time of one step over the global batch: forward, backward and optimizer in training, forward in inference.",
        "median over the timed steps; the time of a step is that of its slowest rank"),
    Metric("step_time_half_width", "Half-width of the interval", "%", "lower",
        "Uncertainty of the median step time within one run: half the width of its confidence interval, divided by "
        "the median. Its level is protocol.confidence (95 % by default). Differences between processes are usually "
        "larger and not included.",
        "half-width / median, from order statistics; autocorrelated steps count as fewer samples (dlbench.stats)"),
    Metric("forward_time", "Forward", "s", "lower",
        "Time from the start of a step to the end of its forward pass, measured within the timed steps. The loss is "
        "part of the backward pass.",
        "median over the timed steps (if steps are short, over every phase_stride-th step); each step counts with the "
        "value of its slowest rank"),
    Metric("backward_time", "Backward", "s", "lower",
        "Time of the loss and the backward pass, measured within the timed steps. Waiting for other ranks is included.",
        "measured like the forward time"),
    Metric("optimizer_time", "Optimizer", "s", "lower",
        "Time from the end of the backward pass to the end of the step, measured within the timed steps: the update "
        "of all parameters.",
        "measured like the forward time"),
    Metric("rest_time", "Rest of the step", "s", "lower",
        "Median step time minus the medians of forward, backward and optimizer. The rest is not 0 because medians do "
        "not add up: in each single step, the three times add up to the step time.",
        "step time - forward - backward - optimizer, never below 0"),
    Metric("throughput", "Throughput", "{unit}/s", "higher",
        "{Sample}s per second over all devices of the case.",
        "global batch / median step time"),
    Metric("sustained_throughput", "Sustained throughput", "{unit}/s", "higher",
        "{Sample}s per second over the whole timed window, by the host's clock. Slow steps are included.",
        "(global batch x timed steps) / longest window of all ranks"),
    Metric("item_throughput", "Token throughput", "tok/s", "higher",
        "Tokens of the target sequence per second over all devices of the case; missing if samples are images.",
        "throughput x tokens per sequence"),
    Metric("latency_p50", "Latency p50", "s", "lower",
        "Inference: half of the batches are done within this time.",
        "50th percentile of the step times, interpolated linearly"),
    Metric("latency_p95", "Latency p95", "s", "lower",
        "Inference: 95 of 100 batches are done within this time.",
        "95th percentile of the step times, interpolated linearly"),
    Metric("latency_p99", "Latency p99", "s", "lower",
        "Inference: 99 of 100 batches are done within this time.",
        "99th percentile of the step times, interpolated linearly"),
    Metric("flop_per_image", "FLOP per {sample}", "FLOP", "none",
        "Model FLOP: counted operations of matrix products, convolutions and attention, 2 per MAC. Recomputation by "
        "activation checkpointing is not included. The count is a lower bound if flop_partial names operations.",
        "FLOP of one step (inference: forward, training: forward + backward) / {sample}s of the step"),
    Metric("executed_flop_per_image", "Executed FLOP per {sample}", "FLOP", "none",
        "FLOP per {sample} including the recomputation by activation checkpointing in the backward pass.",
        "FLOP per {sample} + FLOP of the recomputed forward operations per {sample}"),
    Metric("flop_per_step", "FLOP per step and device", "FLOP", "none",
        "Counted floating-point operations that one device does in one step.",
        "FLOP per {sample} x batch per device"),
    Metric("flop_rate", "Achieved FLOP/s", "FLOP/s", "higher",
        "Counted floating-point operations per second over all devices of the case.",
        "(FLOP per {sample} x global batch) / median step time"),
    Metric("device_peak", "Datasheet peak", "FLOP/s", "none",
        "Dense peak of one device at the case's precision, from its datasheet; missing for CPUs.",
        "dlbench/facts/device_peaks.csv, found by the device's name"),
    Metric("mfu", "Share of peak", "%", "higher",
        "Model FLOP utilisation (MFU): model FLOP/s as a share of the dense datasheet peak. Recomputation is not "
        "included.",
        "achieved FLOP/s / (datasheet peak x devices)"),
    Metric("hfu", "Share of peak with recomputation", "%", "none",
        "Hardware FLOP utilisation (HFU): executed FLOP/s as a share of the dense datasheet peak; missing if nothing "
        "is recomputed.",
        "(executed FLOP per {sample} x global batch) / (median step time x datasheet peak x devices)"),
    Metric("time_bound", "Time bound", "s", "none",
        "Lower bound of the step time: time for the floating-point operations of a step at the datasheet peak.",
        "FLOP per step and device / datasheet peak"),
    Metric("distance_to_bound", "Distance to the bound", "×", "lower",
        "Step time divided by the time bound, which counts only floating-point operations.",
        "median step time / lower bound from FLOP"),
    Metric("measured_peak", "Measured peak", "FLOP/s", "none",
        "Highest rate that a matrix product or a convolution reached on one device of the same system at the case's "
        "precision.",
        "fastest sample of `dlbench ceilings`, without samples that have a clock error; on a CPU, for the same number "
        "of threads"),
    Metric("share_of_measured_peak", "Share of measured peak", "%", "higher",
        "Achieved FLOP/s as a share of the peak measured on the same system.",
        "achieved FLOP/s / (measured peak x devices)"),
    Metric("layer_bound", "Bound with memory", "s", "none",
        "Lower bound of the step time; a step can be faster only if caches hold the moved data. Each layer counts with "
        "the longer of two times: its FLOP at the peak rate, or its bytes at the memory bandwidth. The time for the "
        "optimizer's bytes is added.",
        "FLOP and bytes from `dlbench profile` of the same case, on any device; peak and bandwidth from `dlbench "
        "ceilings`, otherwise from the datasheet"),
    Metric("distance_to_layer_bound", "Distance to the bound with memory", "×", "lower",
        "Step time divided by the bound with memory, which counts floating-point operations and moved bytes.",
        "median step time / lower bound from FLOP and memory traffic"),
    Metric("energy_per_image", "Energy per {sample}", "J/{unit}", "lower",
        "Gross energy of the metered devices per {sample}. The meter's scope states what it includes.",
        "average power / sustained throughput"),
    Metric("module_energy_per_image", "Module energy per {sample}", "J/{unit}", "lower",
        "Gross energy per {sample} of whole superchip modules, CPU included; missing on other devices.",
        "(power of the whole module, integrated over the timed window) / {sample}s in it; summed over devices"),
    Metric("energy_per_gflop", "Energy per GFLOP", "J/GFLOP", "lower",
        "Gross energy per 10^9 counted floating-point operations.",
        "energy per {sample} / FLOP per {sample}"),
    Metric("average_power", "Average power", "W", "none",
        "Mean gross power of all metered devices of the case over the time in which energy was measured.",
        "energy / duration of its measurement; summed over ranks; a meter that several ranks share counts once"),
    Metric("idle_power", "Idle power", "W", "none",
        "Idle power of the metered devices before the case. All energies are gross: they include this power.",
        "mean power before the case; summed over ranks; a meter that several ranks share counts once"),
    Metric("images_per_wh", "{Sample}s per watt-hour", "{unit}/Wh", "higher",
        "{Sample}s processed per watt-hour of gross energy.",
        "3600 J / energy per {sample}"),
    Metric("energy_disagreement", "Counter against power", "%", "lower",
        "Difference between the device's energy counter and the integral of its sampled power. If the difference is "
        "large, neither value is reliable.",
        "|integral of power / energy counter - 1|, the largest of all ranks"),
    Metric("memory_allocated", "Peak memory, allocated", "B", "lower",
        "Largest amount of memory that tensors held at once, as counted by the framework's allocator.",
        "maximum over ranks"),
    Metric("memory_reserved", "Peak memory, reserved", "B", "lower",
        "Largest amount of device memory that the framework's allocator had reserved.",
        "maximum over ranks"),
    Metric("memory_device", "Device memory in use", "B", "lower",
        "Memory of the device in use, as reported by the driver. It includes the driver's context and libraries.",
        "maximum over ranks"),
    Metric("memory_rss", "Peak host memory", "B", "lower",
        "Largest resident set of the process in host memory: framework, libraries and, on a CPU, the tensors.",
        "maximum over ranks"),
    Metric("memory_parameters", "Parameters", "B", "none",
        "Memory of the network's parameters and buffers, such as the statistics of batch normalisation.",
        "maximum over ranks; older records count the buffers in 'Workspace and rest'"),
    Metric("memory_gradients", "Gradients", "B", "none", "Memory of the parameters' gradients.", "maximum over ranks"),
    Metric("memory_optimizer", "Optimizer state", "B", "none",
        "Memory of the optimizer's state, such as momentum.",
        "maximum over ranks"),
    Metric("memory_activations", "Activations", "B", "none",
        "Memory of the tensors that the forward pass saves for the backward pass.",
        "maximum over ranks"),
    Metric("memory_workspace", "Workspace and rest", "B", "none",
        "Peak memory minus parameters with buffers, gradients, optimizer state and activations.",
        "peak - parameters and buffers - gradients - optimizer state - activations; missing if not above 0"),
    Metric("time_to_first_step", "Time to first step", "s", "lower",
        "Time from the start of the imports to the end of the first step. Compilation and algorithm search are "
        "included.",
        "import + building the network + first step; maximum over ranks"),
    Metric("loader_throughput", "Loader alone", "{unit}/s", "higher",
        "{Sample}s per second that the loader delivers when it runs alone.",
        "(batch per device x devices) / time per batch; measured after the timed window"),
    Metric("device_throughput", "Device alone", "{unit}/s", "higher",
        "{Sample}s per second if the batch is already on the device.",
        "(batch per device x devices) / median step time; measured after the timed window"),
    Metric("data_wait", "Waiting for data", "%", "lower",
        "Share of the window in which steps waited for their batches. The forward time includes this wait.",
        "waiting time of the first rank / length of its timed window"),
    Metric("accelerator_utilisation", "Utilisation (AU)", "%", "higher",
        "Accelerator utilisation, as in MLPerf Storage: step time with the data already on the device, as a share of "
        "the step time.",
        "step time with data on the device / step time"),
    Metric("loader_read_time", "Reading", "s", "lower",
        "Time to read the files of a batch, summed over the loader's processes.",
        "mean, measured after the timed window"),
    Metric("loader_decode_time", "Decoding", "s", "lower",
        "Time to decode and augment a batch, summed over the loader's processes.",
        "mean, measured after the timed window"),
    Metric("loader_memory", "Memory of the loader", "B", "lower",
        "Memory of the loader's processes; memory shared by them is divided among them.",
        "sum of the proportional set sizes (PSS) of the loader's processes on the first rank"),
    Metric("steps", "Timed steps", "1", "none", "Number of steps in the timed window.", "count of samples"),
    Metric("cv", "Coefficient of variation", "%", "lower",
        "Standard deviation of the step time divided by its mean. One outlier can dominate it.",
        "over the timed steps; the variance is divided by n - 1"),
    Metric("iqr", "IQR over median", "%", "lower",
        "Spread of the middle half of the step times. Outliers do not change it.",
        "(75th - 25th percentile) / median; missing with fewer than 4 steps"),
    Metric("autocorrelation", "Autocorrelation", "1", "none",
        "Correlation between the times of consecutive steps; 0 if they are independent.",
        "autocorrelation at lag 1; from -1 to 1"),
    Metric("outliers", "Outliers", "1", "lower",
        "Number of steps whose time lies more than 3 interquartile ranges beyond the quartiles. These steps are "
        "counted, never removed.",
        "count"),
    Metric("clock_gap", "Clock gap", "%", "lower",
        "Difference between two measurements of the window's length: by the host's clock and by the device's events.",
        "|host window - device window| / host window, the largest of all ranks"),
    Metric("sm_clock_min", "Lowest clock", "MHz", "higher",
        "Lowest clock of the device's multiprocessors seen during the window.",
        "minimum over ranks"),
    Metric("temperature_max", "Highest temperature", "°C", "lower",
        "Highest temperature of the device seen during the window.",
        "maximum over ranks"),
)
# fmt: on

#: What a sample is called, by its unit; "sample" where a report has images and sequences.
_SAMPLE_NAMES = {"img": "image", "seq": "sequence", "sample": "sample"}


def _reword_for_sample_unit(metric: Metric, unit: str) -> Metric:
    """`metric` in words for samples of this unit."""
    words = {"unit": unit, "sample": _SAMPLE_NAMES[unit], "Sample": _SAMPLE_NAMES[unit].capitalize()}
    return Metric(**{f.name: getattr(metric, f.name).format(**words) for f in dataclasses.fields(Metric)})


#: All metrics by name, in words for the samples that are shown.
METRICS: dict[str, Metric] = {metric.name: _reword_for_sample_unit(metric, "img") for metric in _ALL_METRICS}


def set_sample_unit(units_found: Iterable[str]) -> str:
    """Put `METRICS` in words for samples of these units; gives the unit. Called once when results are read."""
    found = set(units_found) & set(_SAMPLE_NAMES)
    unit = found.pop() if len(found) == 1 else "sample" if found else "img"
    METRICS.update((metric.name, _reword_for_sample_unit(metric, unit)) for metric in _ALL_METRICS)
    return unit
