"""Which process is measured next, and what a budget buys."""

from __future__ import annotations

import dataclasses
import random
import re
from statistics import median

from dlbench.campaign.schedule import Schedule
from dlbench.results.records import SHARED_FACTS
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes

PROTOCOL = Protocol(target_half_width=0.02)
CASES = [Case(model, protocol=PROTOCOL) for model in ("lenet5", "alexnet")]


def rounds(number: int) -> list[Case]:
    return [dataclasses.replace(case, repeat=k) for k in range(number) for case in CASES]


def finished(case: Case, step_s: float, wall_s: float = 10.0, **changes):
    made = fakes.record(case, fakes.CPU, **changes)
    ranks = tuple(
        (system, dataclasses.replace(m, step_s=tuple(step_s * (1 + 0.001 * (i % 3)) for i in range(30))))
        for system, m in made.ranks
    )
    return dataclasses.replace(made, ranks=ranks, wall_s=wall_s)


def run(
    schedule: Schedule, waiting: list[Case], spreads: dict[str, float], status: str = "ok", clock=None
) -> list[Case]:
    """Measure as the schedule says, processes differing by a standard deviation by model."""
    rng, done = random.Random(1), []
    for case in schedule.processes_to_measure(waiting):
        step_s = 0.01 * (1 + spreads[case.model] * rng.gauss(0, 1))
        if clock is not None:
            clock[0] += 10.0
        schedule.add_record(dataclasses.replace(finished(case, step_s), status=status))
        done.append(case)
        assert len(done) < 500
    return done


def test_each_round_has_one_process_of_each_case():
    done = run(Schedule(rounds(3)), rounds(3), {"lenet5": 0.01, "alexnet": 0.01})
    assert done == rounds(3)


def test_more_processes_go_to_the_case_that_is_wider_than_its_target_up_to_the_cap():
    done = run(Schedule(rounds(3), max_processes=6), rounds(3), {"lenet5": 0.05, "alexnet": 1e-5})
    assert done[:6] == rounds(3)
    assert [(case.model, case.repeat) for case in done[6:]] == [("lenet5", k) for k in (3, 4, 5)]


def test_more_processes_go_to_a_case_whose_windows_alone_make_its_interval_wider_than_its_target():
    """Processes that agree by chance more closely than their windows can be read."""
    schedule, rng, done = Schedule(rounds(3), max_processes=6), random.Random(1), []
    for case in schedule.processes_to_measure(rounds(3)):
        median_s = 0.01 * (1 + 1e-5 * len(done))
        steps = [median_s * (1 + (0.3 if case.model == "lenet5" else 0.001) * rng.uniform(-1, 1)) for _ in range(60)]
        made = finished(case, median_s)
        ranks = tuple(
            (system, dataclasses.replace(m, step_s=tuple(step * median_s / median(steps) for step in steps)))
            for system, m in made.ranks
        )
        schedule.add_record(dataclasses.replace(made, ranks=ranks))
        done.append(case)
    assert [case.model for case in done[6:]] == ["lenet5"] * 3


def test_a_budget_is_spent_where_the_interval_shrinks_most_and_never_overdrawn():
    now, said = [0.0], []
    schedule = Schedule(rounds(3), budget_s=205.0, say=said.append, clock=lambda: now[0])
    done = run(schedule, rounds(3), {"lenet5": 0.05, "alexnet": 0.0001}, clock=now)
    assert now[0] <= 205.0
    assert len(done) == 20
    assert sum(case.model == "lenet5" for case in done) >= 15
    assert any("the time budget is long enough" in text for text in said)


def test_a_budget_that_ends_within_a_round_says_how_much_is_left():
    now = [0.0]
    schedule = Schedule(rounds(3), budget_s=30.0, clock=lambda: now[0])
    done = run(schedule, rounds(3), {"lenet5": 0.01, "alexnet": 0.01}, clock=now)
    assert len(done) == 3
    assert any("3 are missing" in text for text in schedule.describe_unmeasured())


def test_a_case_out_of_memory_is_not_tried_again_and_is_named():
    schedule = Schedule(rounds(3))
    done = []
    for case in schedule.processes_to_measure(rounds(3)):
        status = "oom" if case.model == "alexnet" else "ok"
        schedule.add_record(dataclasses.replace(finished(case, 0.01), status=status))
        done.append(case)
    assert sum(case.model == "alexnet" for case in done) == 1
    ended = "alexnet training: an earlier process ended with status oom"
    assert schedule.describe_unmeasured() == [f"skipped: 2 further processes of {ended}"]


def test_a_process_that_crashed_among_three_leaves_the_others():
    schedule = Schedule(rounds(3))
    for case in schedule.processes_to_measure(rounds(3)):
        crashed = case.model == "lenet5" and case.repeat == 1
        schedule.add_record(
            dataclasses.replace(finished(case, 0.01 + 0.001 * case.repeat), status="crashed" if crashed else "ok")
        )
    lenet, alexnet = (" ".join(figures) for _, figures in schedule.summarize_processes())
    assert "2 processes" in lenet
    assert "fewer than 3 processes" in lenet
    assert "3 processes" in alexnet
    # Three medians of 10, 11 and 12 ms: symmetric in logarithms, and so not in the rate.
    assert alexnet.endswith("img/s −36 to +57 %, one more run −49 to +97 %")
    assert " at " not in alexnet


def test_an_unusual_confidence_stands_beside_its_half_width():
    cases = [dataclasses.replace(case, protocol=Protocol(confidence=0.5)) for case in rounds(3)]
    schedule = Schedule(cases)
    for case in schedule.processes_to_measure(cases):
        schedule.add_record(finished(case, 0.01 + 0.0001 * case.repeat))
    assert all(figures[-1].endswith(" %, both at 50 %") for _, figures in schedule.summarize_processes())


def test_two_groups_are_both_shown_and_not_averaged():
    schedule = Schedule(rounds(4))
    for case in schedule.processes_to_measure(rounds(4)):
        schedule.add_record(finished(case, 0.01 if case.repeat % 2 else 0.02))
    assert re.search(r"in two groups: 2 at 3200.img/s and 2 at 1600.img/s", schedule.summarize_processes()[0][1][-1])


def test_facts_of_the_first_process_are_known_to_the_others():
    schedule = Schedule(rounds(2))
    assert schedule.facts_from_earlier_process(CASES[0]) is None
    record = finished(CASES[0], 0.01)
    schedule.add_record(record)
    facts = schedule.facts_from_earlier_process(dataclasses.replace(CASES[0], repeat=1))
    measured = record.ranks[0][1]
    assert {name: facts[name] for name in SHARED_FACTS} == {name: getattr(measured, name) for name in SHARED_FACTS}
    assert facts["facts_from"] == record.attempt_id
    assert schedule.facts_from_earlier_process(CASES[1]) is None


def test_facts_that_could_not_be_found_are_sought_again():
    schedule = Schedule(rounds(2))
    schedule.add_record(finished(CASES[0], 0.01, warnings=("memory_unknown: the extra step for it ran out of memory",)))
    assert schedule.facts_from_earlier_process(CASES[0]) is None


def test_processes_of_an_earlier_run_count_and_the_next_one_is_numbered_on():
    """Resumed, a case that had more processes than planned is not given the same ones again."""
    first = run(Schedule(rounds(3), max_processes=6), rounds(3), {"lenet5": 0.05, "alexnet": 1e-5})
    resumed = Schedule(rounds(3), max_processes=8)
    for case in first:
        resumed.add_record(finished(case, 0.01 * (1 + 0.05 * case.repeat)), from_now=False)
    done = run(resumed, [], {"lenet5": 0.05, "alexnet": 1e-5})
    assert [case.repeat for case in done if case.model == "lenet5"] == [6, 7]
    assert any("8 processes" in figures for _, figures in resumed.summarize_processes())
