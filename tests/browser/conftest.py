"""A real Chromium and a real report for the tests of this folder. They are collected only by `make test-browser`."""

import dataclasses
import os
import shutil

import pytest

from dlbench.suites.case import Case
from tests.fakes import bounds
from tests.fakes import records as fakes
from tests.fakes.reports import build_report

if not os.environ.get("DLBENCH_TEST_BROWSER"):
    collect_ignore_glob = ["test_*.py"]

#: Names that are hard on every form: markup, LaTeX, scripts that fonts lack, right to left, a lone bracket, no end.
HARD = (
    fakes.HOSTILE,
    r"\input{/etc/passwd} $x_1^2$ 100% & #1 ~ {}",
    "机器 Ωμέγα žluťoučký № 5 😀 שלום",
    "[optional] *starred* -- dashes --- ``quotes''",
    "a_very_long_name_without_any_gap_" * 4,
)


def several_systems():
    """Two systems and a third with hard names, failures and warnings among their cases."""
    hard = dataclasses.replace(
        fakes.GPU, hostname=HARD[0], device_name=HARD[1], cpu_model=HARD[2], details={HARD[3]: [HARD[4]]}
    )
    some = [r for r in fakes.classic() if r.case["batch_size"] in (16, 256)]
    odd = [
        fakes.record(Case(name, device="cuda"), hard, 700 + i, warnings=(f"odd: {name}",), energy_note=name)
        for i, name in enumerate((*HARD, "vgg16"))
    ]
    failed = [
        fakes.record(Case("vgg16", batch_size=2048 + i, device="cuda"), number=800 + i, status="crashed", error=name)
        for i, name in enumerate(HARD)
    ]
    scaling = [
        fakes.record(Case("resnet50", batch_size=64, device="cuda", devices_per_node=n), number=600 + n)
        for n in (1, 2, 4)
    ]
    return [*some, *fakes.quick(), *scaling, *odd, *failed]


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """The folder of a report of several systems with ceilings, profile and scaling, built once."""
    root = tmp_path_factory.mktemp("report")
    store = fakes.fill(root / "store", several_systems())
    bounds.add(store)
    return build_report([store], root / "report").parent


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            # In a container, as root, Chromium's own sandbox cannot start.
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


class Watched:
    """A page, and everything that it asked for or complained of."""

    def __init__(self, page, report, unfolded=True):
        self.page, self.complaints, self.requests = page, [], []
        self.address = (report / "index.html").as_uri()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.address)
        if unfolded:
            page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")

    def asked_for_more(self):
        """Every address beyond the page itself and what stands in it."""
        return [r for r in self.requests if r.partition("#")[0] != self.address and not r.startswith("data:")]


@pytest.fixture
def opened(chromium, report):
    """The report in a fresh window of a desktop."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield Watched(context.new_page(), report)
    context.close()
