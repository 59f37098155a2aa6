"""One job per node: which nodes are submitted, skipped, and tried again."""

import pytest

from dlbench.__main__ import main
from dlbench.launch import each_node, jobs, scheduler
from dlbench.launch.scheduler import SchedulerError
from tests.launch.test_jobs import FakeSlurm, finish

SITE = '[slurm]\ncpus_per_task = 1\npartition = "debug"\n[report]\ntime_limit = "10"\n'
SUITE = 'name = "fleet"\n[axes]\nmodel = ["lenet5"]\nbatch_size = [1, 2]\n[protocol]\nprocesses = 1\n'


class Nodes(FakeSlurm):
    """A Slurm that has nodes too; `most` jobs are taken."""

    def __init__(self, states, most=99):
        super().__init__()
        self.states, self.most = states, most

    def __call__(self, argv, environment=None):
        if argv[0] == "sinfo":
            return "".join(f"{name}|{state}\n" for name, state in self.states.items())
        if argv[0] == "sbatch" and len(self.submitted()) >= self.most:
            raise SchedulerError("sbatch failed: QOSMaxSubmitJobPerUserLimit")
        return super().__call__(argv, environment)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "here.toml").write_text(SITE)
    (tmp_path / "fleet.toml").write_text(SUITE)
    return tmp_path


def submit(monkeypatch, site, slurm, *words):
    monkeypatch.setattr(scheduler, "call_scheduler", slurm)
    given = [str(site / "fleet.toml"), "--site", str(site / "here.toml"), "--results", str(site / "results")]
    return main(["submit", *given, *words])


def bound_nodes(site):
    scripts = (site / "results" / "nodes").glob("*/jobs/*/job.sh")
    return {script.parts[-4]: script.read_text() for script in scripts}


def test_each_node_gets_a_job_and_a_results_folder_of_its_own(monkeypatch, site, capsys):
    slurm = Nodes({"n1": "idle", "n2": "allocated", "n3": "mixed"})
    assert submit(monkeypatch, site, slurm, "--each-node") == 0
    scripts = bound_nodes(site)
    assert sorted(scripts) == ["n1", "n2", "n3"]
    for node, text in scripts.items():
        assert f"#SBATCH --nodelist={node}\n" in text
        assert f"results={site}/results/nodes/{node}\n" in text
    assert len(slurm.submitted()) == 3
    assert "submitted for 3 nodes" in capsys.readouterr().err


def test_only_the_nodes_asked_for_are_measured(monkeypatch, site):
    slurm = Nodes({f"n{i}": "idle" for i in range(1, 6)})
    assert submit(monkeypatch, site, slurm, "--each-node", "--nodes", "n[2-3]") == 0
    assert sorted(bound_nodes(site)) == ["n2", "n3"]


def test_nodes_that_are_down_are_named_and_tried_by_the_same_command_later(monkeypatch, site, capsys):
    slurm = Nodes({"n1": "idle", "n2": "down*", "n3": "drained"})
    assert submit(monkeypatch, site, slurm, "--each-node") == 1
    assert "skipped 2 nodes (n[2-3]): not available (down or drained)" in capsys.readouterr().err
    slurm.states |= {"n2": "idle"}
    assert submit(monkeypatch, site, slurm, "--each-node") == 1
    assert sorted(bound_nodes(site)) == ["n1", "n2"]
    assert "skipped 1 node (n1): a job is queued or running" in capsys.readouterr().err


def test_a_node_is_submitted_again_until_all_its_cases_are_done(monkeypatch, site, capsys):
    slurm = Nodes({"n1": "idle"})
    submit(monkeypatch, site, slurm, "--each-node")
    slurm.queue.clear()
    folder = each_node.node_or_gpu_folder(site / "results", each_node.NodeOrGpu("n1"))
    (submission,) = jobs.submission_folders(folder)
    suite = jobs.submitted_suite(jobs.read_submission(submission))
    finish(folder, suite, 0)
    assert submit(monkeypatch, site, slurm, "--each-node") == 0
    assert len(slurm.submitted()) == 2
    slurm.queue.clear()
    for number in range(1, len(suite.cases())):
        finish(folder, suite, number)
    assert submit(monkeypatch, site, slurm, "--each-node") == 0
    assert len(slurm.submitted()) == 2
    assert "skipped 1 node (n1): all cases are measured" in capsys.readouterr().err


def test_a_limit_of_jobs_ends_with_1_and_says_what_to_do(monkeypatch, site, capsys):
    slurm = Nodes({f"n{i}": "idle" for i in range(1, 6)}, most=2)
    assert submit(monkeypatch, site, slurm, "--each-node") == 1
    assert "run the same command later" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--each-node", "--nodes", "n9"],
        ["--each-node", "--nodes", "n["],
        ["--nodes", "n1"],
        ["--each-node", "--array", "4"],
        ["--each-node", "-P", "nodes=2"],
    ],
)
def test_bad_input_ends_with_2_and_one_line(monkeypatch, site, words, capsys):
    assert submit(monkeypatch, site, Nodes({"n1": "idle"}), *words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_dry_run_prints_the_scripts_and_submits_nothing(monkeypatch, site, capsys):
    slurm = Nodes({"n1": "idle", "n2": "idle"})
    assert submit(monkeypatch, site, slurm, "--each-node", "--dry-run") == 0
    assert capsys.readouterr().out.count("--nodelist=") == 2
    assert not slurm.submitted()


def test_ten_thousand_nodes_are_sorted_and_submitted_up_to_the_limit(monkeypatch, site, capsys):
    slurm = Nodes({f"n{i}": "down" if i % 2 else "idle" for i in range(10_000)}, most=3)
    assert submit(monkeypatch, site, slurm, "--each-node") == 1
    assert len(slurm.submitted()) == 3
    err = capsys.readouterr().err
    assert "skipped 5000 nodes (" in err
    assert max(map(len, err.splitlines())) < 1000
