import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlbench.__main__ import main
from dlbench.errors import BadInput
from dlbench.launch import job_script, slurm
from dlbench.launch.containers import Mount
from dlbench.launch.sites import ContainerSettings, GpuSettings, ReportJobSettings, Site, load_site
from dlbench.launch.sites import SlurmSettings as SlurmTable
from dlbench.suites.case import Case
from tests.fakes import runtimes

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
JOB = job_script.Job(
    suite="classic",
    suite_file="/scratch/anna/results/jobs/classic-0a1b2c3d/classic.toml",
    results="/scratch/anna/results",
    checkout="/home/anna/dlbench",
    user="1000:1000",
)
MANY = dataclasses.replace(JOB, nodes=2, ranks_per_node=4, image_digest="sha256:0123")
FOUR = dataclasses.replace(JOB, ranks_per_node=4)
ARRAY = dataclasses.replace(JOB, array=8, throttle=2, overrides=("model=lenet5,vgg16", "protocol.min_time_s=1"))
DOCKER = Site(
    "workstation", "workstation.toml", slurm=SlurmTable(cpus_per_task=8), gpus=GpuSettings("gres", None, 2),
    container=ContainerSettings("docker", "dlbench:latest"),
)  # fmt: skip
FOUR_GPUS = dataclasses.replace(DOCKER, gpus=GpuSettings("gres", None, 4))


def site(name):
    return load_site(ROOT / "slurm" / f"{name}.toml", {"HOME": "/home/anna", "SCRATCH": "/scratch/anna"})


def plain(**changes):
    return Site("here", "here.toml", slurm=SlurmTable(cpus_per_task=1, **changes))


SCRIPTS = {
    "job-cpu-array.sh": lambda: slurm.campaign_script(site("cpu"), ARRAY),
    "job-pyxis-2x4.sh": lambda: slurm.campaign_script(site("nvidia-pyxis"), MANY),
    "job-enroot-2x4.sh": lambda: slurm.campaign_script(site("nvidia-enroot"), MANY),
    "job-apptainer.sh": lambda: slurm.campaign_script(site("nvidia-apptainer"), JOB),
    "job-apptainer-2x4.sh": lambda: slurm.campaign_script(site("nvidia-apptainer"), MANY),
    "job-docker.sh": lambda: slurm.campaign_script(DOCKER, JOB),
    "job-docker-1x4.sh": lambda: slurm.campaign_script(FOUR_GPUS, dataclasses.replace(JOB, ranks_per_node=4)),
    "report-enroot.sh": lambda: slurm.report_script(site("nvidia-enroot"), JOB),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_as_they_were_read_and_approved(name):
    text = SCRIPTS[name]()
    if os.environ.get("DLBENCH_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text(), "read the difference; DLBENCH_WRITE_GOLDEN=1 makes it the new truth"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_pass_shellcheck(name):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "-"], input=SCRIPTS[name](), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["job-pyxis-2x4.sh", "job-enroot-2x4.sh", "job-apptainer-2x4.sh"])
def test_two_nodes_with_four_gpus_have_none_of_the_known_traps(name):
    text = SCRIPTS[name]()
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --nodes=2" in directives
    assert "#SBATCH --ntasks-per-node=4" in directives
    assert any("gpu" in line and line.endswith("4") for line in directives)
    assert "--gpus-per-task" not in text  # hides the neighbours' GPUs from NCCL
    assert not any("container" in line for line in directives)  # the script itself runs on the host
    assert "SRUN_CPUS_PER_TASK" in text
    assert "#SBATCH --open-mode=append" in directives
    assert "#SBATCH --signal=B:USR1@180" in directives
    assert "--export=" not in text  # without ALL it loses PATH
    assert "export SLURM_EXPORT_ENV=ALL" in text
    assert "| head" not in text  # a closed pipe would end the script
    assert "--kill-on-bad-exit=1" in text
    assert ("--nv" if "apptainer" in name else "NVIDIA_VISIBLE_DEVICES=all") in text
    assert "--cleanenv" not in text  # drops the ranks
    assert "unset SLURM_CPU_BIND" in text  # that of an interactive step would bind all ranks to its cores
    assert "set -euo pipefail" in text
    assert "--overlap" in text


@pytest.mark.parametrize(
    ("change", "job", "message"),
    [
        (
            {},
            dataclasses.replace(JOB, results="/scratch/my results"),
            "the results folder '/scratch/my results' cannot be used",
        ),
        ({}, dataclasses.replace(JOB, results="/scratch/$(touch x)"), "cannot be used in a job script"),
        ({}, dataclasses.replace(JOB, checkout="/home/a;b"), "the folder of dlbench"),
        ({"max_nodes": 1}, MANY, r"classic needs 2 nodes; here.toml allows 1 \(slurm.max_nodes\)"),
        ({"cpus_per_task": None}, JOB, "otherwise Slurm binds each rank to one core"),
        (
            {"cpus_per_task": 64, "cpus_per_node": 64},
            FOUR,
            r"classic needs 4 ranks per node with 64 cores each \(slurm.cpus_per_task\); here.toml has 64 cores per node "
            r"\(slurm.cpus_per_node\): set slurm.cpus_per_task to at most 16, or remove it",
        ),
        (
            {"cpus_per_task": None, "cpus_per_node": 2},
            FOUR,
            r"needs 4 ranks per node; here.toml has 2 cores per node .*: set devices_per_node to at most 2",
        ),
    ],
)
def test_what_cannot_be_carried_or_given_is_refused(change, job, message):
    base = plain()
    with pytest.raises(BadInput, match=message):
        slurm.campaign_script(dataclasses.replace(base, slurm=dataclasses.replace(base.slurm, **change)), job)


@pytest.mark.parametrize(("ranks", "cores"), [(1, 64), (2, 32), (3, 21), (64, 1)])
def test_the_ranks_of_a_cpu_node_share_its_cores(ranks, cores):
    script = slurm.campaign_script(site("cpu"), dataclasses.replace(JOB, ranks_per_node=ranks))
    assert f"#SBATCH --ntasks-per-node={ranks}\n#SBATCH --cpus-per-task={cores}\n" in script


def test_cores_that_the_site_sets_per_rank_stay_as_they_are():
    assert "--cpus-per-task=1\n" in slurm.campaign_script(plain(cpus_per_node=64), FOUR)


def test_ranks_that_may_need_more_cores_than_a_node_has_are_said_before_submission(tmp_path, capsys):
    file = tmp_path / "mysite.toml"
    words = ["submit", "scaling_strong", "--site", str(file), "--results", str(tmp_path / "r"), "--dry-run"]
    words += ["-P", "devices_per_node=1,4", "-P", "nodes=1"]
    file.write_text("[slurm]\ncpus_per_task = 64\n")
    assert main(words) == 0
    output = capsys.readouterr()
    assert "4 ranks per node with 64 cores each need nodes of 256 cores; replace slurm.cpus_per_task by" in output.err
    file.write_text("[slurm]\ncpus_per_node = 64\n")
    assert main(words) == 0
    output = capsys.readouterr()
    assert "#SBATCH --cpus-per-task=16\n" in output.out
    assert "cores each" not in output.err
    file.write_text("[slurm]\ncpus_per_node = 64\ncpus_per_task = 64\n")
    assert main(words) == 2
    assert "set slurm.cpus_per_task to at most 16, or remove it" in capsys.readouterr().err


def test_more_gpus_than_a_node_has_are_refused():
    with pytest.raises(BadInput, match=r"classic needs 4 GPUs per node; .* has 2"):
        slurm.campaign_script(DOCKER, dataclasses.replace(JOB, ranks_per_node=4))


def test_docker_on_a_shared_node_is_refused_since_it_sees_every_gpu():
    shared = dataclasses.replace(DOCKER, slurm=dataclasses.replace(DOCKER.slurm, exclusive=False))
    with pytest.raises(BadInput, match="uses all GPUs of a node"):
        slurm.campaign_script(shared, JOB)


def test_directives_can_be_left_out_and_added():
    text = slurm.campaign_script(plain(without=("--exclusive", "--mem"), directives=("--reservation=x",)), JOB)
    assert "--exclusive" not in text
    assert "--mem" not in text
    assert "#SBATCH --reservation=x\n" in text


def test_a_folder_inside_of_a_mount_is_not_mounted_again():
    inside = ContainerSettings(
        "apptainer", "/scratch/x.sif", mounts=(Mount("/scratch", "/scratch"), Mount("/home", "/users"))
    )
    text = slurm.campaign_script(dataclasses.replace(plain(), container=inside), JOB)
    assert "--bind /scratch/anna/results" not in text
    assert "--bind /home/anna/dlbench:/home/anna/dlbench" in text


def test_a_step_gets_the_nodes_and_ranks_of_each_case():
    launcher = slurm.step_launcher(["srun", "--mpi=none", "{ranks}", "apptainer", "exec", "x.sif", "python3"])
    case = Case("resnet50", nodes=2, devices_per_node=4)
    assert launcher(case, Path("/r/attempts/a")) == [
        *("srun", "--mpi=none", "--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--job-name=a"),
        *("apptainer", "exec", "x.sif", "python3", "-m", "dlbench.worker", "/r/attempts/a"),
    ]


def test_a_case_of_fewer_nodes_than_the_job_runs_on_the_first_of_them():
    launcher = slurm.step_launcher(["srun", "{ranks}", "python3"], nodes=["n7", "n8", "n9"])
    folder = Path("/r/attempts/a")
    assert "--nodelist=n7,n8" in launcher(Case("resnet50", nodes=2), folder)
    assert "--nodelist=n7" in launcher(Case("resnet50", devices_per_node=4), folder)
    assert not any(word.startswith("--nodelist") for word in launcher(Case("resnet50", nodes=3), folder))


def test_the_report_s_memory_time_and_directives_are_its_own_and_it_asks_for_no_gpu():
    gpu = SlurmTable(partition="gpu", qos="fast", cpus_per_task=16, memory="0", directives=("--reservation=gpus",))
    here = dataclasses.replace(plain(), slurm=gpu, gpus=GpuSettings("gres", None, 4), report=ReportJobSettings())
    text = slurm.report_script(here, JOB)
    assert "--qos=fast" in text
    assert "#SBATCH --mem=4G\n#SBATCH --time=00:30:00\n" in text
    for of_the_campaign in ("--reservation", "--gres", "--exclusive", "--cpus-per-task=16"):
        assert of_the_campaign not in text
    large = dataclasses.replace(here, report=ReportJobSettings(memory="64G", time_limit="4:00:00"))
    assert "#SBATCH --mem=64G\n#SBATCH --time=4:00:00\n" in slurm.report_script(large, JOB)
    without = dataclasses.replace(here, slurm=dataclasses.replace(gpu, without=("--mem",)))
    assert "--mem" not in slurm.report_script(without, JOB)
    there = dataclasses.replace(here, report=ReportJobSettings("cpu", qos="slow", directives=("--mail-type=END",)))
    text = slurm.report_script(there, JOB)
    assert "--reservation" not in text
    assert "--qos=slow" in text
    assert "--mail-type=END" in text
    assert "--reservation=gpus" in slurm.campaign_script(there, JOB)


def test_the_probe_goes_through_the_step_too_as_one_task():
    assert slurm.rank_probe_argv(["srun", "{ranks}", "python3"], ["lenet5"]) == [
        *("srun", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "python3"),
        *("-m", "dlbench.worker", "--probe", "lenet5"),
    ]


def test_a_step_that_ignores_the_case_is_refused():
    with pytest.raises(BadInput, match=r"has no \{ranks\}"):
        slurm.step_launcher(["srun", "python3"])


# --- The scripts, run as a person would run them by hand, with stand-ins for Slurm's programs.


#: In the place of `python3`: says how it was called, and does what the test wants of `dlbench run`.
PYTHON = """#!/usr/bin/env {python}
import os, signal, sys, time
with open({log!r}, "a") as file:
    file.write(repr((sys.argv[1:], dict(os.environ))) + "\\n")
if "run" in sys.argv:
{run}
"""


@pytest.fixture
def by_hand(tmp_path):
    """Runs a campaign's script with bash; gives its process, and what was called in it."""
    runtimes.install(tmp_path / "bin", "srun", "scontrol")
    (tmp_path / "results" / "jobs").mkdir(parents=True)

    class Run:
        log = tmp_path / "calls.txt"
        folder = tmp_path
        job = dataclasses.replace(JOB, results=str(tmp_path / "results"), checkout=str(tmp_path))

        def start(self, site, job=None, run="pass", environment=(), python=None):
            program = tmp_path / "bin" / "python3"
            body = "\n".join(f"    {line}" for line in run.splitlines())
            program.write_text(PYTHON.format(python=sys.executable, log=str(self.log), run=body))
            program.chmod(0o755)
            script = tmp_path / "job.sh"
            script.write_text(slurm.campaign_script(site, job or self.job))
            given = {
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1",
                "SLURM_JOB_NODELIST": "n1,n2", "STANDIN_LOG": str(tmp_path / "slurm.txt"), "HOME": "/root",
            } | dict(environment)  # fmt: skip
            return subprocess.Popen(
                ["bash", script], cwd=tmp_path, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

        def calls(self):
            return [eval(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

        def slurm(self):
            return (tmp_path / "slurm.txt").read_text()

        def wait_for_run(self):
            for _ in range(600):
                if (tmp_path / "ready").exists():
                    return
                time.sleep(0.05)
            raise AssertionError("the campaign did not start")

    return Run()


def test_a_script_looks_at_every_node_and_then_runs_the_campaign(by_hand):
    job = dataclasses.replace(by_hand.job, overrides=("model=lenet5",))
    process = by_hand.start(plain(), job)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    results = str(by_hand.folder / "results")
    (doctor, _), (run, environment) = by_hand.calls()
    token = Path(doctor.pop())
    assert (token.parent, token.name.startswith(".node-check-17-")) == (Path(results) / "jobs", True)
    assert not token.exists()
    assert [doctor, run] == [
        ["-m", "dlbench", "doctor", "--node", "--results", results, "--token"],
        ["-m", "dlbench", "run", job.suite_file, "-P", "model=lenet5", "--results", results],
    ]
    assert environment["PYTHONPATH"] == str(by_hand.folder)


def test_cases_of_several_ranks_are_supervised_outside_and_started_through_the_step(by_hand):
    job = dataclasses.replace(by_hand.job, nodes=2, ranks_per_node=2)
    process = by_hand.start(plain(), job, environment={"SLURM_JOB_NUM_NODES": "2"})
    process.communicate()
    doctors = [argv for argv, _ in by_hand.calls() if "doctor" in argv]
    assert len(doctors) == 2
    ((argv, environment),) = [(argv, env) for argv, env in by_hand.calls() if "run" in argv]
    step = argv[argv.index("--") + 1 :]
    assert argv[argv.index("--launcher") + 1] == "srun"
    assert step == ["srun", "--kill-on-bad-exit=1", "--wait=60", "{ranks}", "python3"]
    assert slurm.step_launcher(step)
    assert environment["MASTER_ADDR"] == "n1"
    assert environment["DLBENCH_MASTER_PORTS"] == "20170-20179"
    assert environment["MASTER_PORT"] == "20170"
    assert "SLURM_PROCID" not in environment


def test_the_overrides_of_a_profile_or_a_person_reach_the_campaign(by_hand):
    job = dataclasses.replace(by_hand.job, nodes=2, ranks_per_node=2)
    given = {"SLURM_JOB_NUM_NODES": "2", "DLBENCH_MASTER_PORTS": "29500,29510-29520", "DLBENCH_MASTER_ADDR": "10.0.0.1"}
    by_hand.start(
        dataclasses.replace(plain(), environment={"DLBENCH_INTERFACE": "ib0"}), job, environment=given
    ).communicate()
    _, environment = next(call for call in by_hand.calls() if "run" in call[0])
    assert environment["DLBENCH_MASTER_PORTS"] == "29500,29510-29520"
    assert environment["MASTER_PORT"] == "29500"
    assert environment["MASTER_ADDR"] == "10.0.0.1"
    assert environment["DLBENCH_INTERFACE"] == "ib0"


@pytest.mark.parametrize(
    ("profile", "person", "behind"), [({}, "/module", "/module"), ({"PYTHONPATH": "/site"}, "/module", "/site")]
)
def test_the_checkout_goes_in_front_of_what_is_in_pythonpath(by_hand, profile, person, behind):
    by_hand.start(dataclasses.replace(plain(), environment=profile), environment={"PYTHONPATH": person}).communicate()
    assert by_hand.calls()[1][1]["PYTHONPATH"] == f"{by_hand.folder}:{behind}"


def test_the_person_s_pythonpath_stays_out_of_a_container_and_the_profile_s_goes_in():
    site = dataclasses.replace(plain(), container=ContainerSettings("apptainer", "/x.sif"))
    assert "export PYTHONPATH=/home/anna/dlbench\n" in slurm.campaign_script(site, JOB)
    with_own = dataclasses.replace(site, environment={"PYTHONPATH": "/extra"})
    assert "export PYTHONPATH=/home/anna/dlbench:/extra\n" in slurm.campaign_script(with_own, JOB)


def test_a_node_that_is_not_fit_ends_the_job_before_the_first_case(by_hand):
    process = by_hand.start(plain(), run="pass", python=None)
    process.communicate()
    by_hand.log.unlink()
    (by_hand.folder / "bin" / "python3").write_text('#!/bin/sh\necho "$@" >>calls.txt\nexit 1\n')
    again = subprocess.run(
        ["bash", by_hand.folder / "job.sh"], cwd=by_hand.folder, capture_output=True, check=False,
        env={"PATH": f"{by_hand.folder / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1"},
    )  # fmt: skip
    assert again.returncode == 1
    assert "run" not in by_hand.log.read_text().split()


#: srun as where the controller is away for the first two tries, and `scontrol ping`, which says so once.
AWAY = """#!/bin/bash
echo "$*" >>sruns.txt
if [ "$(wc -l <sruns.txt)" -le 2 ]; then echo "srun: error: Unable to contact slurm controller" >&2; exit "$SLURM_EXIT_ERROR"; fi
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
PING = """#!/bin/bash
echo "$*" >>pings.txt
[ "$(wc -l <pings.txt)" -gt 1 ] && echo "Slurmctld(primary) at a is UP" || echo "Slurmctld(primary) at a is DOWN"
"""


@pytest.mark.parametrize("status", [0, 1])
def test_a_step_that_slurm_could_not_start_is_started_again_when_its_controller_answers(by_hand, status):
    program = by_hand.folder / "bin"
    process_of = {"srun": AWAY, "scontrol": PING, "sleep": "#!/bin/sh\n"}
    for name, text in process_of.items():
        (program / name).write_text(text)
        (program / name).chmod(0o755)
    process = by_hand.start(plain(), run=f"sys.exit({status})")
    said = process.communicate()[1]
    assert process.returncode == status
    assert said.count("Slurm did not start a step of job 17; waiting for its controller to try again") == 2
    assert (by_hand.folder / "pings.txt").read_text() == "ping\n" * 3
    # What the campaign itself says, such as that cases failed, is never taken for Slurm's.
    assert [argv[2] for argv, _ in by_hand.calls()] == ["doctor", "run"]


def test_a_step_that_slurm_never_starts_ends_the_job(by_hand):
    for name, text in {
        "srun": f"#!/bin/sh\nexit {slurm.SLURM_EXIT_ERROR}",
        "scontrol": "#!/bin/sh\necho is UP",
        "sleep": "#!/bin/sh",
    }.items():
        (by_hand.folder / "bin" / name).write_text(f"{text}\n")
        (by_hand.folder / "bin" / name).chmod(0o755)
    process = by_hand.start(plain())
    assert process.communicate()[1].count("did not start a step") == 5
    assert process.returncode == slurm.SLURM_EXIT_ERROR
    assert by_hand.calls() == []


def test_outside_of_an_allocation_the_script_says_what_to_do(by_hand):
    process = by_hand.start(plain(), environment={"SLURM_JOB_ID": ""})
    assert "submit this with sbatch, or run it with bash inside an allocation" in process.communicate()[1]
    assert process.returncode != 0


def test_the_exit_status_of_the_campaign_is_that_of_the_job(by_hand):
    process = by_hand.start(plain(), run="sys.exit(1)")
    process.communicate()
    assert process.returncode == 1
    assert "requeue" not in by_hand.slurm()


ENDS_ON_SIGNAL = """signal.signal(signal.SIGUSR1, lambda *_: sys.exit(130))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
open("ready", "w").close()
time.sleep(60)"""
#: The step itself in the place of srun, which passes signals on to its tasks.
STEP = '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n'
REQUEUE = '#!/bin/sh\necho "$@" >>requeue.txt\n'


@pytest.fixture
def signalled(by_hand):
    def signalled(number, site, environment=()):
        (by_hand.folder / "bin" / "srun").write_text(STEP)
        (by_hand.folder / "bin" / "scontrol").write_text(REQUEUE)
        process = by_hand.start(site, run=ENDS_ON_SIGNAL, environment=environment)
        by_hand.wait_for_run()
        process.send_signal(number)
        process.communicate(timeout=60)
        asked = by_hand.folder / "requeue.txt"
        return process.returncode, asked.read_text() if asked.exists() else ""

    return signalled


def test_the_warning_before_the_limit_reaches_the_campaign_and_the_job_asks_to_go_on_later(signalled):
    assert signalled(signal.SIGUSR1, plain()) == (130, "requeue 17\n")


def test_the_unpacked_image_is_removed_before_the_job_goes_back_into_the_queue(by_hand, signalled):
    (by_hand.folder / "bin" / "enroot").write_text(
        "#!/bin/sh\nif [ $1 != start ]; then echo enroot $1 >>requeue.txt; exit; fi\n"
        'while [ "$1" != python3 ]; do shift; done\nexec "$@"\n'
    )
    (by_hand.folder / "bin" / "enroot").chmod(0o755)
    site = dataclasses.replace(plain(), container=ContainerSettings("enroot", "/x.sqsh"))
    on_progress = signalled(signal.SIGUSR1, site, {"SLURMD_NODENAME": "n1"})[1].splitlines()
    assert on_progress.index("requeue 17") == 3
    assert on_progress[:3] == ["enroot remove", "enroot create", "enroot remove"]


def test_a_job_that_is_cancelled_does_not_come_back(signalled):
    assert signalled(signal.SIGTERM, plain()) == (130, "")


def test_a_job_that_was_requeued_often_enough_stays_away(signalled):
    assert signalled(signal.SIGUSR1, plain(max_requeues=3), {"SLURM_RESTART_COUNT": "3"}) == (130, "")


def test_a_site_without_requeue_gets_none(signalled):
    assert signalled(signal.SIGUSR1, plain(requeue=False)) == (130, "")


POISON = """$(touch MARK) `touch MARK` '; touch MARK; ' "; touch MARK; " \\'; touch MARK; # ${x} !! * ~"""


def test_the_driver_s_libraries_of_the_host_go_into_the_container_by_their_real_paths(by_hand):
    folder, program = by_hand.folder, by_hand.folder / "bin"
    (folder / "libcuda.so.575.1").write_text("")
    (folder / "libcuda.so.1").symlink_to(folder / "libcuda.so.575.1")
    listed = (
        f"2 libs found\n\tlibcuda.so.1 (libc6,x86-64) => {folder}/libcuda.so.1\n\tlibc.so.6 (libc6) => /lib/libc.so.6\n"
    )
    (program / "ldconfig").write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    (program / "apptainer").write_text('#!/bin/sh\nwhile [ "$1" != python3 ]; do shift; done\nexec "$@"\n')
    for name in ("ldconfig", "apptainer"):
        (program / name).chmod(0o755)
    process = by_hand.start(dataclasses.replace(plain(), container=ContainerSettings("apptainer", "/x.sif")))
    assert process.communicate()[1] == ""
    assert by_hand.calls()[1][1]["DLBENCH_HOST_LIBRARIES"] == f"{folder}/libcuda.so.575.1"


def test_nothing_in_a_profile_or_an_override_is_ever_executed(by_hand):
    base = plain()
    poisoned = dataclasses.replace(
        base,
        environment={"POISON": POISON},
        software=dataclasses.replace(base.software, python=("python3", POISON)),
        container=ContainerSettings("apptainer", "/x.sif", options=(f"-{POISON}",)),
    )
    (by_hand.folder / "bin" / "apptainer").write_text(
        f"#!{sys.executable}\nimport os, sys\nos.execvp('python3', sys.argv[sys.argv.index('python3'):])\n"
    )
    (by_hand.folder / "bin" / "apptainer").chmod(0o755)
    job = dataclasses.replace(by_hand.job, overrides=(f"model={POISON}",), suite_file=f"/{POISON}/s.toml")
    process = by_hand.start(poisoned, job)
    process.communicate()
    (doctor, _), (run, environment) = by_hand.calls()
    assert environment["POISON"] == POISON
    assert doctor[0] == run[0] == POISON
    assert run[run.index("-P") + 1] == f"model={POISON}"
    assert run[run.index("run") + 1] == f"/{POISON}/s.toml"
    assert not list(by_hand.folder.rglob("MARK"))


def test_the_job_number_stands_in_a_word_where_the_script_will_know_it():
    assert job_script.quote_for_shell(f"dlbench-{job_script.JOB_ID_MARK}") == 'dlbench-"$SLURM_JOB_ID"'
    assert job_script.quote_for_shell("") == "''"
    assert job_script.quote_for_shell("a,b") == "'a,b'"
    assert job_script.quote_for_shell("a'b,c") == """'a'"'"'b,c'"""


def test_options_of_srun_stand_in_every_step_of_the_campaign_and_in_none_of_the_report():
    bound = plain(srun=("--cpu-bind=cores", "--distribution=block:block"))
    assert "--cpu-bind=cores --distribution=block:block" in slurm.campaign_script(bound, JOB)
    assert "--cpu-bind" not in slurm.report_script(bound, JOB)


@pytest.mark.parametrize("option", ["--nodes=3", "--mpi=pmix", "cores", "--cpu-bind=$(id)"])
def test_an_option_of_srun_that_cannot_be_used_is_refused(tmp_path, option):
    file = tmp_path / "here.toml"
    file.write_text(f"[slurm]\ncpus_per_task = 1\nsrun = ['{option}']\n")
    with pytest.raises(BadInput, match=r"here.toml:3"):
        load_site(file)
