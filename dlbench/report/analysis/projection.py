"""What a whole training would take: time, energy and money, from measured throughput and power.

A projection is no measurement: it is one multiplied by assumptions, and so they travel with it as sentences.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput, InvalidMeasurement, UnknownName
from dlbench.safe_names import short_repr
from dlbench.stats import Interval
from dlbench.toml_file import read_toml, require_type

JOULES_PER_KWH = 3.6e6
#: About the age of the universe: nothing is projected beyond it [s].
HIGHEST_TIME_S = 4e17
#: A price beyond this, in whatever currency, and a building that uses so many times what its computers use, are slips.
HIGHEST_PRICE, HIGHEST_PUE = 1e12, 100.0
#: How the assumptions on money begin.
COST_SENTENCE_STARTS = ("Electricity costs", "A device costs", "The devices themselves", "No cost is given")
#: What an energy holds and what it does not, by the meter's scope.
_ENERGY_SCOPE_NOTES = {
    "package": "Energy is that of whole CPU packages and their memory, without the rest of the hosts.",
    "device": "Energy is the gross energy of the devices, without hosts, interconnect and storage.",
}


@dataclass(frozen=True)
class Prices:
    """What electricity and devices cost; None is a price that is not counted."""

    currency: str
    per_kwh: float | None = None
    per_device_hour: float | None = None
    pue: float = 1.0  # power usage effectiveness: energy of the whole building over that of its computers
    systems: Mapping[str, Prices] = field(default_factory=dict)  # of systems that cost something else, by name

    def __post_init__(self) -> None:
        if self.currency.strip() == "":
            raise BadInput("currency is empty; write for example 'EUR'")
        for name in ("per_kwh", "per_device_hour"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= HIGHEST_PRICE:
                raise BadInput(f"{name} is {value:.6g}; a price must be a number from 0 to {HIGHEST_PRICE:g}")
        if not 1 <= self.pue <= HIGHEST_PUE:
            raise BadInput(
                f"pue is {self.pue}; it must be a number from 1 to {HIGHEST_PUE:g} (total energy / computing energy)"
            )
        if self.per_kwh is None and self.per_device_hour is None and not self.systems:
            raise BadInput("neither per_kwh nor per_device_hour is given; write at least one of them")

    def cost(self, device_hours: float, energy_j: float | None) -> float | None:
        """The cost in `currency`; None where electricity has a price and the energy is not known."""
        cost = device_hours * (self.per_device_hour or 0.0)
        if self.per_kwh is None:
            return cost
        return None if energy_j is None else cost + energy_j / JOULES_PER_KWH * self.pue * self.per_kwh

    def prices_of_system(self, system: str) -> Prices | None:
        """What this system costs: its own prices, else those of all; None where there are neither."""
        # What tells systems of one name apart, in brackets, costs nothing by itself.
        known = self.systems.get(system) or self.systems.get(_strip_system_suffix(system), self)
        return known if known.per_kwh is not None or known.per_device_hour is not None else None


def _strip_system_suffix(system: str) -> str:
    """The name of a system without what tells it from others of that name: "A (2 cores, 1 thread)" is an A."""
    return system.partition(" (")[0]


def unused_price_notes(prices: Prices | None, systems: Collection[str]) -> list[str]:
    """A sentence on prices of systems that none of `systems` is: a name written otherwise costs what all cost.

    No error: one file holds the prices of a site, and each report some of its systems, by names of its own.
    """
    there_are = {name for system in systems for name in (system, _strip_system_suffix(system))}
    names = sorted(set(prices.systems) - there_are) if prices is not None else []
    if not names:
        return []
    there = (
        f"The price file has prices for {', '.join(names)}, but the results have no system of such a "
        f"name; these prices are not used."
    )
    return [f"{there} Systems in the results: {', '.join(dict.fromkeys(systems))}."]


@dataclass(frozen=True)
class Projection:
    """Time, energy and cost of a training, each with the interval that follows from the measured ones.

    Energy is None when no meter was there, cost when there are no prices or they ask for an energy that is missing.
    """

    time_s: Interval
    device_hours: Interval
    energy_j: Interval | None
    cost: Interval | None
    currency: str | None
    assumptions: tuple[str, ...]


def project_training(
    num_images: int,
    num_epochs: float,
    throughput: Interval,
    num_devices: int = 1,
    power_w: Interval | float | None = None,
    prices: Prices | None = None,
    energy_scope: str | None = None,
) -> Projection:
    """Time, energy and cost to train `num_epochs` epochs on `num_images` images.

        time = images · epochs / throughput             energy = power · time
        cost = per_kwh · PUE · energy + per_device_hour · devices · time

    Limits are carried through by taking the worst of both: the upper limit of energy is that of power times that of
    time. All of them hold together at least at confidence 1 - (1 - c₁) - (1 - c₂) (Bonferroni), which is what the
    interval of energy and cost then says.

    Args:
        num_images: in one epoch.
        num_epochs: above 0; need not be whole.
        throughput: of all devices together [img/s].
        num_devices: that train together.
        power_w: average gross power of all devices together [W]; a plain number is taken as exact.
        prices: None for no cost.
        energy_scope: what the meter of that power saw, as in the record; None for the devices.

    Raises:
        BadInput: the number of images, epochs or devices is not above zero.
        InvalidMeasurement: throughput or power is not finite and above zero.
    """
    for name, value in (("images", num_images), ("epochs", num_epochs), ("devices", num_devices)):
        if not 0 < value < math.inf:
            raise BadInput(f"the number of {name} is {value}; it must be finite and above 0")
    _require_positive(throughput, "throughput", "img/s")
    total = num_images * num_epochs
    if not total / throughput.low < HIGHEST_TIME_S:
        asked = f"{num_epochs:g} epochs of {num_images:g} images"
        raise BadInput(f"{asked} would take over 10 billion years; check --images and --epochs")
    time_s = Interval(total / throughput.value, total / throughput.high, total / throughput.low, throughput.confidence)
    hours = num_devices / 3600
    device_hours = Interval(time_s.value * hours, time_s.low * hours, time_s.high * hours, time_s.confidence)
    energy_j = metered = None
    if power_w is not None:
        metered = _ENERGY_SCOPE_NOTES.get(energy_scope or "device", _ENERGY_SCOPE_NOTES["device"])
        power = power_w if isinstance(power_w, Interval) else Interval(power_w, power_w, power_w, 1.0)
        _require_positive(power, "power", "W")
        # It holds at least when both do.
        confidence = max(0.0, power.confidence + time_s.confidence - 1)
        energy_j = Interval(power.value * time_s.value, power.low * time_s.low, power.high * time_s.high, confidence)
    return Projection(
        time_s=time_s,
        device_hours=device_hours,
        energy_j=energy_j,
        cost=_cost_interval(device_hours, energy_j, prices),
        currency=prices.currency if prices is not None else None,
        assumptions=tuple(_assumption_sentences(num_images, num_epochs, num_devices, metered, prices)),
    )


def read_prices(path: Path) -> Prices:
    """The prices in a TOML file with the keys currency, per_kwh, per_device_hour and pue.

    A table [systems.NAME] replaces the last three of these for the system that a report calls so. Raises BadInput if
    the file cannot be used, UnknownName if a key is none of these.
    """
    file = read_toml(path, "a price file")
    file.require_known(file.values, _PRICE_KEYS, kind="price key")
    try:
        return prices_from_dict(file.values, str(path))
    except UnknownName:
        raise
    except BadInput as error:
        raise BadInput(str(error) if str(path) in str(error) else f"{path}: {error}") from None


_SYSTEM_PRICE_KEYS = ("per_kwh", "per_device_hour", "pue")
_PRICE_KEYS = ("currency", *_SYSTEM_PRICE_KEYS, "systems")


def prices_from_dict(values: dict[str, Any], where: str = "the prices") -> Prices:
    """Prices from plain values; unknown keys, wrong types and nonsense are errors."""
    values = dict(values)
    own = values.pop("systems", {})
    if not isinstance(own, dict) or not all(isinstance(of_system, dict) for of_system in own.values()):
        raise BadInput(f"systems is {short_repr(own)}; write a table for each system, such as [systems.H200]")
    for key, value in values.items():
        if key not in _PRICE_KEYS:
            raise UnknownName("price key", key, _PRICE_KEYS, where)
        require_type(value, *((str, key, where, "a text such as 'EUR'") if key == "currency" else (float, key, where)))
    if "currency" not in values:
        raise BadInput('currency is missing; write for example currency = "EUR"')
    for name, key in ((name, key) for name, of_system in own.items() for key in of_system):
        if key not in _SYSTEM_PRICE_KEYS:
            raise UnknownName("price key", key, _SYSTEM_PRICE_KEYS, f"systems.{name}")
    systems = {name: prices_from_dict({**values, **of_system}, where) for name, of_system in own.items()}
    return Prices(**values, systems=systems)


def _cost_interval(device_hours: Interval, energy_j: Interval | None, prices: Prices | None) -> Interval | None:
    if prices is None:
        return None
    hours = (device_hours.value, device_hours.low, device_hours.high)
    energies = (energy_j.value, energy_j.low, energy_j.high) if energy_j else (None, None, None)
    value, low, high = map(prices.cost, hours, energies)
    if value is None or low is None or high is None:
        return None
    known = energy_j if energy_j and prices.per_kwh is not None else device_hours
    return Interval(value, low, high, known.confidence)


def _assumption_sentences(
    num_images: int, num_epochs: float, num_devices: int, metered: str | None, prices: Prices | None
) -> list[str]:
    sentences = [
        f"{num_epochs:g} epochs of {num_images} images on {num_devices} device{'s' if num_devices > 1 else ''}.",
        "The whole training is assumed to run at the measured throughput: data input, storage and interconnect "
        "are fast enough, and clocks stay the same.",
        "Validation, checkpoints, start-up and interruptions are not included.",
    ]
    if metered is not None:
        sentences.append(metered)
    if prices is None:
        return sentences
    if prices.per_kwh is not None and metered is None:
        return [*sentences, "The cost is missing, because it needs the energy, which was not measured."]
    if prices.per_kwh is not None:
        building = (
            "" if prices.pue == 1 else f". The energy is multiplied by a PUE of {prices.pue:g} for cooling and losses"
        )
        sentences.append(f"Electricity costs {prices.per_kwh:g} {prices.currency} per kWh{building}.")
    if prices.per_device_hour is None:
        sentences.append("The devices themselves are assumed to be free, because the prices have no per_device_hour.")
    else:
        electricity = "included" if prices.per_kwh is None else "not included in this price, but added to it"
        rate = f"{prices.per_device_hour:g} {prices.currency}"
        sentences.append(f"A device costs {rate} per hour; electricity is {electricity}.")
    return sentences


def _require_positive(interval: Interval, name: str, unit: str) -> None:
    for value in (interval.low, interval.value, interval.high):
        if not 0 < value < math.inf:
            raise InvalidMeasurement(f"{name} is {value:g} {unit}; it must be finite and above zero")
