"""The API for notebooks: the example of docs/api.md runs as it stands, and wrong input is told in one sentence."""

import base64
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

import dlbench
from dlbench.errors import BadInput, StoreError, UnknownName
from dlbench.results.store import SkippedPart
from dlbench.suites.case import Protocol
from tests.fakes import records as fakes

GUIDE = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.fixture
def results(tmp_path, monkeypatch):
    fakes.fill(tmp_path / "results", fakes.quick())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.mark.usefixtures("results")
def test_the_example_of_the_guide_runs_as_it_stands(capsys):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in (block for block in blocks if "dlbench.run(" not in block):  # measured by a test of its own
        exec(compile(block, str(GUIDE), "exec"), {})
    printed = capsys.readouterr().out
    assert "resnet50" in printed
    assert "throughput img/s Images per second" in printed
    assert Path("throughput.pdf").read_bytes().startswith(b"%PDF")


def test_the_guide_names_every_figure_there_is():
    listed = re.search(r"These figures exist: (.*?)\. Each", GUIDE.read_text(), re.DOTALL)[1]
    public = {n for n, f in vars(dlbench.plots).items() if getattr(f, "__module__", "") == dlbench.plots.__name__}
    assert set(re.findall(r"`(\w+)`", listed)) == {name for name in public if not name.startswith("_")}


def test_metrics_have_intervals_around_their_values(results):
    cases = dlbench.metrics(results)
    assert len(cases) == 12
    assert (cases["throughput_low"] < cases["throughput"]).all()
    assert (cases["throughput"] < cases["throughput_high"]).all()
    assert set(cases["system"]) == {"AMD EPYC 7B13"}


def test_every_attempt_counts_the_failed_ones_as_well(tmp_path):
    failed = fakes.record(fakes.Case("vgg16", device="cuda"), number=99, status="oom")
    store = fakes.fill(tmp_path / "s", [*fakes.quick(), failed])
    assert len(dlbench.metrics(store)) == 12
    everything = dlbench.metrics(store, every_attempt=True).set_index("attempt_id")
    assert len(everything) == 13
    assert pd.isna(everything.loc[failed.attempt_id, "throughput_low"])
    assert everything["throughput_low"].notna().sum() == 12


def test_metrics_warn_of_what_they_cannot_read(tmp_path):
    results = fakes.fill(tmp_path / "results", fakes.quick()[:1])
    (results / "torn.parquet").write_bytes(b"PAR1")
    with pytest.warns(SkippedPart, match=r"cannot read .*torn\.parquet"):
        assert len(dlbench.metrics(results)) == 1


def test_figures_come_from_sources_and_from_frames(results):
    cases = dlbench.metrics(results)
    for data in (results, [results], cases, cases[cases["model"] == "vgg16"]):
        assert isinstance(dlbench.plots.throughput(data), Figure)
    texts = [
        t.get_text()
        for t in dlbench.plots.step_time(cases[cases["model"] == "vgg16"]).findobj(
            match=lambda a: hasattr(a, "get_text")
        )
    ]
    assert any("VGG-16" in text for text in texts)
    assert not any("ResNet-50" in text for text in texts)


def test_what_cannot_be_drawn_says_why(results, tmp_path):
    with pytest.raises(BadInput, match="No energy meter on this system"):
        dlbench.plots.energy(results)
    with pytest.raises(BadInput, match="no measured case to draw"):
        dlbench.plots.memory(fakes.fill(tmp_path / "empty", []))
    with pytest.raises(StoreError, match="no results at 'nowhere'"):
        dlbench.plots.memory("nowhere")


def test_of_several_systems_one_must_be_named_where_no_figure_holds_all(tmp_path):
    both = fakes.fill(tmp_path / "both", [*fakes.quick(fakes.GPU)[:4], *fakes.quick(fakes.CPU)[:4]])
    with pytest.raises(BadInput, match="results of 2 systems"):
        dlbench.plots.step_time(both)
    with pytest.raises(UnknownName, match="unknown system 'H100'"):
        dlbench.plots.throughput(both, system="H100")
    assert isinstance(dlbench.plots.energy(both, system="NVIDIA H200"), Figure)
    texts = {t.get_text() for t in dlbench.plots.throughput(both).findobj(match=lambda a: hasattr(a, "get_text"))}
    assert {"NVIDIA H200", "AMD EPYC 7B13"} <= texts


def test_figures_come_from_rows_that_load_gave(results):
    rows = dlbench.load(results)
    figure = dlbench.plots.throughput(rows[rows["model"] == "vgg16"])
    texts = " ".join(t.get_text() for t in figure.findobj(match=lambda a: hasattr(a, "get_text")))
    assert "VGG-16" in texts
    assert "ResNet-50" not in texts
    with pytest.raises(BadInput, match=r"a DataFrame that dlbench\.metrics or dlbench\.load returned"):
        dlbench.plots.throughput(pd.DataFrame({"model": ["vgg16"]}))


def test_dir_lists_what_there_is():
    assert {"Case", "layers", "load", "metrics", "plots", "run"} <= set(dir(dlbench))
    assert all(getattr(dlbench, name) is not None for name in dir(dlbench))


def test_layers_come_as_a_frame():
    frame = dlbench.layers("alexnet")
    assert (len(frame), frame["macs"].sum()) == (8, 724_406_816)


@pytest.mark.slow
def test_a_case_and_a_suite_are_measured_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    protocol = Protocol(min_time_s=0.1, max_time_s=0.3, min_steps=3, warmup_max_time_s=0.5, idle_time_s=0.0)
    case = dlbench.Case("lenet5", mode="inference", batch_size=2, device="cpu", protocol=protocol)
    frame = dlbench.run(case)
    assert frame[["model", "mode", "batch_size"]].to_numpy().tolist() == [["lenet5", "inference", 2]]
    assert frame["throughput"].gt(0).all()
    assert dlbench.run(case)["attempt_id"].tolist() == frame["attempt_id"].tolist()
    with pytest.raises(BadInput, match="cannot override batch_size of a case"):
        dlbench.run(case, batch_size=4)
    with pytest.raises(UnknownName, match="unknown suite 'quik'"):
        dlbench.run("quik")
    more = dlbench.run("smoke", model="lenet5", mode=["inference"], device="cpu")
    assert more["mode"].tolist() == ["inference"]
    assert len(dlbench.load("results")) == 2


@pytest.mark.slow
def test_a_notebook_shows_a_figure_without_a_magic(results):
    nbformat = pytest.importorskip("nbformat", reason="comes with the extra dev")
    nbclient = pytest.importorskip("nbclient", reason="comes with the extra dev")
    pytest.importorskip("ipykernel", reason="comes with the extra dev")
    code = "import dlbench\ndlbench.plots.throughput('results')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own
        client = nbclient.NotebookClient(
            notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(results.parent)}}
        )
        client.execute()
    (output,) = [one for one in notebook.cells[0].outputs if one.output_type == "execute_result"]
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")
