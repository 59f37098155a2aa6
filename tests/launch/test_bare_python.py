"""A supervisor on a node whose own Python has nothing installed, while the workers run in another: a container's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.launch import attempts
from tests.fakes import runtimes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.fixture
def dlbench(tmp_path):
    """Runs a command of dlbench with a Python; gives its stderr."""
    runtimes.install(tmp_path / "bin", "srun")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"

    def dlbench(python, *arguments, status=0):
        done = subprocess.run(
            [python, "-m", "dlbench", *map(str, arguments)],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr

    return dlbench


def test_without_pyarrow_cases_are_measured_and_left_for_collect(tmp_path, bare_python, dlbench):
    results = tmp_path / "results"
    run = ["run", "smoke", "-P", "model=lenet5", "-P", "mode=training", "--results", results]
    step = ["--launcher", "srun", "--", "srun", "{ranks}", sys.executable]
    said = dlbench(bare_python, *run, *step)
    assert f"{bare_python} has no package 'pyarrow': results stay in {results}/attempts/" in said
    assert list(results.glob("*.parquet")) == []
    ((_, head),) = attempts.find_closed_attempts(results)
    assert head.status in ("ok", "unstable")

    assert "1 process already measured" in dlbench(bare_python, *run, *step)
    refused = dlbench(bare_python, "collect", "--results", results, status=2)
    assert f"package 'pyarrow' is not installed for {bare_python}" in refused
    assert "Parquet parts rebuilt: 1" in dlbench(sys.executable, "collect", "--results", results)
    assert len(list(results.glob("*.parquet"))) == 1


def test_a_bare_python_plans_and_submits(tmp_path, bare_python, dlbench):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    dlbench(bare_python, "plan", "quick")
    dlbench(bare_python, "submit", "quick", "--site", tmp_path / "site.toml", "--results", tmp_path / "r", "--dry-run")


def test_the_doctor_of_a_node_without_pyarrow_warns_and_lets_the_job_go_on(bare_python, dlbench, monkeypatch):
    from dlbench.launch import doctor
    from dlbench.launch.doctor import python

    monkeypatch.setattr(python, "find_spec", lambda name: None if name == "pyarrow" else True)
    findings = doctor.run_checks(doctor.CheckContext(), doctor.NODE_CHECKS)
    assert [(f.check, f.level) for f in findings if f.level != "ok"] == [("packages", "warn")]
    assert doctor.exit_status(findings) == 0
