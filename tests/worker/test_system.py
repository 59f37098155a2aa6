"""What is known of machines that are not this one: containers, libraries, environments, repositories."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlbench.launch.probe import _describe
from dlbench.worker import software, system
from dlbench.worker.failures import classify
from dlbench.worker.system import describe_system, pci_address, stack, system_key


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


def test_the_probe_is_one_line_and_has_the_key_of_a_measurement():
    done = subprocess.run(
        [sys.executable, "-m", "dlbench.worker", "--probe"], capture_output=True, text=True, check=True
    )
    facts = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert facts["system_key"] == system_key(stack())
    assert {"torch_version", "cuda_version", "cuda_available", "device_kind", "devices", "driver_version"} <= set(facts)
    assert "nccl_version" in facts


def test_a_gpu_that_pytorch_cannot_use_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(system, "GPU_FILES", (tmp_path / "nvidia0",))
    assert stack()["cuda_error"] is None
    (tmp_path / "nvidia0").touch()

    def refuse():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nMore.")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    facts = stack()
    assert facts["cuda_error"] == "The NVIDIA driver on your system is too old (found version 11040)."
    assert _describe(facts).endswith("cores (there is a GPU, but it cannot be used: " + facts["cuda_error"] + ")")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert "CUDA_VISIBLE_DEVICES" in stack()["cuda_error"]


def test_the_key_knows_kinds_of_device_and_not_their_number():
    facts = {"cpu_model": "c", "torch_version": "t", "cuda_version": "13", "driver_version": "595"}
    one = system_key({**facts, "devices": [{"name": "H200", "uuid": "a"}]})
    assert one == system_key({**facts, "devices": [{"name": "H200", "uuid": "b"}, {"name": "H200", "uuid": "c"}]})
    assert one != system_key({**facts, "devices": [{"name": "H100", "uuid": "a"}]})
    assert len(one) == 12


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
    assert software.container(environment, tmp_path) == expected


def test_the_environment_keeps_what_changes_results_and_no_secret():
    kept = software.environment_of_interest(
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
    told = f"""/opt/libtorch.so:
	linux-vdso.so.1 (0x00007f0000000000)
	libx.so.1 => {tmp_path}/libx.so.1 (0x00007f0000000000)
	libcuda.so.1 => not found
	/lib64/ld-linux-x86-64.so.2 (0x00007f0000000000)
/opt/libtorch_cpu.so:
	libx.so.1 => {tmp_path}/libx.so.1 (0x00007f0000000000)
"""
    (tmp_path / "ldd").write_text(f"#!/bin/sh\ncat <<'END'\n{told}END\n")
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
    found, text = classify(error)
    assert found == status
    assert part in text
    assert "\n" not in text
