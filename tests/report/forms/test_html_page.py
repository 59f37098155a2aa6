"""The whole report: what it says, in all states of a store, and that nothing in a store can harm its reader."""

import dataclasses
import re
import shlex
from html.parser import HTMLParser

import pandas as pd
import pytest

from dlbench.__main__ import main
from dlbench.errors import StoreError
from dlbench.report import build
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.chapters.sections import SECTIONS
from dlbench.report.figures import figure_style
from dlbench.report.listings import summary
from dlbench.suites.case import PRECISIONS, Case
from tests.fakes import bounds
from tests.fakes import records as fakes
from tests.fakes.reports import build_report

IDS = [
    *(
        "summary",
        "comparison",
        "throughput",
        "step-time",
        "memory",
        "energy",
        "flop-time",
        "bounds",
        "variability",
        "scaling",
    ),
    *("projection", "published", "compute", "cnn-table", "failures", "method", "provenance"),
]


class Reader(HTMLParser):
    """Tags, their attributes and the plain text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(autouse=True, scope="module")
def only_svg():
    """PNG and PDF take most of the time; `test_plots.py` and `test_pdf.py` look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_style, "FILE_FORMATS", {"svg": figure_style.FILE_FORMATS["svg"]})
        for name in ("report.pdf", "appendix.pdf"):
            patch.delitem(build.FORMS, name)
        yield


def parse(html):
    reader = Reader()
    reader.feed(html)
    return reader


def built(tmp_path, records, **options):
    store = fakes.fill(tmp_path / "store", records)
    return build_report([store], tmp_path / "report", **options)


@pytest.fixture(scope="module")
def gpu_page(tmp_path_factory):
    cases = [c for c in fakes.classic() if c.case["batch_size"] in (16, 256) and c.case["precision"] != "tf32"]
    oom = fakes.record(Case("vgg16", batch_size=4096, device="cuda"), number=900, status="oom")
    return built(tmp_path_factory.mktemp("gpu"), [*cases, oom])


@pytest.fixture(scope="module")
def cpu_page(tmp_path_factory):
    return built(tmp_path_factory.mktemp("cpu"), fakes.quick())


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory):
    """With ceilings, all-reduces, a profile and scaling, so with figures of every chapter."""
    root = tmp_path_factory.mktemp("whole")
    several = [
        fakes.record(Case("resnet50", batch_size=64, device="cuda", devices_per_node=n), number=500 + n)
        for n in (1, 2, 4)
    ]
    fakes.fill(root / "store", [*fakes.quick(fakes.GPU), *several])
    bounds.add(root / "store")
    return build_report([root / "store"], root / "report")


def test_all_chapters_are_there_and_led_to(gpu_page):
    tags = parse(gpu_page.read_text()).tags
    assert [a["id"] for t, a in tags if t == "section"] == IDS
    links = [a["href"] for t, a in tags if t == "a" and not a["href"].startswith(("#content", "#attempt-"))]
    assert list(dict.fromkeys(links)) == [f"#{i}" for i in IDS]
    # One system stands beside no other, one day has no history, nothing was loaded, trained or tuned, no CPU measured, no limit set.
    assert len(SECTIONS) == len(
        [*IDS, "systems", "history", "pipeline", "convergence", "tuning", "plain-loop", "power"]
    )


def test_the_page_needs_nothing_from_outside(gpu_page, cpu_page):
    for html in (gpu_page.read_text(), cpu_page.read_text()):
        for tag, attributes in parse(html).tags:
            for name in ("src", "href", "action", "data", "poster"):
                assert not re.match(r"(https?:)?//", attributes.get(name) or ""), (tag, attributes)
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", html)


def test_figures_are_inline_have_words_and_lie_beside_the_page(gpu_page):
    tags = parse(gpu_page.read_text()).tags
    figures = [a for t, a in tags if t == "svg"]
    names = {p.stem for p in (gpu_page.parent / "figures").iterdir()}
    assert len(figures) == len(names) == 11
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in figures)


def test_every_case_and_every_figure_leads_to_records_that_are_there(gpu_page):
    html = gpu_page.read_text()
    tags = parse(html).tags
    ids = {a["id"] for _, a in tags if "id" in a}
    targets = [a["href"].removeprefix("#") for t, a in tags if t == "a" and a["href"].startswith("#attempt-")]
    assert set(targets) <= ids
    cases = pd.read_csv(gpu_page.parent / "comparison.csv")["attempt_id"]
    assert {f"attempt-{case}" for case in cases} <= set(targets)
    assert html.count("Records behind this figure") == html.count("<figure>")


_COUNTED = "Time of a training step by phase|Step times during the window|Step time against"


def test_a_figure_counts_those_records_alone_that_it_is_drawn_from(tmp_path):
    cases = [Case("lenet5", mode, batch_size=b) for mode in ("training", "inference") for b in (1, 8)]
    made = [
        fakes.record(dataclasses.replace(c, repeat=r), fakes.CPU, 4 * r + i)
        for r in (0, 1)
        for i, c in enumerate(cases)
    ]
    html = built(tmp_path, made).read_text()
    figures = re.findall(r"<figure>.*?</figure>", html, flags=re.DOTALL)
    behind = {
        found[0]: (int(re.search(r"behind this figure .(\d+)", figure)[1]), figure.count('href="#attempt-'))
        for figure in figures
        if (found := re.search(_COUNTED, figure))
    }
    # Both processes of the fastest training; of each mode the process in the middle; and all.
    assert behind == dict(zip(_COUNTED.split("|"), [(2, 2), (2, 2), (8, 8)], strict=True))


def test_every_figure_of_ceilings_profiles_and_scaling_leads_to_records_or_runs(whole_page):
    html = whole_page.read_text()
    names = {path.stem for path in (whole_page.parent / "figures").iterdir()}
    assert {"where_time_goes", "roofline-training-fp32", "all_reduce", "scaling_weak"} <= names
    tags = parse(html).tags
    ids = {a["id"] for _, a in tags if "id" in a}
    figures = re.findall(r"<figure>.*?</figure>", html, flags=re.DOTALL)
    assert len(figures) == len(names)
    for figure in figures:
        targets = re.findall(r'href="#((?:attempt|run)-[^"]+)"', figure)
        assert targets, figure[:200]
        assert set(targets) <= ids
    text = " ".join(" ".join(parse(html).text).split())
    store = whole_page.parent.parent / "store"
    assert f"{store}/ceilings/ceilings-c.parquet dlbench ceilings --device cuda --results {store}" in text
    assert f"{store}/profiles/p/profile.json dlbench profile resnet50 -P mode=training" in text
    assert "dlbench allreduce --nodes 1 --devices-per-node 4 --device cuda --backend nccl --min-bytes 4096" in text


def test_every_panel_of_a_whole_report_names_its_precision(whole_page):
    content = read_content([whole_page.parent.parent / "store"])
    with figure_style.plot_style():
        figures = [b.plot.figure for make in SECTIONS for b in make(content).blocks if b.plot and b.plot.figure]
    panels = [axes for figure in figures for axes in figure.axes if axes.get_visible()]
    titles = [axes.get_title(loc="left") for axes in panels]
    assert len(titles) > 20
    assert [title for title in titles if not any(precision in title for precision in PRECISIONS)] == []


def test_latex_holds_the_folded_tables_but_no_long_lists_of_provenance(whole_page):
    tables = (whole_page.parent / "tables.tex").read_text()
    for caption in (
        "Layers by time above their bound: ResNet-50",
        "Definition of every metric",
        "All-reduce: NVIDIA H200, all sizes",
    ):
        assert rf"\caption{{{caption}" in tables
    for caption in ("All attempts, with the commands to repeat them", "All properties of"):
        assert caption not in tables


def test_ids_are_unique(gpu_page, whole_page):
    for built_page in (gpu_page, whole_page):
        ids = [a["id"] for _, a in parse(built_page.read_text()).tags if "id" in a]
        assert len(ids) == len(set(ids))


def test_the_comparison_has_units_and_every_case(gpu_page):
    html = gpu_page.read_text()
    for heading in ("Throughput", "img/s", "Step time", "TFLOP/s", "% of datasheet peak", "GiB", "mJ/img"):
        assert heading in html
    rows = pd.read_csv(gpu_page.parent / "comparison.csv")
    assert len(rows) == 46
    assert rows["throughput"].notna().all()


def test_the_tidy_csv_has_every_attempt_and_every_metric(gpu_page):
    rows = pd.read_csv(gpu_page.parent / "metrics.csv")
    assert len(rows) == 49
    assert set(METRICS) <= set(rows.columns)
    assert rows.loc[rows["status"] == "oom", "throughput"].isna().all()


def test_a_failure_is_listed_with_reason_and_folder(gpu_page):
    text = " ".join(parse(gpu_page.read_text()).text)
    assert "out of memory: tried to allocate 12.3 GiB" in text
    assert re.search(r"attempts/20261120T153000-[0-9a-f]{12}/", text)


def test_every_record_has_a_command_to_repeat_it(cpu_page):
    text = " ".join(parse(cpu_page.read_text()).text)
    wanted = (
        "dlbench run fake.toml -P model=resnet50 -P mode=inference -P precision=fp32 -P batch_size=4 -P device=cpu "
        f"-P protocol.min_time_s=1.0 --fresh --results {cpu_page.parent.parent / 'store'}"
    )
    assert wanted in text


def test_every_metric_is_defined_and_every_rule_answered(cpu_page):
    text = " ".join(parse(cpu_page.read_text()).text).replace("\u00a0%", " %")
    for metric in METRICS.values():
        assert metric.description in text
    assert "No meter could be read: energies are missing, not 0." in text
    assert "12 of 12 cases reached the protocol's target" in text


def noisy(tmp_path):
    """A store of a noisy machine: few steps, uneven ones, nothing that met its target."""
    few = dict.fromkeys(("backward_s", "optimizer_s", "forward_s"), ())
    steps = {"vgg16": (3.0,), "alexnet": (2.0, 2.1, 2.2), "resnet50": (0.5, 0.5, 0.5, 0.5, 4.0), "lenet5": (9.0,) * 6}
    return [
        fakes.record(
            Case(name, device="cpu", batch_size=1), fakes.CPU, i, "unstable", step_s=step_s, window_s=sum(step_s),
            steady=False, **few,
        )
        for i, (name, step_s) in enumerate(steps.items())
    ]  # fmt: skip


def test_of_a_noisy_machine_nothing_sounds_surer_than_it_is(tmp_path):
    path = built(tmp_path, noisy(tmp_path))
    text = " ".join(" ".join(parse(path.read_text()).text).split())
    assert "2.00 img/s fp32, batch 1; unstable, not warmed up, uneven steps, 5 steps" in text
    assert "None of 4 cases has an interval" in text
    assert "uneven steps" in text
    assert "ResNet-50: 2.00 img/s computed from the median step, 0.833 img/s over the whole window" in text
    assert "0 of 4 cases reached the protocol's target" in text
    assert "4 of 4 cases reached the time limit of the warm-up first. partly" in text
    assert "time >= FLOP / peak" not in text
    assert "Too few steps to be drawn (fewer than 4): VGG-16 training (1), AlexNet training (3)." in text
    assert not re.search(r"\d m(img|FLOP)", text)
    rows = pd.read_csv(path.parent / "comparison.csv").set_index("model")
    assert list(rows["steps"]) == [6, 3, 1, 5]
    assert list(rows.columns[2:8]) == [
        "batch_size",
        "throughput",
        "status",
        "warnings",
        "steps",
        "sustained_throughput",
    ]
    assert all("not warmed up" in warnings for warnings in rows["warnings"])
    assert rows.loc[["VGG-16", "AlexNet"], "iqr"].isna().all()


def test_the_summary_marks_what_is_unstable(tmp_path):
    records = [fakes.record(Case(n, device="cuda"), number=i, status=s) for i, (n, s) in enumerate(_STANDING)]
    text = " ".join(" ".join(parse(built(tmp_path, records).read_text()).text).split())
    assert "AlexNet, training" in text  # ResNet-50 is unstable, AlexNet has the most work of the others
    assert "training: unstable" in text


_STANDING = (("resnet50", "unstable"), ("alexnet", "ok"), ("lenet5", "ok"))


def test_provenance_has_units_words_and_long_lists_apart(tmp_path):
    libraries = [f"/lib/{i}.so" for i in range(20)]
    system = dataclasses.replace(fakes.CPU, details={"libraries": libraries, "cudnn_benchmark": True})
    page_ = built(tmp_path, [fakes.record(Case("vgg16", device="cpu"), system)])
    text = " ".join(" ".join(parse(page_.read_text()).text).split())
    assert "Memory 8.00 GiB" in text
    assert "Changes not committed no" in text
    assert "cudnn_benchmark yes" in text
    assert "Libraries of AMD EPYC 7B13 (20)" in text
    assert "1 row of 1 attempt." in text


def test_the_page_says_why_the_audit_has_fewer_figures_than_the_terminal(cpu_page):
    text = " ".join(parse(cpu_page.read_text()).text)
    assert "`dlbench" not in text
    assert "dlbench table  builds the networks and also checks 12 numbers and sizes of filters" in text
    assert "46 of 59 published figures agree" in text


def test_a_cpu_without_meter_says_so(cpu_page):
    text = " ".join(parse(cpu_page.read_text()).text)
    assert "No energy meter on this system: RAPL is not readable in this virtual machine." in text
    assert "no datasheet peak known" in text


def test_hostile_texts_never_become_markup(tmp_path):
    system = dataclasses.replace(
        fakes.GPU, hostname=fakes.HOSTILE, device_name=fakes.HOSTILE, cpu_model="</style>" + fakes.HOSTILE,
        details={fakes.HOSTILE: [fakes.HOSTILE]},
    )  # fmt: skip
    harm = {"warnings": (f"{fakes.HOSTILE}: {fakes.HOSTILE}",), "energy_note": fakes.HOSTILE}
    records = [
        fakes.record(Case(fakes.HOSTILE, device="cuda"), system, 0, suite="--><script>", **harm),
        fakes.record(Case("vgg16", device="cuda"), system, 1, "crashed", error="</td></script>" + fakes.HOSTILE),
    ]
    path = built(tmp_path, records, title="</title>" + fakes.HOSTILE)
    tags = parse(path.read_text()).tags
    assert [t for t, _ in tags if t == "script"] == ["script"]
    assert not [t for t, _ in tags if t == "img"]
    assert not [a for _, a in tags if any(name.startswith("on") for name in a)]
    assert "49" not in parse(path.read_text()).text
    markdown = (path.parent / "report.md").read_text()
    assert "<script" not in markdown
    assert "<img" not in markdown
    for figure in (path.parent / "figures").glob("*.svg"):
        assert "<script" not in figure.read_text()


def test_an_empty_store_gives_a_report_that_says_so(tmp_path):
    path = built(tmp_path, [])
    text = " ".join(parse(path.read_text()).text)
    assert "There are no results" in text
    assert summary.terminal_summary(read_content([tmp_path / "store"])) == "no measured case: no records found\n"


def test_failed_cases_only_give_a_report_that_says_so(tmp_path):
    failed = [
        fakes.record(Case("vgg16", batch_size=i + 1, device="cuda"), number=i, status=status)
        for i, status in enumerate(("oom", "timeout", "crashed", "invalid", "preempted"))
    ]
    text = " ".join(parse(built(tmp_path, failed).read_text()).text)
    assert "0 of 5" in text
    assert "worker ended by signal 11 (segmentation fault)" in text
    assert summary.terminal_summary(read_content([tmp_path / "store"])) == "no measured case: 5 cases failed\n"


def test_two_systems_stand_side_by_side(tmp_path):
    records = [*fakes.quick(fakes.GPU)[:4], *fakes.quick(fakes.CPU)[:4]]
    path = built(tmp_path, records)
    rows = pd.read_csv(path.parent / "comparison.csv")
    assert set(rows["system"]) == {"NVIDIA H200", "AMD EPYC 7B13"}
    assert (path.parent / "figures" / "throughput.svg").is_file()
    assert (path.parent / "figures" / "memory-2.svg").is_file()
    assert "systems" in [a["id"] for t, a in parse(path.read_text()).tags if t == "section"]
    printed = summary.terminal_summary(read_content([tmp_path / "store"]))
    assert "NVIDIA H200" in printed
    assert "AMD EPYC 7B13" in printed


def test_a_case_of_several_ranks_is_one_row(whole_page):
    rows = pd.read_csv(whole_page.parent / "comparison.csv")
    assert sorted(rows["devices_per_node"])[-3:] == [1, 2, 4]
    assert len(rows) == len(fakes.quick(fakes.GPU)) + 3


@pytest.fixture(scope="module")
def odd_text(tmp_path_factory):
    """The text of a report of two cases with warnings, beside a part that cannot be read."""
    root = tmp_path_factory.mktemp("odd")
    said = {"warnings": ("short_window: the window of 0.2 s is short",), "throttle_reasons": ("power cap",)}
    records = [fakes.record(Case(n, device="cuda"), number=i, **said) for i, n in enumerate(("vgg16", "resnet50"))]
    store = fakes.fill(root / "store", records)
    (store / "broken.parquet").write_bytes(b"PAR1 no")
    return " ".join(parse(build_report([store], root / "report").read_text()).text)


def test_warnings_are_grouped_with_their_cases(odd_text):
    assert odd_text.count("the window of 0.2 s is short") == 1
    assert "short_window" in odd_text
    assert "throttled" in odd_text


def test_an_unreadable_part_is_named_and_the_rest_reported(odd_text):
    assert "unreadable part" in odd_text
    assert "broken.parquet" in odd_text
    assert "2 of 2" in odd_text


def test_a_source_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(StoreError, match="no results at"):
        build_report([tmp_path / "nowhere"], tmp_path / "report")


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(StoreError, match="cannot write the report"):
        built(tmp_path, fakes.quick()[:1])


def test_the_terminal_table_fits_its_terminal_and_has_units(tmp_path, monkeypatch):
    content = read_content([fakes.fill(tmp_path / "store", fakes.classic()[::7])])
    for width in (80, 120, None):
        monkeypatch.setattr(summary, "terminal_width", lambda width=width: width)
        printed = summary.terminal_summary(content)
        assert max(map(len, printed.splitlines())) <= (width or summary.DEFAULT_WIDTH)
        for word in ("img/s", "%", "ResNet-50", "amp_bf16"):
            assert word in printed


def test_a_command_that_the_terminal_table_advises_gives_what_it_leaves_out(tmp_path, capsys):
    records = [fakes.record(Case("lenet5", batch_size=size), fakes.CPU, size) for size in range(1, 50)]
    store = fakes.fill(tmp_path / "store", records)
    printed = summary.terminal_summary(read_content([store]))
    (command,) = re.findall(r"`dlbench ([^`]*)`", " ".join(printed.split()))
    assert main(shlex.split(command)) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(records)


def test_the_terminal_table_explains_a_missing_interval(tmp_path):
    records = [fakes.record(Case("lenet5", batch_size=size), fakes.CPU) for size in (1, 2)]
    (system, measured), *_ = records[0].ranks
    few = dataclasses.replace(measured, step_s=measured.step_s[:9])
    records[0] = dataclasses.replace(records[0], ranks=((system, few),))
    printed = summary.terminal_summary(read_content([fakes.fill(tmp_path / "store", records)]))
    assert "no confidence interval (±) in 1 case: fewer than 20 steps." in printed.splitlines()


def test_names_in_a_store_cannot_steer_the_terminal(tmp_path):
    bad = "\x1b[2J\x1b]0;owned\x07\u202e\nfaked row"
    system = dataclasses.replace(fakes.GPU, hostname=bad, device_name=f"card{bad}", cpu_model=bad)
    records = [
        fakes.record(Case(name, device="cuda"), system, number) for number, name in enumerate((f"net{bad}", "resnet50"))
    ]
    printed = summary.terminal_summary(read_content([fakes.fill(tmp_path / "store", records)]))
    assert "card [2J ]0;owned" in printed
    assert all(c.isprintable() or c in "\n\N{NARROW NO-BREAK SPACE}" for c in printed)
    assert not any(line.startswith("faked row") for line in printed.splitlines())


def test_two_processes_of_few_steps_lack_a_third_process(tmp_path):
    records = []
    for number in range(2):
        record = fakes.record(Case("lenet5", repeat=number), fakes.CPU, number)
        ((system, measured),) = record.ranks
        few = dataclasses.replace(measured, step_s=measured.step_s[:9])
        records.append(dataclasses.replace(record, ranks=((system, few),)))
    printed = summary.terminal_summary(read_content([fakes.fill(tmp_path / "store", records)]))
    assert "no confidence interval (±) in 1 case: fewer than 3 processes." in printed.splitlines()
