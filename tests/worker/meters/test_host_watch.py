"""How much of the cores others took: those of this process alone, the case's own ranks excepted."""

from __future__ import annotations

import os
import socket

import pytest

from dlbench.worker.meters import host_watch
from dlbench.worker.meters.host_watch import HostWatch, busy_and_stolen_s_by_core

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
HERE = socket.gethostname()


def stat_of(busy, stolen=None):
    steal = stolen or {}
    cores = (f"cpu{core} {ticks} 0 0 7000 0 0 0 {steal.get(core, 0)} 0 0" for core, ticks in busy.items())
    lines = ["cpu  9 9 9 9 9", *cores, "intr 12 3"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A watch of cores 0 and 2 over 10 s, in which each number of `busy` was the core's share; core 1 is offline."""
    stat, clock = tmp_path / "stat", [0.0]
    monkeypatch.setattr(host_watch, "STAT_FILE", stat)
    monkeypatch.setattr(host_watch, "allowed_cores", lambda: frozenset({0, 2}))
    monkeypatch.setattr(host_watch.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(host_watch.time, "process_time", lambda: 0.0)

    def watch(busy, stolen=None):
        stat.write_text(stat_of(dict.fromkeys(busy, 500)))
        found = HostWatch()
        found.read_before_window()
        clock[0] += 10.0
        after = [{core: round(10 * share / TICK_S) for core, share in of.items()} for of in (busy, stolen or {})]
        stat.write_text(stat_of({core: 500 + ticks for core, ticks in after[0].items()}, after[1]))
        found.read_after_window()
        return found

    return watch


def test_cores_are_known_by_their_numbers_though_some_are_offline():
    found = busy_and_stolen_s_by_core(stat_of({0: 100, 2: 300}, {2: 50}))
    assert found == {0: (100 * TICK_S, 0.0), 2: (300 * TICK_S, 50 * TICK_S)}


def test_a_kernel_without_steal_times_is_read():
    assert busy_and_stolen_s_by_core("cpu0 100 0 0 7000 0 0 0\n") == {0: (100 * TICK_S, 0.0)}


def test_what_the_host_of_a_virtual_machine_takes_is_named(watched):
    found = watched({0: 0.0, 2: 0.1}, stolen={0: 0.5, 2: 0.3})
    assert found.busy_share == pytest.approx(0.45)
    assert found.warnings() == (
        "busy_host: other processes and the host of this virtual machine took 45% of this process's 2 cores (the host "
        "took 40%: steal time).",
    )
    assert watched({0: 0.0, 2: 0.0}, stolen={0: 0.05, 2: 0.04}).warnings() == ()


def test_what_others_take_of_other_cores_is_nothing_to_us(watched):
    assert watched({0: 0.0, 2: 0.0, 3: 1.0}).warnings() == ()
    assert watched({0: 1.0, 2: 0.26, 3: 0.0}).warnings() == (
        "busy_host: other processes took 63% of this process's 2 cores.",
    )


def test_processes_of_the_loader_belong_to_the_case_and_their_time_is_counted(watched, monkeypatch):
    monkeypatch.setattr(host_watch, "cpu_seconds", lambda _: 1.26 * host_watch.time.perf_counter())
    found = watched({0: 1.0, 2: 0.26})
    assert found.warnings() == ()
    assert found.helpers_s == pytest.approx(12.6)


def test_ranks_of_the_same_case_are_excused_for_what_they_took_of_our_cores(watched):
    own = (HERE, {0, 2}, 0.0)
    beside, elsewhere = (HERE, {0, 2}, 19.5), ("another", {0, 2}, 19.5)
    pinned, half = (HERE, {4, 6}, 19.5), (HERE, {0, 1, 2, 3}, 16.0)
    for ranks, share in (([beside], None), ([pinned], 100), ([elsewhere], 100), ([half], 60)):
        found = watched({0: 1.0, 2: 1.0})
        found.subtract_peer_ranks([own, *ranks])
        said = [w for w in found.warnings() if w.startswith("busy_host")]
        assert [f"took {share}%" in w for w in said] == ([] if share is None else [True])
