"""A user's own network that has changed is another case; what its code does otherwise spoils nothing."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.errors import BadInput, StoreError
from dlbench.launch import attempts, probe, supervise
from dlbench.launch.results_folder import require_writable_folder
from dlbench.models import external
from dlbench.results import store
from dlbench.results.records import Record
from dlbench.suites.case import Case
from dlbench.suites.suite import load_suite
from dlbench.worker.network_check import check_network
from tests.fakes import records as fakes
from tests.fakes.workers import script
from tests.worker.conftest import NETWORKS


def test_a_network_that_is_not_what_it_says_is_refused_before_the_first_case(monkeypatch):
    monkeypatch.chdir(NETWORKS)
    found = check_network("odd_networks:huge")
    assert "input_shape (1, 1000000000000000000000000000000, 1), which does not fit into any memory" in found.error
    assert check_network("odd_networks:raising").error is None  # its first case will tell why


@pytest.mark.parametrize("threads", ["abc", "0", "-1", "1.5", "2,,2", "2 2"])
def test_threads_that_openmp_would_pass_over_are_refused(threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with pytest.raises(BadInput, match=f"OMP_NUM_THREADS is '{threads}'; it must be a whole number above zero"):
        probe.probe_machine([])


SUITE = """
name = "keys"
[axes]
model = ["own:make"]
mode = ["training"]
batch_size = [4]
[protocol]
processes = 1
min_time_s = 0.1
max_time_s = 0.2
warmup_min_time_s = 0.0
warmup_max_time_s = 0.1
idle_time_s = 0.0
"""
OWN = "from tiny import Net\nimport shape\ndef make(): return Net(shape.WIDTH)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with a network, a module beside it, and a suite."""
    (tmp_path / "tiny.py").write_text((NETWORKS / "tiny.py").read_text())
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "shape.py").write_text("WIDTH = 8\n")
    (tmp_path / "s.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def key_of(*names):
    """As the probe finds them: in a process of its own for each."""
    return [check_network(name).key for name in names]


def run(*arguments):
    command = [sys.executable, "-m", "dlbench", "run", "s.toml", "--results", "r", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_network_that_was_edited_is_measured_again_and_both_records_say_which_it_was(folder):
    assert run().returncode == 0
    (folder / "shape.py").write_text("WIDTH = 128\n")
    second = run()
    assert "own:make has changed since it was measured: 1 case will be measured again" in second.stderr
    rows = store.load("r")
    assert rows["parameters"].tolist() == [64 * 8 + 8 + 80 + 10, 64 * 128 + 128 + 1280 + 10]
    assert rows["network_key"].nunique() == 2
    assert len(attempts.finished_keys(Path("r"))) == 2


def test_the_key_is_that_of_source_modules_beside_it_configuration_and_environment(folder, monkeypatch):
    (key,) = key_of("own:make")
    assert key_of("own:make") == [key]
    assert len(key) == 12
    (folder / "unrelated.py").write_text("")
    assert key_of("own:make") == [key]
    # The same parameters, another forward.
    tiny = folder / "tiny.py"
    text = tiny.read_text()
    tiny.write_text(text.replace("torch.relu", "torch.tanh"))
    (changed,) = key_of("own:make")
    assert changed != key
    tiny.write_text(text)
    assert key_of("own:make") == [key]
    # The same source, other parameters.
    before = key_of("tiny:make")
    monkeypatch.setenv("WIDTH", "32")
    assert key_of("tiny:make") != before


def test_a_setting_read_from_a_file_is_part_of_the_key(folder):
    (folder / "strided.py").write_text(
        "from torch import nn\nfrom pathlib import Path\n"
        "def make():\n"
        "    n = nn.Sequential(nn.Conv2d(3, 4, 3, stride=int(Path('stride').read_text())),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    n.input_shape = (3, 16, 16)\n"
        "    return n\n"
    )
    Path("stride").write_text("1")
    (one,) = key_of("strided:make")
    Path("stride").write_text("2")
    assert key_of("strided:make") != [one]


def test_a_network_of_a_library_has_no_key_of_its_own_but_timms_carry_its_version():
    assert key_of("lenet5", "squeezenet1_1", "torchvision:resnet18") == ["", "", ""]
    timm = pytest.importorskip("timm")
    assert key_of("timm:resnet10t") == [f"timm-{timm.__version__}"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import os\nos._exit(7)\n", "model 'ends:make': its import ended the process with exit status 7"),
        ("import os\nos.kill(os.getpid(), 9)\n", "its import ended the process with signal 9"),
        ("raise SystemExit\n", "cannot import 'ends'"),
    ],
)
def test_a_module_that_ends_the_process_is_one_line_with_its_name(folder, source, line):
    (folder / "ends.py").write_text(source)
    assert line in check_network("ends:make").error


def test_a_factory_that_crashes_or_starts_a_thread_for_ever_leaves_the_key_of_its_source(folder):
    (folder / "ends.py").write_text(
        "import os, threading, time\nimport torch\n"
        "def make(): os._exit(3)\n"
        "def ticks():\n    threading.Thread(target=time.sleep, args=(1e6,)).start()\n    return torch.nn.Linear(1, 1)\n"
    )
    keys = key_of("ends:make", "ends:ticks")
    assert all(len(key) == 12 for key in keys)


def test_a_record_from_before_the_key_counts_for_the_catalogue_and_not_for_a_users_network(tmp_path):
    values = {"attempt_id": "a", "case_id": "c", "suite": "s", "suite_version": 1, "case": {}, "status": "ok"}
    old = Record.from_json(json.dumps({**values, "started_at": "", "finished_at": "", "system_key": "sys"}))
    assert attempts.record_key(old) == ("s", 1, "c", "sys", "")
    case = Case("lenet5")
    list(supervise.run_cases([case], supervise.Campaign(tmp_path, "s", 1, "sys", script("write_good()"))))
    named = supervise.Campaign(tmp_path, "s", 1, "sys", script("write_good()"), network_keys={"lenet5": "0123456789ab"})
    assert [r.network_key for r in supervise.run_cases([case], named)] == ["0123456789ab"]
    assert list(supervise.run_cases([case], named)) == []


def test_a_network_that_is_edited_in_the_middle_of_a_run_is_not_kept_under_the_key_of_its_beginning(tmp_path):
    source = tmp_path / "own.py"
    source.write_text("WIDTH = 8\n")
    files = {"own:make": {str(source): hashlib.sha256(source.read_bytes()).hexdigest(), "/in/a/container.py": "0"}}
    cases = [Case("own:make", batch_size=n) for n in (1, 2, 3)]
    edit = (
        f"Path({str(source)!r}).write_text('WIDTH = 9') if '\"batch_size\": 2' in (folder / "
        f"'request.json').read_text() else 0"
    )
    campaign = supervise.Campaign(
        tmp_path, "s", 1, "sys", script(f"{edit}; write_good()"), network_keys={"own:make": "k"}, network_files=files
    )
    records = list(supervise.run_cases(cases, campaign))
    assert [record.status for record in records] == ["ok", "invalid", "invalid"]
    assert [record.exit_code for record in records] == [0, 0, None]
    for record in records[1:]:
        assert (
            record.error == f"{source} has changed since this run began; run the same command to measure own:make again"
        )
    assert len(attempts.finished_keys(tmp_path)) == 1


def test_neither_prints_nor_files_named_like_the_standard_librarys_spoil_anything(folder):
    (folder / "bye.py").write_text((NETWORKS / "bye.py").read_text())
    for name in ("random", "types", "json", "enum", "threading", "dataclasses", "numbers", "logging"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the {name} of the current folder')")
    (folder / "tiny.py").write_text("import random\nrandom.random()\n" + (folder / "tiny.py").read_text())
    command = [sys.executable, "-P", "-m", "dlbench", "run", "s.toml", "--results", "r", "-P", "model=bye:make,lenet5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert store.load("r")["status"].isin(["ok", "unstable"]).tolist() == [True, True], done.stderr
    # Python itself imports a few modules before dlbench can put the folder behind the standard library.
    for name in ("types", "threading", "enum"):
        (folder / f"{name}.py").unlink()
    again = run("--dry-run", "-P", "model=bye:make,lenet5")
    assert "2 processes already measured" in again.stderr
    assert "nothing is left to measure; --fresh" in again.stderr
    assert again.stdout == ""


def test_the_current_folder_comes_before_installed_packages_and_after_the_standard_library(folder, monkeypatch):
    (folder / "pytest.py").write_text("")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    external._import_from_current_folder()
    find = importlib.machinery.PathFinder.find_spec
    assert find("pytest", sys.path).origin == str(folder / "pytest.py")
    (folder / "random.py").write_text("")
    assert find("random", sys.path).origin == random.__file__


def test_a_results_folder_that_is_a_link_works_and_one_that_leads_nowhere_is_one_line(folder):
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    (folder / "broken").symlink_to("no/such/folder")
    (record,) = supervise.run_cases(
        [Case("lenet5")], supervise.Campaign(folder / "link", "s", 1, "sys", script("write_good()"))
    )
    store.append_record(folder / "link", record)
    assert store.load("real")["attempt_id"].tolist() == store.load("link")["attempt_id"].tolist() == [record.attempt_id]
    with pytest.raises(StoreError, match=r"'.*broken' is a link to 'no/such/folder', which does not exist; create"):
        require_writable_folder(folder / "broken")


def test_a_suite_with_a_byte_order_mark_is_read(folder):
    (folder / "s.toml").write_text("\ufeff" + SUITE, encoding="utf-8")
    assert load_suite(folder / "s.toml").name == "keys"


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline"])
def test_the_matplotlib_backend_of_a_notebook_does_not_keep_a_report_from_being_made(folder, monkeypatch, backend):
    store.append_record(folder / "r", fakes.record(Case("lenet5", batch_size=4)))
    monkeypatch.setenv("MPLBACKEND", backend)
    command = [sys.executable, "-m", "dlbench", "report", "r", "-o", "report"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (folder / "report" / "index.html").exists(), done.stderr
