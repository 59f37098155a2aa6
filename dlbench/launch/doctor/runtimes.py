"""Checks of container runtimes: installed, permitted, image present."""

import re
from collections.abc import Iterator
from pathlib import Path

from dlbench.launch.doctor.machine import MIB, CheckContext, Finding
from dlbench.launch.runtimes import PROGRAMS, RUNTIME_RECORDS

#: NVIDIA's PyTorch image, unpacked [bytes].
MIN_UNPACKED_BYTES = 25_000 * MIB
_SHARED_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.ceph", "cifs", "smb3")


def check_runtimes(context: CheckContext) -> Iterator[Finding]:
    """Check the container runtimes, and whether this user may use that of the profile."""
    found = [name for name in PROGRAMS if context.which(name)]
    yield Finding("runtimes", "ok" if found else "note", f"found on PATH: {', '.join(found) or 'none'}")
    record = RUNTIME_RECORDS[context.container_runtime]
    if record.program not in (None, *found):
        level = "fail" if context.slurm_job_id and context.container_runtime != "pyxis" else "note"
        text = f"{record.program}, the runtime of the profile, is not installed here"
        yield Finding("runtimes", level, text, "if the compute nodes have it, run dlbench doctor inside an allocation")
    if record.engine_query and record.program in found:
        answer = context.run(list(record.engine_query))
        if answer.status != 0:
            said = answer.last_stderr_line("no answer")
            mend = "start the engine: systemctl start docker"
            if "permission denied" in said.lower():
                mend = "ask the administrators to add you to the group docker"
            yield Finding("runtimes", "fail", f"the Docker engine cannot be used: {said}", mend)
    gpus = context.site is not None and context.site.has_gpus
    if record.gpu_files and gpus and not any(map(context.matching_paths, record.gpu_files)):
        mend = "ask the administrators to run: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
        yield Finding("runtimes", "fail", "Podman finds no GPU without a CDI file in /etc/cdi", mend)
    yield from _check_user_namespaces(context)
    yield from _check_image_storage(context)
    yield from _check_image(context)


def _check_user_namespaces(context: CheckContext) -> Iterator[Finding]:
    if not RUNTIME_RECORDS[context.container_runtime].needs_user_namespaces:
        return
    switches = ("/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces")
    off = [switch for switch in switches if context.read(switch) == "0"]
    restricted = context.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    if off:
        level = "warn" if context.container_runtime == "apptainer" else "fail"  # a setuid Apptainer does not need them
        text = f"user namespaces are disabled by {' '.join(off)}: {context.container_runtime} cannot start without root"
        settings = " ".join(f"{s.removeprefix('/proc/sys/').replace('/', '.')}=1" for s in off)
        yield Finding("user namespaces", level, text, f"ask the administrators to run: sysctl -w {settings}")
    elif restricted:
        yield Finding("user namespaces", "warn", "restricted by AppArmor: the runtime needs an AppArmor profile")
    else:
        yield Finding("user namespaces", "ok", "allowed")


def _check_image_storage(context: CheckContext) -> Iterator[Finding]:
    """Check the storage of unpacked images: homes are often too small, and Podman fails on NFS."""
    folder = _image_storage_folder(context)
    if folder is None:
        return
    # Created when the first image is unpacked.
    there = next(path for path in (Path(folder), *Path(folder).parents) if context.exists(str(path)))
    answer = context.run(["df", "--output=avail,fstype", "--block-size=1M", str(there)])
    words = answer.out.split()[-2:] if answer.status == 0 else []
    if len(words) < 2 or not words[0].isdigit():
        text = f"df cannot show the free space of {folder}, where {context.container_runtime} unpacks images"
        yield Finding("image storage", "note", text)
        return
    free_mib, kind = int(words[0]), words[1]
    mend = RUNTIME_RECORDS[context.container_runtime].storage_advice or ""
    nodes = context.site.slurm.max_nodes if context.site else None
    if context.container_runtime == "podman" and kind in _SHARED_FILE_SYSTEMS:
        yield Finding("image storage", "fail", f"{folder} is on {kind}, where Podman cannot keep images", mend)
    elif kind in _SHARED_FILE_SYSTEMS and context.container_runtime == "pyxis" and nodes != 1:
        text = (
            f"{folder} is on {kind}, which all nodes share: jobs on several nodes fail ('failed to make directory'), "
            f"because pyxis uses the same container name on all nodes"
        )
        yield Finding("image storage", "fail", text, mend)
    elif kind in _SHARED_FILE_SYSTEMS:
        text = f"{folder} is on {kind}: every node of a job unpacks its own image there at the same time"
        yield Finding("image storage", "warn", text, mend)
    elif free_mib * MIB < MIN_UNPACKED_BYTES:
        text = (
            f"only {free_mib} MiB free in {folder}, where {context.container_runtime} unpacks images; NVIDIA's PyTorch "
            f"image needs 25 GB"
        )
        yield Finding("image storage", "warn", text, mend)
    else:
        yield Finding("image storage", "ok", f"{folder} ({kind}): {free_mib} MiB free")


def _image_storage_folder(context: CheckContext) -> str | None:
    record = RUNTIME_RECORDS[context.container_runtime]
    if not record.storage_advice or not context.which(str(record.program)):
        return None
    if record.storage_query:
        answer = context.run(list(record.storage_query))
        return answer.out.strip() or None if answer.status == 0 else None
    home = context.environment.get("HOME", "/")
    configuration = context.read("/etc/enroot/enroot.conf") or ""
    set_by_site = re.search(r"^\s*ENROOT_DATA_PATH\s+(\S+)", configuration, re.MULTILINE)
    data = set_by_site.group(1) if set_by_site else ""
    if context.container_runtime != "pyxis":  # which starts Enroot with only the site's configuration
        wanted = context.site.environment.get("ENROOT_DATA_PATH") if context.site else None
        data = wanted or context.environment.get("ENROOT_DATA_PATH") or data
    data = re.sub(r"\$\{?(\w+)\}?", lambda name: context.environment.get(name.group(1), name.group()), data)
    return data or f"{context.environment.get('XDG_DATA_HOME') or f'{home}/.local/share'}/enroot"


def _check_image(context: CheckContext) -> Iterator[Finding]:
    container = context.site.container if context.site else None
    if container is None or not container.image or not RUNTIME_RECORDS[container.runtime].image_file:
        return
    if context.exists(container.image):
        yield Finding("image", "ok", container.image)
    else:
        yield Finding("image", "fail", f"{container.image} does not exist", "run dlbench image import --site SITE")
