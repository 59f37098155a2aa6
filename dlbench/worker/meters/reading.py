"""Reading of a meter in one window, and its plausibility checks."""

from dataclasses import dataclass, field, replace

from dlbench.results.records import ENERGY_TOLERANCE, SHORT_ENERGY_WINDOW_S
from dlbench.worker.meters.power_trace import PowerTrace

#: Minimum number of counter ticks in a window.
FEWEST_TICKS = 20
#: Assumed length of a tick if not measured [s].
USUAL_TICK_S = 0.1


@dataclass(frozen=True)
class EnergyReading:
    """Energy of one window, with related readings; None if unknown."""

    energy_j: float | None = None
    window_s: float | None = None
    counter_j: float | None = None
    integral_j: float | None = None
    module_j: float | None = None
    idle_power_w: float | None = None
    note: str | None = None
    trace: PowerTrace = field(default_factory=PowerTrace)
    warnings: tuple[str, ...] = ()


def check_energy_window_length(reading: EnergyReading, tick_s: float) -> EnergyReading:
    """Remove the energy of a window with too few ticks; warn about a short window."""
    assert reading.window_s is not None
    if reading.window_s < FEWEST_TICKS * tick_s:
        return remove_energy(
            reading,
            f"short_energy_window: energy window of {reading.window_s:.2f} s is shorter than {FEWEST_TICKS} updates "
            f'of the counter ({FEWEST_TICKS * tick_s:#.2g} s); raise protocol.min_time_s or set energy = "none".',
        )
    if reading.window_s < SHORT_ENERGY_WINDOW_S:
        usual = f"energy is reliable if measured for at least {SHORT_ENERGY_WINDOW_S:.0f} s"
        sentence = f"short_energy_window: energy was measured for only {reading.window_s:.2f} s; {usual}."
        return replace(reading, warnings=(*reading.warnings, sentence))
    return reading


def drop_nonpositive_energy(reading: EnergyReading) -> EnergyReading:
    """Remove an energy that is not above zero: the meter does not work."""
    if reading.energy_j is None or reading.energy_j > 0:
        return reading
    sentence = (
        f"meter_still: the energy meter returned {reading.energy_j:g} J for {reading.window_s:.2f} s; it does not work."
    )
    return remove_energy(reading, sentence)


def positive_or_none(power_w: float | None) -> float | None:
    """Return `power_w` [W], or None if it is not above zero."""
    return power_w if power_w is not None and power_w > 0 else None


def compare_counter_with_integral(reading: EnergyReading) -> EnergyReading:
    """Add a warning if counter and integral differ by more than the tolerance, or the integral is missing."""
    if reading.counter_j is None or reading.energy_j is None:
        return reading
    if reading.integral_j is None:
        sentence = (
            f"energy_unchecked: no sampled power to check the energy counter "
            f"({reading.trace.error or 'the power samples have a gap'})."
        )
        return replace(reading, warnings=(*reading.warnings, sentence))
    difference = reading.integral_j / reading.counter_j - 1 if reading.counter_j else float("inf")
    if abs(difference) <= ENERGY_TOLERANCE:
        return reading
    sentence = (
        f"energy_mismatch: the integral of sampled power differs by {difference:+.1%} from the counter's "
        f"{reading.counter_j:.1f} J; up to {ENERGY_TOLERANCE:.0%} is usual."
    )
    return replace(reading, warnings=(*reading.warnings, sentence))


def remove_energy(reading: EnergyReading, warning: str) -> EnergyReading:
    """Remove the energy for the reason in `warning`, which also becomes the note."""
    note = warning.split(": ", 1)[1]
    return replace(
        reading, energy_j=None, counter_j=None, window_s=None, note=note, warnings=(*reading.warnings, warning)
    )
