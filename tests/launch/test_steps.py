"""Steps that Slurm failed: no verdict on their case, and another try once its controller answers."""

from __future__ import annotations

import json

import pytest

from dlbench.campaign import measure
from dlbench.errors import BadInput
from dlbench.launch import attempts, claims, probe, scheduler, supervise
from dlbench.launch.results_folder import ResultsFolder
from dlbench.launch.supervise import Campaign
from dlbench.results.records import Outcome
from dlbench.suites.case import Case
from tests.fakes.workers import script

AWAY = (
    "srun: error: Unable to confirm allocation for job 7: Socket timed out on send/recv operation\n"
    "srun: Check SLURM_JOB_ID environment variable. Expired or invalid job 7\n"
)
NODE_DIED = (
    "slurmstepd-n1: error: *** STEP 1.2 ON n1 CANCELLED AT 2026-11-28T17:28:50 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***\n"
    "srun: error: Node failure on n2\n"
)


@pytest.fixture
def pings(monkeypatch):
    """Slurm's controller, which is away at the first look; gives what was asked of it."""
    asked = []

    def call(argv, environment=None):
        asked.append(list(argv))
        if argv == ["scontrol", "ping"]:
            if asked.count(["scontrol", "ping"]) == 1:
                raise scheduler.SchedulerError("scontrol failed: Slurmctld(primary) at a is DOWN")
            return "Slurmctld(primary) at a is UP\n"
        raise scheduler.SchedulerError("not here")

    monkeypatch.setattr(scheduler, "call_scheduler", call)
    monkeypatch.setattr(scheduler, "PAUSE_S", 0.01)
    return asked


def failing(tmp_path, said, times=1, status=1):
    """A launcher whose first tries end as srun does, with these words."""
    body = (
        f"import pathlib\ntries = pathlib.Path({str(tmp_path / 'tries')!r})\n"
        "n = len(tries.read_text()) if tries.exists() else 0\ntries.write_text('x' * (n + 1))\n"
        f"if n < {times}:\n    import sys; sys.stderr.write({said!r}); sys.exit({status})\nwrite_good()"
    )
    return script(body)


def campaign(tmp_path, launcher, **more):
    root = tmp_path / "results"
    root.mkdir(exist_ok=True)
    return Campaign(root, "s", 1, "sys", launcher=launcher, folder=ResultsFolder(root), **more)


@pytest.mark.parametrize(
    "said", [AWAY, NODE_DIED, "srun: error: Unable to create step for job 7: Job/step already completing\n"]
)
def test_a_case_whose_step_slurm_failed_is_tried_again_when_the_controller_answers(tmp_path, pings, said):
    kept = []
    records = list(
        supervise.run_cases([Case("lenet5")], campaign(tmp_path, failing(tmp_path, said, 2), on_record=kept.append))
    )
    assert [record.status for record in records] == ["ok"]
    assert [record.status for record in kept] == ["preempted", "preempted", "ok"]
    assert kept[0].error.startswith(
        f"Slurm failed its step: {said.splitlines()[0].split('error: ')[1].strip('* ')[:30]}"
    )
    assert pings.count(["scontrol", "ping"]) == 3


def test_a_step_that_slurm_fails_for_ever_ends_as_preempted_and_the_next_case_comes(tmp_path, pings):
    cases = [Case("lenet5"), Case("lenet5", batch_size=2)]
    records = list(supervise.run_cases(cases, campaign(tmp_path, failing(tmp_path, AWAY, scheduler.STEP_TRIES))))
    assert [record.status for record in records] == ["preempted", "ok"]


def test_what_a_case_does_by_itself_stays_its_own_even_where_srun_complained_of_the_controller(tmp_path, pings):
    body = f"import sys; sys.stderr.write({AWAY!r}); (folder / 'result.json').write_text({Outcome('crashed', 'RuntimeError: mine').to_json()!r}); sys.exit(1)"
    (record,) = supervise.run_cases([Case("lenet5")], campaign(tmp_path, script(body)))
    assert (record.status, record.error) == ("crashed", "RuntimeError: mine")
    body = "import sys; sys.stderr.write('srun: error: n1: task 0: Segmentation fault\\n'); sys.exit(139)"
    (record,) = supervise.run_cases([Case("lenet5", batch_size=2)], campaign(tmp_path, script(body)))
    assert record.status == "crashed"
    assert pings == []


def test_the_campaign_counts_the_case_once_and_says_what_happened(tmp_path, pings, capsys):
    cases = [Case("lenet5"), Case("lenet5", batch_size=2)]
    assert measure.measure_cases(campaign(tmp_path, failing(tmp_path, AWAY)), cases, fresh=False) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line[:5] for line in lines] == ["[1/2]", "[1/2]", "[2/2]"]
    assert "preempted  Slurm failed its step: Unable to confirm allocation for job 7" in lines[0]


def test_the_wait_for_the_controller_ends_with_the_job(monkeypatch, pings):
    monkeypatch.setattr(scheduler, "call_scheduler", lambda argv, environment=None: "Slurmctld(primary) at a is DOWN")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")
    touched = []
    assert not scheduler.wait_for_controller(lambda: touched.append(1))
    assert touched


def test_the_first_question_is_asked_again_too(tmp_path, pings, capsys):
    answer = json.dumps(
        {"device_kind": "cpu", "system_key": "k", "devices": [], "unknown_models": {}, "broken_models": {}}
    )
    program = tmp_path / "srun"
    program.write_text(
        f"#!/bin/bash\necho x >>{tmp_path}/tries\nif [ $(wc -l <{tmp_path}/tries) -lt 2 ]; then printf '{AWAY.splitlines()[0]}' >&2; exit 1; fi\n"
        f"echo '{answer}'\n"
    )
    program.chmod(0o755)
    assert probe.probe_machine(argv=[str(program)]).system_key == "k"
    assert "Slurm failed to start the first step: Unable to confirm allocation" in capsys.readouterr().err


def test_a_supervisor_without_srun_says_so_in_one_line():
    with pytest.raises(BadInput, match="cannot measure with srun-is-missing: No such file or directory; run dlbench"):
        probe.probe_machine(argv=["srun-is-missing", "--nodes=1", "python3"])


def left_open(root, **owner):
    dead = claims.owner_identity() | {"pid": 2**22 - 1} | owner
    attempts.create_attempt(root, Case("lenet5"), "s", 1, "sys", dead)


@pytest.mark.parametrize(
    ("owner", "status"),
    [
        ({"slurm_job_id": "7", "slurm_restarts": "0"}, "preempted"),  # requeued since
        ({"slurm_job_id": "7", "slurm_restarts": "1"}, "crashed"),  # another task of the same job
        ({"slurm_job_id": "5", "slurm_restarts": "0"}, "preempted"),  # its node failed
        ({"slurm_job_id": "6", "slurm_restarts": "0"}, "crashed"),
        ({"slurm_job_id": ["x"]}, "crashed"),
        ({}, "crashed"),
    ],
)
def test_a_case_whose_node_died_with_its_supervisor_has_not_crashed(tmp_path, monkeypatch, owner, status):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    states = {"5": "JobState=NODE_FAIL", "6": "JobState=FAILED"}
    monkeypatch.setattr(scheduler, "call_scheduler", lambda argv, environment=None: states[argv[-1]])
    left_open(tmp_path, **owner)
    (record,) = supervise.recover_open_attempts(tmp_path)
    assert record.status == status


def test_the_owner_of_an_attempt_names_its_job(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    list(supervise.run_cases([Case("lenet5")], campaign(tmp_path, script("write_good()"))))
    (file,) = (tmp_path / "results" / "attempts").glob("*/owner.json")
    assert {"slurm_job_id": "7", "slurm_restarts": "0"}.items() <= json.loads(file.read_text()).items()
