"""The brief of three systems in a real browser: the answer on the first screen, figures that answer when pointed at."""

import io

import pypdf
import pytest

from dlbench.report import build
from dlbench.report.analysis.content import read
from tests.browser.conftest import Watched
from tests.fakes import decision

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def choice(tmp_path_factory):
    root = tmp_path_factory.mktemp("decision")
    return build.write(read(decision.fill(root), prices=decision.PRICES), root / "report").parent


@pytest.fixture
def page(chromium, choice):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context.new_page(), choice, unfolded=False)
    yield watched.page
    assert watched.complaints == []
    assert watched.asked_for_more() == []
    context.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_answers_the_question(chromium, choice, width, height, scheme):
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = Watched(context.new_page(), choice, unfolded=False).page
    answer = page.locator(".lede").first
    assert "Birch is fastest in amp_bf16 training" in answer.inner_text()
    assert answer.bounding_box()["y"] + answer.bounding_box()["height"] < height
    context.close()


def test_pointing_at_a_part_of_a_figure_tells_its_value_and_a_click_goes_to_its_record(page):
    mark = page.locator("#summary .mark").first
    mark.hover()
    tip = page.locator(".tip")
    assert tip.is_visible()
    assert "times Alder, 95 % interval" in tip.inner_text()
    mark.click()
    assert page.evaluate("location.hash").startswith("#attempt-")
    assert page.evaluate("document.activeElement.id") == page.evaluate("location.hash.slice(1)")
    assert page.locator("dialog[open]").count() == 0


def test_a_part_of_a_figure_is_reached_by_keyboard(page):
    page.locator("#summary .mark").first.focus()
    assert page.locator(".tip").is_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash").startswith("#attempt-")


def test_a_system_can_be_taken_out_of_the_figure(page):
    button = page.locator("#summary .series button", has_text="Cedar")
    # A bar that lies flat has no height, and counts as invisible: its mark stands for both.
    marks = page.locator('#summary svg .mark[data-series="Cedar"]')
    assert marks.first.is_visible()
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert not marks.first.is_visible()
    parts = page.locator('#summary svg [data-series="Cedar"]')
    assert parts.evaluate_all("all => all.every(part => getComputedStyle(part).display === 'none')")
    assert page.locator('#summary svg .mark[data-series="Birch"]').first.is_visible()


def test_runs_of_a_case_unfold_in_its_row(page):
    page.eval_on_selector("#comparison > details", "d => { d.open = true; }")
    runs = page.locator("#comparison td.runs").first
    assert runs.inner_text().strip() == "3"
    runs.locator("summary").click()
    assert runs.locator("a").count() == 3


def test_the_printed_page_is_short_and_repeats_the_heads_of_tables(page):
    printed = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4")))
    assert len(printed.pages) <= 20
    assert "Birch is fastest" in " ".join(printed.pages[0].extract_text().split())


def test_a_small_table_reads_as_cards_on_a_phone(chromium, choice):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = Watched(context.new_page(), choice, unfolded=False).page
    cell = page.locator("#summary .cards td[data-label='Fastest']").first
    assert cell.evaluate("c => getComputedStyle(c, '::before').content") == '"Fastest"'
    assert cell.bounding_box()["width"] < 390
    context.close()


def test_the_page_is_one_file_of_less_than_three_megabytes(choice):
    assert (choice / "index.html").stat().st_size < 3_000_000
