"""Image files: found, decoded and handed over, whatever lies in the folder and whatever happens to the loader."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import signal
import statistics
import sys
import tarfile

import pytest
import torch

from dlbench.commands.clean import _run_clean_command
from dlbench.data import loaders, photographs
from dlbench.data.image_files import find_images
from dlbench.data.loaders import open_batches
from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.models import build
from dlbench.suites.case import Case
from dlbench.worker import loader_limits
from dlbench.worker.measure import measure
from dlbench.worker.ranks.context import RankContext
from tests.worker.conftest import TINY

NUM_FILES = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield photographs.photograph_folder(num_files=NUM_FILES)


@pytest.fixture
def folder(made, tmp_path):
    """Six files of two classes, to be spoilt."""
    for i, file in enumerate(sorted(made.rglob("*.jpg"))[:6]):
        place = tmp_path / "images" / f"class_{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / f"{i}.jpg")
    return tmp_path / "images"


def batches(path, **axes):
    case = Case("lenet5", data="jpeg", data_path=str(path), **{"batch_size": 3, **axes})
    return open_batches(case, build("lenet5"))


def test_the_set_is_about_as_large_as_imagenets_files(made):
    sizes = [file.stat().st_size for file in made.rglob("*.jpg")]
    assert len(sizes) == NUM_FILES
    assert statistics.mean(sizes) == pytest.approx(114_660, rel=0.15)
    assert photographs.photograph_folder(num_files=NUM_FILES) == made  # it is there already


def test_clean_removes_the_set(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = photographs.photograph_folder(num_files=2)
    _run_clean_command(None)
    assert not folder.exists()
    assert "MiB" in capsys.readouterr().err
    _run_clean_command(None)
    assert "nothing to remove" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_the_networks_shape_and_the_folders_labels(folder, workers):
    found = batches(folder, loader_workers=workers)
    labels = set()
    for _ in range(4):  # two epochs of six images
        (images,), their_labels = next(found)
        assert images.shape == (3, 1, 28, 28)
        labels |= set(their_labels.tolist())
    assert labels == {0, 1}
    assert len(found.process_ids()) == workers
    assert found.decode_s > 0
    found.close()


def test_a_set_smaller_than_the_batch_is_gone_through_several_times(folder):
    (images,), _ = next(batches(folder, batch_size=20))
    assert len(images) == 20


def test_a_broken_file_is_counted_and_named_and_another_takes_its_place(folder):
    (folder / "class_0" / "0.jpg").write_bytes(b"no image")
    (folder / "class_0" / "notes.txt").write_text("text")
    found = batches(folder)
    for _ in range(4):
        next(found)
    warnings = found.warnings()
    assert warnings[0].startswith("broken_images: 1 files cannot be decoded")
    assert "0.jpg" in warnings[0]
    assert warnings[1].startswith("other_files: 1 files")


def test_a_file_that_goes_while_it_is_read_is_counted_as_broken(folder):
    found = batches(folder)
    next(found)
    (folder / "class_1" / "1.jpg").unlink()
    for _ in range(4):
        next(found)
    assert "1.jpg" in found.warnings()[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_without_any_image_that_can_be_decoded_is_one_line(folder, workers):
    for file in folder.rglob("*.jpg"):
        file.write_bytes(b"no image")
    found = batches(folder, loader_workers=workers)
    with pytest.raises(InvalidMeasurement, match=r"^20 successive files cannot be decoded; the first is ") as caught:
        next(found)
    assert "\n" not in str(caught.value)
    found.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_counted(folder):
    (folder / "class_1").chmod(0)
    assert find_images(folder).num_others == 1
    (folder / "class_1").chmod(0o700)


def test_a_loader_whose_process_is_killed_goes_on_and_says_so(folder):
    found = batches(folder, loader_workers=1)
    next(found)
    os.kill(found.process_ids()[0], signal.SIGKILL)
    for _ in range(6):
        next(found)
    assert found.warnings()[0].startswith(
        "loader_restarted: the loader was restarted once, because one of its processes died: DataLoader worker"
    )
    found.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "the folder does not exist"),
        (lambda place: place.mkdir(), "contains no JPEG file (0 other files)"),
        (lambda place: (place.mkdir(), (place / "a.txt").write_text("x")), "contains no JPEG file (1 other files)"),
        (lambda place: (place.mkdir(), (place / "a.tar").write_bytes(b"x" * 600)), "shard"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, make, message):
    make(tmp_path / "images")
    with pytest.raises(BadInput) as caught:
        find_images(tmp_path / "images")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shards_of_webdataset_are_read_in_place(folder, tmp_path):
    place = tmp_path / "shards"
    place.mkdir()
    with tarfile.open(place / "000.tar", "w") as tar:
        for i, file in enumerate(sorted(folder.rglob("*.jpg"))):
            for name, data in ((f"{i}.jpg", file.read_bytes()), (f"{i}.cls", str(i % 3).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    found = find_images(place)
    assert (len(found.files), found.num_classes) == (6, 3)
    assert found.files[1].read() == sorted(folder.rglob("*.jpg"))[1].read_bytes()
    assert next(batches(place))[0][0].shape == (3, 1, 28, 28)
    with tarfile.open(place / "000.tar", "a") as tar:
        member = tarfile.TarInfo("9.cls")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"-1"))
    with pytest.raises(BadInput, match=r"shard .* cannot be read: a shard has class number -1"):
        find_images(place)


def test_more_classes_than_the_network_has_are_one_line(folder):
    for i in range(12):
        place = folder / f"more_{i}"
        place.mkdir()
        shutil.copy(folder / "class_0" / "0.jpg", place / "a.jpg")
    with pytest.raises(BadInput, match="have labels of 14 classes, but lenet5 has 10"):
        batches(folder)


def test_more_workers_than_memory_allows_are_one_line(folder, monkeypatch):
    monkeypatch.setattr(loaders, "available_bytes", lambda: 10_000)
    with pytest.raises(BadInput, match="loader_workers is 4: 2 prefetched batches per worker need"):
        batches(folder, loader_workers=4)


def test_a_case_measures_the_loader_alone_the_device_alone_and_both_together(folder, monkeypatch):
    monkeypatch.setattr(loader_limits, "ALONE_S", 0.1)
    (folder / "class_0" / "notes.txt").write_text("text")
    axes = {"data": "jpeg", "data_path": str(folder), "loader_workers": 1, "batch_size": 3, "device": "cpu"}
    ((_, found),) = measure(Case("lenet5", protocol=TINY, **axes), RankContext()).ranks
    assert 0 < found.data_wait_s < found.window_s
    assert 0 < found.loader_read_s < found.loader_decode_s
    assert 0 < found.device_step_s < sum(found.step_s)
    assert found.loader_batch_s > 0
    assert found.loader_cpu_s > 0
    assert found.loader_memory_bytes > 2**20
    assert any(w.startswith("other_files: 1 files") for w in found.warnings)


@pytest.mark.parametrize("model", ["lstm_lm", "conv_autoencoder"])
def test_a_network_that_classifies_no_images_is_one_line(folder, model):
    with pytest.raises(BadInput, match="needs a network that classifies images"):
        open_batches(Case(model, data="jpeg", data_path=str(folder)), build(model))


def test_inference_takes_the_middle_of_each_image(folder):
    case = Case("lenet5", data="jpeg", data_path=str(folder), mode="inference", batch_size=3)
    dataset = open_batches(case, build("lenet5")).loader.dataset
    assert torch.equal(dataset[0][0], dataset[0][0])


def test_dali_that_is_not_installed_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali.plugin.pytorch", None)
    with pytest.raises(BadInput, match="loader 'dali' needs NVIDIA DALI, which cannot be imported"):
        batches(folder, loader="dali")


@pytest.mark.skipif(importlib.util.find_spec("nvidia.dali") is None, reason="DALI is not installed")
def test_dali_loads_the_same_images_as_torch(folder, tmp_path):
    both = [batches(folder, loader=loader, mode="inference", batch_size=6) for loader in ("dali", "torch")]
    ((theirs,), labels), ((ours,), expected) = map(next, both)
    assert sorted(labels.tolist()) == sorted(expected.tolist())
    # Their order is random, and resizing differs by a rounding.
    assert sorted(theirs.mean((1, 2, 3)).tolist()) == pytest.approx(sorted(ours.mean((1, 2, 3)).tolist()), abs=0.05)
    (images,), _ = next(batches(folder, loader="dali"))
    assert images.shape == (3, 1, 28, 28)
    (folder / "class_0" / "0.jpg").write_bytes(b"no image")
    with pytest.raises(InvalidMeasurement, match="DALI cannot load the images"):
        next(batches(folder, loader="dali", batch_size=6))
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        shard.add(folder / "class_1" / "1.jpg", "1.jpg")
    with pytest.raises(BadInput, match="reads folders, but these images are in shards"):
        batches(tmp_path / "a.tar", loader="dali")
