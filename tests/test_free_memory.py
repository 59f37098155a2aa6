"""What a process may still take: the kernel's estimate, its control groups', and its own limit."""

from __future__ import annotations

import resource

import pytest

from dlbench import free_memory
from dlbench.errors import DeviceUnavailable

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Files of a machine with 64 GiB available, and of the control groups that a test makes."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {100 * GIB // 1024} kB\nMemAvailable: {64 * GIB // 1024} kB\n")
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "OWN_CGROUP", tmp_path / "own")
    root = tmp_path / "cgroup"
    monkeypatch.setattr(free_memory, "CGROUP", root)
    of_version_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    of_version_2 = ("memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(free_memory, "_CGROUP_FILES", ((root, *of_version_2), (root / "memory", *of_version_1)))

    def group(path, limit, used, cache=None, version=2):
        folder = (root if version == 2 else root / "memory") / path
        folder.mkdir(parents=True, exist_ok=True)
        names = of_version_2 if version == 2 else of_version_1
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        if cache is not None:
            (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")

    group.own = lambda text: (tmp_path / "own").write_text(text)
    return group


def test_without_groups_it_is_what_the_kernel_says(machine):
    assert free_memory.available_bytes() == 64 * GIB


def test_a_container_has_what_its_group_leaves_and_cached_files_are_no_use(machine):
    machine("", 16 * GIB, 15 * GIB, cache=13 * GIB)
    assert free_memory.available_bytes() == 14 * GIB


def test_the_group_of_a_job_step_counts_and_all_above_it(machine):
    machine.own("0::/system.slice/slurm/job_7/step_0\n")
    machine("", "max", 0)
    machine("system.slice/slurm/job_7", 8 * GIB, 2 * GIB)
    machine("system.slice/slurm/job_7/step_0", 32 * GIB, 1 * GIB)
    assert free_memory.available_bytes() == 6 * GIB


def test_groups_of_version_1_are_found_by_their_controller(machine):
    machine.own("9:cpu:/elsewhere\n4:memory:/slurm/uid_0\n0::/\n")
    machine("", 2**63 - 4096, 5 * GIB, version=1)
    machine("slurm/uid_0", 4 * GIB, 3 * GIB, cache=GIB, version=1)
    assert free_memory.available_bytes() == 2 * GIB


def test_a_limit_of_the_process_counts_for_what_it_is_itself_allowed(machine, monkeypatch):
    monkeypatch.setattr(free_memory.resource, "getrlimit", lambda kind: (3 * GIB, resource.RLIM_INFINITY))
    monkeypatch.setattr(free_memory, "used_data_segment_bytes", lambda: GIB)
    assert free_memory.allocatable_bytes() == 2 * GIB
    assert free_memory.available_bytes() == 64 * GIB


def test_a_kernel_that_does_not_tell_is_named(machine, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 5 kB\n")
    with pytest.raises(DeviceUnavailable, match="MemAvailable"):
        free_memory.available_bytes()


def test_this_machine_and_this_process_have_memory():
    assert free_memory.allocatable_bytes() > 0
    assert free_memory.used_data_segment_bytes() > 0
