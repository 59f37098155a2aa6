"""The commands, one thin module each, named as the command; `dlbench.cli` imports the one that is called."""

from __future__ import annotations

#: The groups of the help, each with its commands and what they do (a sentence without capital and full stop).
GROUPS: dict[str, dict[str, str]] = {
    "Measure": {
        "run": "measure the cases of a suite that are not measured yet",
        "plan": "list the cases of a suite with their FLOP and predicted memory",
        "ab": "measure two settings in turns, in fresh processes, and compare them pair by pair",
        "ceilings": "measure the peak FLOP/s and bandwidth that a device reaches",
        "profile": "measure each layer's time, forward and backward, against its bound",
        "maxbatch": "find the largest batch that fits into memory, by prediction and real runs",
        "allreduce": "time all-reduces over message sizes: algorithm and bus bandwidth, as nccl-tests define them",
    },
    "Read results": {
        "report": "build the report from results",
        "compare": "say per case whether TARGET is slower than BASE, and how sure it is",
        "project": "project time, energy and cost of a whole training from measured throughput and power",
        "show": "one record with everything that is known of it",
        "query": "ask the results in SQL, by DuckDB",
        "export": "give all results to other programs",
        "collect": "rebuild missing Parquet parts from the attempts' folders",
    },
    "Suites and networks": {
        "models": "the networks that can be named in a suite",
        "layers": "every convolution and fully connected layer of a network",
        "table": "the published CNN table beside what is counted from the networks",
    },
    "Clusters": {
        "submit": "put a campaign through Slurm, in the site's container",
        "status": "show the queue, and how far the cases are",
        "cancel": "end the queued and running jobs of a results folder",
        "resume": "submit again what is missing and has no job in the queue",
        "image": "fetch the site's container image, once, verified, its digest recorded",
        "doctor": "check this machine, and say what is wrong and how to mend it",
    },
}
#: Each command with what it does, in the order of the help.
COMMANDS: dict[str, str] = {name: does for group in GROUPS.values() for name, does in group.items()}
