"""Run A: what must hold on a real GPU before its figures are published; at most 9 minutes.

    make test-gpu                  on a GPU, with the machine's own Python: make test-gpu PY=python3
    make test-gpu DEVICE=cpu       the same code without one, in small sizes; checks that need a GPU are skipped

Each check notes its figures in test-gpu.json. Those of the meters run in `make test` as well, against a compiled
stand-in of NVIDIA's library (tests/worker/meters/test_compiled_nvml.py).
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest
import torch

from dlbench.suites.case import Case
from dlbench.worker.devices import clock_for_device, device_uuid, find_device
from dlbench.worker.precision import autocast, set_precision
from tests.gpu import checks

#: Matrix products and copies that these devices reach at least: TFLOP/s in bf16, TB/s read and written, and at most.
EXPECTED = {"H100": (798, 3.0, 3.35), "H200": (790, 4.3, 4.8)}


@pytest.fixture
def device(sizes):
    return find_device(Case("lenet5", device=sizes.kind))


def load(device, seconds, size=8192):
    """Matrix products for so long; gives when they began and ended [s]."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < seconds:
        for _ in range(4):
            a @ a
        torch.cuda.synchronize()
    return began_s, time.perf_counter()


@pytest.mark.gpu
def test_doctor_and_every_call_to_nvml_answer(dlbench, device, note):
    note(findings=json.loads(dlbench("doctor", "--json")), **checks.every_call_answers(device_uuid(device)))


@pytest.mark.gpu
def test_the_energy_counter_never_goes_back_and_moves_in_ticks(device, note):
    note(**checks.the_counter_moves_in_ticks(device_uuid(device), 5.0))


@pytest.mark.gpu
def test_counter_and_integral_of_power_agree_under_load(device, sizes, note):
    load(device, 1.0)
    note(**checks.counter_and_integral_agree(device_uuid(device), lambda s: load(device, s), sizes.load_s))


def test_a_stamp_is_cheap_and_the_steps_sum_to_the_window(device, sizes, note, measured):
    clock = clock_for_device(device)
    pool = [clock.stamp() for _ in range(64)]
    clock.synchronize()
    for stamp in pool:
        clock.recycle_stamp(stamp)
    began_s = time.perf_counter()
    for _ in range(sizes.num_stamps):
        clock.recycle_stamp(clock.stamp())
    stamp_s = (time.perf_counter() - began_s) / sizes.num_stamps
    rows, _ = measured({"model": ["lenet5"], "batch_size": [sizes.batch_size], "device": [sizes.kind]})
    gap = rows["device_window_s"][0] / rows["window_s"][0] - 1
    note(stamp_s=stamp_s, device_window_over_host_window=gap)
    assert stamp_s < 3e-6
    assert abs(gap) < 0.005


@pytest.mark.parametrize("precision", ["fp32", "tf32", "amp_bf16"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["matrix product", "convolution"])
def test_a_precision_has_its_own_error_against_fp64(device, sizes, note, precision, compiled, kind):
    if precision not in sizes.precisions.split(","):
        pytest.skip(f"{sizes.kind} has no {precision}")
    if compiled and sizes.kind == "cpu":
        pytest.skip("compiling for a CPU needs a C++ compiler")
    torch.manual_seed(0)
    set_precision(precision, sizes.kind)
    if kind == "matrix product":
        a, b = torch.randn(1024, 1024, device=device), torch.randn(1024, 1024, device=device)
        operation = torch.matmul
    else:
        a, b = torch.randn(8, 64, 56, 56, device=device), torch.randn(64, 64, 3, 3, device=device)
        operation = torch.nn.functional.conv2d
    run = torch.compile(operation) if compiled else operation
    with autocast(precision, sizes.kind):
        found = run(a, b).double()
    exact = operation(a.double().cpu(), b.double().cpu()).to(found.device)
    error = float((found - exact).norm() / exact.norm())
    note(error=error)
    low, high = {"fp32": (0, 1e-5), "tf32": (1e-4, 1e-3), "amp_bf16": (1e-4, 1e-2)}[precision]
    assert low <= error <= high


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["matrix product", "convolution"])
def test_strict_fp32_runs_on_no_tensor_core(device, note, kind):
    set_precision("fp32", "cuda")
    a = torch.randn(2048, 2048, device=device)
    images, weights = torch.randn(32, 64, 56, 56, device=device), torch.randn(64, 64, 3, 3, device=device)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        a @ a if kind == "matrix product" else torch.nn.functional.conv2d(images, weights)
        torch.cuda.synchronize()
    kernels = [event.key for event in profile.key_averages() if event.device_type.name == "CUDA"]
    note(kernels=kernels)
    assert kernels
    assert not [
        name for name in kernels if any(word in name for word in ("tf32", "tensorop", "bf16", "s1688", "s16816"))
    ]


def test_networks_run_in_every_precision_and_mode(sizes, note, measured):
    axes = {
        "model": sizes.networks.split(","), "mode": ["training", "inference"], "precision": sizes.precisions.split(","),
        "batch_size": [sizes.batch_size], "memory_format": ["channels_last"], "device": [sizes.kind],
    }  # fmt: skip
    rows, _ = measured(axes, window_s=sizes.window_s)
    columns = ["model", "mode", "precision", "status", "loss_last"]
    rates = rows["batch_size"] / rows["step_s"].map(statistics.median)
    found = rows[columns].assign(img_per_s=rates, warnings=rows["warnings"].map(list))
    note(cases=found.to_dict("records"))
    assert set(rows["status"]) <= {"ok", "unstable"}
    assert rows["loss_last"].dropna().map(math.isfinite).all()
    waits = [row for row in found.to_dict("records") if any(w.startswith("host_bound") for w in row["warnings"])]
    assert not [row for row in waits if row["precision"] == "amp_fp16" and row["model"] != "lenet5"]


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "compile_mode"), [("resnet50_v1_5", "default"), ("lenet5", "max-autotune")])
def test_a_compiled_network_gives_what_the_eager_one_does(device, sizes, note, model, compile_mode):
    from dlbench.models import build

    torch.manual_seed(0)
    set_precision("fp32", "cuda")
    built = build(model, training=False)
    module = built.module.to(device).eval()
    images = torch.randn(16, *built.input_shape, device=device)
    with torch.inference_mode():
        eager = module(images)
        run = torch.compile(module, mode=compile_mode)
        outputs = [run(images).clone() for _ in range(3)]
    errors = [float((output - eager).norm() / eager.norm()) for output in outputs]
    note(errors=errors)
    assert max(errors) < 1e-2


@pytest.mark.parametrize("launcher", ["local", "torchrun"])
def test_a_case_of_one_rank_runs_under_each_launcher(sizes, note, measured, launcher):
    axes = {"model": ["lenet5"], "batch_size": [sizes.batch_size], "device": [sizes.kind]}
    rows, results = measured(axes, "--launcher", launcher)
    left = [str(path) for path in results.rglob("*nccl*")]
    note(status=list(rows["status"]), left=left)
    assert list(rows["status"]) in (["ok"], ["unstable"])
    assert left == []


def test_predicted_memory_is_what_is_allocated(sizes, note, measured):
    networks = ["lenet5", "alexnet", "googlenet", "resnet50_v1_5"] if sizes.kind == "cuda" else ["lenet5"]
    axes = {"model": networks, "batch_size": [64], "device": [sizes.kind]}
    rows, _ = measured(axes, window_s=0.2)
    from dlbench.suites.case_estimates import predicted_memory_bytes

    ratios = {}
    for row in rows.to_dict("records"):
        case = Case(row["model"], batch_size=64, device=sizes.kind)
        ratios[row["model"]] = row["memory_allocated_peak_bytes"] / predicted_memory_bytes(case)
    note(allocated_over_predicted=ratios)
    assert all(abs(ratio - 1) < 0.05 for ratio in ratios.values())


@pytest.mark.gpu
def test_a_case_without_room_ends_as_oom_and_the_next_one_runs(sizes, note, measured):
    axes = {"model": ["resnet50_v1_5", "lenet5"], "batch_size": [32768], "device": ["cuda"]}
    rows, _ = measured(axes, status=1)
    found = dict(zip(rows["model"], rows["status"], strict=True))
    note(status=found)
    assert found["resnet50_v1_5"] == "oom"
    assert found["lenet5"] in ("ok", "unstable")


def test_a_case_that_is_stopped_in_mid_window_is_preempted(sizes, note, tmp_path):
    suite = tmp_path / "long.toml"
    suite.write_text(
        'name = "long"\n[axes]\nmodel = ["lenet5"]\ndevice = ["' + sizes.kind + '"]\n'
        "[protocol]\nmin_time_s = 60.0\nmax_time_s = 90.0\nwarmup_min_time_s = 0.1\nwarmup_max_time_s = 1.0\n"
    )
    command = [sys.executable, "-m", "dlbench", "run", str(suite), "--results", str(tmp_path / "r")]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until_s = time.perf_counter() + 120
    while not any("phase: window" in path.read_text() for path in tmp_path.rglob("stderr.txt")):
        assert time.perf_counter() < until_s
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    process.wait(60)
    statuses = [json.loads(path.read_text())["status"] for path in tmp_path.rglob("record.json")]
    note(exit_status=process.returncode, statuses=statuses)
    assert statuses == ["preempted"]


def test_a_profile_costs_little_and_names_every_layer(sizes, note, dlbench, tmp_path):
    model = "resnet50_v1_5" if sizes.kind == "cuda" else "lenet5"
    precision = "amp_bf16" if sizes.kind == "cuda" else "fp32"
    dlbench(
        "profile", model, "-P", f"batch_size={sizes.batch_size}", "-P", f"precision={precision}", "-P",
        f"device={sizes.kind}", "--time", "5s" if sizes.kind == "cuda" else "1s", "-o", tmp_path / "profile",
    )  # fmt: skip
    profile = json.loads((tmp_path / "profile" / "profile.json").read_text())
    hooked, bare = (statistics.median(profile[name]) for name in ("hooked_step_s", "step_s"))
    note(hooked_over_bare=hooked / bare, bare_step_s=bare)
    assert profile["layers"]
    if sizes.kind == "cuda":
        assert hooked / bare < 1.10


@pytest.mark.gpu
def test_the_loop_of_the_window_costs_under_a_percent(sizes, note):
    command = [sys.executable, "benchmarks/experiments/overhead.py", "--one", "lenet5:256:training"]
    command += ["--device", "cuda", "--seconds", "15"]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    bare_s, ratios = json.loads(found.stdout)
    note(bare_step_s=bare_s, ratio=statistics.median(ratios), pairs=len(ratios))
    assert statistics.median(ratios) < 1.01


def test_ceilings_are_reached(sizes, note, dlbench, tmp_path):
    precision = "amp_bf16,fp32" if sizes.kind == "cuda" else "fp32"
    budget = "30s" if sizes.kind == "cuda" else "4s"
    found = json.loads(
        dlbench("ceilings", "--device", sizes.kind, "--precision", precision, "--budget", budget, "--format", "json",
                "--results", tmp_path / "r")
    )  # fmt: skip
    rows = found["rows"]
    note(ceilings=rows)
    assert {row["kind"].split()[0] for row in rows} >= {"matmul", "copy"}
    if sizes.kind != "cuda":
        return
    name = torch.cuda.get_device_name()
    expected = next((values for part, values in EXPECTED.items() if part in name), None)
    if expected is None:
        pytest.skip(f"nothing is published for {name}")
    best = {(row["kind"].split()[0], row["precision"]): row["best"] for row in rows}
    assert best["matmul", "amp_bf16"] >= 0.95 * expected[0] * 1e12
    assert 0.95 * expected[1] * 1e12 <= best["copy", None] <= expected[2] * 1e12
