import collections
import os
import signal

import pandas as pd
import pytest

from dlbench.campaign.experiment import compare_experiment, run_experiment
from dlbench.errors import BadInput
from dlbench.launch import ab_experiment, attempts, processes
from dlbench.launch.ab_experiment import parse_setting
from dlbench.report.analysis.comparison import find_measured_pairs
from dlbench.report.analysis.comparison_matching import ComparisonRules
from dlbench.results import store
from dlbench.suites.suite import load_suite
from tests.fakes.workers import script

SUITE = """
name = "pair"
[axes]
model = ["lenet5", "alexnet"]
batch_size = [4]
"""
#: Steps of 10 ms, or as many as the variable SLOW says; three processes of a setting differ by about a percent.
MEASURE = """
import json
outcome = json.loads(good)
slow = float(os.environ.get('SLOW', '1'))
jitter = 1 + (os.getpid() % 7 - 3) / 1000
steps = [0.010 * slow * jitter] * 30
outcome['ranks'][0]['measurement'].update(step_s=steps, window_s=sum(steps))
(folder / 'result.json').write_text(json.dumps(outcome))
"""
#: System keys and network keys of the two sides.
OF_SIDES = (("sys", "sys"), ({}, {}))


@pytest.fixture
def suite_file(tmp_path):
    (tmp_path / "pair.toml").write_text(SUITE)
    return tmp_path / "pair.toml"


def experiment(file, a="", b="env.SLOW=1.2", seed=0):
    of_a, of_b = parse_setting([a], "--a"), parse_setting([b], "--b")
    suites = [load_suite(file, side.overrides) for side in (of_a, of_b)]
    return ab_experiment.plan_experiment(*suites, of_a, of_b, seed, "cpu")


def run(what, root, pairs=3, body=MEASURE):
    root.mkdir(exist_ok=True)
    return run_experiment(what, pairs, root, *OF_SIDES, launcher=script(body))


def in_order(root):
    """Side, network and pair of each record, in the order in which they were measured."""
    frame = store.load(root).sort_values(["started_at", "attempt_id"])
    return [(suite[-1], m, int(r)) for suite, m, r in zip(frame["suite"], frame["model"], frame["repeat"], strict=True)]


def test_halves_of_a_pair_run_one_after_the_other_in_the_order_of_the_plan(suite_file, tmp_path):
    what = experiment(suite_file)
    assert run(what, tmp_path / "r") == 0
    planned = [(t.side, t.case.model, t.pair) for pair in what.run_order(3) for t in pair]
    assert in_order(tmp_path / "r") == planned
    assert len(planned) == 2 * 2 * 3


def test_the_order_is_random_and_the_same_for_the_same_seed(suite_file):
    what = experiment(suite_file)
    order = what.run_order(200)
    first = collections.Counter(pair[0].side for pair in order)
    assert 160 < first["a"] < 240
    first_cases = collections.Counter(order[k][0].case.model for k in range(0, len(order), 2))
    assert 70 < first_cases["lenet5"] < 130
    assert all({t.side for t in pair} == {"a", "b"} and pair[0].pair == pair[1].pair for pair in order)
    assert order == what.run_order(200)
    assert order[:20] == what.run_order(10)
    assert order != experiment(suite_file, seed=1).run_order(200)


def test_the_variable_reaches_the_processes_of_its_side_alone_and_the_slower_side_is_found(suite_file, tmp_path):
    what = experiment(suite_file)
    run(what, tmp_path / "r", pairs=4)
    found = compare_experiment(what, 4, tmp_path / "r", *OF_SIDES, ComparisonRules())
    assert [line.verdict for line in found.lines] == ["slower", "slower"]
    assert found.lines[0].comparison.ratio == pytest.approx(1.2, rel=0.02)
    assert found.lines[0].comparison.basis == "pairs"
    assert "SLOW" not in os.environ


def test_records_say_what_they_are(suite_file, tmp_path):
    what = experiment(suite_file, seed=7)
    run(what, tmp_path / "r", pairs=1)
    frame = store.load(tmp_path / "r")
    assert set(frame["suite"]) == set(what.suite_names)
    assert set(frame["label"]) == {"a (seed 7): as is", "b (seed 7): env.SLOW=1.2"}
    assert all(name.startswith("pair-ab-") for name in what.suite_names)
    heads = [head for _, head in attempts.find_closed_attempts(tmp_path / "r")]
    assert {head.label for head in heads} == set(frame["label"])


def test_what_is_measured_is_not_measured_again_and_more_pairs_are_added(suite_file, tmp_path):
    what = experiment(suite_file)
    run(what, tmp_path / "r", pairs=2)
    assert run(what, tmp_path / "r", pairs=2, body="raise SystemExit(1)") == 0
    assert len(in_order(tmp_path / "r")) == 8
    run(what, tmp_path / "r", pairs=3)
    assert len(in_order(tmp_path / "r")) == 12


def test_a_pair_of_which_half_failed_is_measured_again_as_a_whole(suite_file, tmp_path):
    what = experiment(suite_file)
    broken = "if float(os.environ.get('SLOW', '1')) > 1: raise SystemExit('no')\n" + MEASURE
    assert run(what, tmp_path / "r", pairs=1, body=broken) == 2
    found = compare_experiment(what, 1, tmp_path / "r", *OF_SIDES, ComparisonRules())
    assert [line.verdict for line in found.lines] == ["failed", "failed"]
    assert run(what, tmp_path / "r", pairs=1) == 0
    assert collections.Counter(side for side, *_ in in_order(tmp_path / "r")) == {"a": 4, "b": 4}
    found = compare_experiment(what, 1, tmp_path / "r", *OF_SIDES, ComparisonRules())
    assert found.num_compared == 2


def test_halves_that_ran_far_apart_are_no_pair(suite_file, tmp_path):
    what = experiment(suite_file)
    run(what, tmp_path / "r", pairs=1)
    frame = store.read_rows(tmp_path / "r").to_pandas()
    late = frame["suite"] == what.suite_names[1]
    moved = frame.copy()
    moved.loc[late, ["started_at", "finished_at"]] += pd.Timedelta(hours=2)
    assert len(find_measured_pairs(frame, what.suite_names, what.matches, 1)) == 2
    assert find_measured_pairs(moved, what.suite_names, what.matches, 1) == set()


def test_other_settings_are_another_experiment(suite_file, tmp_path):
    run(experiment(suite_file), tmp_path / "r", pairs=1)
    other = experiment(suite_file, b="env.SLOW=1.5")
    assert compare_experiment(other, 1, tmp_path / "r", *OF_SIDES, ComparisonRules()).num_compared == 0
    assert run(other, tmp_path / "r", pairs=1) == 0
    assert len(in_order(tmp_path / "r")) == 8


def test_a_signal_ends_the_experiment_and_the_same_command_goes_on(suite_file, tmp_path):
    what = experiment(suite_file)
    body = MEASURE + "\nif not (Path(sys.argv[1]).parents[1] / 'told').exists():\n"
    body += " (Path(sys.argv[1]).parents[1] / 'told').touch(); (folder / 'result.json').unlink()\n"
    body += f" os.kill({os.getpid()}, signal.SIGTERM); time.sleep(30)"
    with processes.stop_on_signals(), pytest.raises(processes.StoppedBySignal) as stop:
        run(what, tmp_path / "r", pairs=1, body=body)
    assert stop.value.signal_name == signal.SIGTERM.name
    assert run(what, tmp_path / "r", pairs=1) == 0
    assert compare_experiment(what, 1, tmp_path / "r", *OF_SIDES, ComparisonRules()).num_compared == 2


def test_axes_and_protocol_keys_can_be_compared_too(suite_file):
    what = experiment(suite_file, "batch_size=8,protocol.seed=1", "batch_size=16")
    assert [(a.batch_size, b.batch_size, a.protocol.seed, b.protocol.seed) for a, b in what.matches] == [
        (8, 16, 1, 0)
    ] * 2
    assert what.label_of_side("a") == "a (seed 0): batch_size=8,protocol.seed=1"


def test_steps_of_different_batches_are_compared_per_sample(suite_file, tmp_path):
    what = experiment(suite_file, b="batch_size=16,env.SLOW=2")
    run(what, tmp_path / "r")
    lines = compare_experiment(what, 3, tmp_path / "r", *OF_SIDES, ComparisonRules()).lines
    assert [line.comparison.ratio for line in lines] == pytest.approx([0.5, 0.5], rel=0.02)
    assert [line.base for line in lines] == pytest.approx([0.0025, 0.0025], rel=0.02)
    assert all(
        line.note.startswith("times are per sample, because a step has 4 samples in A and 16 in B") for line in lines
    )


def test_a_value_may_hold_commas_where_no_key_follows():
    setting = parse_setting(["env.CUDA_VISIBLE_DEVICES=0,1,precision=tf32", "env.X=a=b"], "--a")
    assert setting.environment == {"CUDA_VISIBLE_DEVICES": "0,1", "X": "a=b"}
    assert setting.overrides == ("precision=tf32",)


def test_an_axis_that_varies_on_one_side_alone_is_refused(tmp_path):
    (tmp_path / "two.toml").write_text('[axes]\nmodel = ["lenet5"]\nbatch_size = [4, 8]\n')
    with pytest.raises(BadInput, match="A has 2 cases of lenet5 that differ only in batch_size"):
        experiment(tmp_path / "two.toml", b="batch_size=8")


def test_sides_of_different_threads_are_two_systems_and_still_compared(suite_file, tmp_path):
    what = experiment(suite_file, b="env.OMP_NUM_THREADS=1")
    keys = ({"cpu": "two threads"}, {"cpu": "one thread"})
    run_experiment(what, 2, tmp_path, keys, ({}, {}), launcher=script(MEASURE))
    frame = store.load(tmp_path)
    assert set(zip(frame["suite"].str[-1], frame["system_key"], strict=True)) == {
        ("a", "two threads"),
        ("b", "one thread"),
    }
    assert compare_experiment(what, 2, tmp_path, keys, ({}, {}), ComparisonRules()).num_compared == 2
    # Where the processes may use other cores now, nothing of it counts.
    elsewhere = ({"cpu": "one core"}, {"cpu": "one thread"})
    assert compare_experiment(what, 2, tmp_path, elsewhere, ({}, {}), ComparisonRules()).num_compared == 0
