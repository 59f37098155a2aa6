import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

from dlbench.launch import doctor
from dlbench.launch.containers import Mount
from dlbench.launch.doctor import folders, python
from dlbench.launch.doctor.machine import NO_ANSWER, CheckContext, CommandResult
from dlbench.launch.sites import (
    ContainerSettings,
    GpuSettings,
    InterconnectSettings,
    PbsSettings,
    Site,
    SlurmSettings,
    SoftwareSettings,
)

ROOT = Path(__file__).parents[2]
PROBE = {
    "torch_version": "2.12",
    "cuda_version": "13.0",
    "nccl_version": "2.29.3",
    "devices": [{"name": "NVIDIA H100"}, {"name": "NVIDIA H100"}],
}
GPU = "0, NVIDIA H100, 575.1, 70.1, 700.00, 1980, 1980, 0x0000000000000001, 40, 1, Disabled"


class Machine:
    """A machine made of files and of programs that give fixed answers."""

    def __init__(self, root):
        self.root, self.answers, self.programs, self.environment = root, {}, set(), {}

    def file(self, path, text=""):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def program(self, command, out="", status=0, err=""):
        """What a command that begins so answers."""
        self.answers[command] = CommandResult(status, out, err)
        self.programs.add(command.split()[0])

    def probe(self, **facts):
        self.answers[f"{sys.executable} -m dlbench.worker --probe"] = CommandResult(0, json.dumps(PROBE | facts))

    def run(self, argv, timeout_s=30.0):
        line = " ".join(argv)
        known = [command for command in self.answers if line.startswith(command)]
        return self.answers[max(known, key=len)] if known else NO_ANSWER

    def place(self, site=None, results=None):
        which = {name: f"/usr/bin/{name}" for name in self.programs}.get
        return CheckContext(site, results, self.root, self.environment, self.run, which)

    def look(self, check, **more):
        return list(check(self.place(**more)))


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path / "root")
    machine.root.mkdir()
    return machine


def levels(findings):
    return [(finding.check, finding.level) for finding in findings]


def gpu_site(**more):
    return Site("s", "s.toml", gpus=GpuSettings("gres", None, 4), **more)


def test_torch_that_sees_the_gpus_is_well(machine):
    machine.probe()
    machine.file("/dev/nvidia0")
    torch, nccl = machine.look(doctor.check_torch)
    assert torch.text == "2.12, built for CUDA 13.0; visible devices: 2 x NVIDIA H100"
    assert (nccl.level, nccl.text) == ("ok", "2.29.3")


def test_gpus_without_nccl_are_a_warning(machine):
    machine.probe(nccl_version=None)
    assert levels(machine.look(doctor.check_torch)) == [("torch", "ok"), ("nccl", "warn")]


@pytest.mark.parametrize(
    ("facts", "environment", "mend"),
    [
        ({"cuda_version": None}, {}, "built without CUDA; install a CUDA build"),
        ({}, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is '', which hides all"),
        ({}, {}, "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
    ],
)
def test_torch_that_is_blind_to_gpus_is_told_why(machine, facts, environment, mend):
    machine.probe(devices=[], **facts)
    machine.file("/dev/nvidia0")
    machine.environment = environment
    findings = machine.look(doctor.check_torch)
    assert levels(findings) == [("torch", "ok"), ("torch", "fail")]
    assert mend in findings[1].mend


def test_no_torch_on_a_login_node_is_a_note_and_in_a_job_a_failure(machine):
    machine.answers[sys.executable] = CommandResult(1, "", "Traceback\nModuleNotFoundError: No module named 'torch'\n")
    (finding,) = machine.look(doctor.check_torch)
    assert finding.level == "note"
    assert "No module named 'torch'" in finding.text
    machine.environment = {"SLURM_JOB_ID": "1"}
    assert machine.look(doctor.check_torch)[0].level == "fail"
    inside = Site("s", "s.toml", container=ContainerSettings("enroot", "/x.sqsh"))
    assert machine.look(doctor.check_torch, site=inside)[0].level == "note"


def test_a_job_without_the_gpus_that_the_site_promises_fails(machine):
    assert levels(machine.look(doctor.check_gpu, site=gpu_site())) == [("gpu", "note")]
    machine.environment = {"SLURM_JOB_ID": "1"}
    assert levels(machine.look(doctor.check_gpu, site=gpu_site())) == [("gpu", "fail")]


def test_a_gpu_that_is_well(machine):
    machine.file("/dev/nvidia0")
    machine.program("nvidia-smi --query-gpu", GPU)
    machine.program("nvidia-smi --query-compute-apps", "")
    findings = machine.look(doctor.check_gpu)
    assert levels(findings) == [("gpu", "ok")]
    assert findings[0].text == "GPU 0: NVIDIA H100, driver 575.1, power limit 700.00 W"


@pytest.mark.parametrize(
    ("change", "finding", "text"),
    [
        (("70.1", "[Insufficient Permissions]"), ("nvml", "warn"), "does not let this user read power.draw"),
        (("70.1", "[N/A]"), ("nvml", "warn"), "no power reading"),
        (("0x0000000000000001", "0x0000000000000024"), ("clocks", "warn"), "throttled by power cap, thermal at 1980"),
        (("Disabled", "Enabled"), ("gpu", "warn"), "MIG is on"),
    ],
)
def test_what_spoils_a_measurement_is_seen(machine, change, finding, text):
    machine.file("/dev/nvidia0")
    machine.program("nvidia-smi --query-gpu", GPU.replace(*change))
    findings = machine.look(doctor.check_gpu)
    assert levels(findings) == [("gpu", "ok"), finding]
    assert text in findings[1].text


def test_other_users_of_the_gpu_are_named(machine):
    machine.file("/dev/nvidia0")
    machine.program("nvidia-smi --query-gpu", GPU)
    machine.program("nvidia-smi --query-compute-apps", "4711, /usr/bin/python, 900 MiB\n")
    assert "1 other processes use these GPUs: 4711, /usr/bin/python" in machine.look(doctor.check_gpu)[1].text


def test_a_driver_that_does_not_answer_fails(machine):
    machine.file("/dev/nvidia0")
    assert "nvidia-smi is not installed" in machine.look(doctor.check_gpu)[0].text
    machine.program("nvidia-smi", "Failed to initialize NVML: Driver/library version mismatch", 18)
    (finding,) = machine.look(doctor.check_gpu)
    assert (finding.check, finding.level) == ("driver", "fail")
    assert "version mismatch" in finding.text


def test_energy_of_the_processor(machine):
    assert levels(machine.look(doctor.check_energy)) == [("cpu energy", "note")]
    machine.file("/sys/class/powercap/intel-rapl:0/energy_uj", "1")
    assert levels(machine.look(doctor.check_energy)) == [("cpu energy", "ok")]


def test_an_interface_that_is_not_there_fails_in_a_job(machine):
    for name in ("lo", "eth0"):
        machine.file(f"/sys/class/net/{name}")
    site = Site("s", "s.toml", network=InterconnectSettings("ib0"))
    assert levels(machine.look(doctor.check_network, site=site))[0] == ("network", "note")
    machine.environment = {"SLURM_JOB_ID": "1"}
    findings = machine.look(doctor.check_network, site=site)
    assert findings[0].level == "fail"
    assert "interface ib0 does not exist here; found: eth0" in findings[0].text


def test_an_mpi_type_that_srun_does_not_know_fails(machine):
    machine.program("srun --mpi=list", "", err="MPI plugin types are...\n\tcray_shasta\n\tnone\n\tpmi2\n")
    assert levels(machine.look(doctor.check_mpi, site=Site("s", "f", slurm=SlurmSettings(mpi="pmi2")))) == [
        ("mpi", "note")
    ]
    findings = machine.look(doctor.check_mpi, site=Site("s", "f", slurm=SlurmSettings(mpi="pmix")))
    assert levels(findings)[1] == ("mpi", "fail")
    assert "pmi2" in findings[1].mend


def test_an_mpi_plugin_that_is_listed_and_cannot_be_loaded_fails(machine):
    site = Site("s", "f", slurm=SlurmSettings(mpi="pmix"))
    machine.program("srun --mpi=list", "", err="MPI plugin types are...\n\tpmix\n\tnone\n")
    said = (
        "srun: error:  mpi/pmix_v4: init: (null) [0]: mpi_pmix.c:195: pmi/pmix: can not load PMIx library\n"
        "srun: error: Couldn't load specified plugin name for mpi/pmix: Plugin init() callback failed\n"
        "srun: error: Invalid MPI type 'pmix', --mpi=list for acceptable types\n"
    )
    machine.program("srun --mpi=pmix --test-only --ntasks=1 true", "", 1, said)
    finding = machine.look(doctor.check_mpi, site=site)[-1]
    assert (finding.level, finding.text) == (
        "fail",
        "srun lists --mpi=pmix but cannot load it: mpi/pmix_v4: init: (null) [0]: mpi_pmix.c:195: pmi/pmix: can not load "
        "PMIx library",
    )
    # Outside of a job srun may refuse for other reasons, such as a missing account.
    machine.program(
        "srun --mpi=pmix --test-only --ntasks=1 true", "", 1, "srun: error: allocation failure: Invalid account"
    )
    assert levels(machine.look(doctor.check_mpi, site=site)) == [("mpi", "note")]
    machine.environment = {"SLURM_JOB_ID": "7"}
    machine.program("srun --mpi=pmix --overlap --nodes=1 --ntasks=1 true", "", 1, said)
    assert levels(machine.look(doctor.check_mpi, site=site))[-1] == ("mpi", "fail")
    machine.program("srun --mpi=pmix --overlap --nodes=1 --ntasks=1 true", "", 0)
    assert levels(machine.look(doctor.check_mpi, site=site)) == [("mpi", "note")]


def slurm_machine(machine):
    machine.program("sbatch --version", "slurm 25.05")
    machine.program("scontrol ping", "Slurmctld(primary) at a is UP\n")
    machine.program("scontrol show partition gpu", "PartitionName=gpu")
    machine.program("scontrol show partition", "", 1)
    machine.program("sacct", "")
    return machine


def test_slurm_that_is_well(machine):
    findings = slurm_machine(machine).look(doctor.check_slurm, site=Site("s", "f", slurm=SlurmSettings("gpu")))
    assert levels(findings) == [("slurm", "ok")]
    assert findings[0].text == "slurm 25.05; Slurmctld(primary) at a is UP"


def test_what_slurm_lacks_is_said(machine):
    assert levels(machine.look(doctor.check_slurm)) == [("slurm", "note")]
    slurm_machine(machine).program("srun --help", "--mpi")
    site = Site("s", "f", slurm=SlurmSettings("gpu,cpu"), container=ContainerSettings("pyxis", "/x.sqsh"))
    findings = machine.look(doctor.check_slurm, site=site)
    assert levels(findings) == [("slurm", "ok"), ("slurm", "fail"), ("pyxis", "fail")]
    assert "partition 'cpu' does not exist" in findings[1].text
    machine.program("srun --help", "--container-image=...")
    assert levels(machine.look(doctor.check_slurm, site=site))[2] == ("pyxis", "ok")
    machine.program("sacct", "", 1, "Slurm accounting storage is disabled")
    assert levels(machine.look(doctor.check_slurm))[-1] == ("slurm", "note")
    machine.program("scontrol ping", "Slurmctld(primary) at a is DOWN")
    assert levels(machine.look(doctor.check_slurm, site=site)) == [("slurm", "fail")]
    assert levels(machine.look(doctor.check_slurm)) == [("slurm", "warn")]


@pytest.mark.parametrize(
    ("err", "mend"),
    [("permission denied while trying to connect", "group docker"), ("Cannot connect to the Docker daemon", "start")],
)
def test_an_engine_that_cannot_be_used_fails(machine, err, mend):
    machine.program("docker info", "", 1, err)
    findings = machine.look(doctor.check_runtimes, site=Site("s", "f", container=ContainerSettings("docker", "x")))
    assert levels(findings) == [("runtimes", "ok"), ("runtimes", "fail")]
    assert mend in findings[1].mend


def test_podman_without_its_cdi_file_fails(machine):
    machine.program("podman", "")
    site = gpu_site(container=ContainerSettings("podman", "x"))
    assert ("runtimes", "fail") in levels(machine.look(doctor.check_runtimes, site=site))
    machine.file("/etc/cdi/nvidia.yaml")
    assert ("runtimes", "fail") not in levels(machine.look(doctor.check_runtimes, site=site))


def test_user_namespaces_that_are_off_fail(machine):
    machine.program("enroot", "")
    machine.file("/x.sqsh")
    site = Site("s", "f", container=ContainerSettings("enroot", "/x.sqsh"))
    machine.program("df", "  Avail Type\n 90000 xfs\n")
    found = levels(machine.look(doctor.check_runtimes, site=site))[1:]
    assert found == [("user namespaces", "ok"), ("image storage", "ok"), ("image", "ok")]
    machine.file("/proc/sys/user/max_user_namespaces", "0\n")
    findings = machine.look(doctor.check_runtimes, site=site)
    assert levels(findings)[1] == ("user namespaces", "fail")
    assert "sysctl -w user.max_user_namespaces=1" in findings[1].mend


def test_an_image_that_is_not_there_fails_and_the_mend_fetches_it(machine):
    findings = machine.look(doctor.check_runtimes, site=Site("s", "f", container=ContainerSettings("pyxis", "/x.sqsh")))
    assert levels(findings)[-1] == ("image", "fail")
    assert "dlbench image import" in findings[-1].mend


def test_folders_that_are_well(tmp_path):
    (tmp_path / "results").mkdir()
    found = list(
        doctor.check_folders(CheckContext(results=tmp_path / "results", environment={"TMPDIR": str(tmp_path)}))
    )
    assert all(finding.level in ("ok", "warn") for finding in found)
    assert levels(found)[:2] == [("results", "ok"), ("temporary", "ok")]
    assert list((tmp_path / "results").iterdir()) == []


def test_a_results_folder_that_is_not_there_is_never_made_and_in_a_job_it_fails(tmp_path):
    folder = tmp_path / "new" / "results"
    here = next(iter(doctor.check_folders(CheckContext(results=folder))))
    assert (here.level, here.text) == ("ok", f"{folder} does not exist yet and can be created in {tmp_path}")
    in_job = next(iter(doctor.check_folders(CheckContext(results=folder, in_job=True))))
    assert (in_job.level, in_job.text) == ("fail", f"results folder {folder} does not exist")
    assert not (tmp_path / "new").exists()


def test_a_results_folder_that_is_another_one_on_this_node_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "TOKEN_TIMEOUT_S", 0.1)
    token = tmp_path / "token"
    found = list(doctor.check_folders(CheckContext(results=tmp_path, token=token, in_job=True)))
    assert levels(found)[:2] == [("results", "ok"), ("results", "fail")]
    assert "is not the same folder as on the job's first node" in found[1].text
    token.touch()
    assert (
        levels(doctor.check_folders(CheckContext(results=tmp_path, token=token, in_job=True)))[:2].count(
            ("results", "fail")
        )
        == 0
    )


def test_a_file_that_a_slow_file_system_shows_late_is_waited_for(tmp_path):
    token = tmp_path / "token"
    threading.Timer(0.7, token.touch).start()
    found = list(doctor.check_folders(CheckContext(results=tmp_path, token=token, in_job=True)))
    assert ("results", "fail") not in levels(found)


def test_a_full_disk_fails(tmp_path, monkeypatch):
    usage = type("S", (), {"f_bavail": 10, "f_blocks": 10, "f_frsize": 4096})()
    monkeypatch.setattr(os, "statvfs", lambda path: usage)
    found = list(doctor.check_folders(CheckContext(results=tmp_path, environment={"TMPDIR": str(tmp_path)})))
    assert levels(found)[:2] == [("results", "fail"), ("temporary", "warn")]
    assert "only 0 MiB free" in found[0].text
    assert levels(found)[2] == ("shared memory", "warn")


def test_a_results_folder_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").write_text("")
    found = list(doctor.check_folders(CheckContext(results=tmp_path / "file" / "results")))
    assert found[0].level == "fail"
    assert "cannot write to" in found[0].text
    (tmp_path / "results").mkdir()
    found = list(doctor.check_folders(CheckContext(results=Path("/proc/self"), in_job=True)))
    assert (found[0].level, "cannot write to /proc/self" in found[0].text) == ("fail", True)


def test_a_server_whose_clock_is_off_fails_since_claims_would_be_taken_over(tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400)
    found = list(doctor.check_folders(CheckContext(results=tmp_path)))
    assert ("clock", "fail") in levels(found)


def test_mounts_are_looked_for_on_every_node_of_the_allocation(machine):
    site = Site("s", "f", container=ContainerSettings(mounts=(Mount("/data", "/data"),)))
    assert levels(machine.look(doctor.check_mounts, site=site)) == [("mounts", "warn")]
    machine.environment = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "1"}
    step = "srun --overlap --nodes=2 --ntasks=2 --ntasks-per-node=1"
    machine.program(step, "n1 seen\nn2 seen\n")
    assert levels(machine.look(doctor.check_mounts, site=site)) == [("mounts", "ok")]
    machine.program(step, "n1 seen\nn2 lacks /data\nn2 seen\n")
    (finding,) = machine.look(doctor.check_mounts, site=site)
    assert (finding.level, finding.text) == ("fail", "n2 lacks /data")
    machine.program(step, "n1 seen\n", 1, "srun: error: n2: no route")
    (finding,) = machine.look(doctor.check_mounts, site=site)
    assert "only 1 of 2 nodes answered: srun: error: n2" in finding.text


def test_a_python_that_cannot_measure_stops_the_job_before_the_first_case(monkeypatch):
    monkeypatch.setattr(python, "find_spec", lambda name: None if name == "torch" else True)
    (finding,) = doctor.check_packages(CheckContext())
    assert finding.level == "fail"
    assert "has no torch" in finding.text


def test_a_python_without_pyarrow_measures_and_is_told_where_the_results_stay(monkeypatch):
    monkeypatch.setattr(python, "find_spec", lambda name: None if name == "pyarrow" else True)
    (finding,) = doctor.check_packages(CheckContext())
    assert finding.level == "warn"
    assert "results stay in one folder per process" in finding.text
    assert "dlbench collect" in finding.mend


def test_every_package_that_measuring_or_reporting_imports_is_looked_for_and_named_as_pip_knows_it(monkeypatch):
    monkeypatch.setattr(python, "find_spec", lambda name: None)
    findings = list(doctor.check_packages(CheckContext()))
    measuring, _keeping, reporting, terminal = findings
    assert [finding.level for finding in findings] == ["fail", "warn", "warn", "note"]
    assert "pip install rich argcomplete" in terminal.mend
    assert "pip install torch torchvision numpy psutil nvidia-ml-py pillow" in measuring.mend
    assert "pip install pandas scipy matplotlib jinja2 duckdb ruptures typst" in reporting.mend
    asked = {word for finding in findings for word in finding.mend.split("pip install ")[1].split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["report"]
    assert asked == {re.split("[<>=]", requirement)[0] for requirement in wanted}


def test_enroot_on_a_disk_that_nodes_share_is_a_warning(machine):
    machine.program("enroot", "")
    machine.program("df", "  Avail Type\n 90000 lustre\n")
    findings = machine.look(
        doctor.check_runtimes, site=Site("s", "f", container=ContainerSettings("enroot", "/x.sqsh"))
    )
    (finding,) = [finding for finding in findings if finding.check == "image storage"]
    assert (finding.level, "is on lustre" in finding.text) == ("warn", True)
    assert "ENROOT_DATA_PATH" in finding.mend


def test_pyxis_with_enroot_s_data_on_a_disk_that_nodes_share_fails_and_says_what_the_site_must_set(machine):
    machine.program("enroot", "")
    machine.file("/etc/enroot/enroot.conf", "ENROOT_DATA_PATH /home/${USER}/enroot\n")
    machine.environment = {"HOME": "/home/anna", "USER": "anna", "ENROOT_DATA_PATH": "/local/mine"}
    machine.program("df", "  Avail Type\n 90000 nfs4\n")

    def storage(nodes, environment=()):
        site = Site(
            "s",
            "f",
            slurm=SlurmSettings(max_nodes=nodes),
            container=ContainerSettings("pyxis", "/x.sqsh"),
            environment=dict(environment),
        )
        return next(f for f in machine.look(doctor.check_runtimes, site=site) if f.check == "image storage")

    # What the profile and the job's environment say has no effect.
    finding = storage(None, {"ENROOT_DATA_PATH": "/local/mine"})
    assert finding.level == "fail"
    assert finding.text.startswith("/home/anna/enroot is on nfs4, which all nodes share: jobs on several nodes fail")
    assert "ask the administrators to set ENROOT_DATA_PATH in /etc/enroot/enroot.conf" in finding.mend
    assert storage(1).level == "warn"
    machine.program("df", "  Avail Type\n 90000 xfs\n")
    assert storage(None).level == "ok"


@pytest.mark.parametrize(
    ("site", "remark"),
    [
        (
            Site("s", "f", software=SoftwareSettings(host_python=("/opt/python",))),
            "software.host_python has no effect without a container",
        ),
        (
            Site("s", "f", container=ContainerSettings("pyxis", "/x"), environment={"ENROOT_DATA_PATH": "/x"}),
            "ENROOT_DATA_PATH has no effect with pyxis",
        ),
        (
            Site(
                "s",
                "f",
                software=SoftwareSettings(host_python=("/opt/python",)),
                container=ContainerSettings("docker", "x"),
            ),
            None,
        ),
        (Site("s", "f"), None),
    ],
)
def test_what_has_no_effect_in_a_profile_is_said(machine, site, remark):
    found = machine.look(doctor.check_site_profile, site=site)
    assert [remark in finding.text and finding.level == "warn" for finding in found] == ([True] if remark else [])


def test_enroot_unpacks_where_the_profile_the_environment_or_the_site_s_configuration_says(machine):
    machine.program("enroot", "")
    machine.environment = {"HOME": "/home/anna", "USER": "anna"}
    machine.program("df --output=avail,fstype --block-size=1M", "  Avail Type\n 90000 xfs\n")

    def storage(**more):
        site = Site("s", "f", container=ContainerSettings("enroot", "/x.sqsh"), **more)
        return next(f for f in machine.look(doctor.check_runtimes, site=site) if f.check == "image storage")

    assert storage().text == "/home/anna/.local/share/enroot (xfs): 90000 MiB free"
    machine.file("/etc/enroot/enroot.conf", "#ENROOT_DATA_PATH /no\nENROOT_DATA_PATH   /local/${USER}/enroot\n")
    assert storage().text.startswith("/local/anna/enroot ")
    machine.environment["ENROOT_DATA_PATH"] = "/tmp/enroot"
    assert storage().text.startswith("/tmp/enroot ")
    assert storage(environment={"ENROOT_DATA_PATH": "/nvme"}).text.startswith("/nvme ")
    machine.program("df --output=avail,fstype --block-size=1M", "  Avail Type\n 9000 xfs\n")
    assert (storage().level, "only 9000 MiB free" in storage().text) == ("warn", True)


def test_podman_with_its_images_on_nfs_fails(machine):
    machine.program("podman info", "/home/anna/.local/share/containers\n")
    machine.program("df", "  Avail Type\n 90000 nfs4\n")
    findings = machine.look(doctor.check_runtimes, site=Site("s", "f", container=ContainerSettings("podman", "x")))
    assert ("image storage", "fail") in levels(findings)


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on():
    def check_broken(place):
        raise ValueError("x")
        yield

    findings = doctor.run_checks(CheckContext(), [check_broken, doctor.check_python])
    assert levels(findings) == [("broken", "warn"), ("python", "ok")]
    assert "ValueError: x" in findings[0].text


def test_what_is_wrong_stands_above_how_to_mend_it():
    text = doctor.findings_as_text([doctor.Finding("gpu", "fail", "none", "buy one")])
    assert text.splitlines() == ["fail  gpu              none", "                       -> buy one"]


def command(*arguments, environment=()):
    argv = [sys.executable, "-m", "dlbench", "doctor", *map(str, arguments)]
    given = os.environ | dict(environment)
    return subprocess.run(argv, cwd=ROOT, env=given, capture_output=True, text=True, check=False)


def test_the_command_looks_at_this_machine_and_its_exit_status_says_whether_something_fails(tmp_path):
    done = command("--json", "--results", tmp_path)
    found = json.loads(done.stdout)
    assert found["host"]
    checks = {finding["check"] for finding in found["findings"]}
    assert {"python", "torch", "gpu", "network", "mpi", "slurm", "runtimes", "results", "temporary"} <= checks
    assert done.returncode == any(finding["level"] == "fail" for finding in found["findings"])


def test_on_a_node_nothing_is_said_unless_something_is_wrong(tmp_path):
    assert command("--node", "--results", tmp_path).returncode == 0
    (tmp_path / "file").write_text("")
    done = command("--node", "--results", tmp_path / "file" / "results", environment={"SLURMD_NODENAME": "n7"})
    assert done.returncode == 1
    assert f"n7: results folder {tmp_path}/file/results does not exist" in done.stdout


def test_pbs_and_its_queue_are_checked_where_the_profile_uses_it(machine):
    site = Site("s", "f", scheduler="pbs", pbs=PbsSettings(queue="workq"))
    assert levels(machine.look(doctor.check_pbs, site=site)) == [("pbs", "note")]
    machine.program("qsub --version", "pbs_version = 23.06.06")
    machine.program("qstat -B", "", 1, "Connection refused\nqstat: cannot connect")
    assert levels(machine.look(doctor.check_pbs, site=site)) == [("pbs", "fail")]
    machine.program("qstat -B", "Server")
    machine.program("qstat -Q workq", "", 170, "Unknown queue")
    assert levels(machine.look(doctor.check_pbs, site=site)) == [("pbs", "ok"), ("pbs", "fail")]
    machine.program("qstat -Q workq", "workq")
    assert levels(machine.look(doctor.check_pbs, site=site)) == [("pbs", "ok")]
    assert machine.look(doctor.check_slurm, site=site) == []
    assert machine.look(doctor.check_pbs) == []
