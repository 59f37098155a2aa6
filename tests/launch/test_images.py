import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from dlbench.errors import BadInput, StoreError
from dlbench.launch import claims, images
from dlbench.launch.runtimes import RUNTIME_RECORDS
from dlbench.launch.sites import ContainerSettings
from tests.fakes import runtimes


@pytest.fixture
def programs(tmp_path, monkeypatch):
    runtimes.install(tmp_path / "bin", "enroot", "apptainer")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))


def container(tmp_path, runtime="enroot", source="docker://nvcr.io#nvidia/pytorch:x"):
    return ContainerSettings(
        runtime, str(tmp_path / "images" / ("x.sif" if runtime == "apptainer" else "x.sqsh")), source
    )


def calls(tmp_path):
    return [json.loads(line)["argv"] for line in (tmp_path / "log").read_text().splitlines()]


@pytest.mark.parametrize("runtime", ["enroot", "pyxis", "apptainer"])
def test_an_image_is_fetched_once_and_its_digest_is_recorded_beside_it(programs, tmp_path, runtime):
    profile = container(tmp_path, runtime)
    first = images.import_image(profile)
    assert first.fetched
    content = Path(profile.image).read_bytes()
    assert first.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert images.recorded_digest(profile) == first.digest
    about = json.loads(Path(f"{profile.image}.json").read_text())
    assert about["source"] == profile.source
    second = images.import_image(profile)
    assert (second.fetched, second.digest, second.source) == (False, first.digest, profile.source)
    assert len(calls(tmp_path)) == 1
    assert images.import_image(profile, force=True).fetched


def test_the_digest_of_an_image_that_a_person_has_built_is_recorded_too(tmp_path):
    profile = container(tmp_path)
    path = Path(profile.image)
    path.parent.mkdir()
    for content in (runtimes.SQUASHFS, runtimes.SQUASHFS + b"built anew"):
        path.write_bytes(content)
        assert images.recorded_digest(profile) is None
        found = images.import_image(profile)
        assert (found.fetched, found.source) == (False, None)
        assert images.recorded_digest(profile) == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_the_import_goes_to_a_temporary_name_on_the_same_disk(programs, tmp_path):
    profile = container(tmp_path)
    images.import_image(profile)
    target = Path(calls(tmp_path)[0][2])
    assert target.parent == Path(profile.image).parent
    assert target.name.startswith(".x.")
    assert sorted(p.name for p in target.parent.iterdir() if p.is_file()) == ["x.sqsh", "x.sqsh.json"]


@pytest.mark.parametrize("runtime", ["enroot", "apptainer"])
def test_what_is_no_image_is_not_kept(programs, tmp_path, monkeypatch, runtime):
    monkeypatch.setenv("STANDIN_IMPORT", "broken")
    profile = container(tmp_path, runtime)
    with pytest.raises(StoreError, match=r"not a (squashfs|SIF) image .*<html"):
        images.import_image(profile)
    assert not [p for p in Path(profile.image).parent.iterdir() if p.is_file()]


def test_an_image_that_is_cut_off_is_not_kept(programs, tmp_path):
    whole = b"hsqs" + bytes(36) + (5000).to_bytes(8, "little") + bytes(100)
    (tmp_path / "bin" / "enroot").write_text(
        f"#!{sys.executable}\nimport sys\nopen(sys.argv[3], 'wb').write({whole!r})\n"
    )
    with pytest.raises(StoreError, match="truncated \\(148 of 5000 bytes"):
        images.import_image(container(tmp_path))


def test_an_import_that_fails_is_told_with_its_command(programs, tmp_path):
    with pytest.raises(StoreError, match=r"`enroot import .* nonsense` ended with exit status 1"):
        images.import_image(container(tmp_path, source="nonsense"))


def test_what_a_killed_import_left_is_removed_by_the_next(programs, tmp_path):
    (tmp_path / "images").mkdir()
    left = tmp_path / "images" / ".x.123.sqsh"
    left.write_bytes(b"half")
    images.import_image(container(tmp_path))
    assert not left.exists()


def test_a_second_import_waits_for_the_first_and_takes_what_it_brought(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_POLL_S", 0.01)
    profile = container(tmp_path)
    path = Path(profile.image)
    path.parent.mkdir()
    claim = claims.take_claim(path.parent, path.name)
    said, got = [], []
    waiting = threading.Thread(target=lambda: got.append(images.import_image(profile, say=said.append)))
    waiting.start()
    while not said:
        pass
    path.write_bytes(runtimes.SQUASHFS)
    claim.release()
    waiting.join(timeout=10)
    assert "waiting for another process that downloads" in said[0]
    assert not got[0].fetched
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (ContainerSettings(), "has no container image"),
        (ContainerSettings("enroot", "/nowhere/x.sqsh"), "container.source is not set"),
    ],
)
def test_a_profile_that_says_too_little_is_told_what_is_missing(profile, message):
    with pytest.raises(BadInput, match=message):
        images.import_image(profile)


def test_the_command_for_each_runtime():
    target = Path("/i/x")
    assert RUNTIME_RECORDS["pyxis"].image_file.fetch("docker://a#b:c", target) == [
        "enroot",
        "import",
        "--output",
        "/i/x",
        "docker://a#b:c",
    ]
    assert RUNTIME_RECORDS["apptainer"].image_file.fetch("docker://a#b:c", target) == [
        "apptainer",
        "pull",
        "/i/x",
        "docker://a/b:c",
    ]
    assert RUNTIME_RECORDS["apptainer"].image_file.fetch("dockerd://b:c", target)[-1] == "docker-daemon:b:c"
    # As Enroot reads it: an image of an engine on this machine, without a tag the latest.
    assert RUNTIME_RECORDS["apptainer"].image_file.fetch("dockerd://b", target)[-1] == "docker-daemon:b:latest"
    assert (
        RUNTIME_RECORDS["apptainer"].image_file.fetch("dockerd://host:5000/b", target)[-1]
        == "docker-daemon:host:5000/b:latest"
    )
    assert (
        RUNTIME_RECORDS["apptainer"].image_file.fetch("dockerd://b@sha256:0", target)[-1] == "docker-daemon:b@sha256:0"
    )


def test_docker_pulls_tags_and_says_which_image_it_is(tmp_path, monkeypatch):
    (tmp_path / "docker").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/log\ncase $1 in image) echo sha256:1;; esac\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    got = images.import_image(ContainerSettings("docker", "dlbench:latest", "nvcr.io/nvidia/pytorch:x"))
    assert got.digest == "sha256:1"
    assert (tmp_path / "log").read_text().splitlines() == [
        "pull nvcr.io/nvidia/pytorch:x",
        "tag nvcr.io/nvidia/pytorch:x dlbench:latest",
        "image inspect --format {{.Id}} dlbench:latest",
    ]


def test_the_command_prints_the_image_and_its_digest(programs, tmp_path):
    profile = container(tmp_path)
    (tmp_path / "s.toml").write_text(
        f'[container]\nruntime = "enroot"\nimage = "{profile.image}"\nsource = "{profile.source}"\n'
    )
    argv = [sys.executable, "-m", "dlbench", "image", "import", "--site", str(tmp_path / "s.toml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [profile.image, images.recorded_digest(profile)]


@pytest.mark.parametrize("recipe", ["Dockerfile", "dlbench.def", "enroot.sh"])
def test_each_recipe_installs_all_that_the_project_depends_on_besides_pytorch(recipe):
    root = Path(__file__).parents[2]
    wanted = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = wanted["dependencies"] + wanted["optional-dependencies"]["report"]
    names = {re.split("[<>=]", requirement)[0] for requirement in wanted}
    (listed,) = re.findall(
        r"packages=[\"(]?(pyarrow[\w -]*)", (root / "containers" / recipe).read_text(), re.IGNORECASE
    )
    assert set(listed.split()) == names - {"torch", "torchvision", "numpy"}
