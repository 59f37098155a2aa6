"""The measurements of all ranks of a case as one outcome, with what only their comparison shows."""

from __future__ import annotations

import dataclasses
import os
import statistics

from dlbench.affinity import allowed_cores
from dlbench.results.records import Measurement, Outcome, System
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.context import DetectedRank, RankContext

#: A rank that is slower than the median of the ranks by more than this is named.
STRAGGLER = 0.05


def merge_rank_outcomes(outcome: Outcome, context: RankContext, found: DetectedRank) -> Outcome:
    """All ranks' measurements in one outcome, with what only their comparison shows."""
    enter_phase("gather")
    ((system, own),) = outcome.ranks
    details = {
        "rank": context.rank,
        "rank_source": found.source,
        "local_size": found.local_size,
        "cpu_affinity": sorted(allowed_cores()),
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
        "pid": os.getpid(),
    }
    system = dataclasses.replace(system, details=system.details | {"binding": details})
    ranks: list[tuple[System, Measurement]] = context.all_gather((system, own))
    first = ranks[0][1]
    work = {n: getattr(first, n) for n in WORK}
    ranks = [(s, dataclasses.replace(m, **work)) for s, m in ranks]
    warnings = (*first.warnings, *stragglers(ranks))
    ranks[0] = (ranks[0][0], dataclasses.replace(ranks[0][1], warnings=warnings))
    return Outcome(outcome.status if context.rank == 0 else "ok", outcome.error, tuple(ranks))


#: Counted by rank 0 alone: it is the same for all.
WORK = (
    *("forward_macs", "forward_flop", "backward_flop", "executed_flop", "flop_partial", "flop_varies"),
    *("pytorch_forward_flop", "pytorch_backward_flop"),
)


def stragglers(ranks: list[tuple[System, Measurement]]) -> tuple[str, ...]:
    """Names the ranks whose own work takes longer than the median rank's by more than `STRAGGLER`.

    By steps without synchronisation where there are any: with it all ranks take as long as the slowest.
    """
    own = [m.unsynced_step_s or m.step_s for _, m in ranks]
    if len(ranks) < 2 or not all(own):
        return ()
    medians = [statistics.median(steps) for steps in own]
    # With two ranks the median of both would be half the straggler's; the others' is what it is late against.
    warnings = []
    for i, (system, found) in enumerate(ranks):
        others = statistics.median(medians[:i] + medians[i + 1 :])
        if medians[i] > (1 + STRAGGLER) * others:
            late = medians[i] / others - 1
            warnings.append(
                f"straggler: rank {found.rank} on {system.hostname} takes {late:.0%} longer for its own part of a step "
                "than the others, which wait for it."
            )
    return tuple(warnings)
