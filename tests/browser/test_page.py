"""The report in a real browser, from file://: quiet, alone, sortable, searchable, printable, and fit for a phone."""

import io
import re

import pypdf
import pytest

from tests.browser.conftest import Watched

pytestmark = pytest.mark.browser


def rows(page, table):
    """The texts of the visible rows of a table."""
    return page.eval_on_selector_all(
        f"{table} tbody tr:not([hidden])", "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )


def column(page, key):
    return page.eval_on_selector_all(
        f"#comparison tbody tr:not([hidden]) .{key}", "cells => cells.map(c => Number(c.dataset.value))"
    )


def header(page, key):
    """The button above a column of the comparison."""
    index = page.eval_on_selector(f"#comparison tbody .{key}", "cell => cell.cellIndex")
    return page.locator("#comparison thead th").nth(index)


def test_nothing_is_complained_of_and_nothing_is_fetched(opened):
    opened.page.wait_for_load_state("networkidle")
    assert opened.complaints == []
    assert opened.asked_for_more() == []


def test_every_figure_is_present_and_drawn(opened, report):
    drawn = opened.page.eval_on_selector_all(
        "figure svg", "all => all.map(s => [s.getBoundingClientRect().width, s.getBoundingClientRect().height])"
    )
    files = {path.stem for path in (report / "figures").iterdir()}
    assert len(drawn) == len(files) > 8
    assert all(width > 300 and height > 60 for width, height in drawn)


def test_every_figure_leads_to_records_or_runs_that_are_there(opened):
    targets = opened.page.eval_on_selector_all(
        "figure", "all => all.map(f => [...f.querySelectorAll('.records a')].map(a => a.getAttribute('href')))"
    )
    ids = set(opened.page.eval_on_selector_all("[id]", "all => all.map(e => '#' + e.id)"))
    assert all(targets)
    assert {target for links in targets for target in links} <= ids
    assert any(target.startswith("#run-") for links in targets for target in links)


def test_a_table_sorts_both_ways_and_says_so(opened):
    page = opened.page
    throughput = header(page, "throughput")
    throughput.locator("button").click()
    assert throughput.get_attribute("aria-sort") == "ascending"
    assert column(page, "throughput") == sorted(column(page, "throughput"))
    throughput.locator("button").press("Enter")
    assert throughput.get_attribute("aria-sort") == "descending"
    assert column(page, "throughput") == sorted(column(page, "throughput"), reverse=True)


def test_missing_numbers_stay_last(opened):
    page = opened.page
    energy = header(page, "energy_per_image")
    for _ in range(2):
        energy.locator("button").click()
        known = page.eval_on_selector_all(
            "#comparison tbody .energy_per_image", "cells => cells.map(c => 'value' in c.dataset)"
        )
        assert False in known
        assert known == sorted(known, reverse=True)


def test_a_table_filters_by_choice_and_by_word(opened):
    page = opened.page
    form = page.locator("#comparison form")
    everything = len(rows(page, "#comparison"))
    form.get_by_label("Network").select_option("VGG-16")
    chosen = rows(page, "#comparison")
    assert 0 < len(chosen) < everything
    assert all("VGG-16" in row for row in chosen)
    assert form.locator("output").inner_text().startswith(f"{len(chosen)} of {everything}")
    form.get_by_label("Network").select_option("all")
    form.get_by_label("Search").fill("googlenet")
    assert {row[1] for row in rows(page, "#comparison")} == {"GoogLeNet"}


def test_a_figure_enlarges_zooms_and_closes_by_keyboard_alone(opened):
    page = opened.page
    button = page.locator(".enlarge").first
    button.focus()
    page.keyboard.press("Enter")
    figure = page.locator("dialog[open] .canvas svg")
    width = figure.bounding_box()["width"]
    assert width > 400
    page.keyboard.press("+")
    assert figure.bounding_box()["width"] > width * 1.2
    page.keyboard.press("0")
    assert figure.bounding_box()["width"] == pytest.approx(width, abs=1)
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert button.evaluate("b => b === document.activeElement")


def test_a_row_leads_to_its_record(opened):
    page = opened.page
    link = page.locator("#comparison tbody .attempt_id a").first
    target = link.get_attribute("href").removeprefix("#")
    link.click()
    row = page.locator(f'[id="{target}"]')
    assert row.is_visible()
    assert "dlbench run" in row.inner_text()
    assert target.removeprefix("attempt-") in row.inner_text()
    assert page.evaluate("document.activeElement.id") == target


def test_a_figure_leads_to_its_records(opened):
    page = opened.page
    details = page.locator("#throughput .records").first
    details.evaluate("details => { details.open = false; }")
    details.locator("summary").click()
    link = details.locator("a").first
    assert link.is_visible()
    link.click()
    assert page.locator(f'[id="{page.evaluate("location.hash.slice(1)")}"]').is_visible()


def test_an_address_with_a_record_opens_it(opened, chromium, report):
    target = opened.page.locator("#comparison tbody .attempt_id a").first.get_attribute("href")
    context = chromium.new_context()
    page = context.new_page()
    page.goto((report / "index.html").as_uri() + target)
    assert page.locator(f'[id="{target.removeprefix("#")}"]').is_visible()
    context.close()


def test_the_page_prints(opened):
    pdf = opened.page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5


@pytest.mark.parametrize("scripts", [True, False])
def test_what_is_folded_is_not_printed_and_the_page_says_where_it_is(chromium, report, scripts):
    context = chromium.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto((report / "index.html").as_uri())
    printed = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4")))
    text = " ".join(" ".join(p.extract_text() for p in printed.pages).split())
    assert "Nonparametric intervals; the distributions are shown." not in text
    assert "appendix.pdf beside this page has them all" in text
    context.close()


@pytest.mark.parametrize("width", [390, 768])
def test_a_narrow_screen_needs_no_sideways_scrolling(chromium, report, width):
    context = chromium.new_context(viewport={"width": width, "height": 844}, is_mobile=width < 500, has_touch=True)
    page = Watched(context.new_page(), report).page
    page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    wide = page.evaluate(
        """width => [...document.querySelectorAll("body *")].filter(
            e => !e.closest(".table table, .drawing svg, .series, nav ol, .skip") && e.getBoundingClientRect().right > width + 1
        ).map(e => e.outerHTML.slice(0, 120))""",
        width,
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_light_and_dark_are_both_readable(chromium, report):
    """Contrast of text and ground at least 4.5, as WCAG 2.2 asks at level AA."""
    seen = set()
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme)
        page = Watched(context.new_page(), report).page
        colours = page.evaluate("""() => ["p", "td", "thead th button", ".note", "nav a", "figcaption"].map(s => {
            const part = document.querySelector("section " + s) || document.querySelector(s);
            let ground = part;
            while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
            return [s, getComputedStyle(part).color, getComputedStyle(ground).backgroundColor];
        })""")
        for selector, text, ground in colours:
            assert contrast(text, ground) >= 4.5, (scheme, selector, text, ground)
        seen.add(colours[0][2])
        context.close()
    assert len(seen) == 2


def contrast(first, second):
    """Ratio of relative luminances (WCAG 2.2, "contrast ratio")."""

    def luminance(colour):
        channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_screen_reader_finds_landmarks_captions_and_headers(opened):
    page = opened.page
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    assert page.locator("h1").count() == 1
    assert page.locator("table").count() == page.locator("table > caption").count()
    assert page.locator('thead th:not([scope="col"])').count() == 0
    assert page.locator("tbody tr").count() == page.locator('tbody th[scope="row"]').count()
    assert page.locator('svg[role="img"]:not([aria-label])').count() == 0
    unnamed = page.evaluate("""() => [...document.querySelectorAll("input, select")].filter(e => !e.labels.length)""")
    assert unnamed == []


def test_the_page_can_be_read_without_scripts(chromium, report):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((report / "index.html").as_uri())
    assert page.locator("#comparison tbody tr").count() > 50
    assert page.locator("figure svg").first.is_visible()
    context.close()
