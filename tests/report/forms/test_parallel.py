"""Tasks in several processes do what they would do one after the other."""

import os
import time

import pytest

from dlbench.report.forms import parallel
from dlbench.report.forms.parallel import TaskPool, run_tasks


def run_all(tasks, on_progress=int):
    with TaskPool() as crew:
        return run_tasks([crew.start(task) for task in tasks], on_progress)


@pytest.fixture(autouse=True, params=[1, 3])
def cores(request, monkeypatch):
    monkeypatch.setattr(parallel, "_num_cores", lambda: request.param)
    return request.param


def test_results_come_in_the_order_of_the_tasks_and_each_is_told(cores):
    on_progress = []
    assert run_all([lambda i=i: i * i for i in range(10)], on_progress.append) == [i * i for i in range(10)]
    assert on_progress == list(range(1, 11))


def test_the_work_is_done_elsewhere_where_there_are_several_cores(cores):
    processes = set(run_all([os.getpid] * 20))
    assert (os.getpid() in processes) == (cores == 1)


def test_what_a_task_raises_is_raised_here(tmp_path):
    def fails():
        raise ValueError("no such thing")

    def finds_no_place():
        (tmp_path / "no" / "folder").write_text("x")

    with pytest.raises(ValueError, match="no such thing"):
        run_all([int, fails])
    with pytest.raises(FileNotFoundError):
        run_all([int, finds_no_place])


def test_a_process_that_dies_is_made_up_for_by_this_one(tmp_path, cores):
    here = os.getpid()

    def dies_elsewhere():
        if os.getpid() != here:
            os._exit(9)
        return "done"

    assert run_all([dies_elsewhere, lambda: "too"]) == ["done", "too"]


def test_nothing_to_do_gives_nothing():
    assert run_all([]) == []


def test_tasks_are_done_while_their_starter_does_something_else(tmp_path, cores):
    with TaskPool() as crew:
        pending = crew.start((tmp_path / "made").touch)
        end = time.monotonic() + 20
        while cores > 1 and not (tmp_path / "made").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert (tmp_path / "made").exists() == (cores > 1)
        assert run_tasks([pending, crew.start(lambda: 3)]) == [None, 3]
    assert (tmp_path / "made").exists()


def test_what_still_runs_when_something_else_fails_is_stopped(cores):
    def fails_beside_others():
        with TaskPool() as crew:
            for _ in range(5):
                crew.start(lambda: time.sleep(60))
            raise ValueError("no such thing")

    began = time.monotonic()
    with pytest.raises(ValueError, match="no such thing"):
        fails_beside_others()
    assert time.monotonic() - began < 30
