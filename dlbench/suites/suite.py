"""Suites: TOML files whose axes multiply into cases.

name = "quick"
version = 1                      # increase it if the suite changes: versions are never compared
description = "..."

[axes]                           # every combination is a case
model = ["lenet5", "resnet50"]
batch_size = [16, 32]           # per device; or global_batch = [64, 128], over all devices of a case

[[exclude]]                      # excludes cases that match all keys of one such table
model = "resnet50"
batch_size = 32                  # per device; global_batch and world_size (number of devices) may be named as well

[protocol]                       # how each case is measured; see `dlbench.suites.case.Protocol`
min_time_s = 5.0
processes = 3                    # each case is measured in so many fresh processes, ...
max_processes = 6                # ... and in up to so many while its ± is wider than target_half_width
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlbench import bundled_files
from dlbench.errors import BadInput, UnknownName
from dlbench.safe_names import short_repr
from dlbench.suites.case import (
    AXES,
    AXIS_DEFAULTS,
    CHOICES,
    DEVICES,
    Case,
    Protocol,
    changed_axes,
    check_field_types,
    make_protocol,
)
from dlbench.toml_file import TomlFile, read_toml, require_type

#: [train] is for `dlbench train` (`dlbench.suites.training`).
_TOP_LEVEL_KEYS = ("name", "version", "description", "axes", "exclude", "protocol", "train")
#: Beside the axes of a case: the batch over all devices, for strong scaling; it becomes a batch per device.
GLOBAL_BATCH = "global_batch"
#: Keys of an exclude table besides the axes; derived from the axes.
_DERIVED_AXES = (GLOBAL_BATCH, "world_size")
_SYNCHRONISATION_AXES = ("bucket_cap_mb", "gradient_as_bucket_view", "static_graph", "comm_hook")
_OPTIMIZER_AXES = ("optimizer", "optimizer_impl")
_LOADER_AXES = ("loader", "loader_workers", "data_path")
_INFERENCE_AXES = ("fold_batch_norm", "freeze")
#: Default number of fresh processes per case: fewer do not show the spread between processes.
DEFAULT_PROCESSES = 3
#: Keys of [protocol] for the number of processes; not part of a case, because processes may be added later.
_PROCESS_KEYS = ("processes", "max_processes")
_MAX_PROCESSES = 10_000
#: More are a slip of the pen: at ten seconds each these take eleven days.
MAX_COMBINATIONS = 100_000
_SUITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Suite:
    """A named set of cases with a common protocol."""

    name: str
    version: int
    description: str
    axes: dict[str, tuple[Any, ...]]
    exclude: tuple[dict[str, tuple[Any, ...]], ...]
    protocol: Protocol
    source: str  # its file, for messages
    options: dict[str, str] = field(default_factory=dict)  # axis -> the option that replaced its values
    processes: int = DEFAULT_PROCESSES  # of each case, at least
    max_processes: int = DEFAULT_PROCESSES  # while the interval over them is wider than the target

    def cases(self, device: str = "auto") -> list[Case]:
        """All cases, each once, the last axis varying fastest; `device` is what "auto" means on this machine.

        Raises BadInput: a value is invalid for its axis, or all cases are excluded.
        """
        if GLOBAL_BATCH in self.axes and "batch_size" in self.axes:
            place = self._source_of_values(GLOBAL_BATCH, "batch_size")
            raise BadInput(f"{place}: both batch_size and global_batch are set; remove one of them")
        size = math.prod(map(len, self.axes.values()))
        if size > MAX_COMBINATIONS:
            place = self._source_of_values(*self.axes)
            raise BadInput(f"{place}: the axes have {size} combinations; a suite may have at most {MAX_COMBINATIONS}")
        self._require_valid_axis_values()
        names = [axis for axis in (GLOBAL_BATCH, *AXES) if axis in self.axes]
        found: dict[str, Case] = {}
        for values in itertools.product(*(self.axes[name] for name in names)):
            setting = dict(zip(names, values, strict=True))
            try:
                case = self._resolve_setting_to_case(setting, device)
            except BadInput:
                # An invalid combination is accepted if it is excluded.
                if any(_matches_exclude(_setting_values(setting, device), pattern) for pattern in self.exclude):
                    continue
                raise
            if not any(_matches_exclude(_case_values(case), pattern) for pattern in self.exclude):
                found.setdefault(case.id, case)
        if not found:
            raise BadInput(f"{self.source} has no cases: every combination is excluded; relax [[exclude]]")
        return list(found.values())

    def process_rounds(self, device: str = "auto") -> list[list[Case]]:
        """Return every process to measure, by rounds: each round has one process per case, in random order.

        Drift during a campaign then affects all cases equally. The order is determined by `protocol.seed`, which is in
        each record. A suite with the axis `repeat` (older suites) has only those processes. Raises as `cases`.
        """
        cases = self.cases(device)
        if "repeat" in self.axes:
            of_number: dict[int, list[Case]] = {}
            for case in cases:
                of_number.setdefault(case.repeat, []).append(case)
            found = [of_number[number] for number in sorted(of_number)]
        else:
            found = [[dataclasses.replace(case, repeat=number) for case in cases] for number in range(self.processes)]
        for number, one in enumerate(found):
            # Not for secrets: the same order on any machine.
            random.Random(f"{self.protocol.seed}/{number}").shuffle(one)
        return found

    def _require_valid_axis_values(self) -> None:
        """Look at each value alone: what a case leaves out, such as a single rank's bucket, must be valid too."""
        for axis, values in self.axes.items():
            wrong = [value for value in values if axis != GLOBAL_BATCH and _invalid_axes({axis: value})]
            if wrong:
                self._build_case({axis: wrong[0]})

    def _resolve_setting_to_case(self, setting: dict[str, Any], device: str) -> Case:
        if setting.get("device", "auto") == "auto":
            setting = setting | {"device": device}
        if GLOBAL_BATCH in setting:
            setting = self._divide_global_batch(setting)
        inference = setting.get("mode") == "inference"
        # Cases that differ only in axes without effect are the same: inference runs no optimizer, and a single rank
        # reduces no gradients.
        unused = list(_OPTIMIZER_AXES if inference else _INFERENCE_AXES)
        unused += _SYNCHRONISATION_AXES if inference or _num_ranks(setting) == 1 else ()
        loading = {"synthetic": (*_LOADER_AXES, "prefetch"), "synthetic_host": _LOADER_AXES}
        unused += loading.get(setting.get("data", "synthetic"), ())
        case = self._build_case({axis: value for axis, value in setting.items() if axis not in unused})
        try:
            case.require_compatible_axes()
        except BadInput as error:
            raise BadInput(f"{self._source_of_values(*changed_axes(case))}: {error}") from None
        return case

    def _build_case(self, setting: dict[str, Any]) -> Case:
        try:
            return Case(**{"model": "any", **check_field_types(Case, setting)}, protocol=self.protocol)
        except UnknownName as error:
            raise BadInput(f"{error} [{self._source_of_values(*_invalid_axes(setting))}]") from None
        except BadInput as error:
            raise BadInput(f"{self._source_of_values(*_invalid_axes(setting))}: {error}") from None

    def _source_of_values(self, *axes: str) -> str:
        """Return the source of the values of these axes: the overriding options, or the file of the suite."""
        return ", ".join(self.options[axis] for axis in axes if axis in self.options) or self.source

    def _divide_global_batch(self, setting: dict[str, Any]) -> dict[str, Any]:
        batch, ranks = setting[GLOBAL_BATCH], _num_ranks(setting)
        if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
            place = self._source_of_values(GLOBAL_BATCH)
            raise BadInput(f"{place}: global_batch is {short_repr(batch)}; it must be a whole number of at least 1")
        if batch % ranks:
            place = self._source_of_values(GLOBAL_BATCH, "nodes", "devices_per_node")
            raise BadInput(
                f"{place}: global batch {batch} is not divisible by {ranks} devices; use "
                f"{batch // ranks * ranks or ranks} or {(batch // ranks + 1) * ranks}, or exclude this combination"
            )
        rest = {axis: value for axis, value in setting.items() if axis != GLOBAL_BATCH}
        return rest | {"batch_size": batch // ranks}


def _num_ranks(setting: dict[str, Any]) -> int:
    """Return the number of devices of a setting; 1 for invalid values, which are reported later."""
    counts = [setting.get(axis, 1) for axis in ("nodes", "devices_per_node")]
    return math.prod(n for n in counts if isinstance(n, int) and n >= 1)


def _invalid_axes(setting: dict[str, Any]) -> list[str]:
    """Return the axes of a setting with invalid values, each checked separately."""
    found = []
    for axis, value in setting.items():
        try:
            Case(**{"model": "any", **check_field_types(Case, {axis: value})})
        except BadInput:
            found.append(axis)
    return found


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite and apply overrides such as ``model=lenet5,resnet50`` or ``protocol.min_time_s=1``.

    Args:
        path: a TOML file, or the name of one as `dlbench.bundled_files` finds it.
        overrides: each replaces the values of one axis or one protocol key.

    Raises:
        BadInput: the file cannot be read or is not a valid suite; the message contains file, line and key.
    """
    file = read_toml(bundled_files.find_file("suite", path), "a suite")
    file.require_known(file.values, _TOP_LEVEL_KEYS)
    return _parse_suite(file, overrides)


def _parse_suite(file: TomlFile, overrides: Sequence[str]) -> Suite:
    name = file.get("name", str, file.path.stem)
    if not _SUITE_NAME.fullmatch(name):
        file.raise_invalid(name, "name", "up to 100 letters, digits, '.', '_' and '-'")
    own_axes = file.table("axes")
    file.require_known(own_axes, (*AXES, GLOBAL_BATCH), "axes", "axis")
    axes = {axis: parse_value_list(axis, value, file.file_and_line(axis, "axes")) for axis, value in own_axes.items()}
    exclude = []
    for index, pattern in enumerate(file.get("exclude", list, [], "a list of tables ([[exclude]])"), start=1):
        where = f"exclude {index} of {file.path}"
        table = require_type(pattern, dict, f"exclude {index}", file.file_and_line("exclude"))
        if not table:
            raise BadInput(f'{where} is empty, so it excludes nothing; give an axis, such as model = "vgg16"')
        exclude.append({key: _parse_excluded_values(key, value, where) for key, value in table.items()})
    own = file.table("protocol")
    counts = {key: own.pop(key) for key in _PROCESS_KEYS if key in own}
    checked = _parse_protocol(own, str(file.path), f"[protocol] of {file.path}")
    protocol = dict(own)
    options: dict[str, str] = {}
    for override in overrides:
        key, _, number = override.partition("=")
        if key.strip().removeprefix("protocol.") in _PROCESS_KEYS:
            key = key.strip().removeprefix("protocol.")
            counts[key] = convert_text_to_type(number.strip(), "int")
            options[key] = f"-P {override}"
        else:
            options[_apply_override(override, axes, protocol)] = f"-P {override}"
    if not axes.get("model"):
        raise BadInput(f'{file.path} contains no model; add for example: [axes] model = ["resnet50"]')
    if protocol != own:
        place = ", ".join(option for key, option in options.items() if key.startswith("protocol."))
        checked = _parse_protocol(protocol, place, place)
    version = file.get("version", int, 1)
    if not 0 <= version < 2**31:
        file.raise_invalid(version, "version", f"from 0 to {2**31 - 1}")
    processes, most = _parse_process_counts(counts, str(file.path), options)
    description = file.get("description", str, "")
    return Suite(name, version, description, axes, tuple(exclude), checked, str(file.path), options, processes, most)


def _parse_process_counts(counts: dict[str, Any], source: str, options: dict[str, str]) -> tuple[int, int]:
    """How many processes each case has, at least and at most."""
    for key, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_PROCESSES:
            raise BadInput(
                f"{options.get(key, source)}: {key} is {short_repr(value)}; it must be a whole number from 1 to "
                f"{_MAX_PROCESSES}"
            )
    processes = counts.get("processes", min(DEFAULT_PROCESSES, counts.get("max_processes", DEFAULT_PROCESSES)))
    most = counts.get("max_processes", processes)
    if most < processes:
        # The one from the command line is used.
        if "max_processes" in options and "processes" not in options:
            return most, most
        if "processes" in options and "max_processes" not in options:
            return processes, processes
        raise BadInput(f"{source}: max_processes is {most}; it must be at least the value of processes, {processes}")
    return processes, most


def _parse_protocol(values: dict[str, Any], place: str, where: str) -> Protocol:
    """Build and check the protocol; `place` is added to error messages that lack it."""
    try:
        return make_protocol(values, where)
    except UnknownName:
        raise
    except BadInput as error:
        raise BadInput(str(error) if place in str(error) else f"{place}: {error}") from None


def parse_value_list(axis: str, value: Any, where: str) -> tuple[Any, ...]:
    """Return the values of an axis, which may be a single value or a list; an empty list is an error."""
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values:
        raise BadInput(f"axis '{axis}' in {where} has no values")
    return values


def _parse_excluded_values(key: str, value: Any, where: str) -> tuple[Any, ...]:
    """The values of one key of an exclude table. Raises BadInput: the key is unknown, or no case has the value."""
    if key not in (*AXES, *_DERIVED_AXES):
        raise UnknownName("axis", key, (*AXES, *_DERIVED_AXES), where)
    values = parse_value_list(key, value, where)
    # "auto" is already resolved when cases are matched.
    known = DEVICES[1:] if key == "device" else CHOICES.get(key)
    for one in values:
        require_type(one, int if field_annotation(Case, key) == "int" or key in _DERIVED_AXES else str, key, where)
        if known is not None and one not in known:
            raise UnknownName(key, one, known, where)
    return values


def build_single_case(
    command: str, model: str, overrides: Sequence[str], device: str = "auto", sought: Sequence[str] = ()
) -> Case:
    """Build the single case of a command from its model and `-P` options.

    Args:
        command: name of the command, for messages.
        device: the device that "auto" means on this machine.
        sought: axes that the command determines itself.

    Raises:
        BadInput: an axis is unknown, determined by the command, or has several values or an invalid one.
    """
    axes: dict[str, tuple[Any, ...]] = {"model": (model,)}
    protocol: dict[str, Any] = {}
    for override in overrides:
        _apply_override(override, axes, protocol)
    if axes["model"] != (model,):
        raise BadInput(f"give the model only once: `dlbench {command} MODEL`, without -P model=")
    for name in sought:
        if name in axes:
            raise BadInput(f"cannot use -P {name}: {command} determines it")
    several = ", ".join(axis for axis, values in axes.items() if len(values) > 1)
    if several:
        raise BadInput(f"{several} has several values, but {command} measures one case; run the command once per value")
    return Suite(command, 1, "", axes, (), make_protocol(protocol, "-P"), "-P").cases(device)[0]


def _apply_override(override: str, axes: dict[str, tuple[Any, ...]], protocol: dict[str, Any]) -> str:
    """Replace values of the suite by an override; return the replaced key."""
    key, equals, text = override.partition("=")
    key, where = key.strip(), f"-P {override}"
    if key and not key.startswith("protocol.") and key not in (*AXES, GLOBAL_BATCH):
        if key.startswith("env."):
            raise BadInput(
                f"{where}: environment variables are not an axis; set them before the command "
                f"({key.removeprefix('env.')}=... dlbench run ...); for threads use -P threads=1"
            )
        raise UnknownName("axis", key, (*AXES, "protocol.<key>"), where, f"Axes: {', '.join(AXES)}.")
    if not equals or not text.strip():
        raise BadInput(f"cannot use {where}: write axis=value,value or protocol.key=value")
    if key.startswith("protocol."):
        protocol[key.removeprefix("protocol.")] = convert_text_to_type(
            text.strip(), field_annotation(Protocol, key.partition(".")[2])
        )
    else:
        wanted = "int" if key == GLOBAL_BATCH else field_annotation(Case, key)
        axes[key] = tuple(convert_text_to_type(part.strip(), wanted) for part in text.split(",") if part.strip())
        if not axes[key]:
            raise BadInput(f"cannot use {where}: the value is missing")
    return key


def field_annotation(cls: type, name: str) -> str:
    """Return the annotation of a field; "str" for an unknown one."""
    return next((str(f.type) for f in dataclasses.fields(cls) if f.name == name), "str")


def convert_text_to_type(text: str, wanted: str) -> Any:
    """Convert the text to the type of its field; otherwise keep the text, which the type check reports."""
    try:
        return {"int": int, "float": float}.get(wanted, str)(text)
    except ValueError:
        return text


def _matches_exclude(setting: dict[str, Any], pattern: dict[str, tuple[Any, ...]]) -> bool:
    return bool(pattern) and all(setting.get(key) in values for key, values in pattern.items())


def _case_values(case: Case) -> dict[str, Any]:
    """Return the values that exclude tables are matched with: the axes of the case and derived values."""
    axes = {axis: getattr(case, axis) for axis in AXES}
    return axes | {GLOBAL_BATCH: case.batch_size * case.world_size, "world_size": case.world_size}


def _setting_values(setting: dict[str, Any], device: str) -> dict[str, Any]:
    """Return the same values for an invalid combination, as far as known."""
    known = AXIS_DEFAULTS | setting | {"world_size": _num_ranks(setting)}
    if GLOBAL_BATCH in setting:
        del known["batch_size"]
    return known | {"device": device} if setting.get("device", "auto") == "auto" else known


def models_of_cases(cases: Iterable[Case]) -> list[str]:
    """Return the models of the cases, each once, in order."""
    return list(dict.fromkeys(case.model for case in cases))
