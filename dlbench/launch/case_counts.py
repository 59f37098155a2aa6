"""Progress of a suite, counted from attempt folders; works on a login node while jobs run elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from dlbench.launch import attempts, claims
from dlbench.results.records import DONE_STATUSES, FINAL_STATUSES
from dlbench.suites.suite import Suite

#: State of the latest attempt at a case, and the key of its network.
_CaseState = tuple[str, str]


@dataclass(frozen=True)
class CaseCounts:
    """Number of cases per state, on one kind of machine; the states sum to `total`."""

    total: int
    done: int = 0
    running: int = 0
    failed: int = 0  # to be tried again
    out_of_memory: int = 0  # final
    system_key: str = ""

    @property
    def num_missing(self) -> int:
        """Cases never tried, or preempted."""
        return self.total - self.done - self.running - self.failed - self.out_of_memory

    @property
    def num_to_measure(self) -> int:
        """Cases that a job started now would measure."""
        return self.num_missing + self.failed


def count_cases(results: Path, suite: Suite) -> list[CaseCounts]:
    """Count the cases of a suite by state, once per kind of machine.

    The device a case runs on and the machine's key are only known where it runs, so both are read from the attempts.
    """
    tried: dict[tuple[str, str], dict[str, _CaseState]] = {}  # (device, system) -> case id -> how it stands
    for _, record in attempts.find_closed_attempts(results):
        if (record.suite, record.suite_version) == (suite.name, suite.version):
            place = (str(record.case.get("device")), record.system_key or "")
            _update_case_state(tried.setdefault(place, {}), record.case_id, record.status, record.network_key or "")
    for attempt, owner in attempts.find_open_attempts(results):
        if (attempt.suite, attempt.suite_version) == (suite.name, suite.version):
            alive = claims.is_owner_probably_alive(owner, attempt.folder)
            place = (attempt.case.device, attempt.system_key)
            status = "running" if alive else "preempted"
            _update_case_state(tried.setdefault(place, {}), attempt.case.id, status, attempt.network_key)
    counts = [
        _count_cases_by_state(suite, device, system_key, known) for (device, system_key), known in sorted(tried.items())
    ]
    counts = [one for one in counts if one.num_missing < one.total or len(counts) == 1]
    return counts or [CaseCounts(sum(map(len, suite.process_rounds())))]


def _update_case_state(known: dict[str, _CaseState], case_id: str, status: str, network_key: str) -> None:
    # A case that is done stays done, even if `--fresh` added a failed attempt later. A changed network is measured
    # again.
    before, key = known.get(case_id, ("", network_key))
    if key != network_key or before not in FINAL_STATUSES or (before not in DONE_STATUSES and status in DONE_STATUSES):
        known[case_id] = status, network_key


def _count_cases_by_state(suite: Suite, device: str, system_key: str, known: dict[str, _CaseState]) -> CaseCounts:
    cases = [case for one in suite.process_rounds(device) for case in one]
    stands = [known[case.id][0] if case.id in known else "missing" for case in cases]
    return CaseCounts(
        total=len(cases),
        done=sum(s in DONE_STATUSES for s in stands),
        running=stands.count("running"),
        failed=sum(s not in (*FINAL_STATUSES, "running", "missing", "preempted") for s in stands),
        out_of_memory=stands.count("oom"),
        system_key=system_key,
    )
