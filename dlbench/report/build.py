"""Builds a report: reads the stores, puts the chapters together, draws the figures, and writes every form of it.

The same store gives the same bytes: no clock is read, no order is left to chance.
"""

import gc
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dlbench import units
from dlbench.atomic_file import is_temporary_name, is_writer_running, temporary_name, write_atomically
from dlbench.errors import StoreError
from dlbench.report.analysis.content import Content
from dlbench.report.chapters import tables
from dlbench.report.chapters.sections import select_chapters, variability_section
from dlbench.report.document import Report, Section
from dlbench.report.export import tidy_csv_chunks
from dlbench.report.figures import figure_style, pdf_fonts
from dlbench.report.forms import latex
from dlbench.report.forms.html_page import html_page
from dlbench.report.forms.markdown import markdown_report
from dlbench.report.forms.parallel import PendingTask, TaskPool, run_tasks
from dlbench.results import training_store
from dlbench.results.frame_builder import release_memory
from dlbench.table import Column, Table, csv_table


class MissingReportFile(UserWarning):
    """One file of a report could not be written; the others are there."""


def write_report(
    content: Content, out: Path, title: str | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Write the report of what was read; gives the path of the HTML page.

    All files are made in a folder of their own inside of `out`, and take the places of an earlier report's when all
    are whole: what ends this process before leaves the earlier report as it was.

    Args:
        out: made if it is not there; gets each of `FORMS` and figures/.
        title: above the report; by default it says what was measured on which machine.
        progress: called with what is being made.

    Raises:
        StoreError: `out` cannot be written.
    """
    on_progress = progress or (lambda what: None)
    making = temporary_name(out / "report")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in out.iterdir():
            # What a killed process was making here.
            if is_temporary_name(path.name) and is_writer_running(path.name) is False:
                shutil.rmtree(path, ignore_errors=True)
        making.mkdir()
        # Queued tasks draw figures as well, which takes the style.
        with figure_style.plot_style(), _rare_garbage_collection(), TaskPool() as crew:
            problems = _write_sections_and_files(crew, content, making, title or _report_title(content), on_progress)
        _replace_files(making, out)
    except OSError as error:
        raise StoreError(f"cannot write the report to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    for problem in problems:
        warnings.warn(problem, MissingReportFile, stacklevel=2)
    return out / "index.html"


def _replace_files(making: Path, out: Path) -> None:
    """Put the new files in the places of the earlier ones; forms that are not there any more go.

    The earlier page goes first and the new one comes last: whatever ends this process, a page stands among files of its
    own report only.
    """
    (out / "index.html").unlink(missing_ok=True)
    new = sorted((path for path in making.rglob("*") if path.is_file()), key=lambda path: path.name == "index.html")
    for path in new:
        target = out / path.relative_to(making)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    for name in FORMS.keys() - {path.name for path in new}:
        (out / name).unlink(missing_ok=True)


def _write_report_file(write_form: Callable[[Report, Path], None], report: Report, path: Path) -> str:
    """Write one file; gives why it is not there, where a library that only it needs is missing."""
    try:
        write_form(report, path)
    except ImportError as error:
        return f"{path.name} was not written: {error}; all other files are complete"
    return ""


def _write_sections_and_files(
    crew: TaskPool, content: Content, out: Path, title: str, on_progress: Callable[[str], None]
) -> list[str]:
    """All sections, and beside them what takes long: their figures, and the files; gives what is missing and why."""

    def start_file_tasks(report: Report, names: Iterable[str]) -> list[PendingTask]:
        return [
            crew.start(partial(_write_report_file, FORMS[name], report, out / name)) for name in FORMS if name in names
        ]

    subtitle = _report_subtitle(content)
    fonts = crew.start(pdf_fonts.build_common_font_subsets)
    files = start_file_tasks(Report(content, (), {}, title, subtitle, out), _DATA_FORMS)
    found: dict[Callable[[Content], Section], Section] = {}
    figures: list[PendingTask] = []
    # The figures of raw samples take longest to draw.
    for section in sorted(select_chapters(content), key=lambda section: section is not variability_section):
        found[section] = section(content)
        release_memory()  # a process that is forked now would keep what this one has freed
        plots = {b.plot.name: b.plot.figure for b in found[section].blocks if b.plot and b.plot.figure}
        if plots:
            pdf_fonts.add_cached_font_subsets(fonts.result())
        for names in crew.split_among_processes(list(plots)):
            some = {name: plots[name] for name in names}
            figures.append(crew.start(partial(figure_style.save_figures, some, out / "figures")))
        if found[section].blocks or found[section].finding:
            on_progress(found[section].title)
    written = [one for one in map(found.__getitem__, select_chapters(content)) if one.blocks or one.finding]
    report = Report(content, written, {}, title, subtitle, out)
    files += start_file_tasks(report, FORMS.keys() - _DATA_FORMS - _FIGURE_FORMS)
    drawn = run_tasks(figures, lambda done: on_progress(f"{done} of {len(figures)} batches of figures"))
    # The document takes longest.
    svgs = {name: svg for share in drawn for name, svg in share.items()}
    files += start_file_tasks(replace(report, svgs=svgs), _FIGURE_FORMS)
    problems = run_tasks(files, lambda done: on_progress(f"{done} of {len(files)} files"))
    return [problem for problem in problems if problem]


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """In this context garbage is looked for seldom: a figure has thousands of parts, which stay until it is drawn."""
    usual = gc.get_threshold()
    gc.set_threshold(50_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _write_comparison(report: Report, path: Path) -> None:
    if len(report.content.shown):
        table = tables.case_metrics_table(report.content.shown, report.content.system_names)
        if left := report.content.left_out:
            columns = [*table.columns, Column("cases_left_out")]
            table = Table(columns, [[*row, left] for row in table.rows])
        write_atomically(path, csv_table(table))


def _write_latex(report: Report, path: Path) -> None:
    write_atomically(path, latex.latex_tables(report.sections))
    write_atomically(path.with_name("report.tex"), latex.latex_document(report.title, path.name))


def _write_pdf(report: Report, path: Path) -> None:
    """The brief, and of each chapter what leads it."""
    shown = [replace(section, blocks=section.leading_blocks()) for section in report.sections]
    more = replace(report, subtitle=f"{report.subtitle} · all tables and further figures: appendix.pdf")
    _write_pdf_document(more, path, report.title, [section for section in shown if section.blocks or section.finding])


def _write_appendix(report: Report, path: Path) -> None:
    """All that stands behind the printed report."""
    rest = [replace(section, blocks=section.remaining_blocks(), finding="") for section in report.sections]
    _write_pdf_document(report, path, f"{report.title}: appendix", [section for section in rest if section.blocks])


def _write_pdf_document(report: Report, path: Path, title: str, sections: Sequence[Section]) -> None:
    # Most uses of this module write no document.
    from dlbench.report.forms import pdf

    attempts = report.content.attempts
    when = attempts["started_at"].max().to_pydatetime() if len(attempts) else datetime(1970, 1, 1, tzinfo=UTC)
    pdf.write_pdf(path, title, report.subtitle, sections, report.folder / "figures", when)


#: The files of a report beside its figures, and what writes each. A new form is a function and an entry.
FORMS: dict[str, Callable[[Report, Path], None]] = {
    "report.pdf": _write_pdf,
    "appendix.pdf": _write_appendix,
    "index.html": lambda report, path: write_atomically(path, html_page(report)),
    "metrics.csv": lambda report, path: write_atomically(path, tidy_csv_chunks(report.content.attempts)),
    "comparison.csv": _write_comparison,
    "report.md": lambda report, path: write_atomically(path, markdown_report(report.sections, report.title)),
    "tables.tex": _write_latex,
}
#: What needs no sections, and what needs figures; all others are tables.
_DATA_FORMS = {"metrics.csv", "comparison.csv"}
_FIGURE_FORMS = {"report.pdf", "appendix.pdf", "index.html"}


def _report_title(content: Content) -> str:
    if content.sides:
        a, b = sorted(content.sides.values(), key=lambda side: side.letter)
        return f"A/B test: {b.title} against {a.title}"
    names = list(content.system_names.values())
    machine = " and ".join(names) if len(names) <= 2 else f"{len(names)} systems"
    return f"Deep learning on {machine}" if names else "Deep learning"


def _report_subtitle(content: Content) -> str:
    if content.attempts.empty:
        count = training_store.read_trainings(content.sources)["run_id"].nunique()
        return units.count_text(count, "training") if count else "No results yet"
    versions = content.attempts[["suite", "suite_version"]].drop_duplicates().sort_values(["suite", "suite_version"])
    suites = [f"{name} v{version}" for name, version in versions.itertuples(index=False)]
    first, last = content.attempts["started_at"].min(), content.attempts["started_at"].max()
    days = f"{first:%Y-%m-%d}" if f"{first:%Y%m%d}" == f"{last:%Y%m%d}" else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    return f"Suite {', '.join(suites)} · measured {days}"
