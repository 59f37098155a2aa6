"""Exports for the tools that sites run: each is read back as the tool would."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from dlbench.report.export import export_chunks
from dlbench.suites.case import Case
from tests.fakes import records as fakes


def export(sources, form):
    return "".join(export_chunks(sources, form))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A case of three processes, one of one process, and one that failed, with a hostile message."""
    cases = [Case("resnet50", device="cuda", repeat=i) for i in range(3)]
    records = [
        fakes.record(case, number=i, step_s=fakes.noisy_steps(0.1 * (1 + 0.002 * i), 60, i))
        for i, case in enumerate(cases)
    ]
    records.append(fakes.record(Case("vgg16", device="cuda"), number=5))
    records.append(
        fakes.record(Case("alexnet", device="cuda"), number=6, status="crashed", error=fakes.HOSTILE + "\x00")
    )
    return fakes.fill(tmp_path_factory.mktemp("tools") / "store", records)


def test_bencher_gets_value_and_limits(store):
    found = json.loads(export([store], "bencher"))
    (name,) = [name for name in found if name.startswith("resnet50")]
    throughput = found[name]["throughput_img_per_s"]
    assert throughput["lower_value"] < throughput["value"] < throughput["upper_value"]
    assert throughput["value"] == pytest.approx(32 / 0.1, rel=0.05)
    assert not any(name.startswith("alexnet") for name in found)


#: The exposition format's grammar of a sample (prometheus.io/docs/instrumenting/exposition_formats).
SAMPLE = re.compile(r'[a-z_]+\{([a-z_]+="(\\.|[^"\\])*")(,[a-z_]+="(\\.|[^"\\])*")*\} -?[0-9.e+-]+')


def test_prometheus_lines_follow_its_grammar_and_name_each_metric_once(store):
    lines = export([store], "prometheus").splitlines()
    assert all(line.startswith("# ") or SAMPLE.fullmatch(line) for line in lines)
    helps = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert len(helps) == len(set(helps))
    assert 'dlbench_ok{model="alexnet"' in "\n".join(lines)


def test_junit_counts_what_failed(store):
    suite = ET.fromstring(export([store], "junit"))
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "crashed"
    assert fakes.HOSTILE[:20] in failure.get("message")


def test_mllog_lines_are_events_with_all_keys(store):
    lines = export([store], "mllog").splitlines()
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    assert all(line.startswith(":::MLLOG ") for line in lines)
    wanted = {"namespace", "time_ms", "event_type", "key", "value", "metadata"}
    assert all(set(event) == wanted and {"file", "lineno"} <= set(event["metadata"]) for event in events)
    assert [e["metadata"]["status"] for e in events if e["key"] == "run_stop"] == ["success", "success", "aborted"]


def test_jube_lines_hold_key_and_value(store):
    lines = export([store], "jube").splitlines()
    assert len(lines) == 3
    assert re.search(r"status=ok model=resnet50 .* throughput_img_per_s=[0-9.]+ ", lines[0])


@pytest.mark.parametrize("form", ["bencher", "prometheus", "junit", "mllog", "jube"])
def test_an_empty_store_gives_an_empty_answer(tmp_path, form):
    text = export([fakes.fill(tmp_path / "empty", [])], form)
    assert "resnet50" not in text
