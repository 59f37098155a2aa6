"""What is known of machines that are not this one: containers, libraries, environments, repositories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlbench import free_memory
from dlbench.launch.probe import _describe_devices
from dlbench.units import nominal_memory_size
from dlbench.worker.failures import classify_failure
from dlbench.worker.machine import software, system
from dlbench.worker.machine.system import (
    describe_system,
    pci_address,
    software_and_device_facts,
    system_key,
    system_keys,
)


def test_the_system_of_this_machine_is_plain_json():
    system = describe_system(torch.device("cpu"), (1.0, 2.0, 3.0))
    assert system.cpu_model
    assert system.cpu_threads >= 1
    assert system.memory_bytes > 2**28
    assert system.torch_version == torch.__version__
    assert system.device_kind == "cpu"
    assert system.device_name is None
    assert json.loads(json.dumps(system.details))["load_average_before"] == [1.0, 2.0, 3.0]
    assert any("torch" in library for library in system.details["libraries"])
    assert any(link.startswith("libc10.so => /") for link in system.details["ldd"])


def test_firmware_is_that_of_the_node_and_of_the_device(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "DMI", tmp_path)
    monkeypatch.setattr(system, "vbios_version", {"a": "96.00.89", "b": None}.get)
    assert system.firmware_versions(None) is None
    (tmp_path / "bios_version").write_text("2.3.6\n")
    assert system.firmware_versions(None) == system.firmware_versions("b") == "BIOS 2.3.6"
    assert system.firmware_versions("a") == "BIOS 2.3.6, VBIOS 96.00.89"


def test_the_probe_is_one_line_and_has_the_key_of_a_measurement():
    done = subprocess.run(
        [sys.executable, "-m", "dlbench.worker", "--probe"], capture_output=True, text=True, check=True
    )
    facts = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert facts["system_key"] == system_key(software_and_device_facts())
    assert {"torch_version", "cuda_version", "cuda_available", "device_kind", "devices", "driver_version"} <= set(facts)
    assert "nccl_version" in facts


def test_a_gpu_that_pytorch_cannot_use_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(system, "DEVICES_FOLDER", tmp_path)
    (tmp_path / "nvidiactl").touch()  # of the driver, not of a device
    assert software_and_device_facts()["cuda_error"] is None
    (tmp_path / "nvidia0").touch()

    def refuse():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nMore.")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    facts = software_and_device_facts()
    assert facts["cuda_error"] == "The NVIDIA driver on your system is too old (found version 11040)."
    assert _describe_devices(facts).endswith("cores (a GPU is present but not usable: " + facts["cuda_error"] + ")")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert "CUDA_VISIBLE_DEVICES" in software_and_device_facts()["cuda_error"]


def test_the_key_knows_kinds_of_device_and_not_their_number():
    facts = {"cpu_model": "c", "torch_version": "t", "cuda_version": "13", "driver_version": "595"}
    one = system_key({**facts, "devices": [{"name": "H200", "uuid": "a"}]})
    assert one == system_key({**facts, "devices": [{"name": "H200", "uuid": "b"}, {"name": "H200", "uuid": "c"}]})
    assert one != system_key({**facts, "devices": [{"name": "H100", "uuid": "a"}]})
    assert len(one) == 12


CPU_FACTS = {
    "cpu_model": "AMD EPYC 7B13",
    "torch_version": "2.15",
    "cuda_version": None,
    "driver_version": None,
    "devices": [],
    "device_kind": "cpu",
    "cpu_cores": 2,
    "cpu_threads": 4,
    "job_threads": 2,
    "cpu_quota": None,
    "node_cpu_cores": 64,
    "node_cpu_threads": 128,
    "node_memory_bytes": 251 * 2**30,
    "cpu_binding": None,
}


@pytest.mark.parametrize(
    "other",
    [
        {"cpu_cores": 1},
        {"cpu_threads": 2},
        {"job_threads": 1},
        {"cpu_quota": 1.5},
        {"cpu_binding": "OMP_PROC_BIND=close"},
        {"node_cpu_cores": 32},
        {"node_cpu_threads": 64},
        {"node_memory_bytes": 502 * 2**30},
    ],
)
def test_cores_threads_and_the_node_are_part_of_a_cpu_s_key_and_not_of_a_gpu_s(other):
    assert system_key(CPU_FACTS) != system_key(CPU_FACTS | other)
    gpu = CPU_FACTS | {"devices": [{"name": "H200"}], "device_kind": "cuda"}
    assert system_key(gpu) == system_key(gpu | other)
    assert system_key(gpu, "cpu") != system_key(gpu | other, "cpu")
    assert system_keys(gpu) == {"cpu": system_key(gpu, "cpu"), "cuda": system_key(gpu)}


def test_nodes_of_one_kind_have_one_key_though_their_kernels_keep_some_memory():
    assert system_key(CPU_FACTS) == system_key(CPU_FACTS | {"node_memory_bytes": 250 * 2**30})
    sizes = [nominal_memory_size(gib * 2**30) / 2**30 for gib in (7.6, 23.3, 125, 188, 251, 376, 503, 755)]
    assert sizes == [8, 24, 128, 192, 256, 384, 512, 768]


def test_a_gpu_s_key_is_that_of_records_written_before():
    facts = {"cpu_model": "c", "torch_version": "t", "cuda_version": "13", "driver_version": "595"}
    assert system_key({**facts, "devices": [{"name": "H200"}]}) == "bb636784fe00"


def probed(words=(), **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    argv = [*words, sys.executable, "-m", "dlbench.worker", "--probe"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=kept | environment)
    return json.loads(done.stdout)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_threads_and_cores_that_a_process_is_given_make_it_another_system():
    whole, one = probed(), probed(OMP_NUM_THREADS="1")
    core = str(min(os.sched_getaffinity(0)))
    pinned = probed(["taskset", "-c", core])
    assert len({facts["system_keys"]["cpu"] for facts in (whole, one, pinned)}) == 3
    assert (one["job_threads"], one["cpu_threads"]) == (1, whole["cpu_threads"])
    assert (pinned["cpu_threads"], pinned["node_cpu_threads"]) == (1, whole["node_cpu_threads"])


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_the_affinity_is_that_before_torch_binds_the_main_thread():
    code = "import dlbench.worker, torch, os; from dlbench.affinity import allowed_cores; "
    code += "torch.ones(9); print(len(allowed_cores()), len(os.sched_getaffinity(0)))"
    environment = os.environ | {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    before, after = map(int, done.stdout.split())
    assert before == len(os.sched_getaffinity(0))
    assert after == 1  # else this test shows nothing
    bound = probed(OMP_PROC_BIND="close")
    assert bound["cpu_threads"] == before
    assert bound["cpu_binding"] == "OMP_PROC_BIND=close"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000", "job/cpu.max": "400000 100000", "job/step/cpu.max": "50000 100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"}, 2.0),
    ],
)
def test_the_smallest_quota_of_all_control_groups_around_the_process_counts(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text("0::/job/step\n4:cpu,cpuacct:/job\n")
    monkeypatch.setattr(free_memory, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    assert system.cpu_quota() == expected


@pytest.mark.parametrize(
    ("environment", "files", "expected"),
    [
        ({}, [], (None, None)),
        ({}, [".dockerenv"], ("docker", None)),
        ({"DLBENCH_CONTAINER_IMAGE": "a@sha256:1"}, [".dockerenv"], ("docker", "a@sha256:1")),
        ({"container": "podman"}, ["run/.containerenv"], ("podman", "quay.io/x:1")),
        ({"APPTAINER_CONTAINER": "/i.sif"}, [".singularity.d"], ("apptainer", "/i.sif")),
        ({"SINGULARITY_CONTAINER": "/i.sif"}, [], ("apptainer", "/i.sif")),
        ({"PYXIS_CONTAINER_IMAGE": "/x.sqsh", "ENROOT_ROOTFS": "/r"}, [], ("pyxis", "/x.sqsh")),
        ({"ENROOT_ROOTFS": "/r/name"}, [], ("enroot", "/r/name")),
        ({"DLBENCH_CONTAINER_RUNTIME": "udocker"}, [".dockerenv"], ("udocker", None)),
    ],
)
def test_a_container_is_known_by_its_marks(tmp_path, environment, files, expected):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('engine="podman-5.0"\nimage="quay.io/x:1"\n')
    assert software.detect_container(environment, tmp_path) == expected


def test_the_environment_keeps_what_changes_results_and_no_secret():
    kept = software.relevant_environment(
        {"NCCL_DEBUG": "INFO", "HOME": "/h", "SLURM_JWT": "x", "TORCH_TOKEN": "x", "OMP_NUM_THREADS": "4", "RANK": "0"}
    )
    assert kept == {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "4", "RANK": "0"}


def test_libraries_are_listed_once_by_their_real_path(tmp_path):
    (tmp_path / "libx.so.1.2").write_text("")
    (tmp_path / "libx.so.1").symlink_to(tmp_path / "libx.so.1.2")
    line = "7f00-7f01 r-xp 00000000 fe:00 123 {}\n"
    names = [
        f"{tmp_path}/libx.so.1",
        f"{tmp_path}/libx.so.1",
        f"{tmp_path}/libx.so.1.2",
        "[heap]",
        "/x/_a.cpython-311.so",
    ]
    (tmp_path / "maps").write_text("".join(line.format(name) for name in names))
    assert software.loaded_libraries(tmp_path / "maps") == [f"{tmp_path}/libx.so.1.2"]


def test_what_ldd_finds_and_what_it_does_not_is_listed_once_by_real_paths(tmp_path, monkeypatch):
    (tmp_path / "libx.so.1.2").write_text("")
    (tmp_path / "libx.so.1").symlink_to(tmp_path / "libx.so.1.2")
    on_progress = f"""/opt/libtorch.so:
	linux-vdso.so.1 (0x00007f0000000000)
	libx.so.1 => {tmp_path}/libx.so.1 (0x00007f0000000000)
	libcuda.so.1 => not found
	/lib64/ld-linux-x86-64.so.2 (0x00007f0000000000)
/opt/libtorch_cpu.so:
	libx.so.1 => {tmp_path}/libx.so.1 (0x00007f0000000000)
"""
    (tmp_path / "ldd").write_text(f"#!/bin/sh\ncat <<'END'\n{on_progress}END\n")
    (tmp_path / "ldd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    expected = ["libcuda.so.1 => not found", f"libx.so.1 => {tmp_path}/libx.so.1.2"]
    assert software.linked_libraries([Path("/opt/libtorch.so")]) == expected


def test_without_ldd_or_files_nothing_is_said_of_links(tmp_path, monkeypatch):
    assert software.linked_libraries([]) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert software.linked_libraries([Path("/opt/libtorch.so")]) is None


def test_the_driver_s_libraries_outside_of_the_container_are_those_that_the_job_found():
    assert software.host_libraries({"DLBENCH_HOST_LIBRARIES": "/a/libcuda.so.575.1:/b/libmlx5.so.1"}) == [
        "/a/libcuda.so.575.1",
        "/b/libmlx5.so.1",
    ]
    assert software.host_libraries({}) is None
    assert software.host_libraries({"DLBENCH_HOST_LIBRARIES": ""}) is None


def test_outside_of_a_checkout_there_is_no_commit(tmp_path):
    assert software.git_state(tmp_path) == (None, None)
    assert software.os_name(tmp_path) is None


def test_a_pci_address_is_written_as_lspci_does():
    class Properties:
        pci_domain_id, pci_bus_id, pci_device_id = 0, 0xC1, 0

    assert pci_address(Properties()) == "0000:c1:00.0"
    assert pci_address(object()) is None


CUDA_MESSAGE = (
    "CUDA out of memory. Tried to allocate 96.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which 70.11 GiB is "
    "free. Including non-PyTorch memory, this process has 9.13 GiB memory in use."
)


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (torch.OutOfMemoryError(CUDA_MESSAGE), "oom", "96.00 GiB more needed, 70.11 GiB free of 79.25 GiB"),
        (RuntimeError("CUDA error: out of memory"), "oom", "out of memory on the device"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."),
         "oom", "4.00 KiB more needed"),
        (MemoryError(), "oom", "available"),
        (RuntimeError("shapes do not match\nmore"), "crashed", "RuntimeError: shapes do not match"),
        (ValueError(), "crashed", "ValueError: no message"),
    ],
)  # fmt: skip
def test_an_error_becomes_a_status_and_one_line(error, status, part):
    found, text = classify_failure(error)
    assert found == status
    assert part in text
    assert "\n" not in text
