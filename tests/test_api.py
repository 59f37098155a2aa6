"""The API for notebooks: the example of docs/api.md runs as it stands, and wrong input is told in one sentence."""

import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

import dlbench
from dlbench.errors import BadInput, StoreError, UnknownName
from dlbench.results.store import SkippedPart
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
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), {})
    printed = capsys.readouterr().out
    assert "resnet50" in printed
    assert "throughput img/s Images per second" in printed
    assert Path("throughput.pdf").read_bytes().startswith(b"%PDF")


def test_the_guide_names_every_figure_there_is():
    listed = re.search(r"The figures: (.*?)\. Each", GUIDE.read_text(), re.DOTALL)[1]
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


def test_of_several_systems_one_must_be_named(tmp_path):
    both = fakes.fill(tmp_path / "both", [*fakes.quick(fakes.GPU)[:4], *fakes.quick(fakes.CPU)[:4]])
    with pytest.raises(BadInput, match="results of 2 systems"):
        dlbench.plots.throughput(both)
    with pytest.raises(UnknownName, match="unknown system 'H100'"):
        dlbench.plots.throughput(both, system="H100")
    assert isinstance(dlbench.plots.energy(both, system="NVIDIA H200"), Figure)
