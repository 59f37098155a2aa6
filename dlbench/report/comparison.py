"""Two stores, or the two sides of `dlbench ab`, case by case: the ratio, its interval, and what may be said of it.

The unit is the process (see `dlbench.report.compare_stats`): each attempt with samples is one, and attempts that differ
in the axis `repeat` alone are processes of one case. Only like is compared with like. All axes but `repeat`, the suite
with its version and the protocol have to agree; what does not is refused with the reason, unless it is named as
allowed to differ. The device may differ where each side has one kind alone: then the hardware is what is compared.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.errors import BadInput, UnknownName
from dlbench.report.compare_stats import DEFAULT_MARGIN, MIN_PROCESSES, Comparison, compare, compare_pairs, correct
from dlbench.report.derive import current, tidy
from dlbench.report.labels import MAIN_AXES, axis_title, network, network_order
from dlbench.report.metrics import METRICS
from dlbench.report.render import Cell, Column, Table
from dlbench.results.records import DONE_STATUSES
from dlbench.spec.case import AXES, Case, Protocol

#: What has to agree between two processes for them to be compared, by the names that `ignore` takes.
IDENTITY = ("suite", "suite_version", *(axis for axis in AXES if axis != "repeat"), "protocol")
#: Keys of the protocol that do not touch what a process measures.
_HARMLESS = ("timeout_s",)
#: Between the halves of a pair lies no more than this [s]; what ran further apart did not share its conditions.
MAX_PAIR_GAP_S = 60.0
#: Facts about a system that may explain a difference, in the order in which they are shown.
SYSTEM_FACTS = {
    "device_name": "device",
    "device_count": "devices",
    "driver_version": "driver",
    "hostname": "host",
    "cpu_model": "CPU",
    "cpu_cores": "CPU cores",
    "cpu_threads": "CPU threads",
    "torch_threads": "threads of torch",
    "memory_bytes": "memory [B]",
    "os": "operating system",
    "kernel": "kernel",
    "python_version": "Python",
    "torch_version": "torch",
    "torchvision_version": "torchvision",
    "cuda_version": "CUDA",
    "cudnn_version": "cuDNN",
    "nccl_version": "NCCL",
    "container_runtime": "container runtime",
    "container_image": "container image",
    "dlbench_version": "dlbench",
    "git_commit": "git commit",
    "git_dirty": "uncommitted changes",
}
#: Verdicts of lines with a comparison come from `compare_stats`; these stand where there is none.
NOT_COMPARED = ("refused", "failed", "missing")
#: Verdicts of `compare_stats`, in the order in which the summary counts them.
VERDICTS = ("slower", "faster", "same", "ambiguous")
_ENERGY_WORDS = {"faster": "less", "slower": "more"}

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Rules:
    """How two sides are compared."""

    metric: str = "step_time"
    confidence: float = 0.95
    margin: float = DEFAULT_MARGIN
    between_processes: float | None = None  # relative standard deviation between processes, where it is known
    ignore: frozenset[str] = frozenset()  # of `IDENTITY`: what may differ

    def __post_init__(self) -> None:
        for name in self.ignore:
            if name not in IDENTITY:
                raise UnknownName("identity", name, IDENTITY, "--ignore")
        for name in ("model", "mode"):
            if name in self.ignore:
                raise BadInput(f"--ignore {name}: another {name} is another work; there is nothing to compare")


@dataclass(frozen=True)
class Line:
    """One case: what was found about it, or why nothing can be."""

    setting: dict[str, Cell]
    verdict: str
    comparison: Comparison | None = None
    base: float | None = None  # geometric mean over processes of their medians, in the metric's unit
    target: float | None = None
    note: str = ""
    lost: bool = False  # measured in BASE, and failed in TARGET


@dataclass(frozen=True)
class Found:
    """The lines of all cases, and what differs between the systems of the two sides."""

    lines: list[Line]
    rules: Rules
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def num_compared(self) -> int:
        """How many cases have a ratio."""
        return sum(line.comparison is not None for line in self.lines)

    @property
    def can_decide(self) -> bool:
        """Whether any case can get a verdict at all: not where the spread between processes is unknown everywhere."""
        return self.num_tested > 0

    @property
    def num_tested(self) -> int:
        """How many cases have an interval."""
        return sum(line.comparison is not None and line.comparison.low is not None for line in self.lines)


@dataclass(frozen=True)
class _Group:
    """All attempts of one side at one case."""

    key: Key
    good: pd.DataFrame
    bad: pd.DataFrame


def compare_stores(
    base: pd.DataFrame,
    target: pd.DataFrame,
    rules: Rules = Rules(),
    base_where: Sequence[str] = (),
    target_where: Sequence[str] = (),
    every_attempt: bool = False,
) -> Found:
    """TARGET against BASE, case by case, from independent processes.

    Args:
        base, target: rows as `dlbench.load` gives them.
        rules: what is compared, and what may differ.
        base_where, target_where: selections such as "precision=fp32", by column of the rows.
        every_attempt: take superseded attempts (`dlbench run --fresh`) as processes too, not the latest alone.

    Raises:
        BadInput: a side is empty, both hold the same attempts, or no case of one is in the other.
    """
    a = _side(base, base_where, every_attempt, "BASE", rules)
    b = _side(target, target_where, every_attempt, "TARGET", rules)
    shared = set(a["attempt_id"]) & set(b["attempt_id"])
    if shared:
        raise BadInput(
            f"BASE and TARGET share {len(shared)} attempts, and a process cannot be compared with itself; "
            "choose different ones with --base-where and --target-where"
        )
    remarks = []
    names = [name for name in IDENTITY if name not in rules.ignore]
    devices = [set(side["device"]) for side in (a, b)]
    if "device" in names and devices[0] != devices[1] and all(len(d) == 1 for d in devices):
        names.remove("device")
        remarks.append(f"The hardware is compared: {devices[0].pop()} in BASE, {devices[1].pop()} in TARGET.")
    if rules.ignore:
        remarks.append(f"Allowed to differ, as asked: {', '.join(sorted(rules.ignore))}.")
    lines = list(_lines(_groups(a, names, rules), _groups(b, names, rules), names, rules))
    if all(line.verdict in ("refused", "missing") for line in lines):
        raise BadInput(f"no case of BASE can be compared with one of TARGET: {_why_none(lines)}")
    used = [side[side["_good"]] for side in (a, b)]
    return Found(_corrected(lines, rules.metric), rules, _differences(*used), remarks)


def compare_sides(
    rows: pd.DataFrame, sides: tuple[str, str], matches: Sequence[tuple[Case, Case]], pairs: int, rules: Rules
) -> Found:
    """The two sides of `dlbench ab`, pair by pair.

    Args:
        rows: the store's rows, of one system.
        sides: the suites' names of A and B.
        matches: the two cases of each comparison; their axis `repeat` is the number of the pair.
        pairs: how many of them.
    """
    cases = _paired_rows(rows, sides)
    lines = []
    for case_a, case_b in matches:
        found = [_pair(cases, sides, case_a, case_b, number) for number in range(pairs)]
        whole = [pair for pair in found if pair is not None and all(_usable(half, rules) for half in pair)]
        a, b = [half for half, _ in whole], [half for _, half in whole]
        frames = pd.DataFrame(a, columns=cases.columns), pd.DataFrame(b, columns=cases.columns)
        setting = _setting_of(case_a.to_dict(), case_b.to_dict())
        if not whole:
            lines.append(Line(setting, "failed", note=f"none of {pairs} pairs has both halves measured"))
            continue
        result = compare_pairs(
            _processes(frames[0], rules, False), _processes(frames[1], rules, False),
            rules.confidence, rules.margin, rules.between_processes,
        )  # fmt: skip
        notes = [_caveat(result), *_flags(frames[0], "A"), *_flags(frames[1], "B")]
        if len(whole) < pairs:
            notes.append(f"{pairs - len(whole)} of {pairs} pairs left out: a half failed, or the halves ran apart")
        note = "; ".join(n for n in notes if n)
        lines.append(Line(setting, "", result, _middle(frames[0], rules), _middle(frames[1], rules), note))
    return Found(_corrected(lines, rules.metric), rules)


def whole_pairs(rows: pd.DataFrame, sides: tuple[str, str], matches: Sequence[tuple[Case, Case]], pairs: int) -> set[
    tuple[int, int]
]:  # fmt: skip
    """Which pairs need not be measured again, as (index into `matches`, number): both halves done, one after the other.

    The arguments are those of `compare_sides`.
    """
    cases = _paired_rows(rows, sides)
    return {
        (index, number)
        for index, (a, b) in enumerate(matches)
        for number in range(pairs)
        if (found := _pair(cases, sides, a, b, number)) is not None
        and all(half["status"] in DONE_STATUSES for half in found)
    }


def regressions(found: Found, percent: float) -> list[Line]:
    """The lines that fail a gate: slower (corrected) and by more than `percent` in the best estimate, or lost.

    The verdict says that a slowdown is real, the estimate how large it most likely is. The interval's lower end would
    pass the larger a slowdown the worse it was measured. A case measured in BASE that fails in TARGET is a regression.
    """
    limit = 1 + percent / 100
    worse = ("slower", "more")
    return [
        line
        for line in found.lines
        if line.lost or (line.comparison and line.verdict in worse and line.comparison.ratio > limit)
    ]


def tables(found: Found, names: tuple[str, str] = ("BASE", "TARGET")) -> list[Table]:
    """What differs between the systems, and the comparison; the first is without rows where nothing differs."""
    columns = [Column("fact", "Differs"), Column("base", names[0]), Column("target", names[1])]
    return [Table(columns, found.differences, title="Systems"), comparison_table(found, names)]


def comparison_table(found: Found, names: tuple[str, str] = ("BASE", "TARGET")) -> Table:
    """One row per case; below it what the verdicts mean, and their sum."""
    metric = METRICS[found.rules.metric]
    axes = [
        axis
        for axis in (*AXES, "suite", "suite_version")
        if axis != "repeat" and (axis in MAIN_AXES or len({str(line.setting.get(axis)) for line in found.lines}) > 1)
    ]
    columns = [Column(a, axis_title(a), show=(lambda c: network(str(c))) if a == "model" else None) for a in axes]
    columns += [
        Column("base", f"{metric.title} {names[0]}", "right", lambda cell: _shown(found.rules.metric, cell)),
        Column("target", names[1], "right", lambda cell: _shown(found.rules.metric, cell)),
        Column("ratio", "Ratio", "right", _show_ratio),
        Column("ratio_low", f"{_percent(found.rules.confidence)} from", "right", _show_ratio),
        Column("ratio_high", "to", "right", _show_ratio),
        Column("verdict", "Verdict"),
        Column("adjusted_p_value", "p (Holm)", "right", _show_p),
        Column("chance_target_larger", "Effect", "right", _show_share),
        Column("base_processes", "n", "right"),
        Column("target_processes", "n", "right"),
        Column("note", "Note"),
    ]
    rows = [[*(line.setting.get(axis) for axis in axes), *_cells(line)] for line in _in_order(found.lines)]
    return Table(columns, rows, title=f"{names[1]} against {names[0]}: {metric.title.lower()}", notes=_notes(found))


def summary(found: Found) -> str:
    """The closing line: ``12 compared: 1 slower, 8 same, 3 ambiguous; 2 not compared: 1 failed, 1 refused``."""
    counts = Counter(line.verdict for line in found.lines)
    words = _words(found.rules.metric)
    said = ", ".join(f"{counts[word]} {word}" for word in words)
    rest = [f"{counts[word]} {word}" for word in NOT_COMPARED if counts[word]]
    left = len(found.lines) - found.num_compared
    return f"{found.num_compared} compared: {said}" + (f"; {left} not compared: {', '.join(rest)}" if rest else "")


def _words(metric: str) -> list[str]:
    return [_ENERGY_WORDS.get(word, word) if metric == "energy_per_image" else word for word in VERDICTS]


def _side(rows: pd.DataFrame, where: Sequence[str], every: bool, name: str, rules: Rules) -> pd.DataFrame:
    """One row per attempt of a side that counts, with its system's facts and whether it is usable (`_good`)."""
    rows = select(rows, where, f"--{name.lower()}-where")
    if rows.empty:
        raise BadInput(f"{name} holds no records" + (f" with {', '.join(where)}" if where else ""))
    cases = tidy(rows)
    if not every:
        cases = current(cases)
    for axis in fields(Case):
        # Parts from before an axis existed say nothing of it: they had its default.
        if axis.name in AXES and axis.name != "model":
            cases[axis.name] = cases[axis.name].where(cases[axis.name].notna(), axis.default)
    cases["protocol"] = [_protocol(text) for text in cases["protocol"]]
    facts = rows.drop_duplicates("attempt_id").set_index("attempt_id")[[f"system_{f}" for f in SYSTEM_FACTS]]
    cases = cases.join(facts, on="attempt_id")
    usable = [_usable(case, rules) for case in cases.to_dict("records")]
    return cases.assign(_good=usable)


def select(rows: pd.DataFrame, where: Sequence[str], option: str) -> pd.DataFrame:
    """The rows in which each named column has the given value, written as text: ``precision=fp32``.

    Raises:
        BadInput: a selection is not KEY=VALUE, or names no column.
    """
    for text in where:
        column, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"cannot use {option} {text}: write column=value")
        if column not in rows.columns:
            raise UnknownName("column", column, map(str, rows.columns), option)
        rows = rows[rows[column].astype(str) == value]
    return rows


def _protocol(text: str | None) -> str:
    values = asdict(Protocol()) | json.loads(text or "{}")
    return json.dumps({k: v for k, v in values.items() if k not in _HARMLESS}, sort_keys=True)


def _usable(case: Mapping[Any, Any], rules: Rules) -> bool:
    value = case[rules.metric]
    return case["status"] in DONE_STATUSES and value is not None and math.isfinite(value) and value > 0


def _groups(cases: pd.DataFrame, names: list[str], rules: Rules) -> dict[Key, _Group]:
    """The attempts by what has to agree, in the order in which they were started."""
    groups = {}
    for key, attempts in cases.groupby(names, sort=False):
        groups[tuple(key)] = _Group(tuple(key), attempts[attempts["_good"]], attempts[~attempts["_good"]])
    return groups


def _lines(
    base: dict[Key, _Group], target: dict[Key, _Group], names: list[str], rules: Rules
) -> Iterator[Line]:  # fmt: skip
    spare = [key for key in target if key not in base]
    for key, group in base.items():
        setting = _setting(group)
        if key in target:
            yield _line(group, target[key], rules)
            continue
        near = _nearest(key, spare, names)
        if near is None:
            yield Line(setting, "missing", note="in BASE alone")
            continue
        spare.remove(near)
        reasons = [_disagreement(n, x, y) for n, x, y in zip(names, key, near, strict=True) if x != y]
        yield Line(_setting(group, target[near]), "refused", note="; ".join(reasons))
    for key in spare:
        yield Line(_setting(target[key]), "missing", note="in TARGET alone")


def _line(base: _Group, target: _Group, rules: Rules) -> Line:
    setting = _setting(base, target)
    for side, group in (("BASE", base), ("TARGET", target)):
        reason = _mixture(group, side, rules)
        if reason:
            return Line(setting, "refused", note=reason)
    failed = [_failure(group, side, rules) for side, group in (("BASE", base), ("TARGET", target)) if group.good.empty]
    if failed:
        return Line(setting, "failed", note="; ".join(failed), lost=not base.good.empty)
    if rules.metric == "energy_per_image":
        for column in ("energy_source", "energy_scope"):
            meters = [sorted(set(group.good[column].astype(str))) for group in (base, target)]
            if meters[0] != meters[1] or len(meters[0]) > 1:
                reason = f"{column} is {' and '.join(meters[0])} in BASE and {' and '.join(meters[1])} in TARGET"
                return Line(setting, "refused", note=reason)
    few = min(len(base.good), len(target.good)) < MIN_PROCESSES
    a, b = _processes(base.good, rules, few), _processes(target.good, rules, few)
    result = compare(a, b, rules.confidence, rules.margin, rules.between_processes)
    notes = [_caveat(result)]
    for side, group in (("BASE", base), ("TARGET", target)):
        notes += _flags(group.good, side)
        if not group.bad.empty:
            notes.append(f"{side}: {len(group.bad)} left out, {_failure(group, side, rules).partition(': ')[2]}")
    note = "; ".join(n for n in notes if n)
    return Line(setting, "", result, _middle(base.good, rules), _middle(target.good, rules), note)


def _mixture(group: _Group, side: str, rules: Rules) -> str:
    """Why the attempts of a group are no processes of one case: an ignored axis varies, or the system does."""
    option = f"--{side.lower()}-where"
    for name in IDENTITY:
        values = pd.concat([group.good, group.bad])[name].unique()
        if len(values) > 1:
            shown = " and ".join(map(str, values)) if name != "protocol" else f"{len(values)} kinds"
            return f"{name} is {shown} within {side}; choose with {option} {name}={values[0]}"
    keys = group.good["system_key"].dropna().unique()
    if len(keys) > 1:
        return f"{side} has it on {len(keys)} systems; choose with {option} system_key={keys[0]}"
    return ""


def _failure(group: _Group, side: str, rules: Rules) -> str:
    last = group.bad.iloc[-1]
    if last["status"] not in DONE_STATUSES:
        error = last["error"].splitlines()[0] if isinstance(last["error"], str) and last["error"] else "no reason kept"
        return f"{side}: {last['status']}: {error}"
    if rules.metric == "energy_per_image" and last["steps"] > 0:
        return f"{side}: no energy was measured ({last['energy_note'] if _known(last['energy_note']) else 'no meter'})"
    return f"{side}: {last['status']}, but without usable step times (none, NaN, zero or negative)"


def _flags(good: pd.DataFrame, side: str) -> list[str]:
    """What makes these processes worth a second look."""
    flagged = {
        "unstable": good["status"] == "unstable",
        "throttled": good["throttle_reasons"].map(lambda reasons: reasons is not None and len(reasons) > 0),
        "not warmed up": good["steady"].map(lambda steady: steady is False),
        "on a shared device": good["other_processes"].fillna(0).astype(float) > 0,
    }
    return [f"{side}: {int(mask.sum())} of {len(good)} {flag}" for flag, mask in flagged.items() if mask.any()]


def _processes(good: pd.DataFrame, rules: Rules, with_steps: bool) -> list[list[float]]:
    """For each process its step times, where its own interval is needed, else its median alone."""
    if rules.metric == "step_time" and (with_steps or len(good) < MIN_PROCESSES):
        return [samples.tolist() for samples in good["samples"]]
    return [[float(value)] for value in good[rules.metric]]


def _middle(good: pd.DataFrame, rules: Rules) -> float:
    return math.exp(fmean(math.log(value) for value in good[rules.metric]))


def _caveat(result: Comparison) -> str:
    """What has to be known beside the verdict. An interval from an assumed spread is no measurement: none is shown."""
    if result.low is None or result.basis == "assumed":
        counts = f"{result.num_processes_a} against {result.num_processes_b} processes"
        return (
            f"{counts} are too few to see how processes differ: no interval; run {MIN_PROCESSES} or more on each side"
        )
    return result.caveat


def _corrected(lines: list[Line], metric: str) -> list[Line]:
    """The lines with verdicts that hold for all of them together."""
    # Where the spread between processes is only assumed nothing is tested, and the other tests pay nothing for it.
    results = [line.comparison for line in lines if line.comparison]
    tested = [replace(c, p_value=None, low=None, high=None) if c.basis == "assumed" else c for c in results]
    compared = iter(correct(tested))
    finished = []
    for line in lines:
        if line.comparison:
            result = next(compared)
            verdict = _words(metric)[VERDICTS.index(result.verdict)]
            line = replace(line, verdict=verdict, comparison=result)
        finished.append(line)
    return finished


def _setting(group: _Group, other: _Group | None = None) -> dict[str, Cell]:
    first = pd.concat([group.good, group.bad]).iloc[0]
    second = first if other is None else pd.concat([other.good, other.bad]).iloc[0]
    return _setting_of({name: first[name] for name in IDENTITY}, {name: second[name] for name in IDENTITY})


def _setting_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Cell]:
    """The axes of a comparison; where its sides differ, both values."""
    return {
        name: _plain(first[name]) if first[name] == second[name] else f"{first[name]} → {second[name]}"
        for name in first
        if name not in ("protocol", "repeat")
    }


def _plain(value: Any) -> Cell:
    cell: Cell = value.item() if hasattr(value, "item") else value
    return cell


def _nearest(key: Key, candidates: list[Key], names: list[str]) -> Key | None:
    """The candidate for the same work that disagrees in the fewest names; None where there is none."""
    work = [names.index("model"), names.index("mode")]
    same = [other for other in candidates if all(other[i] == key[i] for i in work)]
    return min(same, key=lambda other: sum(x != y for x, y in zip(key, other, strict=True)), default=None)


def _disagreement(name: str, base: Any, target: Any) -> str:
    if name != "protocol":
        return f"{name} is {base} in BASE and {target} in TARGET"
    first, second = json.loads(base), json.loads(target)
    keys = [k for k in first | second if first.get(k) != second.get(k)]
    return "; ".join(f"protocol.{k} is {first.get(k)} in BASE and {second.get(k)} in TARGET" for k in keys)


def _why_none(lines: list[Line]) -> str:
    refused = [line for line in lines if line.verdict == "refused"]
    if not refused:
        return "they have no network and mode in common"
    reason = Counter(line.note for line in refused).most_common(1)[0][0]
    names = [name for name in IDENTITY if f"{name} is" in reason or (name == "protocol" and "protocol." in reason)]
    if not names or "choose with" in reason:
        return reason
    return f"{reason}; `--ignore {','.join(names)}` compares them nevertheless"


def _differences(base: pd.DataFrame, target: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The facts about the systems in which the two sides differ, each with its values."""
    columns = {f"system_{name}": title for name, title in SYSTEM_FACTS.items()} | {"clock": "clock"}
    found = []
    for column, title in columns.items():
        values = [sorted({str(_plain(v)) for v in side[column] if _known(v)}) for side in (base, target)]
        if values[0] != values[1]:
            found.append((title, *(", ".join(v) or units.MISSING for v in values)))
    return found  # type: ignore[return-value]  # three texts each


def _known(value: Any) -> bool:
    return value is not None and value == value and value != ""


def _paired_rows(rows: pd.DataFrame, sides: tuple[str, str]) -> pd.DataFrame:
    """The attempts that count of both sides."""
    rows = rows[rows["suite"].isin(sides)]
    return pd.DataFrame(columns=["suite", "case_id"]) if rows.empty else current(tidy(rows))


def _pair(
    cases: pd.DataFrame, sides: tuple[str, str], a: Case, b: Case, number: int
) -> tuple[dict[Any, Any], dict[Any, Any]] | None:  # fmt: skip
    """Both halves of a pair, if they ran one right after the other."""
    halves = []
    for suite, case in zip(sides, (a, b), strict=True):
        name = replace(case, repeat=number).id
        found = cases[(cases["suite"] == suite) & (cases["case_id"] == name)]
        if found.empty:
            return None
        halves.append(found.iloc[-1].to_dict())
    first, second = sorted(halves, key=lambda half: half["started_at"])
    gap_s = (second["started_at"] - first["finished_at"]).total_seconds()
    # Records keep milliseconds; halves that overlap disturbed each other.
    return (halves[0], halves[1]) if -0.01 <= gap_s <= MAX_PAIR_GAP_S else None


def _in_order(lines: list[Line]) -> list[Line]:
    order = {name: i for i, name in enumerate(network_order(str(line.setting["model"]) for line in lines))}
    return sorted(lines, key=lambda line: (line.verdict in NOT_COMPARED, order[str(line.setting["model"])]))


def _cells(line: Line) -> list[Cell]:
    c = line.comparison
    if c is None:
        return [line.base, line.target, None, None, None, line.verdict, None, None, None, None, line.note]
    return [
        line.base, line.target, c.ratio, c.low, c.high, line.verdict, c.adjusted_p_value, c.chance_b_slower,
        c.num_processes_a, c.num_processes_b, line.note,
    ]  # fmt: skip


def _notes(found: Found) -> list[str]:
    rules = found.rules
    more = "energy" if rules.metric == "energy_per_image" else "time"
    return [
        *found.remarks,
        f"Ratio of the geometric means over processes (n) of their medians; above 1 is more {more}.",
        "Effect: the chance that a process of the second side has the larger value; 0.5 is no difference.",
        f"Verdicts hold for all intervals of this table ({found.num_tested}) together at {_percent(rules.confidence)} "
        f"(Holm); within ±{100 * rules.margin:g} % is the same.",
        summary(found),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _shown(metric: str, cell: Cell) -> str:
    return METRICS[metric].show(cell if isinstance(cell, int | float) else None, 4)


def _show_ratio(cell: Cell) -> str:
    return f"{cell:.4f}" if isinstance(cell, int | float) else units.MISSING


def _show_p(cell: Cell) -> str:
    if not isinstance(cell, int | float):
        return units.MISSING
    return "< 0.0001" if cell < 1e-4 else f"{cell:.4f}"


def _show_share(cell: Cell) -> str:
    return f"{cell:.2f}" if isinstance(cell, int | float) else units.MISSING
