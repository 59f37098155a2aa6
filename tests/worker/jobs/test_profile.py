"""Profiles: every stamp belongs to somebody, in place and shared modules too; counted work goes with it."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from dlbench.errors import BadInput, DeviceUnavailable, InvalidMeasurement, UnknownName
from dlbench.launch import worker_process
from dlbench.models import BuiltModel
from dlbench.results.bounds_records import ProfileRun, parse_run_json, to_json
from dlbench.results.bounds_schema import LAYERS_SCHEMA, write_layers
from dlbench.suites.case import Case
from dlbench.worker.counting.flops import count_network_flop
from dlbench.worker.counting.traffic import LOSS, ModuleWork, count_work_by_module, network_work_by_module
from dlbench.worker.jobs import ceilings
from dlbench.worker.jobs import profile as profiling
from dlbench.worker.workload import build_workload
from tests.worker.conftest import TINY
from tests.worker.networks import counted

LENET = Case("lenet5", batch_size=2, protocol=TINY)


class CountingClock:
    """A stamp is its own number, so that the time between two is how many stamps lie between them."""

    name, runs_ahead = "fake", True

    def __init__(self):
        self.count, self.released = 0, 0

    def stamp(self):
        self.count += 1
        return self.count

    def wait_for_stamp(self, stamp):
        pass

    def elapsed_s(self, start, end):
        return float(end - start)

    def recycle_stamp(self, stamp):
        self.released += 1

    def synchronize(self):
        pass


class Block(nn.Module):
    """A convolution, an activation in place that is used twice, and an addition of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.relu(self.conv(x)) + x)


def network():
    return nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), Block(), nn.Flatten(), nn.Linear(48, 5, bias=False))


def marks_of_one_step(clock):
    module = network()
    hooks = profiling.LayerHooks(module, clock)
    with hooks.attach_to_modules():
        hooks.begin_step()
        loss = module(torch.randn(2, 3, 4, 4)).sum()
        forward_end = clock.stamp()
        loss.backward()
        return hooks.end_step((forward_end, clock.stamp()))


def test_marks_follow_the_step():
    owners = [(owner, way) for owner, way, _ in marks_of_one_step(CountingClock())]
    forward = [owner for owner, way in owners if way == "forward"]
    assert forward == [
        *("(input)", "(network)", "0", "(network)", "1", "1.conv", "1", "1.relu", "1", "1.relu", "1"),
        *("(network)", "2", "(network)", "3", "(network)", "(measuring)", "(loss)"),
    ]
    backward = [owner for owner, way in owners if way == "backward"]
    assert backward == ["3", "2", "1.relu", "1", "1.relu", "1.conv", "0", "(optimizer)"]
    assert owners[-1] == ("", "")


@pytest.mark.parametrize(
    ("module", "owners"),
    [
        # Without reentrance: what the last gradient of the block needs is run again while that gradient waits.
        (
            counted.Checkpointed(),
            "head block.2 block block.0 block block.1 block block.2 block (measuring) block.2 block.1 block.0 first",
        ),
        (
            counted.CheckpointedReentrant(),
            "head (network) block block.0 block block.1 block block.2 block (measuring) (network) block.2 block.1 "
            "block.0 first",
        ),
    ],
    ids=["not reentrant", "reentrant"],
)
def test_what_checkpointing_runs_again_is_time_of_the_backward_pass(module, owners):
    hooks = profiling.LayerHooks(module, CountingClock())
    with hooks.attach_to_modules():
        for _ in range(2):
            hooks.begin_step()
            module(torch.randn(2, 64)).sum().backward()
            marks = [(owner, way) for owner, way, _ in hooks.end_step(())]
    after = marks[marks.index(("(loss)", "forward")) + 1 : -1]
    assert [owner for owner, _ in after] == owners.split()
    assert {way for owner, way in after if owner != "(measuring)"} == {"backward"}
    assert not any(m._forward_hooks for m in module.modules())


def test_own_times_sum_to_the_step():
    clock = CountingClock()
    marks = marks_of_one_step(clock)
    times = profiling.self_times_by_layer(marks, clock)
    assert sum(times.values()) == marks[-1][2] - marks[0][2]
    assert times["1.relu", "forward"] == 2.0  # used twice


def test_no_hook_stays_behind():
    module = network()
    with profiling.LayerHooks(module, CountingClock()).attach_to_modules():
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_step_that_fails_inside_a_layer_leaves_the_next_one_right():
    clock, module = CountingClock(), network()
    hooks = profiling.LayerHooks(module, clock)
    with hooks.attach_to_modules():
        hooks.begin_step()
        with pytest.raises(RuntimeError):
            module(torch.randn(2, 7, 4, 4))
        hooks.begin_step()
        module(torch.randn(2, 3, 4, 4)).sum().backward()
        owners = [owner for owner, _, _ in hooks.end_step(())]
    assert owners[:3] == ["(input)", "(network)", "0"]
    assert owners[-2] == "0"


def test_work_by_hand():
    with torch.device("meta"):
        built = BuiltModel(network(), (3, 4, 4), 5, "own")
    work = network_work_by_module(built, training=True, batch_size=2)
    image = 2 * 3 * 4 * 4  # elements of the batch
    first = work["0"]
    assert (first.forward_flop, first.forward_elements) == (2 * 9 * 32, image + 9 + image)
    # No gradient to the input: gradient, input and weights in, gradient of the weights out.
    assert (first.backward_flop, first.backward_elements) == (2 * 9 * 32, 2 * image + 9 + 9)
    # Both activations: read and written; backward: gradient, result, gradient.
    assert (work["1.relu"].forward_elements, work["1.relu"].backward_elements) == (4 * image, 6 * image)
    assert work["1"].forward_elements == 3 * image  # the block's own addition
    assert (work["3"].forward_flop, work["3"].backward_flop) == (2 * 2 * 48 * 5, 2 * 2 * 2 * 48 * 5)
    assert work["2"] == ModuleWork() if "2" in work else True  # a view moves nothing
    assert work[LOSS].forward_flop == 0


@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_moves_at_best_what_one_operation_would(inplace):
    with torch.device("meta"):
        built = BuiltModel(
            nn.Sequential(nn.Flatten(), nn.Dropout(inplace=inplace), nn.Linear(48, 5)), (3, 4, 4), 5, "own"
        )
    work = network_work_by_module(built, training=True, batch_size=2)["1"]
    # Images are no parameter: without a gradient to them there is no way back.
    assert (work.forward_elements, work.forward_fixed_bytes) == (2 * 96, 96)
    with torch.device("meta"):
        behind = nn.Sequential(nn.Flatten(), nn.Linear(48, 48), nn.Dropout(inplace=inplace), nn.Linear(48, 5))
    work = network_work_by_module(BuiltModel(behind, (3, 4, 4), 5, "own"), training=True, batch_size=2)["2"]
    assert (work.backward_elements, work.backward_fixed_bytes) == (2 * 96, 96)
    assert "1" not in network_work_by_module(built, training=False, batch_size=2)


def test_what_is_only_written_is_not_counted_as_read():
    class Writes(nn.Module):
        def forward(self, x):
            y = torch.zeros_like(x)
            y.copy_(x)
            return y

    with torch.device("meta"):
        built = BuiltModel(nn.Sequential(Writes(), nn.Flatten(), nn.Linear(48, 5)), (3, 4, 4), 5, "own")
    assert network_work_by_module(built, training=False, batch_size=2)["0"].forward_elements == 96 + 2 * 96


def test_frozen_weights_are_no_part_of_the_update(lenet):
    workload = build_workload(LENET, torch.device("cpu"))
    workload.step()
    whole = profiling.bytes_moved_by_optimizer(workload)
    frozen = workload.module.fc1.weight if hasattr(workload.module, "fc1") else next(workload.module.parameters())
    frozen.requires_grad_(False)
    # The weight and its momentum read and written, its gradient read.
    assert whole - profiling.bytes_moved_by_optimizer(workload) == 5 * 4 * frozen.numel()


def test_a_network_without_work_that_can_be_counted_is_refused_before_it_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "networks"))
    with pytest.raises(BadInput, match="the work of reads_data:network cannot be counted"):
        profiling.profile_case(dataclasses.replace(LENET, model="reads_data:network"), tmp_path, 0.05, 0)


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "googlenet"])
def test_layers_have_all_the_flop_of_the_network(name):
    counted, work = count_network_flop(name), count_work_by_module(name, True, 2).values()
    assert sum(w.forward_flop for w in work) == 2 * counted.forward_flop
    assert sum(w.backward_flop for w in work) == 2 * counted.backward_flop


def test_normalisation_owns_its_gradient_though_it_counts_its_batches_first():
    work = count_work_by_module("resnet18", True, 2)
    image = 2 * 64 * 112 * 112
    assert work["bn1"].backward_elements == pytest.approx(3 * image, rel=1e-3)
    assert work["conv1"].backward_flop == work["conv1"].forward_flop


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lenet")
    return profiling.profile_case(LENET, folder, time_s=0.2, trace_steps=2), folder


def test_a_profile_covers_the_step_and_survives_json_and_parquet(lenet, tmp_path):
    run = lenet[0]
    assert parse_run_json(ProfileRun, to_json(run)) == run
    assert len(run.hooked_step_s) >= profiling.MIN_STEPS
    assert {x.kind for x in run.layers} == {"Conv2d", "Tanh", "AvgPool2d", "Flatten", "Linear"}
    assert all(len(x.forward_s) == len(run.hooked_step_s) for x in run.layers)
    for i, step_s in enumerate(run.hooked_step_s):
        layers = sum(x.forward_s[i] + (x.backward_s[i] if x.backward_s else 0) for x in run.layers)
        assert layers + sum(part[i] for part in run.parts_s.values()) == pytest.approx(step_s, rel=1e-6)
    assert set(run.parts_s) == {"input", "loss", "optimizer", "measuring", "between"}
    # SGD with momentum: weights and momentum read and written, gradients read.
    assert run.optimizer_bytes == 5 * 4 * sum(p.numel() for p in _lenet_parameters())
    write_layers(tmp_path, run)
    rows = pq.read_table(tmp_path / "layers.parquet").to_pandas()
    assert list(rows.columns) == LAYERS_SCHEMA.names
    assert rows["forward_flop"].sum() == 2 * count_network_flop("lenet5").forward_flop


def _lenet_parameters():
    from dlbench.models import build

    return build("lenet5").module.parameters()


def test_the_trace_is_what_perfetto_and_tensorboard_open(lenet):
    _, folder = lenet
    with gzip.open(folder / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"ProfilerStep#0", "ProfilerStep#1", "(network)", "aten::convolution"} <= names
    spans = [event for event in events if event["ph"] == "X"]
    assert all(event["dur"] >= 0 and event.keys() >= {"ts", "pid", "tid", "name"} for event in spans)
    steps = [event for event in spans if event["name"].startswith("ProfilerStep#")]
    inside = [event for event in spans if event["name"] == "(network)"]
    # Each pass of the network lies within the span of its step, on the same thread: so viewers nest them.
    for step, whole in zip(steps, inside, strict=True):
        assert step["ts"] <= whole["ts"] <= whole["ts"] + whole["dur"] <= step["ts"] + step["dur"]
        assert (step["pid"], step["tid"]) == (whole["pid"], whole["tid"])
    # As TensorBoard's plugin looks for it: anything, then .pt.trace.json, maybe compressed.
    found = [file.name for file in (folder / "tensorboard").iterdir()]
    assert [bool(re.fullmatch(r".*?(\.\d+)?\.pt\.trace\.json(\.gz)?", name)) for name in found] == [True]


def test_inference_has_no_backward(tmp_path):
    case = dataclasses.replace(LENET, mode="inference", precision="amp_bf16")
    run = profiling.profile_case(case, tmp_path, time_s=0.05, trace_steps=0)
    assert all(x.backward_s == () and x.backward_elements == 0 for x in run.layers)
    assert run.optimizer_bytes == 0
    assert not (tmp_path / "trace.json.gz").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"compile": "default"}, 'compile "default"'), ({"devices_per_node": 2}, "2 devices")],
)
def test_what_cannot_be_profiled_is_refused(change, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        profiling.profile_case(dataclasses.replace(LENET, **change), tmp_path, 1.0, 0)


def test_a_network_that_computes_nothing_sensible_has_no_profile(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "networks"))
    with pytest.raises(InvalidMeasurement, match=r"the loss is nan after \d+ steps"):
        profiling.profile_case(dataclasses.replace(LENET, model="odd_networks:nan_loss"), tmp_path, 0.05, 0)


@pytest.mark.parametrize("time_s", [0.0, math.nan])
def test_no_time_is_refused(time_s, tmp_path):
    with pytest.raises(BadInput, match="time to profile"):
        profiling.profile_case(LENET, tmp_path, time_s, 0)


@pytest.mark.parametrize(
    ("worker", "asked", "status", "words"),
    [
        (profiling, {"case": Case("resnet5").to_dict()}, "bad_input", "unknown model 'resnet5'"),
        (profiling, {"case": {"modle": "resnet50"}}, "bad_input", "unknown axis 'modle'"),
        (ceilings, {"device": "tpu"}, "bad_input", "unknown device 'tpu'"),
        pytest.param(
            *(ceilings, {"device": "cuda"}, "no_device", "'cuda' was requested"),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
    ],
)
def test_a_worker_that_cannot_begin_leaves_the_reason(worker, asked, status, words, tmp_path):
    assert worker.handle_request(asked, tmp_path) == 3
    left = json.loads((tmp_path / "error.json").read_text())
    assert left["status"] == status
    assert words in left["text"]


@pytest.mark.parametrize(
    ("status", "error"),
    [("bad_input", BadInput), ("no_device", DeviceUnavailable), ("oom", worker_process.WorkerFailed)],
)
def test_the_reason_of_a_worker_is_an_error_of_ours(status, error, tmp_path, monkeypatch):
    (tmp_path / "refuses.py").write_text(
        "import json, pathlib, sys\n"
        f"text = json.dumps({{'status': {status!r}, 'text': 'so it is'}})\n"
        "pathlib.Path(sys.argv[1], 'error.json').write_text(text)\nsys.exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(error, match="so it is"):
        worker_process.run_in_worker(
            {}, tmp_path / "x", 60.0, argv=[sys.executable, "-m", "refuses", str(tmp_path / "x")]
        )


def test_a_worker_that_hangs_is_ended_with_its_phase(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text(
        "import sys, time\nprint('phase: asleep', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(worker_process.WorkerFailed, match="did not end within 2 s, in phase 'asleep'"):
        worker_process.run_in_worker({}, tmp_path / "x", 1.5, argv=[sys.executable, "-m", "hangs", str(tmp_path / "x")])


def test_a_worker_that_dies_is_said_to_have(tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(worker_process.WorkerFailed, match="SIGKILL"):
        worker_process.run_in_worker({}, tmp_path / "x", 30.0, argv=[sys.executable, "-m", "dies", str(tmp_path / "x")])


def test_an_unknown_device_is_unknown_to_the_command(capsys):
    from dlbench.commands import ceilings

    with pytest.raises(UnknownName, match="unknown device 'gpu'"):
        ceilings._run_ceilings_command(_options(ceilings, ["ceilings", "--device", "gpu"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-P", "batch_size=2,4"], "batch_size has several values"),
        (["-P", "bach_size=2"], "did you mean 'batch_size'"),
        (["-P", "batch_size=0"], "at least 1"),
        (["-P", "model=vgg16"], "give the model only once"),
        (["--time", "0s"], "above 0"),
        (["--time", "soon"], "not a duration"),
        (["--trace-steps", "-1"], "from 0 to 1000"),
    ],
)
def test_bad_options_end_before_a_worker_starts(arguments, words):
    from dlbench.commands import profile

    with pytest.raises(BadInput, match=words):
        profile._run_profile_command(_options(profile, ["profile", "lenet5", *arguments]))


def test_the_commands_do_not_load_torch_to_say_their_help():
    import subprocess

    code = (
        "import argparse, sys; from dlbench.commands import ceilings, profile;"
        "p = argparse.ArgumentParser().add_subparsers(); ceilings.add_parser(p); profile.add_parser(p); print(sorted({'torch', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.slow
def test_both_commands_from_end_to_end(tmp_path, capsys):
    from dlbench.commands import ceilings, profile

    results = ["--results", str(tmp_path)]
    assert (
        ceilings._run_ceilings_command(_options(ceilings, ["ceilings", "--device", "cpu", "--budget", "3s", *results]))
        == 0
    )
    assert "conv [FLOP/s]" in capsys.readouterr().out
    axes = ["-P", "batch_size=2", "-P", "protocol.warmup_max_time_s=1", "-o", str(tmp_path / "profiles" / "x")]
    assert profile._run_profile_command(_options(profile, ["profile", "lenet5", "--time", "1s", *axes, *results])) == 0
    captured = capsys.readouterr()
    assert "The bounds assume" in captured.out
    assert "(measured)" in captured.out
    written = {p.name for p in (tmp_path / "profiles" / "x").iterdir()}
    assert {"layers.parquet", "layers.csv", "profile.json", "trace.json.gz", "roofline.svg", "roofline.png"} <= written

    from dlbench.results import store

    assert store.find_parts_with_warnings(tmp_path) == []


def _options(bounds, arguments):
    import argparse

    parser = argparse.ArgumentParser()
    bounds.add_parser(parser.add_subparsers())
    return parser.parse_args(arguments)
