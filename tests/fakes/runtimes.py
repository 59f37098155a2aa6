"""Stand-ins for srun with pyxis, Enroot, Apptainer and udocker, as programs on PATH.

They take the arguments that the real ones take, refuse those that the real ones refuse, and treat the environment as
the real ones do, which is where benchmarks are lost: Enroot starts with an empty one, and sets a variable that is
named and not set to an empty text; under pyxis the image's values win unless named; udocker's is empty without
--hostenv. There is no container: the command runs on the machine itself.

Sources: enroot's src/runtime.sh (runtime::start, runtime::_do_environ), pyxis' args.c, Apptainer's and udocker's guides.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

#: What every image of these stand-ins sets, as an image of NVIDIA's sets a hundred things.
IMAGE_ENVIRONMENT = {"PYTHONPATH": "/of/the/image", "NCCL_VERSION": "2.0"}
SQUASHFS, SIF = b"hsqs", b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0"


def install(folder, *names):
    """Put the stand-ins into `folder`, which goes first on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {Path(__file__).resolve()} {name} "$@"\n')
        program.chmod(0o755)


def fail(text):
    print(f"stand-in: {text}", file=sys.stderr)
    sys.exit(1)


def log(program, argv):
    """One line of JSON for each call, for the test to look at."""
    if target := os.environ.get("STANDIN_LOG"):
        with Path(target).open("a") as file:
            file.write(json.dumps({"program": program, "argv": argv, "environment": dict(os.environ)}) + "\n")


def store():
    # One for all nodes, as where it is in a shared home.
    folder = Path(os.environ["STANDIN_STORE"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_mount(source, target):
    if not source.startswith("/") or not target.startswith("/") or not Path(source).exists():
        fail(f"cannot mount {source} at {target}")


def options_of(argv, with_value, flags):
    """Options up to the first other word, as lists of values, and the words from there on."""
    found, words = {}, list(argv)
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).partition("=")
        if name in flags and not equals:
            found.setdefault(name, []).append("")
        elif name in with_value:
            found.setdefault(name, []).append(value if equals else words.pop(0))
        else:
            fail(f"unknown option {name}")
    return found, words


def run_as(command, environment):
    if not command:
        fail("no command")
    with contextlib.suppress(FileNotFoundError):
        os.execvpe(command[0], command, environment)
    fail(f"{command[0]}: not found inside of the container")


def enroot(argv):
    action, *rest = argv
    if action == "create":
        options, (image,) = options_of(rest, ("--name",), ())
        (name,) = options["--name"]
        if not Path(image).is_file() or Path(image).read_bytes()[:4] != SQUASHFS:
            fail(f"invalid image format: {image}")
        if "/" in name or (store() / name).exists():
            fail(f"file already exists: {name}")
        (store() / name).mkdir()
    elif action == "remove":
        _, names = options_of(rest, (), ("--force",))
        for name in names:
            (store() / name).rmdir()
    elif action == "list":
        print(*sorted(path.name for path in store().iterdir()), sep="\n")
    elif action == "import":
        options, (uri,) = options_of(rest, ("--output",), ())
        if not uri.startswith(("docker://", "dockerd://")):
            fail(f"invalid argument: {uri}")
        Path(options["--output"][0]).write_bytes(import_bytes(SQUASHFS + bytes(92)))
    elif action == "start":
        enroot_start(rest)
    else:
        fail(f"enroot has no {action}")


def enroot_start(argv):
    options, (name, *command) = options_of(argv, ("--mount", "--env", "--conf", "--rc"), ("--rw", "--root"))
    if not (store() / name).is_dir():
        fail(f"no such file or directory: {name}")
    for mount in options.get("--mount", []):
        if not re.fullmatch(r"[^\s]+:[^\s]+", mount):
            fail(f"invalid argument: {mount}")
        check_mount(*mount.split(":")[:2])
    environment = {"PATH": os.environ["PATH"], "HOME": "/root", **IMAGE_ENVIRONMENT}
    for entry in options.get("--env", []):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(=.*)?", entry, re.DOTALL):
            fail(f"invalid argument: {entry}")
        key, equals, value = entry.partition("=")
        # A name that is not set becomes an empty text: awk '{ print /=/ ? $0 : $0"="ENVIRON[$0] }'
        environment[key] = value if equals else os.environ.get(key, "")
    run_as(command, keep_standins(environment))


def srun(argv):
    """srun with the pyxis plugin: the real one where STANDIN_SRUN names it, otherwise one task after the other."""
    pyxis, plain = {}, []
    words = list(argv)
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word.startswith("--container-"):
            name, _, value = word.partition("=")
            pyxis.setdefault(name, []).append(value)
        else:
            plain.append(word)
    if pyxis:
        words = [sys.executable, "-I", str(Path(__file__).resolve()), "pyxis", json.dumps(pyxis), *words]
    if real := os.environ.get("STANDIN_SRUN"):
        os.execv(real, [real, *plain, *words])
    options = dict(option.partition("=")[::2] for option in plain)
    if any(option not in SRUN_OPTIONS for option in options):
        fail(f"srun has no {set(options) - SRUN_OPTIONS}")
    tasks = int(options.get("--ntasks", "1"))
    per_node = int(options.get("--ntasks-per-node", str(tasks)))
    worst = 0
    for rank in range(tasks):
        place = {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % per_node),
            "SLURM_NTASKS": str(tasks),
            "SLURMD_NODENAME": os.environ.get("SLURMD_NODENAME") or f"n{rank // per_node + 1}",
            "SLURM_STEP_NUM_TASKS": str(tasks),
            "SLURM_STEP_TASKS_PER_NODE": f"{per_node}(x{tasks // per_node})",
        }
        worst = max(worst, subprocess.run(words, env=os.environ | place, check=False).returncode)
    sys.exit(worst)


SRUN_OPTIONS = {"--kill-on-bad-exit", "--wait", "--mpi", "--nodes", "--ntasks", "--ntasks-per-node", "--overlap",
                "--job-name"}  # fmt: skip
PYXIS_OPTIONS = {
    "--container-image",
    "--container-name",
    "--container-mounts",
    "--container-workdir",
    "--container-env",
}


def pyxis(argv):
    """What the plugin does on the node, around one task."""
    options = json.loads(argv[0])
    if unknown := set(options) - PYXIS_OPTIONS:
        fail(f"pyxis has no {unknown}")
    if repeated := [name for name, values in options.items() if len(set(values)) > 1]:
        fail(f"{repeated[0]} specified multiple times")
    image = options["--container-image"][0]
    if not Path(image).is_file():
        fail(f"pyxis: no image {image}")
    for mount in options.get("--container-mounts", [""])[0].split(","):
        check_mount(*mount.split(":")[:2])
    if any(not name for name in options.get("--container-env", ["X"])[0].split(",")):
        fail("--container-env: invalid format")
    named = options.get("--container-env", [""])[0].split(",")
    environment = os.environ | IMAGE_ENVIRONMENT | {name: os.environ[name] for name in named if name in os.environ}
    os.chdir(options["--container-workdir"][0])
    run_as(argv[1:], environment)


def apptainer(argv):
    action, *rest = argv
    if action == "pull":
        Path(rest[0]).write_bytes(import_bytes(SIF))
        return
    if action != "exec":
        fail(f"the stand-in has no {action}")
    options, (image, *command) = options_of(rest, ("--bind", "--pwd", "--env"), ("--nv",))
    if not Path(image).is_file() or b"SIF_MAGIC" not in Path(image).read_bytes()[:64]:
        fail(f"image format not recognized: {image}")
    for mount in options.get("--bind", []):
        check_mount(*mount.split(":")[:2])
    os.chdir(options["--pwd"][0])
    # Values of a Docker image are defaults: what the host has set stays.
    run_as(command, IMAGE_ENVIRONMENT | dict(os.environ) | {"APPTAINER_CONTAINER": image})


def udocker(argv):
    action, *rest = argv
    if action == "create":
        options, _ = options_of(rest, ("--name",), ())
        (store() / options["--name"][0]).mkdir()
    elif action == "setup":
        options, (name,) = options_of(rest, ("--execmode",), ("--nvidia",))
        if options["--execmode"] != ["F3"] or not (store() / name).is_dir():
            fail(f"cannot set up {name}")
        (store() / name / "set-up").touch()
    elif action == "rm":
        shutil.rmtree(store() / rest[0])
    elif action == "run":
        options, (name, *command) = options_of(rest, ("--volume", "--workdir", "--env"), ("--hostenv",))
        if not (store() / name / "set-up").exists():
            fail(f"{name} is not set up")
        for mount in options.get("--volume", []):
            check_mount(*mount.split(":")[:2])
        os.chdir(options["--workdir"][0])
        given = dict(os.environ) if "--hostenv" in options else {"PATH": os.environ["PATH"]}
        run_as(command, keep_standins(IMAGE_ENVIRONMENT | given))
    else:
        fail(f"udocker has no {action}")


def scontrol(argv):
    if argv[:2] != ["show", "hostnames"]:
        fail(f"the stand-in has no scontrol {argv}")
    print("\n".join(argv[2].split(",")))


def import_bytes(whole):
    """What an import leaves: the image, or what STANDIN_IMPORT says instead."""
    return {"broken": b"<html>sign in</html>", "whole": whole}[os.environ.get("STANDIN_IMPORT", "whole")]


def keep_standins(environment):
    return environment | {name: value for name, value in os.environ.items() if name.startswith("STANDIN_")}


if __name__ == "__main__":
    log(sys.argv[1], sys.argv[2:])
    {f.__name__: f for f in (enroot, srun, pyxis, apptainer, udocker, scontrol)}[sys.argv[1]](sys.argv[2:])
