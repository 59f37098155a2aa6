"""A wheel, installed into an empty environment and used from an empty folder, is a complete dlbench."""

import email.parser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fakes import runtimes

ROOT = Path(__file__).parents[1]
#: What the extra `report` brings.
ONLY_FOR_REPORTS = ("pandas", "scipy", "matplotlib", "jinja2", "typst", "duckdb")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build", reason="comes with the extra dev")
    pytest.importorskip("hatchling", reason="comes with the extra dev")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The command of an environment that holds the wheel alone; other packages come from where these tests run."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "others.pth").write_text("\n".join(packages))
    return folder / "bin" / "dlbench"


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("somewhere")


def call(installed, folder, *arguments, **environment):
    usual = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DLBENCH_PATH")}
    return subprocess.run(
        [installed, *map(str, arguments)],
        cwd=folder,
        env=usual | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_metadata_is_complete(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        file = next(name for name in names if name.endswith("/METADATA"))
        about = email.parser.Parser().parsestr(archive.read(file).decode())
    assert about["Name"] == "dlbench"
    assert about["License-Expression"] == "Apache-2.0"
    assert {"report", "mpi", "timm", "dev"} <= set(about.get_all("Provides-Extra"))
    assert "Typing :: Typed" in about.get_all("Classifier")
    assert "dlbench/py.typed" in names
    needed = [one.partition(">")[0] for one in about.get_all("Requires-Dist") if "extra ==" not in one]
    assert not {"pandas", "scipy", "matplotlib", "jinja2", "typst", "duckdb"} & set(needed)
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], check=True, capture_output=True)


@pytest.mark.slow
def test_what_only_reports_need_is_not_needed_to_measure(installed, somewhere, tmp_path):
    for name in ONLY_FOR_REPORTS:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}', name='{name}')\n")
    done = call(
        installed, somewhere, "run", "smoke", "-P", "device=cpu", "-P", "model=lenet5", PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert list((somewhere / "results").glob("*.parquet"))
    done = call(installed, somewhere, "report", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'dlbench[report]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_report_is_built_beside_a_reference_system(installed, somewhere):
    done = call(installed, somewhere, "report", "results", "--with-reference", "-o", "report")
    assert done.returncode == 0, done.stderr
    assert "reference-epyc" in (somewhere / "report" / "index.html").read_text()


def test_a_job_can_be_planned_and_an_image_fetched(installed, tmp_path):
    done = call(installed, tmp_path, "submit", "quick", "--site", "cpu", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=compute" in done.stdout
    assert str(ROOT) not in done.stdout
    runtimes.install(tmp_path / "bin", "apptainer")
    images = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SCRATCH": str(tmp_path / "scratch"),
        "STANDIN_LOG": str(tmp_path / "log"),
    }
    done = call(installed, tmp_path, "image", "import", "--site", "nvidia-apptainer", **images)
    assert done.returncode == 0, done.stderr
    assert "sha256:" in done.stdout
    assert call(installed, tmp_path, "image", "recipes").returncode == 0
    assert (tmp_path / "containers" / "Dockerfile").read_text() == (ROOT / "containers" / "Dockerfile").read_text()


def test_the_doctor_looks_at_this_machine(installed, tmp_path):
    done = call(installed, tmp_path, "doctor")
    assert done.returncode in (0, 1), done.stderr
    assert "torch" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_copy_in_the_current_folder_comes_before_the_suite_of_the_package(installed, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for folder, name in (("benchmarks", "mine"), (".", "quick")):
        done = call(installed, tmp_path, "suites", "--copy", "quick")
        assert done.returncode == 0, done.stderr
        (tmp_path / "quick.toml").rename(tmp_path / folder / f"{name}.toml")
    assert "12" in call(installed, tmp_path, "plan", "mine").stdout
    assert "'quick.toml' already exists" in call(installed, tmp_path, "suites", "--copy", "quick").stderr
    own = tmp_path / "own"
    own.mkdir()
    (own / "smoke.toml").write_text('description = "my own smoke"\n[axes]\nmodel = ["lenet5"]\n')
    listed = call(installed, tmp_path, "suites", "--format", "csv", DLBENCH_PATH=str(own)).stdout
    assert "mine,12," in listed
    assert "smoke,1,my own smoke," in listed
    assert "classic," in listed
