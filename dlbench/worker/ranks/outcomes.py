"""Merging of the measurements of all ranks into one outcome, with warnings from their comparison."""

from __future__ import annotations

import dataclasses
import os
import statistics

from dlbench.affinity import allowed_cores
from dlbench.results.records import Measurement, Outcome, System
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.context import DetectedRank, RankContext

#: Relative slowness against the median rank above which a rank is reported.
STRAGGLER_SHARE = 0.05


def merge_rank_outcomes(outcome: Outcome, context: RankContext, found: DetectedRank) -> Outcome:
    """Merge the measurements of all ranks into one outcome, with warnings from their comparison."""
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
    work = {n: getattr(first, n) for n in WORK_FIELDS}
    ranks = [(s, dataclasses.replace(m, **work)) for s, m in ranks]
    warnings = (*first.warnings, *straggler_warnings(ranks))
    ranks[0] = (ranks[0][0], dataclasses.replace(ranks[0][1], warnings=warnings))
    return Outcome(outcome.status if context.rank == 0 else "ok", outcome.error, tuple(ranks))


#: Counted only by rank 0: equal on all ranks.
WORK_FIELDS = (
    *("forward_macs", "forward_flop", "backward_flop", "executed_flop", "flop_partial", "flop_varies"),
    *("pytorch_forward_flop", "pytorch_backward_flop"),
)


def straggler_warnings(ranks: list[tuple[System, Measurement]]) -> tuple[str, ...]:
    """Return warnings about ranks whose own work is slower than that of the median rank by more than `STRAGGLER_SHARE`.

    Uses steps without synchronisation if available: with it all ranks take as long as the slowest.
    """
    own = [m.unsynced_step_s or m.step_s for _, m in ranks]
    if len(ranks) < 2 or not all(own):
        return ()
    medians = [statistics.median(steps) for steps in own]
    # Compare with the median of the other ranks: with two ranks the straggler would be half of a common median.
    warnings = []
    for i, (system, found) in enumerate(ranks):
        others = statistics.median(medians[:i] + medians[i + 1 :])
        if medians[i] > (1 + STRAGGLER_SHARE) * others:
            late = medians[i] / others - 1
            warnings.append(
                f"straggler: rank {found.rank} on {system.hostname} takes {late:.0%} longer than the others for its "
                f"own part of a step; the others wait for it."
            )
    return tuple(warnings)
