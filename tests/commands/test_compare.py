import csv
import io
import json

import pytest

from dlbench.__main__ import main
from dlbench.suites.case import Case
from tests.fakes import records as fake
from tests.report.analysis.test_comparison import CASE, OTHER, processes


@pytest.fixture
def stores(tmp_path):
    """Stores of the same two cases; in `slower` the first takes 5 % longer."""
    fake.fill(tmp_path / "base", [*processes(CASE), *processes(OTHER)])
    fake.fill(tmp_path / "same", [*processes(CASE, side="b"), *processes(OTHER, side="b")])
    fake.fill(tmp_path / "slower", [*processes(CASE, 1.05, side="c"), *processes(OTHER, side="c")])
    fake.fill(tmp_path / "few", processes(CASE, 1.5, 1, side="d"))
    fake.fill(tmp_path / "failed", [*processes(CASE, count=1, side="e", status="oom"), *processes(OTHER, side="e")])
    fake.fill(tmp_path / "bf16", processes(Case("lenet5", precision="amp_bf16", batch_size=8), side="f"))
    crashed = processes(CASE, side="h", status="crashed")[3]
    fake.fill(tmp_path / "flaky", [*processes(CASE, count=3, side="h"), crashed, *processes(OTHER, side="h")])
    fake.fill(tmp_path / "preempted", [*processes(CASE, side="i", status="preempted"), *processes(OTHER, side="i")])
    fake.fill(tmp_path / "one", processes(OTHER, side="j"))
    fake.fill(tmp_path / "else", processes(Case("vgg16", batch_size=8), side="g"))
    return tmp_path


def run(capsys, stores, *arguments):
    words = [str(stores / a) if (stores / a).exists() else a for a in arguments]
    status = main(["compare", *words])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_long_notes_stand_below_the_table_once(stores, capsys):
    _, out, _ = run(capsys, stores, "base", "flaky")
    table, _, below = out.partition("\n\n")[2].partition("\n\n")
    assert "[1]" in table
    assert "not used" not in table
    assert below.count("[1] ") == 1
    assert "1 attempt not used (crashed" in below


def test_the_table_ends_with_its_sum(stores, capsys):
    status, out, _ = run(capsys, stores, "base", "slower")
    assert status == 0
    assert out.splitlines()[-1] == "2 compared: 1 slower, 0 faster, 1 same, 0 not decided"
    assert "1.05" in out


@pytest.mark.parametrize("number", ["4", "4.0"])
def test_sides_are_selected_from_one_store_by_texts_and_numbers(stores, capsys, number):
    slow = processes(CASE, 1.05, side="x", label="slow", warmup_steps=4)
    fake.fill(stores / "both", [*processes(CASE, side="y", label="fast", warmup_steps=3), *slow])
    words = ["both", "both", "--base-where", "label=fast", "--target-where", f"warmup_steps={number}"]
    status, out, _ = run(capsys, stores, *words, "--format", "json")
    (_, found) = json.loads(out)
    assert (status, [row["verdict"] for row in found["rows"]]) == (0, ["slower"])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["base", "same", "--fail-on-regression", "2"], 0),
        (["base", "slower", "--fail-on-regression", "2"], 1),
        (["base", "slower", "--fail-on-regression", "10"], 0),
        (["slower", "base", "--fail-on-regression", "1"], 0),
        (["slower", "base", "--fail-on-regression", "0"], 2),
        (["base", "flaky", "--fail-on-regression", "50"], 1),
        (["flaky", "base", "--fail-on-regression", "50"], 0),
        (["base", "preempted", "--fail-on-regression", "50"], 2),
        (["base", "one", "--fail-on-regression", "50"], 2),
        (["one", "base", "--fail-on-regression", "50"], 0),
        (["base", "failed", "--fail-on-regression", "50"], 1),
        (["failed", "base", "--fail-on-regression", "50"], 0),
        (["base", "few", "--fail-on-regression", "2"], 2),
        (["few", "failed", "--fail-on-regression", "2"], 1),
        (["failed", "few", "--fail-on-regression", "2"], 2),
        (["base", "failed"], 0),
        (["few", "failed"], 2),
    ],
)
def test_exit_statuses(stores, capsys, arguments, status):
    assert run(capsys, stores, *arguments)[0] == status


def test_a_regression_is_named_on_stderr(stores, capsys):
    _, _, err = run(capsys, stores, "base", "slower", "--fail-on-regression", "2")
    assert "regression: lenet5 training fp32 8: 5." in err


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        (["base", "few"], "2 cases: 1 not decided, only in BASE; 1 not decided, because there are too few processes"),
        (["failed", "few"], "2 cases: 1 not decided, only in BASE; 1 not measured in BASE"),
        (["base", "preempted"], "2 cases: 1 passed; 1 not decided, TARGET: preempted: job ended by SIGTERM"),
        (["one", "base"], "2 cases: 1 passed; 1 not measured in BASE"),
    ],
)
def test_a_gate_says_what_it_cannot_decide_and_why(stores, capsys, sides, why):
    _, _, err = run(capsys, stores, *sides, "--fail-on-regression", "2")
    assert f"--fail-on-regression 2: {why}\n" in err


def test_a_gate_that_knows_some_cases_alone_does_not_pass(stores, capsys):
    status, _, err = run(capsys, stores, "base", "preempted", "--fail-on-regression", "2")
    assert status == 2
    assert err.endswith("cannot decide on 1 case\n")  # repeats are no remedy
    _, _, err = run(capsys, stores, "base", "few", "--fail-on-regression", "2")
    assert "measure about" in err


def test_a_gate_without_a_measurement_in_base_does_not_pass(stores, capsys):
    fake.fill(stores / "gone", processes(CASE, side="k", status="oom"))
    status, _, err = run(capsys, stores, "gone", "base", "--fail-on-regression", "2")
    assert status == 2
    assert "cannot judge any case: BASE contains no case of TARGET" in err


def test_a_regression_that_is_a_crash_of_some_repeats_says_so(stores, capsys):
    _, _, err = run(capsys, stores, "base", "flaky", "--fail-on-regression", "2")
    assert "regression: lenet5 training fp32 8: TARGET: 1 attempt not used (crashed: worker ended by signal 11" in err


def test_a_gate_says_of_how_many_cases_it_knows(stores, capsys):
    _, _, err = run(capsys, stores, "base", "slower", "--fail-on-regression", "2")
    assert "--fail-on-regression 2: 2 cases: 1 failed; 1 passed\n" in err


def test_a_gate_below_the_margin_is_not_hidden_by_it(stores, capsys):
    assert run(capsys, stores, "base", "slower", "--margin", "20")[1].count("same") >= 2
    assert run(capsys, stores, "base", "slower", "--margin", "20", "--fail-on-regression", "2")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "else"], "no network was measured in the same mode in both BASE and TARGET"),
        (["base", "bf16"], "precision is fp32 in BASE and amp_bf16 in TARGET; `--ignore precision`"),
        (["base", "base"], "share 8 attempts"),
        (["base", "nowhere"], "no results at 'nowhere'"),
        (["base", "same", "--ignore", "precison"], "did you mean 'precision'?"),
        (["base", "same", "--base-where", "precision=tf32"], "BASE contains no records with precision=tf32"),
        (["base", "same", "--base-where", "precison=tf32"], "unknown column 'precison'"),
        (["base", "same", "--target-where", "tf32"], "write column=value"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_status_2(stores, capsys, arguments, message):
    status, out, err = run(capsys, stores, *arguments)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_what_is_asked_for_is_compared_nevertheless(stores, capsys):
    status, out, _ = run(capsys, stores, "base", "bf16", "--ignore", "precision")
    assert status == 0
    assert "fp32 → amp_bf16" in out


@pytest.mark.parametrize(
    "option",
    [["--fail-on-regression", "-1"], ["--confidence", "1"], ["--metric", "loss"], ["--between-processes", "0"]],
)
def test_wrong_numbers_are_refused(stores, option):
    with pytest.raises(SystemExit) as end:
        main(["compare", str(stores / "base"), str(stores / "same"), *option])
    assert end.value.code == 2


def test_csv_is_one_table_and_json_has_everything(stores, capsys):
    _, out, err = run(capsys, stores, "base", "slower", "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(out)))
    assert [line["verdict"] for line in lines] == ["slower", "same"]
    assert float(lines[0]["ratio"]) == pytest.approx(1.05, rel=5e-3)
    assert "2 compared" in err
    systems, compared = json.loads(run(capsys, stores, "base", "slower", "--format", "json")[1])
    assert systems["title"] == "Systems"
    assert {row["base_processes"] for row in compared["rows"]} == {4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--b", "env.1X=2"], "not a valid name of an environment variable"),
        (["--b", "precision"], "write axis=value"),
        (["--b", "repeat=2"], "use --pairs"),
        (["--b", "precision=fp23"], "unknown precision 'fp23'"),
        (["--b", "batch_size=1,2"], "A and B each have one value per axis"),
        (["--b", "batchsize=1"], "did you mean 'batch_size'?"),
        (["--b", "mode=inference"], "A has 2 cases of lenet5 that differ only in mode"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_runs(tmp_path, capsys, arguments, message):
    status = main(["ab", "smoke", "--results", str(tmp_path / "r"), *arguments])
    output = capsys.readouterr()
    assert status == 2
    assert message in output.err
    assert not (tmp_path / "r").exists()


def test_the_order_can_be_seen_without_measuring(capsys):
    assert main(["ab", "smoke", "--pairs", "3", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 * 3 * 2


def test_on_a_terminal_the_verdict_stands_before_the_values_and_the_title_holds_what_all_cases_share(stores, capsys):
    _, out, _ = run(capsys, stores, "base", "slower")
    title, _, header, *_ = out.splitlines()
    assert title.startswith("TARGET against BASE: step time; ")
    assert "precision fp32" in title
    assert "Precision" not in header
    assert header.index("Verdict") < header.index("Step time BASE")
