"""Runs one case of several ranks from inside an allocation, as `dlbench run --launcher srun` does on a job's first node.

supervise_ranks RESULTS MODEL NODES RANKS_PER_NODE TIMEOUT_S STEP...
"""

import sys
from pathlib import Path

from dlbench.launch import supervise
from dlbench.launch.slurm import step_launcher
from dlbench.suites.case import Case, Protocol

root, model, nodes, ranks_per_node, timeout_s, *step = sys.argv[1:]
case = Case(
    model,
    nodes=int(nodes),
    devices_per_node=int(ranks_per_node),
    protocol=Protocol(min_time_s=0.1, timeout_s=float(timeout_s)),
)
campaign = supervise.Campaign(Path(root), "suite", 1, "standin", launcher=step_launcher(step))
Path(root).mkdir(exist_ok=True)
for record in supervise.run_cases([case], campaign):
    print(record.status, record.error or "")
