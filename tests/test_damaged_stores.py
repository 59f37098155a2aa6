"""Whatever becomes of the files of a store: every command reads what is whole, and names the rest in one line each.

`DLBENCH_EXAMPLES=2500 pytest tests/test_damaged_stores.py` looks at more of them.
"""

import contextlib
import io
import os
import random
import shutil
import signal
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import dlbench
from dlbench.cli import main
from dlbench.commands.ceilings import _unmeasured_precisions
from dlbench.errors import DlbenchError
from dlbench.launch import launchers, probe
from dlbench.report.analysis.content import read_content
from dlbench.report.chapters.sections import SECTIONS
from dlbench.results import store
from dlbench.table import format_tables
from tests.fakes import damage
from tests.fakes import records as fakes
from tests.fakes.workers import script

EXAMPLES = int(os.environ.get("DLBENCH_EXAMPLES", "80"))
SUITE = """
name = "fake"
[axes]
model = ["lenet5"]
mode = ["training", "inference"]
batch_size = [64]
device = ["cpu"]
[protocol]
processes = 1
min_time_s = 1.0
"""
ACCEPTANCE = """
version = 1
[[line]]
case = { model = "lenet5", mode = "training" }
metric = "throughput"
at_least = 1.0
"""


#: The search that the healthy store holds.
TUNE = ("tune", "lenet5", "--budget", "1s", "-P", "device=cpu", "-P", "batch_size=64", "--results", "ROOT")

#: The healthy store, which `compare` holds a damaged one against.
HEALTHY = [""]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy") / "results"
    HEALTHY[0] = str(root)
    return root, damage.healthy(root)


@pytest.fixture(scope="module", autouse=True)
def stand_ins():
    with replaced():
        yield


@contextlib.contextmanager
def replaced():
    """No device is asked and no network measured: what is tried is how stores are read and written."""
    facts = {"devices": [], "precisions": {"cpu": ["fp32"]}, "torch_threads": 2}
    key = fakes.record(damage.CASES[0], fakes.CPU).system_key
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "probe_machine", lambda *_, **__: probe.ProbeResult("cpu", key, "a CPU", 0, facts))
        patch.setattr(launchers, "find_launcher", lambda name: script("write_good()"))
        yield


def load(root):
    return set(store.load(root)["attempt_id"])


def metrics(root):
    return set(dlbench.metrics(root, every_attempt=True)["attempt_id"])


def queried(root):
    return _ids_in(["query", "select distinct attempt_id from records", "--format", "csv", "--results", str(root)])


def exported(form):
    def export(root):
        return _ids_in(["export", str(root), "--format", form])

    return export


def exported_parquet(*options):
    def parquet(root):
        file = root.parent / "out" / "all.parquet"
        status, _ = run(["export", str(root), "--format", "parquet", "-o", str(file), *options])
        return load(file) if status == 0 else None

    return parquet


def _ids_in(arguments):
    status, out = run(arguments)
    return set(out.replace('"', ",").replace("\n", ",").split(",")) if status == 0 else None


def chapters(root):
    """All that a report says, without drawing it."""
    content = read_content([root])
    tables = [block.table for section in SECTIONS for block in section(content).blocks if block.table]
    assert format_tables(tables, "text")
    return set(content.attempts["attempt_id"])


def report(root):
    status, _ = run(["report", str(root), "-o", str(root.parent / "page")])
    return load(root) if status == 0 else None


def command(*words):
    """A command whose output is not looked at; words in capitals stand for paths."""

    def call(root):
        paths = {name.upper(): str(root.parent / f"{name}.toml") for name in ("suite", "acceptance")}
        paths |= {
            "TUNED": str(root / "tuned-lenet5-training.toml"),
            "ROOT": str(root),
            "OUT": str(root.parent / "out"),
            "HEALTHY": HEALTHY[0],
        }
        run([paths.get(word, word) for word in words])

    return call


def missing_ceilings(root):
    with contextlib.suppress(DlbenchError):
        _unmeasured_precisions(root, "cpu", None)


def collected(*options):
    def collect(root):
        status, _ = run(["collect", "--results", str(root), *options])
        return load(root) if status in (0, 1) else None

    return collect


#: Give the attempts that they have seen, or None where they have refused the store in one line.
READERS = (
    *(load, metrics, queried, exported("csv"), exported("json"), exported_parquet(), exported_parquet("--public")),
    *(chapters, collected(), collected("--merge")),
)
OTHER_FORMATS = ("mlperf", "bencher", "prometheus", "junit", "mllog", "jube")
OTHERS = {
    **{form: command("export", "ROOT", "--format", form) for form in OTHER_FORMATS},
    "fleet": command("fleet", "ROOT", "--map", "OUT"),
    "fleet's list": command("fleet", "HEALTHY", "ROOT", "--list"),
    "history": command("history", "HEALTHY", "ROOT", "--plot", "OUT"),
    "accept": command("accept", "ACCEPTANCE", "ROOT", "-o", "OUT"),
    "verify": command("verify", "ROOT"),
    "plan": command("plan", "SUITE", "--results", "ROOT"),
    "resume": command("resume", "--results", "ROOT"),
    "tune": command(*TUNE),
    "plan of what was tuned": command("plan", "TUNED", "--results", "ROOT"),
    "tables": command("query", "select count(*) from ceilings, all_reduces, layers", "--results", "ROOT"),
    "everything": command("query", "select * from records", "--results", "ROOT"),
    "show": command("show", "20261120T080000", "--results", "ROOT"),
    "show as JSON": command("show", "20261120T080030", "--format", "json", "--results", "ROOT"),
    "compare": command("compare", "ROOT", "HEALTHY"),
    "compare the other way": command("compare", "HEALTHY", "ROOT", "--format", "csv"),
    "project": command("project", "--results", "ROOT", "--images", "1000000", "--epochs", "90"),
    "dry run": command("run", "SUITE", "--results", "ROOT", "--dry-run"),
    "run": command("run", "SUITE", "--results", "ROOT"),
    "status": command("status", "--results", "ROOT"),
    "ceilings --missing": missing_ceilings,
}


def run(arguments):
    """Exit status and output of a command, which ends by itself and says in whole lines what is wrong."""
    out, err = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    shown = warnings.showwarning
    try:
        with streams[0], streams[1], warnings.catch_warnings():
            warnings.simplefilter("always")
            status = main(arguments)
    except SystemExit as end:
        status = end.code
    finally:
        warnings.showwarning = shown
    words = err.getvalue()
    assert status in (0, 1, 2), (status, words)
    assert "Traceback" not in words
    assert all(len(line) < 3000 for line in words.splitlines()), max(words.splitlines(), key=len)[:300]
    if status == 2:
        assert words.strip()
    return status, out.getvalue()


@contextlib.contextmanager
def time_limit(seconds):
    def late(*_):
        raise TimeoutError(f"no end within {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


if EXAMPLES > 150:  # these take seconds
    READERS = (*READERS, report)
    OTHERS |= {"publish": command("publish", "ROOT", "-o", "OUT")}
CALLS = {f"{n} {call.__name__}": call for n, call in enumerate(READERS)} | OTHERS


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.generate],
    derandomize=EXAMPLES <= 150,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    damages=st.lists(
        st.tuples(st.sampled_from(range(len(damage.DAMAGES))), st.integers(0, 2**32 - 1)), min_size=1, max_size=3
    ),
    name=st.sampled_from(sorted(CALLS)),
)
def test_damaged_stores_are_read_as_far_as_they_are_whole(healthy, damages, name):
    look(*healthy, damages, name)


def look(original, ids, damages, name):
    """Damage a copy of a healthy store, run one command on it, and compare what it has read with what is whole."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "a", "b", "c", "d", "results")
        shutil.copytree(original, root)
        (root.parent / "suite.toml").write_text(SUITE)
        (root.parent / "acceptance.toml").write_text(ACCEPTANCE)
        harmed = set()
        for which, seed in damages:
            harmed |= damage.DAMAGES[which](root, random.Random(seed))
        before = set(root.parent.iterdir())
        with time_limit(60), warnings.catch_warnings():
            warnings.simplefilter("ignore", store.SkippedPart)
            seen = CALLS[name](root)
        if name not in OTHERS and seen is None:
            # Refused in one line: where what has to be written cannot be, or nothing is left to read.
            assert not root.is_dir() or set(ids) == harmed or name.endswith("collect")
        if seen is not None:
            assert set(ids) - harmed - seen == set()
        assert set(root.parent.iterdir()) - before <= {root.parent / n for n in ("out", "page")}
        assert not [p for p in Path(folder).rglob("*ESCAPED*") if root not in p.parents]
