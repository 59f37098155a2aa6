"""What is published names no host, user, path, environment variable, job or device, and keeps everything measured."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest

from dlbench.errors import StoreError
from dlbench.results import anonymization, bounds_store, store
from dlbench.results.bounds_records import Ceiling, CeilingRun, DeviceIdentity, LayerTime, ProfileRun, to_json
from dlbench.results.bounds_schema import read_ceilings, write_ceilings
from dlbench.results.query import query
from dlbench.results.schema import SCHEMA
from dlbench.suites.case import Case
from tests.fakes import records as fakes

SECRETS = (
    "gpu-node-01",
    "jdoe",
    "project42",
    "/home",
    "/scratch",
    "1234567",
    "GPU-fake",
    "SLURM_JOB_ACCOUNT",
    "fat-node",
)


@pytest.fixture
def private(tmp_path):
    details = {
        "devices": [{"name": "NVIDIA H200", "uuid": "GPU-fake-0", "pci_address": "0000:c1:00.0", "memory_bytes": 1}],
        "environment": {"SLURM_JOB_ACCOUNT": "project42", "CUDA_HOME": "/opt/cuda"},
        "libraries": ["/home/jdoe/.venv/lib/libtorch.so.2", "/opt/lib/libc.so.6"],
        "python": "/home/jdoe/.venv/bin/python",
        "slurm": {"account": "project42", "nodes": "gpu-node-01"},
        "cpu_capability": "AVX512",
    }
    one = dataclasses.replace(
        fakes.GPU, hostname="gpu-node-01.cluster.example", container_image="/scratch/jdoe/images/dlbench.sif",
        details=details,
    )  # fmt: skip
    other = dataclasses.replace(one, hostname="gpu-node-011")
    harm = {
        "warnings": ("busy: jdoe runs on gpu-node-01, see /home/jdoe/log.txt",),
        "energy_note": "not readable: /sys/class/powercap/intel-rapl:0",
    }
    records = [
        fakes.record(Case("vgg16", device="cuda"), one, 0, **harm),
        fakes.record(Case("alexnet", device="cuda"), other, 1, label="b: env.TMPDIR=/scratch/jdoe"),
        fakes.record(
            Case("lenet5", device="cuda"), one, 2, "crashed", error="cannot open /home/jdoe/data/x.bin on gpu-node-011"
        ),
    ]
    root = fakes.fill(tmp_path / "results", records)
    where = DeviceIdentity("k", "cuda", "NVIDIA H200", "GPU-fake-0", "fat-node", "EPYC", "2.15", "0.1.0", 24)
    ceiling = Ceiling("matmul", "fp32", "64 x 64 x 64", flop=524288, calls=10, time_s=(1e-3, 1.1e-3))
    write_ceilings(root, CeilingRun(where, (ceiling,), "run", "2026-11-20T08:00:00+00:00"))
    layer = LayerTime("fc", "Linear", forward_flop=2, forward_s=(1e-3,))
    case = Case("vgg16", device="cuda").to_dict() | {"label": "/home/jdoe/x"}
    profile = ProfileRun(where, case, (layer,), run_id="../../gpu-node-01")
    (root / "profiles" / "p").mkdir(parents=True)
    (root / "profiles" / "p" / "profile.json").write_text(to_json(profile))
    return root


def test_nothing_private_is_left_in_any_byte(private, tmp_path):
    target = tmp_path / "public" / "records.parquet"
    assert anonymization.write_records([private], target) == 3
    on_progress = json.dumps(pq.read_table(target).to_pylist(), default=str)
    on_progress += json.dumps(read_ceilings(target.parent).to_dict("records"), default=str)
    for secret in SECRETS:
        assert secret not in on_progress, secret
    files = [file for pattern in ("*.parquet", "*.json") for file in target.parent.rglob(pattern)]
    for file in files:
        assert not any(secret.encode() in file.read_bytes() for secret in SECRETS)


def test_everything_measured_stays(private, tmp_path):
    target = tmp_path / "records.parquet"
    anonymization.write_records([private], target)
    before, after = store.read_rows(private), store.read_rows(target)
    assert pq.read_schema(target).equals(SCHEMA)
    touched = {"system_hostname", "device_uuid", "warnings", "energy_note", "label", "error", "suite"}
    touched |= {"system_container_image", "system_slurm_job_id", "system_details", "throttle_reasons"}
    for name in set(SCHEMA.names) - touched:
        assert after[name].equals(before[name]), name


def test_a_whole_number_beside_a_missing_one_keeps_its_last_digit(tmp_path):
    for run_id, threads in (("a", None), ("b", 2**62 + 1)):
        where = DeviceIdentity("k", "cpu", torch_threads=threads)
        ceiling = Ceiling("copy", None, "1 MiB", bytes=2**20, time_s=(1e-3,))
        write_ceilings(tmp_path / "results", CeilingRun(where, (ceiling,), run_id))
    sql = "select run_id, torch_threads from ceilings order by run_id"
    expected = [("a", None), ("b", 2**62 + 1)]
    assert query(sql, [tmp_path / "results"])[1] == expected
    anonymization.write_records([tmp_path / "results"], tmp_path / "public" / "records.parquet")
    assert query(sql, [tmp_path / "public"])[1] == expected


def test_profiles_come_along_and_stay_in_their_folder(private, tmp_path):
    target = tmp_path / "public" / "records.parquet"
    anonymization.write_records([private], target)
    (profile,) = bounds_store.read_bounds([target]).profiles
    assert (profile.layers[0].forward_s, profile.layers[0].forward_flop) == ((1e-3,), 2)
    assert profile.where.hostname == "node1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["public", "results"]
    assert (target.parent / "profiles" / "001" / "layers.parquet").exists()


def test_hosts_become_nodes_by_their_names_and_texts_stay_readable(private, tmp_path):
    target = tmp_path / "records.parquet"
    anonymization.write_records([private], target)
    rows = {row["model"]: row for row in store.read_rows(target).to_pylist()}
    assert rows["vgg16"]["system_hostname"] == "node2"
    assert rows["alexnet"]["system_hostname"] == "node3"
    assert rows["vgg16"]["warnings"] == ["busy: user runs on node2, see .../log.txt"]
    assert rows["vgg16"]["energy_note"] == "not readable: /sys/class/powercap/intel-rapl:0"
    assert rows["lenet5"]["error"] == "cannot open .../x.bin on node3"
    assert rows["vgg16"]["system_container_image"] == "dlbench.sif"
    details = json.loads(rows["vgg16"]["system_details"])
    assert details["libraries"] == ["libc.so.6", "libtorch.so.2"]
    assert details["devices"] == [{"name": "NVIDIA H200", "memory_bytes": 1}]
    assert details["cpu_capability"] == "AVX512"
    assert rows["vgg16"]["device_uuid"].startswith("device-")


def test_devices_stay_told_apart(private, tmp_path):
    several = fakes.fill(tmp_path / "four", [fakes.record(Case("vgg16", device="cuda", devices_per_node=4))])
    anonymization.write_records([private, several], tmp_path / "records.parquet")
    rows = store.read_rows(tmp_path / "records.parquet").to_pylist()
    assert len({r["device_uuid"] for r in rows if r["world_size"] == 4}) == 4


def test_the_same_results_give_the_same_bytes(private, tmp_path):
    for name in ("a", "b"):
        anonymization.write_records([private], tmp_path / name / "records.parquet")
    assert (tmp_path / "a" / "records.parquet").read_bytes() == (tmp_path / "b" / "records.parquet").read_bytes()


def test_a_folder_that_cannot_be_written_is_a_clear_error(private, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        anonymization.write_records([private], tmp_path / "file" / "records.parquet")


def test_with_everything_private_the_file_has_the_columns_and_types_of_a_store(private, tmp_path):
    assert anonymization.write_records([private], tmp_path / "all.parquet", private=True) == 3
    schema = pq.read_schema(tmp_path / "all.parquet")
    assert schema.equals(SCHEMA)
    assert schema.metadata == SCHEMA.metadata
    assert schema.field("energy_j").metadata[b"unit"] == b"J"
    assert store.read_rows(tmp_path / "all.parquet").equals(store.read_rows(private))
