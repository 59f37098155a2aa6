"""The commands, one thin module each; `dlbench.cli` imports only the module of the called command.

Its function `add` adds the command to argparse's subparsers.
"""

#: Group of the help -> command -> summary (starts with a verb, without full stop).
GROUPS: dict[str, dict[str, str]] = {
    "Measure": {
        "run": "measure the cases of a suite; skip those already measured",
        "plan": "list the cases of a suite with FLOP and predicted memory",
        "train": "train networks on real data until a target is reached; record time, energy and learning curves",
        "ab": "run an interleaved A/B test of two settings, each run in a fresh process",
        "tune": "find the fastest correct setting of a network on this device",
        "ceilings": "measure the peak FLOP/s and bandwidth of a device",
        "profile": "measure each layer's forward and backward time, and compare it with its lower bound",
        "maxbatch": "find the largest batch that fits into memory, by prediction and test runs",
        "allreduce": "measure all-reduce bandwidth for several message sizes, as nccl-tests defines it",
    },
    "Read results": {
        "report": "build an HTML and PDF report from results",
        "compare": "compare two sets of results and report regressions",
        "project": "estimate time, energy and cost of a whole training from measurements",
        "show": "print one record with all its values",
        "query": "run a SQL query on the results (DuckDB)",
        "export": "export results as CSV, JSON, Parquet, or for other tools",
        "collect": "rebuild missing Parquet files, for example after a killed run",
    },
    "Judge a site": {
        "fleet": "find nodes and devices that are slower than the others, and why",
        "accept": "compare results with guaranteed values: passed, failed or not decided",
        "verify": "check results for impossible or inconsistent values",
        "history": "find changes over months of results, and their likely causes",
        "publish": "make an anonymised folder of results for publication",
    },
    "Suites and networks": {
        "suites": "list the available suites, or copy one to edit it",
        "models": "list the networks that a suite can use",
        "layers": "list the convolution and fully connected layers of a network",
        "table": "compare published numbers of layers, weights and MACs of CNNs with counted ones",
    },
    "Clusters": {
        "sites": "list the available site profiles, or copy one to edit it",
        "submit": "submit a suite as jobs of Slurm or PBS",
        "status": "show queued jobs and how many cases are done",
        "cancel": "cancel queued and running jobs",
        "resume": "submit missing cases again, except those of queued or running jobs",
        "image": "download and verify the container image of a site, or copy the recipes that build one",
        "clean": "remove files that dlbench cached",
        "doctor": "check this machine for problems, with advice",
    },
}
#: Command -> summary, in the order of the help.
COMMANDS: dict[str, str] = {name: does for group in GROUPS.values() for name, does in group.items()}
