"""Container runtimes: there, allowed, with their image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dlbench.launch.doctor.machine import MIB, Finding, Place
from dlbench.launch.sites import FILE_RUNTIMES

#: NVIDIA's PyTorch image, unpacked [bytes].
MIN_UNPACKED_BYTES = 25_000 * MIB
#: Runtimes that unpack an image, and what moves the place to a disk of the node.
_STORAGE = {
    "enroot": "environment.ENROOT_DATA_PATH in the profile names another place, on a disk of the nodes",
    "pyxis": "the site must set ENROOT_DATA_PATH in /etc/enroot/enroot.conf to a disk of the nodes, such as "
    "/tmp/enroot-data/user-$(id -u): pyxis ignores the profile's and the job's; until then slurm.max_nodes = 1",
    "podman": "graphroot in ~/.config/containers/storage.conf names another place, on a disk of the node",
}
_SHARED_DISKS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "cifs", "smb3")


def check_runtimes(place: Place) -> Iterator[Finding]:
    """Container runtimes, and whether this user may use the profile's."""
    found = [name for name in ("docker", "podman", "enroot", "apptainer", "udocker") if place.which(name)]
    yield Finding("runtimes", "ok" if found else "note", f"on PATH: {', '.join(found) or 'none'}")
    runtime = "enroot" if place.runtime == "pyxis" else place.runtime
    if runtime not in ("none", *found):
        level = "fail" if place.environment.get("SLURM_JOB_ID") and place.runtime != "pyxis" else "note"
        yield Finding(
            "runtimes", level, f"{runtime}, which the profile names, is not here", "it may be on the nodes only"
        )
    if runtime == "docker" and "docker" in found:
        answer = place.run(["docker", "info", "--format", "{{.ServerVersion}}"])
        if answer is None or answer.status != 0:
            said = (answer.err.strip().splitlines() or ["no answer"])[-1] if answer else "no answer"
            denied = "permission denied" in said.lower()
            mend = "ask to be in the group docker" if denied else "start the engine: systemctl start docker"
            yield Finding("runtimes", "fail", f"the Docker engine cannot be used: {said}", mend)
    gpus = place.site is not None and place.site.has_gpus
    if runtime == "podman" and gpus and not (place.names("/etc/cdi/*") + place.names("/var/run/cdi/*")):
        mend = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, by the site"
        yield Finding("runtimes", "fail", "Podman finds no GPU without a CDI file in /etc/cdi", mend)
    yield from _namespaces(place)
    yield from _storage(place)
    yield from _image(place)


def _namespaces(place: Place) -> Iterator[Finding]:
    if place.runtime not in ("podman", "enroot", "pyxis", "apptainer"):
        return
    switches = ("/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces")
    off = [switch for switch in switches if place.read(switch) == "0"]
    restricted = place.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    if off:
        # An Apptainer that was installed setuid does without.
        yield Finding(
            "user namespaces",
            "warn" if place.runtime == "apptainer" else "fail",
            f"switched off by {', '.join(off)}: {place.runtime} cannot start without root",
            "sysctl -w "
            + " ".join(f"{s.removeprefix('/proc/sys/').replace('/', '.')}=1" for s in off)
            + ", by the site",
        )
    elif restricted:
        yield Finding("user namespaces", "warn", "AppArmor restricts them: the runtime needs a profile of its own")
    else:
        yield Finding("user namespaces", "ok", "allowed")


def _storage(place: Place) -> Iterator[Finding]:
    """Where the runtime unpacks images: homes are often too small for that, and Podman fails on NFS."""
    folder = _storage_folder(place)
    if folder is None:
        return
    # It is made when the first image is unpacked.
    there = next(path for path in (Path(folder), *Path(folder).parents) if place.exists(str(path)))
    answer = place.run(["df", "--output=avail,fstype", "--block-size=1M", str(there)])
    words = answer.out.split()[-2:] if answer and answer.status == 0 else []
    if len(words) < 2 or not words[0].isdigit():
        yield Finding("image storage", "note", f"df tells nothing of {folder}, where {place.runtime} unpacks images")
        return
    free_mib, kind = int(words[0]), words[1]
    mend = _STORAGE[place.runtime]
    nodes = place.site.slurm.max_nodes if place.site else None
    if place.runtime == "podman" and kind in _SHARED_DISKS:
        yield Finding("image storage", "fail", f"{folder} is on {kind}, where Podman cannot keep images", mend)
    elif kind in _SHARED_DISKS and place.runtime == "pyxis" and nodes != 1:
        text = (
            f"{folder} is on {kind}, which all nodes share: jobs of several nodes fail ('failed to make directory'), "
            "since pyxis gives the container one name on all of them"
        )
        yield Finding("image storage", "fail", text, mend)
    elif kind in _SHARED_DISKS:
        text = f"{folder} is on {kind}: each node of a job unpacks an image of its own there, all at the same time"
        yield Finding("image storage", "warn", text, mend)
    elif free_mib * MIB < MIN_UNPACKED_BYTES:
        text = f"only {free_mib} MiB free in {folder}, where {place.runtime} unpacks images; NVIDIA's takes 25 GB"
        yield Finding("image storage", "warn", text, mend)
    else:
        yield Finding("image storage", "ok", f"{folder} ({kind}): {free_mib} MiB free")


def _storage_folder(place: Place) -> str | None:
    program = "enroot" if place.runtime == "pyxis" else place.runtime
    if place.runtime not in _STORAGE or not place.which(program):
        return None
    if place.runtime == "podman":
        answer = place.run(["podman", "info", "--format", "{{.Store.GraphRoot}}"])
        return answer.out.strip() or None if answer and answer.status == 0 else None
    home = place.environment.get("HOME", "/")
    wanted = dict(place.site.environment).get("ENROOT_DATA_PATH") if place.site else None
    wanted = wanted or place.environment.get("ENROOT_DATA_PATH")
    set_by_site = re.search(r"^\s*ENROOT_DATA_PATH\s+(\S+)", place.read("/etc/enroot/enroot.conf") or "", re.MULTILINE)
    if place.runtime == "pyxis":
        wanted = None  # it starts Enroot with the site's configuration alone
    data = wanted or (set_by_site.group(1) if set_by_site else "")
    data = re.sub(r"\$\{?(\w+)\}?", lambda name: place.environment.get(name.group(1), name.group()), data)
    return data or f"{place.environment.get('XDG_DATA_HOME') or f'{home}/.local/share'}/enroot"


def _image(place: Place) -> Iterator[Finding]:
    container = place.site.container if place.site else None
    if container is None or not container.image or container.runtime not in FILE_RUNTIMES:
        return
    if place.exists(container.image):
        yield Finding("image", "ok", container.image)
    else:
        yield Finding(
            "image", "fail", f"{container.image} is not there", "dlbench image import --site ... fetches it once"
        )
