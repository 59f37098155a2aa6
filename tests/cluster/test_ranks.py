"""Cases of several ranks: one step of srun each, over real nodes."""

import subprocess
import sys

import pytest

from tests.cluster.conftest import ROOT, measured_once
from tests.cluster.test_slurm import environments, outcomes

pytestmark = pytest.mark.cluster

STEP = ("srun", "--kill-on-bad-exit=1", "--wait=60", "{ranks}")


@pytest.fixture
def one_case(cluster, results, quick_python):
    """Supervises one case inside of an allocation of two nodes with four GPUs each; gives what became of it."""

    def one_case(model, nodes=2, ranks_per_node=4, timeout_s=60):
        allocation = ["salloc", "--quiet", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=1", "--gres=gpu:4"]
        supervisor = [sys.executable, "-m", "tests.cluster.supervise_ranks", results, model, nodes, ranks_per_node]
        command = [*allocation, *supervisor, timeout_s, *STEP, quick_python]
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, env=cluster.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return one_case


def test_every_rank_knows_its_place_and_sees_all_gpus_of_its_node(one_case, results):
    assert one_case("lenet5").split() == ["ok"]
    seen = environments(results)
    assert [int(e["SLURM_PROCID"]) for e in seen] == list(range(8))
    assert [int(e["SLURM_LOCALID"]) for e in seen] == [0, 1, 2, 3] * 2
    assert len({e["SLURMD_NODENAME"] for e in seen}) == 2
    assert {e["SLURM_NTASKS"] for e in seen} == {"8"}
    assert {e["CUDA_VISIBLE_DEVICES"] for e in seen} == {"0,1,2,3"}


def test_a_case_takes_only_the_ranks_it_asks_for(one_case, results):
    assert one_case("lenet5", nodes=1, ranks_per_node=2).split() == ["ok"]
    assert [e["SLURM_NTASKS"] for e in environments(results)] == ["2", "2"]


def test_when_a_rank_dies_the_others_are_ended_and_its_last_words_are_kept(one_case):
    said = one_case("dies")
    assert said.startswith("crashed worker ended with exit status")


def test_ranks_that_hang_are_ended_at_the_time_limit_of_the_case_and_none_is_left(one_case, cluster):
    assert one_case("hangs", timeout_s=4).startswith("timeout did not end within 4 s")
    left = subprocess.run(["pgrep", "-f", "tests.cluster.worker"], capture_output=True, text=True, check=False)
    assert left.stdout == ""


@pytest.mark.parametrize(("nodes", "ranks_per_node"), [(4, 1), (2, 2)])
def test_a_campaign_of_four_ranks_goes_through_sbatch(cluster, results, site, suite, nodes, ranks_per_node):
    axes = ("-P", f"nodes={nodes}", "-P", f"devices_per_node={ranks_per_node}")
    cluster.submit(suite(2, 0.5), site(rest='[network]\nmaster_address = "127.0.0.1"'), results, *axes, "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 2)
    assert len(environments(results)) == 8


def test_four_ranks_on_four_nodes_measure_with_the_real_worker(cluster, results, site):
    # The names of these nodes do not resolve, so the ranks are told where to meet.
    profile = site(rest='[network]\nmaster_address = "127.0.0.1"', python=sys.executable)
    axes = ("-P", "model=lenet5", "-P", "mode=training", "-P", "nodes=4")
    cluster.submit("smoke", profile, results, *axes, "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 1)
    (outcome,) = outcomes(results)
    assert [rank["measurement"]["rank"] for rank in outcome["ranks"]] == [0, 1, 2, 3]
    assert {rank["measurement"]["world_size"] for rank in outcome["ranks"]} == {4}
