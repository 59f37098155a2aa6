"""A worker that measures nothing: it waits `protocol.min_time_s` and leaves a result, as `dlbench.worker` would.

Some models stand for things that happen to a real one: `vgg19` takes memory until it is stopped; of several ranks of
`dies` one ends in the middle, and of `hangs` none ends at all.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from dlbench.results.records import Outcome
from dlbench.suites import worker_request as requests
from tests.fakes.workers import good_outcome

FACTS = {
    "device_kind": "cpu",
    "system_key": "standin",
    "devices": [],
    "cpu_model": "stand-in",
    "cpu_cores": 1,
    "unknown_models": {},
    "broken_models": {},
}


def main(arguments):
    if arguments[0] == "--probe":
        print(json.dumps(FACTS))
        return 0
    folder = Path(sys.stdin.read() if arguments[0] == "--ahead" else arguments[0])
    if folder == Path():
        return 0
    case = requests.requested_case(requests.read_request(folder))

    def stop(number, frame):
        if case.world_size > 1:
            os._exit(3)  # what one of several ranks knows is not the outcome of the case
        write(folder, Outcome("preempted", f"stopped by {signal.Signals(number).name} in phase window"))
        os._exit(3)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, stop)
    if case.model == "vgg19":
        kept = []
        print("taking memory", file=sys.stderr, flush=True)
        while True:
            kept.append(bytearray(os.urandom(2**20) * 16))
    rank = int(os.environ.get("SLURM_PROCID", "0")) if case.world_size > 1 else 0
    if case.model == "dies" and rank == case.world_size - 1:
        raise SystemExit("the last rank dies")
    while case.model in ("dies", "hangs"):
        time.sleep(1)
    time.sleep(case.protocol.min_time_s)
    (folder / f"rank-{rank}.json").write_text(outcome().to_json())
    if rank == 0:
        write(folder, Outcome("ok", None, tuple(gathered(folder, case.world_size))))
    return 0


def gathered(folder, world_size):
    """What the ranks have left, as rank 0 of a real worker gathers it."""
    for rank in range(world_size):
        file = folder / f"rank-{rank}.json"
        while not file.exists() or not file.read_text():
            time.sleep(0.05)
        yield from Outcome.from_json(file.read_text()).ranks


def outcome():
    """A good one, which also says on which node and with which GPUs, and where in which container."""
    good = good_outcome()
    ((system, measurement),) = good.ranks
    names = ("SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS",
             "SLURM_STEP_TASKS_PER_NODE", "DLBENCH_MASTER_PORTS", "DLBENCH_RENDEZVOUS_S")  # fmt: skip
    environment = {name: os.environ.get(name) for name in names}
    system = dataclasses.replace(
        system,
        slurm_job_id=os.environ.get("SLURM_JOB_ID"),
        container_runtime=os.environ.get("DLBENCH_CONTAINER_RUNTIME"),
        container_image=os.environ.get("DLBENCH_CONTAINER_IMAGE"),
        details={"environment": environment},
    )
    return Outcome("ok", None, ((system, measurement),))


def write(folder, what):
    partial = folder / ".result.json.partial"
    partial.write_text(what.to_json())
    partial.replace(folder / "result.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
