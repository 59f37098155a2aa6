"""The published CNN table beside what is counted: every figure, and reasons whose arithmetic comes out right.

The facts are written by hand, so that the audit is tested apart from the modules.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import sys
import unicodedata
from dataclasses import dataclass

import pytest

from dlbench.errors import BadInput, UnknownName
from dlbench.facts import audit
from dlbench.facts.audit import (
    COUNTED_MODELS,
    MODEL_OF_NETWORK,
    audit_records_table,
    audit_rows,
    audit_table,
    differences_table,
    differing_rows,
    published_and_counted_table,
    read_published,
    rounds_to_published,
)
from dlbench.facts.layer_totals import LayerTotals, sum_layers
from dlbench.table import FORMATS, default_cell_text, render

GOOGLENET_FILTERS = (16, 24, 32, 48, 64, 96, 112, 128, 144, 160, 192, 208, 224, 256, 288, 320, 384)


def facts(side, conv, sizes, filters, fc, channels=3):
    squares = tuple((size, size) for size in sizes)
    return LayerTotals((channels, side, side), conv[0], squares, filters, conv[1], conv[2], *fc)


def by_hand() -> dict[str, LayerTotals]:
    floor = facts(224, (57, 5_966_272, 1_430_532_352), (1, 3, 5, 7), GOOGLENET_FILTERS, (1, 1_024_000, 1_024_000))
    return {
        "lenet5": facts(28, (2, 2_550, 357_600), (5,), (6, 16), (3, 58_920, 58_920), channels=1),
        "alexnet": facts(227, (5, 2_332_704, 665_784_864), (3, 5, 11), (96, 256, 384), (3, 58_621_952, 58_621_952)),
        "overfeat_fast": facts(
            231, (5, 15_984_672, 2_671_478_784), (3, 5, 11), (96, 256, 512, 1024), (3, 129_925_120, 129_925_120)
        ),
        "vgg16": facts(224, (13, 14_710_464, 15_346_630_656), (3,), (64, 128, 256, 512), (3, 123_633_664, 123_633_664)),
        "googlenet": dataclasses.replace(floor, conv_macs=1_581_647_872),
        "googlenet_floor": floor,
        "resnet50": facts(
            224, (53, 23_454_912, 3_855_925_248), (1, 3, 7), (64, 128, 256, 512, 1024, 2048), (1, 2_048_000, 2_048_000)
        ),
    }


def by_cell(counted=None):
    return {(row.metric, row.network): row for row in audit_rows(counted or by_hand())}


def numbers_of(text):
    """All whole numbers in a text, signs left out."""
    return [int(re.sub(r"\s", "", found)) for found in re.findall(r"\d+(?:\u202f\d{3})*", text)]


# Every figure


def test_every_published_figure_has_a_record():
    published = {
        (metric, network): figure for metric, row in read_published().items() for network, figure in row.items()
    }
    assert len(published) == 12 * 6 - 1  # LeNet-5 has no top-5 error
    assert {cell: row.published for cell, row in by_cell().items()} == published


def test_the_json_holds_every_published_figure_with_count_difference_and_reason():
    document = json.loads(audit_table(by_hand(), "json"))
    published = [(m, n, figure) for m, row in read_published().items() for n, figure in row.items()]
    assert [(r["metric"], r["network"], r["published"]) for r in document["rows"]] == published
    for record in document["rows"]:
        assert set(record) == {
            *("metric", "network", "model", "published", "counted"),
            *("difference", "relative_difference", "agrees", "reason"),
        }
        assert (record["reason"] is None) == (record["agrees"] is True)
        assert record["model"] in COUNTED_MODELS
    macs = next(r for r in document["rows"] if (r["metric"], r["model"]) == ("conv_macs", "vgg16"))
    assert macs["counted"] == 15_346_630_656
    assert (macs["difference"], macs["relative_difference"], macs["agrees"], macs["reason"]) == (0, 0.0, True, None)


def test_the_csv_holds_the_same_records_as_the_json():
    records = json.loads(audit_table(by_hand(), "json"))["rows"]
    rows = list(csv.DictReader(io.StringIO(audit_table(by_hand(), "csv"))))
    assert rows == [{k: "" if v is None else str(v) for k, v in record.items()} for record in records]


def test_exactly_the_lenet_row_and_googlenets_macs_differ():
    differ = {cell for cell, row in by_cell().items() if row.agrees is False}
    lenet = ("num_filters", "conv_macs", "fc_layers", "fc_weights", "fc_macs", "total_weights", "total_macs")
    googlenet = {("conv_macs", "GoogLeNet"), ("total_macs", "GoogLeNet")}
    assert differ == {(metric, "LeNet-5") for metric in lenet} | googlenet


def test_no_difference_is_unexplained():
    assert not [row for row in audit_rows(by_hand()) if row.agrees is False and "unexplained" in row.reason]


def test_top5_error_is_null_and_never_called_a_difference():
    rows = [row for row in audit_rows(by_hand()) if row.metric == "top5_error_percent"]
    assert [row.published for row in rows] == ["16.4", "14.2", "7.4", "6.7", "5.3"]
    for row in rows:
        assert (row.counted, row.difference, row.relative_difference, row.agrees) == (None, None, None, None)
        assert row.reason == "not checked: this value needs trained weights and ImageNet"


def test_the_difference_is_published_less_counted_and_relative_to_what_is_counted():
    row = by_cell()["conv_macs", "LeNet-5"]
    assert row.difference == 283_000 - 357_600
    assert row.relative_difference == pytest.approx(-0.2086, abs=1e-4)


def test_a_text_has_no_difference_in_numbers():
    row = by_cell()["num_filters", "LeNet-5"]
    assert (row.published, row.counted, row.difference, row.relative_difference) == ("20,50", "6,16", None, None)


# What agrees


@pytest.mark.parametrize(
    ("published", "counted", "verdict"),
    [
        ("2.3M", 2_332_704, True),
        ("2.6k", 2_550, True),  # half-way
        ("2.6k", 2_549, False),
        ("58k", 58_499, True),
        ("58k", 58_920, False),
        ("1.43G", 1_431_556_352, True),
        ("1.43G", 1_582_671_872, False),
        ("23.5M", 23_454_912, True),
        ("53", 53, True),
        ("53", 54, False),
        ("1M", 1_024_000, True),
        ("2.8G", 2_801_403_904, True),
        ("2.80G", 2_806_000_000, False),
    ],
)
def test_figures_agree_to_the_digits_printed(published, counted, verdict):
    assert rounds_to_published(published, counted) is verdict


def test_a_range_is_held_against_the_least_and_the_greatest():
    rows = by_cell()
    assert rows["num_filters", "GoogLeNet"].counted == "16-384"
    assert rows["num_filters", "ResNet-50"].counted == "64-2048"
    assert rows["filter_sizes", "OverFeat fast"].counted == "3,5,11"
    wider = by_hand()
    wider["vgg16"] = dataclasses.replace(wider["vgg16"], num_filters=(32, 64, 512))
    row = by_cell(wider)["num_filters", "VGG-16"]
    assert (row.counted, row.agrees, row.reason[:11]) == ("32-512", False, "unexplained")


def test_a_filter_that_is_not_square_shows_both_sides():
    counted = by_hand()
    counted["vgg16"] = dataclasses.replace(counted["vgg16"], filter_sizes=((1, 7), (3, 3)))
    assert by_cell(counted)["filter_sizes", "VGG-16"].counted == "1x7,3"


# The reasons, their arithmetic done again from the layers


MAPS_OF_S2_PER_MAP_OF_C3 = 6 * 3 + 9 * 4 + 1 * 6  # LeCun et al. 1998, Table I
CONNECTIONS = {
    "C1": 6 * (25 + 1) * 28**2,
    "S2": 6 * 14**2 * (4 + 1),
    "C3": (25 * MAPS_OF_S2_PER_MAP_OF_C3 + 16) * 10**2,
    "S4": 16 * 5**2 * (4 + 1),
    "C5": 120 * (400 + 1),
    "F6": 84 * (120 + 1),
    "output": 10 * 84,
}
PARAMETERS = {
    "C1": 6 * 26,
    "S2": 6 * 2,
    "C3": 25 * MAPS_OF_S2_PER_MAP_OF_C3 + 16,
    "S4": 16 * 2,
    "C5": 48_120,
    "F6": 10_164,
}
C5_F6 = {name: CONNECTIONS[name] for name in ("C5", "F6")}
LENET_PARTS = {
    "conv_macs": ({k: v for k, v in CONNECTIONS.items() if k not in C5_F6}, 282_624),
    "fc_layers": ({"C5": 1, "F6": 1}, 2),
    "fc_weights": (C5_F6, 58_284),
    "fc_macs": (C5_F6, 58_284),
    "total_weights": (PARAMETERS, 60_000),
    "total_macs": (CONNECTIONS, 340_908),
}


@pytest.mark.parametrize("metric", LENET_PARTS)
def test_each_lenet_figure_is_the_sum_of_the_parts_that_its_reason_names(metric):
    parts, total = LENET_PARTS[metric]
    row = by_cell()[metric, "LeNet-5"]
    assert sum(parts.values()) == total
    assert rounds_to_published(row.published, total)
    named = " + ".join(f"{name} {default_cell_text(value)}" for name, value in parts.items())
    assert f"{named} = {default_cell_text(total)}." in row.reason


@pytest.mark.parametrize("metric", LENET_PARTS)
def test_the_steps_of_each_reason_lead_from_the_counted_figure_to_the_exact_published_one(metric):
    row = by_cell()[metric, "LeNet-5"]
    total = LENET_PARTS[metric][1]
    start, steps = re.search(r"dlbench counts ([\d\u202f]+); ([^.]*) gives the published number\.", row.reason).groups()
    assert numbers_of(start) == [row.counted]
    amounts = [(-1 if sign == "−" else 1) * numbers_of(n)[0] for sign, n in re.findall(r"([+−])([\d\u202f]+)", steps)]
    assert row.counted + sum(amounts) == total


def test_the_steps_of_the_lenet_reasons_are_what_they_are_called():
    dense, sparse = 6 * 16, MAPS_OF_S2_PER_MAP_OF_C3
    reasons = {metric: {what: n for n, what in reason.steps} for metric, reason in audit._LENET_REASONS.items()}
    assert reasons["total_weights"] == {
        "weights missing in LeCun's sparsely connected layer C3": 25 * (sparse - dense),
        "biases": 6 + 16 + 120 + 84,
        "coefficients and biases of the sub-sampling S2 and S4": 2 * 6 + 2 * 16,
        "output layer, whose weights LeCun set by hand": -840,
    }
    lacking = {"connections missing in LeCun's sparsely connected layer C3": 25 * (sparse - dense) * 10**2}
    subsampling = {"sub-sampling S2 and S4": CONNECTIONS["S2"] + CONNECTIONS["S4"]}
    conv_biases = 6 * 28**2 + 16 * 10**2
    assert reasons["conv_macs"] == {**lacking, **subsampling, "biases of C1 and C3": conv_biases, "output layer": 840}
    assert reasons["total_macs"] == {**lacking, **subsampling, "biases of C1, C3, C5 and F6": conv_biases + 120 + 84}
    assert reasons["fc_weights"] == {"output layer": -840, "biases of C5 and F6": 120 + 84}


def test_the_2_6k_conv_weights_of_lenet_need_a_dense_c3():
    dense = 6 * 25 + 16 * 6 * 25
    assert dense == 2_550
    assert not rounds_to_published("2.6k", 6 * 25 + 25 * MAPS_OF_S2_PER_MAP_OF_C3)
    row = by_cell()["conv_weights", "LeNet-5"]
    assert (row.counted, row.agrees, row.reason) == (dense, True, None)
    assert "connected to all maps of S2 (150 + 2400 = 2550)" in by_cell()["total_weights", "LeNet-5"].reason


def test_the_filters_20_and_50_are_those_of_caffes_lenet():
    weights = (20 * 1 * 25, 50 * 20 * 25, 50 * 4**2 * 500, 500 * 10)
    macs = (weights[0] * 24**2, weights[1] * 8**2, *weights[2:])
    reason = by_cell()["num_filters", "LeNet-5"].reason
    for figure in (sum(weights[:2]), sum(macs[:2]), sum(weights), sum(macs)):
        assert figure in numbers_of(reason)
    assert (sum(weights[:2]), sum(macs[:2]), sum(weights), sum(macs)) == (25_500, 1_888_000, 430_500, 2_293_000)


INCEPTIONS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


@pytest.mark.parametrize(
    ("model", "sides"), [("googlenet", (56, 28, 14, 7)), ("googlenet_floor", (55, 27, 13, 6))], ids=str
)
def test_googlenets_macs_follow_from_the_maps_that_its_reason_names(model, sides):
    macs = 112**2 * 64 * 3 * 49 + sides[0] ** 2 * (64 * 64 + 64 * 192 * 9)
    for name, (c, one, three_reduce, three, five_reduce, five, pool) in INCEPTIONS.items():
        weights = c * (one + three_reduce + five_reduce + pool) + 9 * three_reduce * three + 25 * five_reduce * five
        macs += sides[int(name[0]) - 2] ** 2 * weights
    assert macs == by_hand()[model].conv_macs
    reason = by_cell()["conv_macs", "GoogLeNet"].reason
    assert set(sides) <= set(numbers_of(reason))


@pytest.mark.parametrize(("metric", "floor"), [("conv_macs", 1_430_532_352), ("total_macs", 1_431_556_352)])
def test_googlenets_published_macs_are_those_of_pooling_that_rounds_down(metric, floor):
    row = by_cell()[metric, "GoogLeNet"]
    assert rounds_to_published(row.published, floor)
    assert not rounds_to_published(row.published, row.counted)
    assert {floor, row.counted, row.counted - floor} <= set(numbers_of(row.reason))
    assert row.counted - floor == 151_115_520


def test_a_reason_is_not_given_where_its_arithmetic_does_not_come_out():
    counted = by_hand()
    counted["lenet5"] = dataclasses.replace(counted["lenet5"], conv_macs=360_000)
    counted["googlenet_floor"] = dataclasses.replace(counted["googlenet_floor"], conv_macs=1_500_000_000)
    rows = by_cell(counted)
    for cell in (("conv_macs", "LeNet-5"), ("total_macs", "LeNet-5"), ("conv_macs", "GoogLeNet")):
        assert rows[cell].reason.startswith("unexplained")
    assert "unexplained" not in rows["fc_macs", "LeNet-5"].reason


# Formats


def test_the_text_fits_120_columns_and_shows_both_figures_and_every_reason():
    text = audit_table(by_hand(), "text")
    assert max(map(len, text.splitlines())) <= 120
    flat = " ".join(text.split())
    rows = audit_rows(by_hand())
    for row in differing_rows(rows):
        assert " ".join(row.reason.split()) in flat
        assert f"published {row.published}; counted {default_cell_text(row.counted)}" in text
    for row in rows:
        assert row.published in text
        assert row.counted is None or default_cell_text(row.counted) in text
    assert "57 of 71 published figures agree after rounding, 9 differ; 5 (top-5 errors) are not checked" in text


def test_the_reasons_follow_the_width_of_a_narrow_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    text = audit_table(by_hand(), "text")
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert all(" ".join(row.reason.split()) in flat for row in differing_rows(audit_rows(by_hand())))


def test_each_number_in_the_table_leads_to_its_reason():
    table = published_and_counted_table(audit_rows(by_hand()))
    numbered = [cell for row in table.rows for cell in row if isinstance(cell, str) and cell.startswith("[")]
    assert sorted(int(cell[1]) for cell in numbered) == list(range(1, 10))
    reasons = {row[0]: row for row in differences_table(audit_rows(by_hand())).rows}
    for cell in numbered:
        assert cell[4:] == default_cell_text(reasons[int(cell[1])][4])


def test_the_markdown_has_rows_of_one_width_and_a_numbered_list():
    lines = audit_table(by_hand(), "markdown").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 12 * 2 - 1
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9}
    assert re.fullmatch(r"\|( :?-+:? \|)+", table[1])
    assert [line.split(".")[0] for line in lines if re.match(r"\d+\. ", line)] == [str(i) for i in range(1, 10)]
    assert not re.search(r"(?<!\\)\[\d\]", "\n".join(lines))


def test_the_latex_escapes_what_latex_would_read_and_balances():
    text = audit_table(by_hand(), "latex")
    for line in text.splitlines()[1:]:  # the first is a comment
        assert len(re.findall(r"(?<!\\)&", line)) == (7 if line.endswith(r"\\") else 0), line
        assert not re.search(r"(?<!\\)[%#_]", line), line
    assert r"Top-5 error [\%]" in text
    assert r"googlenet\_floor" in text
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert text.isascii(), {unicodedata.name(c) for c in text if not c.isascii()}
    assert text.count(r"\item ") == 9


@pytest.mark.parametrize("format", FORMATS)
def test_every_table_can_be_rendered_in_every_format(format):
    rows = audit_rows(by_hand())
    for table in (published_and_counted_table(rows), differences_table(rows), audit_records_table(rows)):
        assert render(table, format).endswith("\n")
    assert audit_table(by_hand(), format).endswith("\n")


@pytest.mark.parametrize("format", FORMATS)
def test_a_table_without_differences_lists_none(format):
    published = {"conv_layers": {"VGG-16": "13"}}
    text = audit_table(by_hand(), format, published)
    assert "13" in text
    assert "Differences and" not in text
    assert "enumerate" not in text


# Wrong input


def test_an_unknown_format_is_named_with_those_that_exist():
    with pytest.raises(UnknownName, match=r"unknown format 'html'.*latex"):
        audit_table(by_hand(), "html")


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"conv_layers": {"VGG-61": "13"}}, "unknown metric or network: conv_layers of VGG-61"),
        ({"conv_leyers": {"VGG-16": "13"}}, "unknown metric or network: conv_leyers of VGG-16"),
        ({"conv_macs": {"VGG-16": "15.3 billions"}}, "'15.3 billions' is not a number"),
    ],
)
def test_a_published_table_that_cannot_be_understood_is_refused(published, message):
    with pytest.raises(BadInput, match=message):
        audit_rows(by_hand(), published)


def test_every_network_of_the_published_table_is_counted():
    assert {network for row in read_published().values() for network in row} == set(MODEL_OF_NETWORK)


# Facts from layers


@dataclass(frozen=True)
class Row:
    kind: str
    weights: int
    macs: int
    M: int | None = None
    R: int | None = None
    S: int | None = None


def test_facts_are_the_sums_over_layers():
    rows = [
        Row("conv", 150, 117_600, 6, 5, 5),
        Row("conv", 2_400, 240_000, 16, 5, 5),
        Row("fc", 48_000, 48_000, 120),
        Row("fc", 10_080, 10_080, 84),
        Row("fc", 840, 840, 10),
    ]
    found = sum_layers(iter(rows), (1, 28, 28))
    assert found == by_hand()["lenet5"]
    assert (found.total_weights, found.total_macs) == (61_470, 416_520)


def test_a_transposed_convolution_counts_as_a_convolution():
    found = sum_layers([Row("conv_transposed", 8, 80, 2, 2, 3), Row("conv", 4, 40, 1, 2, 2)], (1, 8, 8))
    assert (found.conv_layers, found.conv_weights, found.conv_macs, found.fc_layers) == (2, 12, 120, 0)
    assert (found.filter_sizes, found.num_filters) == (((2, 2), (2, 3)), (1, 2))
