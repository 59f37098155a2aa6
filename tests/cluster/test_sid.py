"""The main path on Debian sid, with its Slurm and a real Apptainer; collected only there, see `sid.sh`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import measured_once
from tests.cluster.test_slurm import environments, outcomes

pytestmark = pytest.mark.cluster

#: A folder with the system that becomes the image.
IMAGE_ROOT = Path("/image")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image of Apptainer's, of a plain Debian, uncompressed since that is quicker."""
    file = tmp_path_factory.mktemp("image") / "plain.sif"
    build = ["apptainer", "build", "--mksquashfs-args", "-noI -noD -noF -noX", file, IMAGE_ROOT]
    subprocess.run(build, check=True, capture_output=True)
    return file


def test_a_suite_of_real_cases_from_submit_to_report(cluster, results, site):
    assert int(cluster.slurm("sbatch", "--version").split()[1].partition(".")[0]) >= 26
    cluster.submit("smoke", site(python=sys.executable), results, "-P", "model=lenet5", "--array", "2%1")
    cluster.wait_for_end(results)
    (count,) = cluster.status(results)["counts"]
    assert (count["total"], count["done"]) == (2, 2), cluster.output(results)
    assert (results / "report" / "index.html").stat().st_size > 10_000


def container(image, *more):
    mounts = json.dumps([str(path) for path in dict.fromkeys((sys.base_prefix, sys.prefix, *more))])
    return f'[container]\nruntime = "apptainer"\nimage = "{image}"\nmounts = {mounts}\n[network]\nmaster_address = "127.0.0.1"\n'


def packages():
    """Where this Python's packages lie, which may be outside of its folder."""
    return [path for path in sys.path if path.endswith("site-packages")]


def test_a_real_case_in_an_image_of_apptainer(cluster, results, site, image):
    profile = site(rest=container(image, *packages()), python=sys.executable)
    cluster.dlbench("image", "import", "--site", profile)
    cluster.submit("smoke", profile, results, "-P", "model=lenet5", "-P", "mode=inference", "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 1)
    (outcome,) = outcomes(results)
    ((system,),) = [[rank["system"] for rank in outcome["ranks"]]]
    assert system["container_runtime"] == "apptainer"
    assert system["container_image"].startswith(f"{image}@sha256:")


def test_ranks_of_two_nodes_each_in_an_image_of_apptainer(cluster, results, site, suite, image, quick_python):
    more = (*packages(), quick_python.parents[1])
    cluster.submit(suite(2, 0.5), site(rest=container(image, *more)), results, "-P", "nodes=2", "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 2)
    seen = environments(results)
    assert len({environment["SLURMD_NODENAME"] for environment in seen}) == 2
    assert [environment["SLURM_PROCID"] for environment in seen] == ["0", "1"] * 2
