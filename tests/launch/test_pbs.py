"""PBS behind the seam that Slurm uses too: scripts, and the commands with stand-ins for qsub, qstat, qdel."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.__main__ import main
from dlbench.errors import BadInput
from dlbench.launch import batch_systems, pbs
from dlbench.launch.scheduler import JobState, SchedulerError
from dlbench.launch.sites import ContainerSettings, GpuSettings, PbsSettings, Site, load_site
from tests.fakes import pbs as standin
from tests.fakes.quick import make_python
from tests.launch.test_slurm import ARRAY, GOLDEN, JOB, MANY, site

APPTAINER = Site(
    "gpu", "gpu.toml", scheduler="pbs", pbs=PbsSettings(cpus_per_node=64, time_limit="08:00:00", memory="500G"),
    gpus=GpuSettings("gres", None, 4), container=ContainerSettings("apptainer", "/scratch/x.sif"),
)  # fmt: skip
SCRIPTS = {
    "pbs-job-cpu-array.sh": lambda: pbs.campaign_script(site("pbs"), ARRAY),
    "pbs-job-cpu-2x4.sh": lambda: pbs.campaign_script(site("pbs"), MANY),
    "pbs-job-apptainer-1x4.sh": lambda: pbs.campaign_script(APPTAINER, dataclasses.replace(JOB, ranks_per_node=4)),
    "pbs-report.sh": lambda: pbs.report_script(site("pbs"), JOB),
}
SUITE = 'name = "mine"\n[axes]\nmodel = ["lenet5"]\nbatch_size = [1, 2]\ndevice = ["cpu"]\n[protocol]\nprocesses = 1\n'


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_as_they_were_read_and_pass_shellcheck(name):
    text = SCRIPTS[name]()
    if os.environ.get("DLBENCH_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text(), "read the difference; DLBENCH_WRITE_GOLDEN=1 makes it the new truth"
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a suite and a site, and a PBS on PATH."""
    monkeypatch.setenv("PATH", f"{standin.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    python = make_python(tmp_path / "python")
    (tmp_path / "mine.toml").write_text(SUITE)
    (tmp_path / "here.toml").write_text(
        f'scheduler = "pbs"\n[pbs]\ncpus_per_node = 1\ntime_limit = "01:00:00"\n[software]\npython = [\'{python}\']\n'
    )
    return tmp_path


def submit(here, *words):
    given = [str(here / "mine.toml"), "--site", str(here / "here.toml"), "--results", str(here / "results")]
    return main(["submit", *given, *words])


def known(here):
    return json.loads((here / "bin" / "jobs.json").read_text())


def test_a_campaign_is_submitted_shown_cancelled_and_resumed(here, capsys):
    assert submit(here) == 0
    assert known(here)["102"]["depend"] == "depend=afterany:101"
    assert main(["status", "--results", str(here / "results")]) == 0
    out = capsys.readouterr().out
    assert "101.server" in out
    assert "PENDING" in out
    assert main(["cancel", "--results", str(here / "results")]) == 0
    assert {job["state"] for job in known(here).values()} == {"F"}
    assert main(["status", "--results", str(here / "results")]) == 0
    assert capsys.readouterr().out.count("CANCELLED") == 2
    assert main(["resume", "--results", str(here / "results")]) == 0
    assert len(known(here)) == 4


def test_an_array_is_one_job_with_subjobs(here, capsys):
    assert submit(here, "--array", "2%1", "--no-report", "--after", "77") == 0
    assert known(here)["101[]"]["depend"] == "depend=afterany:77"
    assert known(here)["101[]"]["subjobs"] == 2
    states = batch_systems.BATCH_SYSTEMS["pbs"].states(["101[]"])
    assert [state.id for state in states] == ["101[0].server", "101[1].server"]
    main(["cancel", "--results", str(here / "results")])
    assert batch_systems.BATCH_SYSTEMS["pbs"].states(["101[]"]) == [JobState("101[]", "CANCELLED")]


def test_the_script_measures_the_suite(here, monkeypatch, capsys):
    monkeypatch.setenv("PBS_RUNS", "1")
    monkeypatch.setenv("PYTHONPATH", str(GOLDEN.parents[1]))
    assert submit(here, "--no-report", "--wait") == 0, capsys.readouterr().err
    outputs = "".join(file.read_text() for file in (here / "results" / "jobs").glob("*.o101*"))
    assert "2 done, 0 running" in capsys.readouterr().out, outputs
    assert batch_systems.BATCH_SYSTEMS["pbs"].states(["101"]) == [JobState("101", "COMPLETED")]


def test_a_job_that_can_never_run_is_named_after_submission(here, capsys):
    file = here / "here.toml"
    file.write_text(file.read_text().replace("01:00:00", "99:00:00"))
    assert submit(here, "--no-report") == 1
    assert "job 101.server cannot start: Can Never Run: job violates queue" in capsys.readouterr().err


def test_each_node_that_is_up_gets_a_job(here, capsys):
    assert submit(here, "--each-node") == 1
    selects = [job["resources"]["select"] for job in known(here).values()]
    assert selects == ["1:ncpus=1:mpiprocs=1:host=n1", "1:ncpus=1:mpiprocs=1:host=n2"]
    assert "2 nodes (n[3-4]): not available (down or drained); run the same command later" in capsys.readouterr().err


def test_running_jobs_show_their_nodes(here):
    submit(here, "--no-report")
    jobs = known(here)
    jobs["101"]["state"] = "R"
    (here / "bin" / "jobs.json").write_text(json.dumps(jobs))
    (state,) = pbs.queued_jobs()
    assert (state.state, state.nodes, state.elapsed, state.limit) == ("RUNNING", "n1,n2", "00:01:00", "01:00:00")


def test_without_pbs_the_message_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="qselect is not on PATH; run this on a login node"):
        pbs.queued_jobs()


@pytest.mark.parametrize(
    ("changes", "job", "message"),
    [
        ({"container": ContainerSettings("pyxis", "/x.sqsh")}, JOB, "pyxis does not run with PBS"),
        ({"container": ContainerSettings("docker", "x:latest")}, JOB, "docker does not run with PBS"),
        ({}, MANY, "run without a container"),
        ({"pbs": PbsSettings()}, JOB, "pbs.cpus_per_node"),
        (
            {"pbs": PbsSettings(cpus_per_node=1, max_nodes=1), "container": ContainerSettings()},
            MANY,
            r"\(pbs.max_nodes\)",
        ),
        ({"gpus": GpuSettings("gres", None, 1)}, dataclasses.replace(JOB, ranks_per_node=2), "needs 2 GPUs per node"),
    ],
)
def test_what_pbs_cannot_run_is_refused(changes, job, message):
    with pytest.raises(BadInput, match=message):
        pbs.campaign_script(dataclasses.replace(APPTAINER, **changes), job)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('scheduler = "pbx"', "unknown scheduler 'pbx' in .*did you mean 'pbs'"),
        ('[pbs]\ntime_limit = "4"', "hours:minutes:seconds"),
        ('[pbs]\ndirectives = ["-N x"]', "do not set -N: dlbench sets it"),
        ('[pbs]\nresources = ["a;b"]', "a resource such as model=icelake"),
        ('scheduler = "pbs"\n[report]\ntime_limit = "10"', "hours:minutes:seconds with PBS"),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, text, message):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(BadInput, match=message):
        load_site(tmp_path / "site.toml")
