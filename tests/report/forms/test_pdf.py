"""The report as a PDF: everything is in it, hard names do no harm, long tables are cut with a word, bytes are stable."""

import dataclasses
import re
import sys
from datetime import UTC, datetime

import pytest

from dlbench.report import build, forms
from dlbench.report.figures import figure_style
from dlbench.report.forms import parallel
from dlbench.suites.case import Case
from tests.fakes import decision
from tests.fakes import records as fakes
from tests.fakes.reports import build_report

# A machine may lack what only documents need.
pypdf = pytest.importorskip("pypdf")
pdf = pytest.importorskip("dlbench.report.forms.pdf", exc_type=ImportError)


def built(folder, records):
    build_report([fakes.fill(folder / "store", records)], folder / "report")
    return folder / "report" / "report.pdf"


#: The start of the latest attempt of `quick_pdf`.
BEGAN = datetime(2026, 12, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.fixture(scope="module")
def quick_pdf(tmp_path_factory):
    *records, last = fakes.quick()[:4]
    return built(tmp_path_factory.mktemp("pdf"), [*records, dataclasses.replace(last, started_at=BEGAN.isoformat())])


@pytest.fixture
def no_png(monkeypatch):
    """PNG takes a third of the time, and no document holds any."""
    monkeypatch.setattr(
        figure_style, "FILE_FORMATS", {kind: figure_style.FILE_FORMATS[kind] for kind in ("svg", "pdf")}
    )


def text_of(path):
    """The texts of the report, or of the report and its appendix, as a reader sees them."""
    files = [path, path.with_name("appendix.pdf")]
    # A line may be broken at invisible places.
    text = "\n".join(p.extract_text() for file in files for p in pypdf.PdfReader(file).pages)
    return text.replace("\u200b", "")


def test_every_chapter_is_in_an_outline_and_every_figure_on_a_page(quick_pdf):
    readers = [pypdf.PdfReader(file) for file in (quick_pdf, quick_pdf.with_name("appendix.pdf"))]
    chapters = re.findall(r"^## (.*)$", (quick_pdf.parent / "report.md").read_text(), re.MULTILINE)
    assert {entry.title for reader in readers for entry in reader.outline} == set(chapters)
    figures = {p.stem for p in (quick_pdf.parent / "figures").glob("*.pdf")}
    # Figures are drawn as they are, not as pictures: each is a form of its page.
    drawn = sum(len(_forms(page)) for reader in readers for page in reader.pages)
    assert drawn >= len(figures) > 5


def _forms(page):
    objects = page["/Resources"].get("/XObject", {})
    return [name for name in objects if objects[name]["/Subtype"] == "/Form"]


def test_a_report_is_short_and_its_appendix_holds_the_rest(tmp_path, no_png):
    path = tmp_path / "report" / "report.pdf"
    build_report(decision.fill(tmp_path), path.parent)
    assert len(pypdf.PdfReader(path).pages) <= 20
    brief = " ".join(page.extract_text() for page in pypdf.PdfReader(path).pages[:2])
    for words in ("In brief", "Best system per precision and mode", "Caveats of this comparison"):
        assert words in " ".join(brief.split())
    assert len((path.parent / "index.html").read_bytes()) < 3_000_000


def test_pages_are_numbered_landscape_and_hold_the_cases(quick_pdf):
    reader = pypdf.PdfReader(quick_pdf)
    for number, one in enumerate(reader.pages, 1):
        assert one.mediabox.width > one.mediabox.height
        assert f"{number} / {len(reader.pages)}" in one.extract_text()
    text = " ".join(text_of(quick_pdf).split())
    assert "`" not in text
    for word in ("LeNet-5", "AlexNet", "img/s", "The twelve rules of measurement", "dlbench run fake.toml"):
        assert word in text


def test_hard_names_are_drawn_or_boxed(tmp_path, no_png):
    hard = dataclasses.replace(fakes.GPU, hostname="机器 😀", device_name="Ωμέγα\x1b[31m\u202e" + fakes.HOSTILE)
    names = ("x" * 3000, "机器", "שלום", "[x] \\ {} $")
    records = [fakes.record(Case(n, device="cuda"), hard, i, warnings=(f"odd: {n}",)) for i, n in enumerate(names)]
    records.append(
        fakes.record(Case("vgg16", device="cuda"), number=9, status="crashed", error="\n".join(["word"] * 900))
    )
    text = text_of(built(tmp_path, records))
    assert "Ωμέγα" in text
    assert "□" in text
    assert "\x1b" not in text


def test_a_long_table_is_cut_says_so_and_has_its_headings_on_each_page(tmp_path, no_png):
    cases = [Case("lenet5", device="cuda", batch_size=i + 1) for i in range(pdf.MAX_ROWS + 5)]
    path = built(tmp_path, [fakes.record(c, number=i) for i, c in enumerate(cases)])
    assert f"These are the first {pdf.MAX_ROWS} of {pdf.MAX_ROWS + 5} rows" in " ".join(text_of(path).split())
    pages = pypdf.PdfReader(path.with_name("appendix.pdf")).pages
    holding = [text for text in (p.extract_text().replace("\u200b", "") for p in pages) if "-P batch_" in text]
    assert len(holding) > 1
    assert all("Measure it again" in " ".join(text.split()) for text in holding)


def test_a_report_without_any_result_has_a_document_as_well(tmp_path):
    assert "There are no results" in text_of(built(tmp_path, []))


def test_the_document_bears_the_time_of_the_latest_attempt_to_the_second(quick_pdf):
    assert pypdf.PdfReader(quick_pdf).metadata.creation_date == BEGAN.replace(microsecond=0)


def test_the_same_store_gives_the_same_bytes_in_every_form(quick_pdf, tmp_path):
    first = quick_pdf.parent
    build_report([first.parent / "store"], tmp_path)
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert {f.name for f in files} >= {*build.FORMS, "report.tex"}
    assert {f.suffix for f in files} >= {".svg", ".png", ".pdf"}
    for name in files:
        assert (first / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.parametrize("cores", [1, 2])
def test_without_its_library_all_but_the_pdf_is_written(tmp_path, monkeypatch, no_png, cores):
    monkeypatch.setattr(parallel, "_num_cores", lambda: cores)
    monkeypatch.setitem(sys.modules, "typst", None)
    monkeypatch.delitem(sys.modules, "dlbench.report.forms.pdf")
    monkeypatch.delattr(forms, "pdf")
    with pytest.warns(build.MissingReportFile, match=r"(report|appendix)\.pdf was not written: .*typst"):
        built(tmp_path, fakes.quick()[:1])
    assert {name for name in build.FORMS if (tmp_path / "report" / name).is_file()} == set(build.FORMS) - {
        "report.pdf",
        "appendix.pdf",
    }
