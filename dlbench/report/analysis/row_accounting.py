"""Where every row that was read has gone: shown, or left out for a named reason. Nothing disappears in silence."""

from dataclasses import dataclass

SHOWN = "shown"
BEYOND_LIMIT = "beyond the limit"
FAILED = "failed"
SUPERSEDED = "superseded"
SYSTEM_UNKNOWN = "system unknown"
COPIES = "copies"
PASSED_OVER = "passed over"
#: What attempts can be; the other kinds are of rows.
KINDS_OF_ATTEMPTS = (SHOWN, BEYOND_LIMIT, FAILED, SUPERSEDED, SYSTEM_UNKNOWN)
#: Each kind in words.
KIND_DESCRIPTIONS = {
    SHOWN: "Shown: one attempt per case, the latest that was measured",
    BEYOND_LIMIT: "Measured cases left out because tables and figures show a limited number; metrics.csv contains them",
    FAILED: "Cases without a result: see Failures and warnings",
    SUPERSEDED: "Attempts replaced by a later attempt of the same case on the same system; metrics.csv contains them",
    SYSTEM_UNKNOWN: (
        "Failed attempts that ended before their system was recorded; their cases were measured by other attempts; "
        "metrics.csv contains them"
    ),
    COPIES: "Copies: rows of the same attempt and rank in several files or sources; the most complete row is used",
    PASSED_OVER: "Rows skipped because they are invalid or unreadable: see Failures and warnings",
}


@dataclass(frozen=True)
class RowCounts:
    """The rows that the files of a report hold, one per rank of an attempt, by what became of them."""

    read: int
    rows: dict[str, int]  # by kind, those of `KIND_DESCRIPTIONS`
    attempts: dict[str, int]  # by kind, where attempts can be counted

    @property
    def missing(self) -> int:
        """Rows that were read and are in no kind; anything but 0 is a defect of dlbench."""
        return self.read - sum(self.rows.values())

    def row_counts_with_every_attempt(self) -> dict[str, int]:
        """All rows that were read, and those of each kind where every attempt is shown."""
        left_out = {kind: self.rows[kind] for kind in (COPIES, PASSED_OVER)}
        shown = sum(number for kind, number in self.rows.items() if kind not in left_out)
        return {"read": self.read, SHOWN: shown, **left_out}

    @property
    def error(self) -> str | None:
        """What is wrong with the account, in words; None where it adds up."""
        if not self.missing:
            return None
        return (
            f"{self.read} rows were read, but only {self.read - self.missing} appear in this report: {self.missing} "
            f"are missing. This is a bug in dlbench; `dlbench query` shows all rows."
        )
