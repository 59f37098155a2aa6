"""Fetching a container image once, whoever asks at the same time, and knowing afterwards which one it was.

A lock beside the image, a temporary name on the same disk, a look at what came, a rename: an image under its own name
is whole. Its digest and source stand in `<image>.json` beside it, and from there go into every record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text, write_atomically
from dlbench.errors import BadInput, StoreError
from dlbench.json_text import load_json
from dlbench.launch import claims
from dlbench.launch.sites import FILE_RUNTIMES, Container

#: How the file of an image begins: what, at which byte.
_MAGIC = {"squashfs": (b"hsqs", 0), "SIF": (b"SIF_MAGIC", 32)}
_POLL_S = 1.0


@dataclass(frozen=True)
class Imported:
    """An image that is there."""

    image: str
    digest: str  # "sha256:..."
    source: str | None
    fetched: bool  # now, by this process


def import_image(container: Container, force: bool = False, say: Callable[[str], None] = lambda text: None) -> Imported:
    """Bring the profile's image to where its jobs look for it.

    Args:
        container: of the site's profile.
        force: fetch it again, even where it is there.
        say: told what takes time.

    Raises:
        BadInput: the profile names no image or no source.
        StoreError: fetching failed, or what came is no image.
    """
    if container.runtime == "none" or not container.image:
        raise BadInput("the site's profile names no container image: container.runtime is 'none'")
    if container.runtime not in FILE_RUNTIMES:
        return _pull(container, say)
    path = Path(container.image)
    if path.is_file() and not force:
        return _already_there(path, container.runtime)
    if not container.source:
        raise BadInput(
            f"{path} is not there, and container.source does not say where to fetch it; "
            "such as docker://nvcr.io#nvidia/pytorch:TAG, or dockerd://dlbench:latest from an engine on this machine"
        )
    return _fetch_once(container.runtime, path, container.source, force, say)


def import_argv(runtime: str, source: str, target: Path) -> list[str]:
    """The command that fetches `source` into the file `target`."""
    if runtime == "apptainer":
        # Enroot's way to part registry and image is '#'; Apptainer takes the usual one.
        plain = source.replace("#", "/")
        if plain.startswith("dockerd://"):
            # Enroot takes an image without its tag as the latest one; Apptainer refuses it.
            name = plain.removeprefix("dockerd://")
            tagged = ":" in name.rpartition("/")[2] or "@" in name
            plain = f"docker-daemon:{name}" if tagged else f"docker-daemon:{name}:latest"
        return ["apptainer", "pull", str(target), plain]
    return ["enroot", "import", "--output", str(target), source]


def _fetch_once(runtime: str, path: Path, source: str, force: bool, say: Callable[[str], None]) -> Imported:
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while (claim := claims.take(path.parent, path.name)) is None:
        if not waited:
            say(f"another process fetches {path}; waiting for it")
        waited = True
        time.sleep(_POLL_S)
    try:
        if path.is_file() and (waited or not force):
            return _already_there(path, runtime)
        for left_over in path.parent.glob(f".{path.stem}.*{path.suffix}"):
            left_over.unlink(missing_ok=True)  # of an import that was killed: we hold the lock now
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            say(f"fetching {source} into {path}")
            _run(import_argv(runtime, source, temporary), claim)
            digest = _verified(temporary, "SIF" if runtime == "apptainer" else "squashfs")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _record(path, digest, source, runtime)
        return Imported(str(path), digest, source, fetched=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        claim.release()


def _already_there(path: Path, runtime: str) -> Imported:
    """The image that is there; of one that a person has built, the digest is recorded now."""
    digest = digest_of(path)
    recorded = _recorded(path)
    if recorded.get("digest") == digest:
        return Imported(str(path), digest, recorded.get("source"), fetched=False)
    with contextlib.suppress(OSError):  # it may be a colleague's, in a folder where only they can write
        _record(path, digest, None, runtime)
    return Imported(str(path), digest, None, fetched=False)


def _record(path: Path, digest: str, source: str | None, runtime: str) -> None:
    about = {"source": source, "digest": digest, "bytes": path.stat().st_size, "runtime": runtime}
    about["imported_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomically(_beside(path), json.dumps(about, indent=1))


def _run(argv: list[str], claim: claims.Claim | None = None) -> str:
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None, text=True)
    except FileNotFoundError:
        raise BadInput(f"{argv[0]} is not on PATH: run this where the site has it, perhaps inside a job") from None
    while True:
        try:
            output, _ = process.communicate(timeout=claims.TOUCH_EVERY_S)
            break
        except subprocess.TimeoutExpired:
            if claim:
                claim.touch()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        raise StoreError(f"`{' '.join(argv)}` ended with exit status {process.returncode}; nothing was kept")
    return output


def _verified(file: Path, kind: str) -> str:
    """The digest of a file that is an image.

    Raises:
        StoreError: it is none.
    """
    magic, offset = _MAGIC[kind]
    try:
        with file.open("rb") as stream:
            head = stream.read(96)
    except FileNotFoundError:
        raise StoreError(f"the import ended well, but {file} is not there") from None
    if head[offset : offset + len(magic)] != magic:
        raise StoreError(f"what the import left is no {kind} image (it begins with {head[:8]!r}); nothing was kept")
    # The superblock of squashfs says how many bytes the image has (offset 40, 64 bits).
    wanted_bytes = int.from_bytes(head[40:48], "little") if kind == "squashfs" else 0
    if file.stat().st_size < wanted_bytes:
        raise StoreError(f"the image is cut off: {file.stat().st_size} of {wanted_bytes} bytes; nothing was kept")
    return digest_of(file)


def digest_of(path: Path) -> str:
    """`sha256:...` of the file: the recorded one where the file has not changed since, otherwise computed."""
    recorded = _recorded(path)
    with contextlib.suppress(OSError):
        if recorded.get("digest") and recorded.get("bytes") == path.stat().st_size:
            return str(recorded["digest"])
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def recorded_digest(container: Container) -> str | None:
    """The digest that `import_image` recorded for the profile's image file; None where it did not, or for another."""
    if container.runtime not in FILE_RUNTIMES or not container.image:
        return None
    path = Path(container.image)
    recorded = _recorded(path)
    with contextlib.suppress(OSError):
        if recorded.get("digest") and recorded.get("bytes") == path.stat().st_size:
            return str(recorded["digest"])
    return None


def _recorded(path: Path) -> dict[str, Any]:
    try:
        values = load_json(read_text(_beside(path)))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _pull(container: Container, say: Callable[[str], None]) -> Imported:
    """Docker, Podman and udocker keep their images in a store of their own, with locks of their own."""
    image, engine = str(container.image), container.runtime
    fetched = False
    if container.source:
        say(f"{engine} fetches {container.source}")
        _run([engine, "pull", container.source])
        if engine != "udocker" and container.source != image:
            _run([engine, "tag", container.source, image])
        fetched = True
    if engine == "udocker":
        return Imported(image, "unknown", container.source, fetched)
    digest = _run([engine, "image", "inspect", "--format", "{{.Id}}", image]).strip()
    return Imported(image, digest, container.source, fetched)
