"""Campaigns through a real sbatch inside of containers: a real Docker engine, and stand-ins for the others."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.cluster.conftest import DAEMONS, HERE, ROOT, measured_once
from tests.cluster.test_slurm import environments, outcomes
from tests.fakes import runtimes

pytestmark = pytest.mark.cluster


def systems(results):
    return [rank["system"] for outcome in outcomes(results) for rank in outcome["ranks"]]


@pytest.fixture(scope="module")
def image(cluster):
    """An image built from containers/Dockerfile on a plain Debian, in an engine of our own."""
    folder = DAEMONS / "docker"
    tag = "dlbench-test:latest"
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
            cluster.environment["DOCKER_HOST"] = os.environ["DOCKER_HOST"]
            subprocess.run([HERE / "engine.sh", "up", folder], check=True)
            subprocess.run([HERE / "engine.sh", "base", folder, "plain-debian"], check=True)
            build = ["docker", "build", "--quiet", "--network=host", "--tag", tag, "--build-arg", "BASE=plain-debian"]
            # What is large comes from the mounted packages of this Python, see below.
            build += ["--build-arg", "PACKAGES=psutil", ROOT / "containers"]
            subprocess.run(build, check=True, env=os.environ | {"DOCKER_BUILDKIT": "0"})
            yield tag
        finally:
            subprocess.run([HERE / "engine.sh", "down", folder], check=True)
            cluster.environment.pop("DOCKER_HOST", None)


def test_a_campaign_inside_of_a_docker_image_with_the_real_worker(cluster, results, site, image):
    packages = sysconfig.get_path("purelib")
    profile = site(
        rest=f'[container]\nruntime = "docker"\nimage = "{image}"\nmounts = ["{packages}:/packages:ro"]',
        python="python3",
    )
    # The image's own Python, with PyTorch from the packages of ours.
    profile.write_text(
        profile.read_text().replace(
            "python = ['python3']", f'python = ["env", "PYTHONPATH={ROOT}:/packages", "python3"]'
        )
    )
    cluster.submit("smoke", profile, results, "-P", "model=lenet5", "-P", "mode=inference")
    cluster.wait_for_end(results)
    measured_once(results, 1)
    (system,) = systems(results)
    assert system["container_runtime"] == "docker"
    assert system["container_image"].startswith(f"{image}@sha256:")
    assert system["os"].startswith("Debian")
    assert any("/packages/" in library for library in system["details"]["libraries"])
    assert any("=> /packages/" in link for link in system["details"]["ldd"])
    # The image brings git, for the commit of the mounted checkout.
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert system["git_commit"] == (head.stdout.strip() or None)
    assert (results / "report" / "index.html").stat().st_size > 10_000


def test_a_cancelled_job_leaves_no_container_behind(cluster, results, site, suite, image, quick_python):
    home, lib = Path(sys.base_prefix), Path(sys.prefix) / "lib"
    mounts = [quick_python.parents[1], home, lib]
    profile = site(
        rest=f'[container]\nruntime = "docker"\nimage = "{image}"\nmounts = {[str(path) for path in mounts]}'.replace(
            "'", '"'
        )
    )
    (job,) = cluster.submit(suite(2, 60.0), profile, results, "--no-report")
    cluster.wait_for_running_case(results)
    show = ["docker", "ps", "--quiet", "--filter", f"label=dlbench=dlbench-{job}"]
    assert len(subprocess.run(show, capture_output=True, text=True, check=True).stdout.split()) == 1
    cluster.dlbench("cancel", "--results", results)
    cluster.wait_for_end(results)
    cluster.wait(lambda: not subprocess.run(show, capture_output=True, check=True).stdout, "the container's end")


def test_four_ranks_of_the_real_worker_in_four_containers_of_one_node(cluster, results, site, image):
    packages = sysconfig.get_path("purelib")
    profile = site(
        rest=f'[network]\nmaster_address = "127.0.0.1"\n'
        f'[container]\nruntime = "docker"\nimage = "{image}"\nmounts = ["{packages}:/packages:ro"]',
        python="python3",
    )
    profile.write_text(
        profile.read_text().replace(
            "python = ['python3']", f'python = ["env", "PYTHONPATH={ROOT}:/packages", "python3"]'
        )
    )
    axes = ("-P", "model=lenet5", "-P", "mode=training", "-P", "devices_per_node=4")
    cluster.submit("smoke", profile, results, *axes, "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 1)
    (outcome,) = outcomes(results)
    assert [rank["measurement"]["rank"] for rank in outcome["ranks"]] == [0, 1, 2, 3]
    assert {rank["measurement"]["world_size"] for rank in outcome["ranks"]} == {4}
    assert {system["container_runtime"] for system in systems(results)} == {"docker"}
    # The supervisor is out here, with the system's Python, which may have no pyarrow.
    cluster.dlbench("collect", "--results", results)
    assert len(list(results.glob("*.parquet"))) == 1


@pytest.fixture
def standins(cluster, tmp_path):
    """Programs for the other runtimes first on PATH; srun's hands on to the real one."""
    runtimes.install(tmp_path / "bin", "srun", "enroot", "apptainer", "udocker")
    before = dict(cluster.environment)
    cluster.environment |= {
        "PATH": f"{tmp_path / 'bin'}:{before['PATH']}",
        "STANDIN_SRUN": shutil.which("srun"),
        "STANDIN_STORE": str(tmp_path / "store"),
        "STANDIN_LOG": str(tmp_path / "log"),
    }
    yield
    cluster.environment = before


@pytest.mark.parametrize("runtime", ["enroot", "pyxis", "apptainer", "udocker"])
def test_a_campaign_through_each_of_the_other_runtimes(cluster, results, site, suite, standins, tmp_path, runtime):
    name = {"apptainer": "x.sif", "udocker": "dlbench:latest"}.get(runtime, "x.sqsh")
    target = name if runtime == "udocker" else tmp_path / name
    profile = site(
        rest=f'[container]\nruntime = "{runtime}"\nimage = "{target}"\nsource = "docker://a#b:c"\n'
        f'mounts = ["{tmp_path}"]\n[gpus]\nrequest = "gres"\nper_node = 4'
    )
    if runtime != "udocker":
        cluster.dlbench("image", "import", "--site", profile)
    cluster.submit(suite(4, 0.5), profile, results, "--array", "2", "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 4)
    assert {environment["CUDA_VISIBLE_DEVICES"] for environment in environments(results)} == {"0"}
    for system in systems(results):
        assert system["container_runtime"] == runtime
        assert system["slurm_job_id"]
        assert ("@sha256:" in system["container_image"]) == (runtime != "udocker")
    # What was unpacked for the jobs is gone.
    assert list((tmp_path / "store").rglob("dlbench-*")) == []


def test_enroot_on_several_nodes_that_share_its_store(cluster, results, site, suite, standins, tmp_path):
    image = tmp_path / "x.sqsh"
    image.write_bytes(runtimes.SQUASHFS)
    profile = site(
        rest=f'[container]\nruntime = "enroot"\nimage = "{image}"\nmounts = ["{tmp_path}"]\n'
        '[gpus]\nrequest = "gres"\nper_node = 4\n[environment]\nDLBENCH_RENDEZVOUS_S = "90"'
    )
    axes = ("-P", "nodes=2", "-P", "devices_per_node=2")
    (job,) = cluster.submit(suite(2, 0.5), profile, results, *axes, "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 2)
    seen = environments(results)
    # What a rank needs to find its place is inside, where nothing of the host's environment goes but by name.
    assert [(e["SLURM_PROCID"], e["SLURM_LOCALID"]) for e in seen] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "0"),
        ("3", "1"),
    ] * 2
    assert {e["SLURM_STEP_TASKS_PER_NODE"] for e in seen} == {"2(x2)"}
    assert {e["DLBENCH_RENDEZVOUS_S"] for e in seen} == {"90"}
    assert all(e["DLBENCH_MASTER_PORTS"] for e in seen)
    nodes = {e["SLURMD_NODENAME"] for e in seen}
    assert len(nodes) == 2
    calls = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    created = {call["argv"][2] for call in calls if call["argv"][0] == "create"}
    assert created == {f"dlbench-{job}-{node}" for node in nodes}
    assert list((tmp_path / "store").iterdir()) == []
