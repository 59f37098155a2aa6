"""Download of a container image: once, even with concurrent requests, and with a recorded digest.

The download is locked, written under a temporary name, verified and renamed: an image under its final name is
complete. Its digest and source are stored in `<image>.json` next to it, and copied into every record.
"""

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

from dlbench.atomic_file import write_atomically
from dlbench.errors import BadInput, StoreError
from dlbench.json_text import read_json_object
from dlbench.launch import claims
from dlbench.launch.runtimes import RUNTIME_RECORDS, ImageFile
from dlbench.launch.sites import ContainerSettings

_POLL_S = 1.0


@dataclass(frozen=True)
class ImportedImage:
    """An image that is present, with its digest."""

    image: str
    digest: str  # "sha256:..."
    source: str | None
    fetched: bool  # downloaded now, by this process


def import_image(
    container: ContainerSettings, force: bool = False, say: Callable[[str], None] = lambda text: None
) -> ImportedImage:
    """Download the image of a site profile to the place where its jobs expect it.

    Args:
        force: download it again even if it exists.

    Raises:
        BadInput: the profile has no image or no source.
        StoreError: the download failed, or the file is not an image.
    """
    if container.runtime == "none" or not container.image:
        raise BadInput(
            "the site profile has no container image (container.runtime is 'none'); set "
            "container.runtime and container.image"
        )
    image_file = RUNTIME_RECORDS[container.runtime].image_file
    if image_file is None:
        return _pull_image(container, say)
    path = Path(container.image)
    if path.is_file() and not force:
        return _existing_image(path, container.runtime)
    if not container.source:
        raise BadInput(
            f"{path} does not exist and container.source is not set; set container.source to, for example, "
            f"docker://nvcr.io#nvidia/pytorch:TAG or dockerd://dlbench:latest (local Docker engine)"
        )
    return _download_unless_present(container.runtime, image_file, path, container.source, force, say)


def _download_unless_present(
    runtime: str, image_file: ImageFile, path: Path, source: str, force: bool, say: Callable[[str], None]
) -> ImportedImage:
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while (claim := claims.take_claim(path.parent, path.name)) is None:
        if not waited:
            say(f"waiting for another process that downloads {path}")
        waited = True
        time.sleep(_POLL_S)
    try:
        if path.is_file() and (waited or not force):
            return _existing_image(path, runtime)
        for left_over in path.parent.glob(f".{path.stem}.*{path.suffix}"):
            left_over.unlink(missing_ok=True)  # left by a killed import: this process now holds the lock
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            say(f"downloading {source} to {path}")
            _run_while_holding_claim(image_file.fetch(source, temporary), claim)
            digest = _verify_and_digest_image(temporary, image_file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _write_digest(path, digest, source, runtime)
        return ImportedImage(str(path), digest, source, fetched=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        claim.release()


def _existing_image(path: Path, runtime: str) -> ImportedImage:
    """Return the existing image; record its digest if that is missing."""
    digest = image_digest(path)
    recorded = read_json_object(_digest_path(path)) or {}
    if recorded.get("digest") == digest:
        return ImportedImage(str(path), digest, recorded.get("source"), fetched=False)
    with contextlib.suppress(OSError):  # it may belong to another user, in a folder that is not writable
        _write_digest(path, digest, None, runtime)
    return ImportedImage(str(path), digest, None, fetched=False)


def _write_digest(path: Path, digest: str, source: str | None, runtime: str) -> None:
    about = {"source": source, "digest": digest, "bytes": path.stat().st_size, "runtime": runtime}
    about["imported_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomically(_digest_path(path), json.dumps(about, indent=1))


def _run_while_holding_claim(argv: list[str], claim: claims.Claim | None = None) -> str:
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None, text=True)
    except FileNotFoundError:
        raise BadInput(
            f"{argv[0]} is not on PATH; run this command on a node that has it, for example inside a job"
        ) from None
    while True:
        try:
            output, _ = process.communicate(timeout=claims.HEARTBEAT_S)
            break
        except subprocess.TimeoutExpired:
            if claim:
                claim.refresh_heartbeat()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        raise StoreError(f"`{' '.join(argv)}` ended with exit status {process.returncode}; no image was saved")
    return output


def _verify_and_digest_image(file: Path, wanted: ImageFile) -> str:
    """Verify an image file and return its digest. Raises StoreError if it is not an image."""
    try:
        with file.open("rb") as stream:
            head = stream.read(96)
    except FileNotFoundError:
        raise StoreError(f"the import succeeded, but {file} does not exist") from None
    if not head[wanted.offset :].startswith(wanted.magic):
        raise StoreError(
            f"the imported file is not a {wanted.kind} image (it begins with {head[:8]!r}); no image was saved"
        )
    # The squashfs superblock contains the size of the image (offset 40, 64 bits).
    wanted_bytes = int.from_bytes(head[40:48], "little") if wanted.kind == "squashfs" else 0
    if file.stat().st_size < wanted_bytes:
        raise StoreError(f"the container image is truncated ({file.stat().st_size} of {wanted_bytes} bytes); not saved")
    return image_digest(file)


def image_digest(path: Path) -> str:
    """Return `sha256:...` of the file: the recorded digest if the file is unchanged, else computed."""
    if digest := _recorded_file_digest(path):
        return digest
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def recorded_digest(container: ContainerSettings) -> str | None:
    """Return the digest that `import_image` recorded for this image file; None if there is none."""
    if not RUNTIME_RECORDS[container.runtime].image_file or not container.image:
        return None
    return _recorded_file_digest(Path(container.image))


def _recorded_file_digest(path: Path) -> str | None:
    """Return the recorded digest of an image file; None if there is none, or the size of the file has changed."""
    recorded = read_json_object(_digest_path(path)) or {}
    with contextlib.suppress(OSError):
        if recorded.get("digest") and recorded.get("bytes") == path.stat().st_size:
            return str(recorded["digest"])
    return None


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _pull_image(container: ContainerSettings, say: Callable[[str], None]) -> ImportedImage:
    """Download with Docker, Podman or udocker, which store and lock images themselves."""
    image, engine = str(container.image), container.runtime
    store = RUNTIME_RECORDS[engine].pull
    fetched = False
    if container.source:
        say(f"{engine} downloads {container.source}")
        _run_while_holding_claim([engine, "pull", container.source])
        if "tag" in store and container.source != image:
            _run_while_holding_claim([engine, "tag", container.source, image])
        fetched = True
    if "inspect" not in store:
        return ImportedImage(image, "unknown", container.source, fetched)
    digest = _run_while_holding_claim([engine, "image", "inspect", "--format", "{{.Id}}", image]).strip()
    return ImportedImage(image, digest, container.source, fetched)
