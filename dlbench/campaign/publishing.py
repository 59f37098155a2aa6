"""A folder of results for publication: anonymised, verified, with its report, ready for a web server.

published/h200/
  records.parquet             every record, without host and user names, paths, environment and job ids
  ceilings/  profiles/        those in the same results folders
  verification.md             what `dlbench verify` looked at and found, before names were removed
  report/index.html           the report
  SHA256SUMS                  of all files, for `sha256sum -c`
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from dlbench.atomic_file import save_text
from dlbench.errors import BadInput

RECORDS_FILE = "records.parquet"


def publish(sources: Sequence[str | Path], folder: Path, title: str | None, on_progress: Callable[[str], None]) -> int:
    """Fill a new folder; return the number of findings of the verification, which are published, too.

    Args:
        sources: results folders, Parquet files or glob patterns.
        folder: does not exist, or is empty.

    Raises:
        BadInput: the folder holds something, or the sources have no records.
        StoreError: a source does not exist, or the folder cannot be written.
    """
    from dlbench.report import build
    from dlbench.report.analysis import content, verification
    from dlbench.report.listings import verification as listing
    from dlbench.results import anonymization
    from dlbench.table import render

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not an empty folder; name a new one with -o")
    found = verification.verify_sources(sources)
    if not found.rows:
        raise BadInput(f"no records in {' '.join(map(str, sources))}; run `dlbench run quick` first")
    on_progress(f"verified: {listing.summary_line(found)}")
    rows = anonymization.write_records(sources, folder / RECORDS_FILE)
    on_progress(f"anonymised: {rows} rows")
    # From the anonymised files, so that the report contains no name of the machine.
    build.write_report(content.read_content([folder]), folder / "report", title)
    # Findings name attempts, no hosts; notes may contain paths of this machine.
    tables = [listing.findings_table(found), listing.checks_table(found)]
    shown = "\n".join(render(dataclasses.replace(table, notes=[]), "markdown") for table in tables if table.rows)
    save_text(folder / "verification.md", f"# Verification\n\n{listing.summary_line(found)}.\n\n{shown}")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}\n" for file in files]
    save_text(folder / "SHA256SUMS", sums)
    on_progress(f"published: {folder}; serve it as static files, or name it as a source of `dlbench report`")
    return len(found.findings)
