import json
import os
import subprocess
import sys

import pytest

from dlbench.errors import BadInput
from dlbench.launch.containers import PASSED_VARIABLES, CommandRequirements, Mount
from dlbench.launch.runtimes import RUNTIME_RECORDS, RUNTIMES
from tests.fakes import runtimes

AROUND = CommandRequirements(
    workdir="/home/anna/dlbench",
    mounts=(Mount("/scratch", "/scratch"), Mount("/opt/data", "/data", read_only=True)),
    variables=("NCCL_DEBUG",),
    gpus=True,
    user="1000:1000",
    name="dlbench-17",
    options=("--extra",),
)
IMAGES = {"enroot": "/scratch/x.sqsh", "pyxis": "/scratch/x.sqsh", "apptainer": "/scratch/x.sif"}
BY_NAME = ("NCCL_DEBUG", *PASSED_VARIABLES)
NVIDIA = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


def wrapping(runtime, **changes):
    import dataclasses

    return RUNTIME_RECORDS[runtime].wrap(IMAGES.get(runtime, "dlbench:latest"), dataclasses.replace(AROUND, **changes))


def line(argv):
    return " ".join(argv)


def test_none_changes_nothing():
    assert wrapping("none") == RUNTIME_RECORDS["none"].wrap("", CommandRequirements("/"))
    assert wrapping("none").prefix == wrapping("none").srun == ()


def test_docker():
    env = " ".join(f"--env {name}" for name in BY_NAME)
    assert line(wrapping("docker").prefix) == (
        "docker run --rm --gpus all --ipc=host --network=host --pid=host --ulimit memlock=-1 --ulimit stack=67108864 "
        "--user 1000:1000 --env HOME=/tmp --env USER --label dlbench=dlbench-17 "
        "--mount type=bind,source=/scratch,target=/scratch --mount type=bind,source=/opt/data,target=/data,readonly "
        f"--workdir /home/anna/dlbench {env} --extra dlbench:latest"
    )
    assert wrapping("docker").environment == {}
    assert line(wrapping("docker").digest) == "docker image inspect --format {{.Id}} dlbench:latest"
    assert "dlbench-17" in wrapping("docker").cleanup[0]


def test_docker_refuses_several_nodes_and_says_why():
    with pytest.raises(BadInput, match="docker cannot run on 2 nodes: a Docker engine is limited to its node"):
        wrapping("docker", nodes=2)


def test_podman():
    env = " ".join(f"--env {name}" for name in BY_NAME)
    assert line(wrapping("podman").prefix) == (
        "podman run --rm --device nvidia.com/gpu=all --ipc=host --network=host --pid=host "
        "--security-opt=label=disable --ulimit=host --userns=keep-id --label dlbench=dlbench-17 "
        f"--volume /scratch:/scratch --volume /opt/data:/data:ro --workdir /home/anna/dlbench {env} --extra dlbench:latest"
    )
    assert "--userns=keep-id" not in wrapping("podman", user="0:0").prefix


def test_enroot():
    made = wrapping("enroot")
    bash, option, script, names, *rest = made.prefix
    assert (bash, option) == ("bash", "-c")
    assert script.endswith('exec enroot start "${options[@]}" "$2-$SLURMD_NODENAME" "${@:3}"')
    assert set(names.split()) == {*BY_NAME, *NVIDIA}
    assert line(rest) == (
        "--rw --mount /scratch:/scratch --mount /opt/data:/data:none:x-create=auto,rbind,ro --extra -- dlbench-17"
    )
    assert made.environment == {**NVIDIA, "XDG_RUNTIME_DIR": "/tmp/dlbench-17"}
    (_, create), (remove,) = made.prepare, made.cleanup
    assert create == (
        "bash",
        "-c",
        'exec enroot create --name "$0-$SLURMD_NODENAME" "$1"',
        "dlbench-17",
        "/scratch/x.sqsh",
    )
    assert remove == (
        "bash",
        "-c",
        'enroot remove --force "$0-$SLURMD_NODENAME"; rm -rf "/tmp/$0"',
        "dlbench-17",
    )
    assert not made.prepare_once


@pytest.mark.parametrize(
    ("runtime", "there", "removed"),
    [
        ("enroot", "dlbench-{16,17,18}-n1 dlbench-16-n11 dlbench-x-n1 mine-n1", ["dlbench-16-n1"]),
        (
            "pyxis",
            "pyxis_dlbench-{16,17,18} pyxis_15_dlbench-15 pyxis_dlbench-x pyxis_mine pyxis_mydlbench-16 dlbench-16",
            ["pyxis_dlbench-16", "pyxis_15_dlbench-15"],
        ),
    ],
)
def test_what_jobs_that_have_ended_left_on_this_node_is_removed(tmp_path, runtime, there, removed):
    """The sweep itself, by bash, with stand-ins for squeue and enroot."""
    programs = {
        "squeue": "echo 17; echo 18",
        "enroot": f'[ -z "${{ENROOT_DATA_PATH:-}}" ] || [ {runtime} = enroot ] || exit 1\n'
        f'if [ "$1" = list ]; then printf "%s\\n" {there}; else echo "$*" >> log; fi',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    sweep = wrapping(runtime).prepare[0]
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURMD_NODENAME": "n1", "ENROOT_DATA_PATH": "/of/the/job", "SLURM_JOB_ID": "17",
    }  # fmt: skip
    subprocess.run(sweep, check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "log").read_text().splitlines() == [f"remove --force {name}" for name in removed]
    # Where Slurm does not say which jobs live, or speaks of another cluster's, nothing is removed.
    for answer in ("exit 1", "true", "echo 99"):
        (tmp_path / "squeue").write_text(f"#!/bin/bash\n{answer}\n")
        subprocess.run(sweep, check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "log").read_text().count("remove") == len(removed)


@pytest.mark.parametrize("runtime", ["enroot", "pyxis"])
def test_temporary_folders_are_removed_only_where_they_are_ours_and_their_job_has_ended(tmp_path, runtime):
    """In a /tmp of its own: the sweep's folders are there."""
    sweep = wrapping(runtime).prepare[0][2].replace("/tmp/", f"{tmp_path}/tmp/")
    for name in ("dlbench-16", "dlbench-17", "dlbench-x", "other-16"):
        (tmp_path / "tmp" / name / "enroot").mkdir(parents=True)
    (tmp_path / "tmp" / "dlbench-15").symlink_to(tmp_path / "tmp" / "other-16")
    (tmp_path / "tmp" / "dlbench-14").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "tmp" / "dlbench-14", 1000, 1000)
    else:
        (tmp_path / "tmp" / "dlbench-14").rmdir()
    for name, body in {"squeue": "echo 17", "enroot": "true"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    before = {path.name for path in (tmp_path / "tmp").iterdir()}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "17"}
    subprocess.run(["bash", "-c", sweep], check=True, cwd=tmp_path, env=environment)
    assert before - {path.name for path in (tmp_path / "tmp").iterdir()} == {"dlbench-16"}
    assert (tmp_path / "tmp" / "other-16" / "enroot").exists()


def test_pyxis():
    made = wrapping("pyxis")
    assert line(made.srun) == (
        "--container-image=/scratch/x.sqsh --container-name=dlbench-17 "
        "--container-mounts=/scratch:/scratch,/opt/data:/data:ro --container-workdir=/home/anna/dlbench "
        "--container-env=NCCL_DEBUG,NVIDIA_VISIBLE_DEVICES,NVIDIA_DRIVER_CAPABILITIES --extra"
    )
    assert made.prefix == ()
    assert made.environment == NVIDIA


def test_apptainer():
    assert line(wrapping("apptainer").prefix) == (
        "apptainer exec --nv --bind /scratch:/scratch --bind /opt/data:/data:ro --pwd /home/anna/dlbench --extra /scratch/x.sif"
    )
    assert "--cleanenv" not in wrapping("apptainer").prefix


def test_udocker():
    made = wrapping("udocker", mounts=AROUND.mounts[:1])
    assert line(made.prefix) == (
        "udocker run --hostenv --volume=/scratch:/scratch --workdir=/home/anna/dlbench --extra dlbench-17"
    )
    assert [line(argv) for argv in made.prepare] == [
        "udocker create --name=dlbench-17 dlbench:latest",
        "udocker setup --execmode=F3 --nvidia dlbench-17",
    ]
    assert made.prepare_once
    with pytest.raises(BadInput, match="udocker has no read-only mounts"):
        wrapping("udocker")


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "none"])
def test_without_gpus_none_is_asked_for(runtime):
    made = wrapping(runtime, gpus=False, mounts=AROUND.mounts[:1])
    words = line((*made.srun, *made.prefix, *(word for argv in made.prepare for word in argv)))
    assert not {"--gpus", "--nv", "--nvidia", "nvidia.com/gpu=all"} & set(words.split())
    assert made.environment.get("NVIDIA_VISIBLE_DEVICES", "void") == "void"


def test_what_srun_s_mpi_plugins_say_goes_into_an_empty_environment_only_where_they_are_used():
    assert "PMI_RANK" not in wrapping("enroot").prefix[3].split()
    assert {"PMI_RANK", "PMIX_RANK"} <= set(wrapping("enroot", mpi=True).prefix[3].split())


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """Runs a command through a runtime's stand-in, and gives the environment that it found inside."""
    runtimes.install(tmp_path / "bin", "srun", "enroot", "apptainer", "udocker")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_STORE", str(tmp_path / "store"))
    (tmp_path / "x.sqsh").write_bytes(runtimes.SQUASHFS)
    (tmp_path / "x.sif").write_bytes(runtimes.SIF)
    images = {"enroot": "x.sqsh", "pyxis": "x.sqsh", "apptainer": "x.sif"}

    def inside(runtime, environment):
        around = CommandRequirements(
            str(tmp_path), (Mount(str(tmp_path), str(tmp_path)),), ("PYTHONPATH",), gpus=True, name="dlbench-17"
        )
        made = RUNTIME_RECORDS[runtime].wrap(str(tmp_path / images.get(runtime, "image")), around)
        given = os.environ | {"SLURMD_NODENAME": "n1"} | environment | made.environment
        for argv in made.prepare:
            subprocess.run(argv, env=given, check=True)
        show = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
        command = ["srun", *made.srun, *made.prefix, *show]
        done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return inside


@pytest.mark.parametrize("runtime", ["none", "enroot", "pyxis", "apptainer", "udocker"])
def test_the_ranks_and_our_own_variables_arrive_inside_and_what_is_not_set_stays_unset(inside, runtime):
    found = inside(runtime, {"SLURM_JOB_ID": "17", "PYTHONPATH": "/ours"})
    assert (found["SLURM_PROCID"], found["SLURM_NTASKS"], found["SLURM_JOB_ID"]) == ("0", "1", "17")
    assert found["PYTHONPATH"] == "/ours"
    # Set to nothing it would hide every GPU.
    assert "CUDA_VISIBLE_DEVICES" not in found
    assert "RANK" not in found
    if runtime in ("enroot", "pyxis"):
        assert found["NVIDIA_VISIBLE_DEVICES"] == "all"


@pytest.mark.parametrize("runtime", ["enroot", "pyxis", "apptainer", "udocker"])
def test_values_with_blanks_and_quotes_arrive_as_they_are(inside, runtime):
    assert inside(runtime, {"PYTHONPATH": "/a b:$(x) 'y' \"z\""})["PYTHONPATH"] == "/a b:$(x) 'y' \"z\""


def test_nodes_that_share_enroot_s_store_unpack_and_remove_each_its_own(inside, tmp_path):
    for node in ("n1", "n2"):
        inside("enroot", {"SLURMD_NODENAME": node})
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["dlbench-17-n1", "dlbench-17-n2"]
    made = RUNTIME_RECORDS["enroot"].wrap("x", CommandRequirements(str(tmp_path), name="dlbench-17"))
    for argv in made.cleanup:
        subprocess.run(argv, env=os.environ | {"SLURMD_NODENAME": "n1"}, check=True)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["dlbench-17-n2"]


def test_what_a_person_sets_against_ranks_that_do_not_meet_arrives_inside(inside):
    given = {"DLBENCH_MASTER_PORTS": "29500,29510-29520", "DLBENCH_INTERFACE": "ib0", "DLBENCH_RENDEZVOUS_S": "90"}
    found = inside("enroot", given)
    assert {name: found.get(name) for name in given} == given
