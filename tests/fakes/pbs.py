"""A stand-in for PBS: qsub, qstat, qdel, qselect and pbsnodes as executables, with the jobs in a folder.

    python pbs.py COMMAND ARGUMENTS     jobs are in the folder of this file, in jobs.json

qsub reads the `#PBS` lines of the script as PBS does, options on the command line before them. With PBS_RUNS=1 it runs
the script at once, as each subjob. `qstat` prints OpenPBS's full format, with long lines folded after a tab.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

COMMANDS = ("qsub", "qstat", "qdel", "qselect", "pbsnodes")
FILE = Path(__file__).with_name("jobs.json")


def install(folder: Path) -> Path:
    """Put the executables into `folder`."""
    folder.mkdir()
    (folder / "pbs.py").write_text(Path(__file__).read_text())
    for name in COMMANDS:
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S {folder}/pbs.py {name} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def load() -> dict:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def qsub(*words: str) -> None:
    script = Path(words[-1])
    lines = [line.removeprefix("#PBS ") for line in script.read_text().splitlines() if line.startswith("#PBS ")]
    options: list[tuple[str, str]] = []
    for line in lines:
        options.append(tuple(line.split(" ", 1)))  # type: ignore[arg-type]
    given = list(words[:-1])
    options += [(given[i], given[i + 1]) for i in range(0, len(given), 2)]
    values = {key: value for key, value in options if key != "-l"}
    resources = dict(value.split("=", 1) for key, value in options if key == "-l")
    array = re.fullmatch(r"(\d+)-(\d+)(%\d+)?", values["-J"]) if "-J" in values else None
    if "-J" in values and (not array or int(array[2]) <= int(array[1])):
        sys.exit("qsub: illegal -J value")
    if resources.get("walltime", "").startswith("99"):
        comment = "Can Never Run: job violates queue and/or server resource limits"
    else:
        comment = "Not Running: Insufficient amount of resource: ncpus"
    jobs = load()
    number = str(101 + len(jobs))
    job_id = f"{number}[]" if array else number
    jobs[job_id] = {
        "state": "Q", "name": values["-N"], "resources": resources, "comment": comment, "depend": values.get("-W", ""),
        "subjobs": int(array[2]) + 1 if array else 0, "exit": None,
    }  # fmt: skip
    if os.environ.get("PBS_RUNS"):
        jobs[job_id] |= {"state": "F", "exit": run(script, number, jobs[job_id]["subjobs"], values["-o"])}
    FILE.write_text(json.dumps(jobs))
    print(f"{job_id}.server")


def run(script: Path, number: str, subjobs: int, output: str) -> int:
    """Run the script once, or once per subjob; return the largest exit status."""
    worst = 0
    for index in range(max(1, subjobs)):
        environment = os.environ | {"PBS_JOBID": f"{number}.server", "PBS_ARRAY_INDEX": str(index)}
        done = subprocess.run(
            ["bash", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        Path(output, f"{script.stem}.o{number}.{index}").write_bytes(done.stdout)
        worst = max(worst, done.returncode)
    return worst


def qstat(*words: str) -> None:
    jobs = load()
    for job_id in (word for word in words if not word.startswith("-")):
        job_id = job_id.partition(".")[0]
        if job_id not in jobs or (jobs[job_id]["state"] == "F" and "-x" not in words):
            sys.exit(f"qstat: Unknown Job Id {job_id}.server")
        job = jobs[job_id]
        subjobs = [f"{job_id[:-2]}[{number}]" for number in range(job["subjobs"])]
        for name in [job_id, *subjobs]:
            print(f"Job Id: {name}.server")
            shown = {"Job_Name": job["name"], "job_state": job["state"], "comment": job["comment"]}
            shown |= {f"Resource_List.{key}": value for key, value in job["resources"].items()}
            if job["state"] == "R":
                shown |= {"exec_host": "n1/0*64+n2/0*64", "resources_used.walltime": "00:01:00"}
            if job["exit"] is not None:
                shown["Exit_status"] = str(job["exit"])
            for key, value in shown.items():
                text = f"{key} = {value}"
                print("    " + "\n\t".join(text[i : i + 70] for i in range(0, len(text), 70)))
            print()


def qselect(*words: str) -> None:
    for job_id, job in load().items():
        if job["state"] != "F":
            print(f"{job_id}.server")


def qdel(*words: str) -> None:
    jobs = load()
    for job_id in words:
        if job_id not in jobs or jobs[job_id]["state"] == "F":
            sys.exit(f"qdel: Job has finished {job_id}")
        jobs[job_id] |= {"state": "F", "exit": 271}
    FILE.write_text(json.dumps(jobs))


def pbsnodes(*words: str) -> None:
    for name, state in (("n1", "free"), ("n2", "job-exclusive"), ("n3", "offline"), ("n4", "state-unknown,down")):
        print(f"{name}\n     Mom = {name}.example\n     state = {state}\n     resources_available.host = {name}\n")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
