"""The worker as the supervisor runs it: a process that leaves a result, whatever happens."""

from __future__ import annotations

import dataclasses
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from dlbench.errors import BadInput
from dlbench.results.records import SHARED_FACTS, Outcome, reusable_facts
from dlbench.suites import worker_request as requests
from dlbench.suites.case import Case
from dlbench.worker import precision
from dlbench.worker.precision import active_precision_switches, set_precision
from tests.fakes import records as fakes
from tests.worker.conftest import TINY, run_worker, start_worker, worker_environment

LENET = Case("lenet5", batch_size=4, protocol=TINY)
#: Every value of every axis that the CPU has, in as few processes as that takes.
CASES = {
    "sgd": LENET,
    "adam, bf16": dataclasses.replace(LENET, optimizer="adam", precision="amp_bf16"),
    "adagrad, channels_last": dataclasses.replace(LENET, optimizer="adagrad", memory_format="channels_last"),
    "rmsprop, host batches, fp16": dataclasses.replace(
        LENET, optimizer="rmsprop", data="synthetic_host", precision="amp_fp16"
    ),
    "inference": dataclasses.replace(LENET, mode="inference", memory_format="channels_last"),
}


def test_a_later_process_takes_over_what_the_first_one_found(tmp_path):
    (tmp_path / "first").mkdir()
    _, first, _ = run_worker(tmp_path / "first", LENET)
    facts = reusable_facts(fakes.record(LENET, fakes.CPU, attempt_id="first", ranks=first.ranks))
    later = dataclasses.replace(LENET, repeat=1)
    requests.write_request(tmp_path, requests.measure_request(later, facts))
    command = [sys.executable, "-m", "dlbench.worker", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=worker_environment())
    ((_, found),) = Outcome.from_json((tmp_path / "result.json").read_text()).ranks
    ((_, before),) = first.ranks
    assert {name: getattr(found, name) for name in SHARED_FACTS} == {n: getattr(before, n) for n in SHARED_FACTS}
    assert (before.facts_from, found.facts_from) == (None, "first")
    assert found.step_s != before.step_s
    assert "phase: flop" not in done.stderr
    assert "phase: memory" not in done.stderr


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_measured(tmp_path, name):
    status, outcome, stderr = run_worker(tmp_path, CASES[name])
    assert (status, outcome.error) == (0, None), stderr
    assert outcome.status in ("ok", "unstable")
    ((system, found),) = outcome.ranks
    training = CASES[name].mode == "training"
    assert len(found.step_s) >= TINY.min_steps
    shown = -(-len(found.step_s) // found.phase_stride) if training else 0
    assert len(found.forward_s) == len(found.optimizer_s) == shown
    assert found.device_window_s == pytest.approx(found.window_s, rel=0.02)
    assert found.clock == "host"
    assert found.warmup_steps == len(found.warmup_step_s) >= 2
    assert found.energy_j is None or found.energy_source == "rapl"
    assert found.energy_note
    assert found.parameters == 61_706
    assert found.memory_allocated_peak_bytes > found.parameter_bytes == 4 * 61_706
    assert (found.activation_bytes is not None) == training
    assert (found.loss_last is not None) == training
    assert found.forward_flop == 2 * 416_520
    assert (found.backward_flop is not None) == training
    assert system.details["system_key"]
    assert "phase: window" in stderr


def test_what_a_network_leaves_running_keeps_no_worker_from_ending_well(tmp_path):
    began = time.monotonic()
    status, outcome, stderr = run_worker(tmp_path, dataclasses.replace(LENET, model="lateth:make"))
    assert (status, outcome.error) == (0, None), stderr
    assert outcome.status in ("ok", "unstable")
    assert time.monotonic() - began < 100


def expect_failure(folder, case, status, **options):
    code, outcome, stderr = run_worker(folder, case, **options)
    assert (code, outcome.status) == (3, status), stderr
    assert outcome.error
    assert "\n" not in outcome.error
    return outcome, stderr


def test_a_loss_that_is_no_number_makes_the_case_invalid(tmp_path):
    outcome, _ = expect_failure(tmp_path, dataclasses.replace(LENET, model="odd_networks:nan_loss"), "invalid")
    assert "loss is nan" in outcome.error


def test_a_network_that_forks_is_no_measurement_and_one_process_writes_the_result(tmp_path):
    outcome, stderr = expect_failure(tmp_path, dataclasses.replace(LENET, model="odd_networks:forks"), "invalid")
    assert re.search(r"forked \d+ processes in the timed steps", outcome.error)
    assert (stderr.count("phase: window"), stderr.count("phase: check")) == (1, 0)


def test_a_factory_that_raises_is_a_crash_with_its_traceback(tmp_path):
    outcome, stderr = expect_failure(tmp_path, dataclasses.replace(LENET, model="odd_networks:raising"), "crashed")
    assert "no weights in /nowhere" in outcome.error
    assert "Traceback" in stderr
    assert "odd_networks.py" in stderr
    assert outcome.ranks[0][0].cpu_model


def test_a_network_that_cannot_take_its_input_shape_is_invalid_and_the_shape_is_named(tmp_path):
    outcome, _ = expect_failure(tmp_path, dataclasses.replace(LENET, model="shapes:OtherShape"), "invalid")
    assert outcome.error.startswith("model 'shapes:OtherShape' fails on inputs of its input_shape (3, 16, 16): ")
    assert "mat1 and mat2 shapes cannot be multiplied" in outcome.error
    assert outcome.error.endswith("; if it needs another shape, set input_shape of the network or its factory")


def test_a_network_that_takes_its_input_shape_and_fails_elsewhere_has_crashed(tmp_path):
    case = dataclasses.replace(LENET, model="shapes:Buggy", mode="inference")
    outcome, _ = expect_failure(tmp_path, case, "crashed")
    assert outcome.error == "RuntimeError: no such luck"


def test_too_much_memory_is_an_answer(tmp_path):
    outcome, _ = expect_failure(tmp_path, dataclasses.replace(LENET, model="odd_networks:absurd"), "oom")
    assert "4.00 PiB more needed" in outcome.error
    assert "available" in outcome.error


def test_a_limit_on_memory_is_an_answer_too(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))

    case = dataclasses.replace(LENET, batch_size=4_000_000)
    expect_failure(tmp_path, case, "oom", preexec_fn=limit)


def test_a_device_that_is_not_there_is_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has it")
    outcome, stderr = expect_failure(tmp_path, dataclasses.replace(LENET, device="cuda"), "crashed")
    assert "device 'cuda' was requested" in outcome.error
    assert "Traceback" not in stderr


def test_a_precision_that_the_hardware_does_not_have_is_refused():
    with pytest.raises(BadInput, match="the CPU has no TF32"):
        set_precision("tf32", "cpu")


def test_fp32_is_ieee_in_convolutions_and_in_matrix_products():
    set_precision("fp32", "cpu")
    assert set(active_precision_switches().values()) == {"ieee"}


def test_tf32_and_back_leaves_no_switch_behind(monkeypatch):
    monkeypatch.setattr(precision, "_has_tf32", lambda device_kind: True)
    set_precision("tf32", "cuda")
    switches = active_precision_switches()
    assert {name for name, value in switches.items() if value == "tf32"} == {
        *("convolution", "compiled_convolution", "matrix_product")
    }
    # The old names must stay readable, for models and compilers that know only these.
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"
    set_precision("fp32", "cuda")
    assert set(active_precision_switches().values()) == {"ieee"}
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_leaves_a_preempted_case(tmp_path, number):
    long = dataclasses.replace(LENET, protocol=dataclasses.replace(TINY, min_time_s=60.0, max_time_s=60.0))
    with start_worker(tmp_path, long) as process:
        for line in process.stderr:
            if line == "phase: window\n":
                break
        process.send_signal(number)
        process.communicate(timeout=30)
    outcome = Outcome.from_json((tmp_path / "result.json").read_text())
    assert (process.returncode, outcome.status) == (3, "preempted")
    assert outcome.error == f"stopped by {signal.Signals(number).name} in phase window"
    assert [f.name for f in tmp_path.iterdir() if f.name.startswith(".")] == []


def test_without_a_case_nothing_is_written(tmp_path):
    requests.write_request(tmp_path, {"kind": "measure", "case": {"model": "lenet5", "colour": "red"}})
    done = subprocess.run([sys.executable, "-m", "dlbench.worker", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown axis 'colour'" in done.stderr
    assert not (tmp_path / "result.json").exists()


@pytest.mark.slow
def test_a_compiled_network_is_measured(tmp_path):
    _, outcome, stderr = run_worker(tmp_path, dataclasses.replace(LENET, compile="default"))
    assert outcome.status in ("ok", "unstable"), stderr
    assert outcome.ranks[0][1].activation_bytes is None
