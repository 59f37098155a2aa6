"""The list of layers, the catalogue and the audit as tables, of the real modules."""

from __future__ import annotations

import csv
import io
import json

import pytest

from dlbench.facts.audit import COUNTED_MODELS, audit_rows, audit_table
from dlbench.report.listings.networks import layers_table, models_table
from dlbench.suites.catalog import CATALOG
from dlbench.table import FORMATS, bytes_text, quantity_format, render
from dlbench.units import MISSING
from dlbench.worker.counting.layers import network_layers
from tests.models.counting import built, counted_facts, counted_layers


@pytest.fixture(scope="module")
def alexnet():
    return layers_table("alexnet", counted_layers("alexnet"))


def sums_of(table):
    return dict(zip((column.key for column in table.columns), table.sums, strict=True))


def test_one_row_per_layer_and_the_sums(alexnet):
    rows, total = alexnet.records(), sums_of(alexnet)
    assert [row["name"] for row in rows] == [row.name for row in counted_layers("alexnet")]
    assert total["name"] == "total"
    assert (total["weights"], total["macs"]) == (60_954_656, 724_406_816)
    assert total["forward_flop"] + total["backward_flop"] == CATALOG["alexnet"].training_flop
    assert total["forward_bytes"] == sum(row["forward_bytes"] for row in rows)
    assert total["M"] is total["stride"] is None


def test_machines_get_exact_figures(alexnet):
    second = list(csv.DictReader(io.StringIO(render(alexnet, "csv"))))[1]
    expected = {"M": 256, "C": 96, "H": 27, "W": 27, "R": 5, "S": 5, "P": 27, "Q": 27, "groups": 2, "stride": 1}
    assert {key: int(second[key]) for key in expected} == expected
    assert int(second["macs"]) == 223_948_800
    assert json.loads(render(alexnet, "json"))["rows"][1]["macs"] == 223_948_800


def test_people_get_units(alexnet):
    text = render(alexnet, "text")
    assert "alexnet: 8 layers" in text
    assert "211 MFLOP" in text  # of the first layer
    assert "144 MiB" in text  # of the first fully connected one's weights


def test_a_stride_that_differs_by_axis_is_shown_whole():
    import torch
    from torch import nn

    from dlbench.models import BuiltModel

    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(1, 2, 3, stride=(1, 2)), nn.Flatten(), nn.Linear(2 * 6 * 3, 10))
    rows = network_layers(BuiltModel(module, (1, 8, 8), 10, "tiny"))
    assert [row["stride"] for row in layers_table("tiny", rows).records()] == ["1x2", 1]


def test_work_without_a_layer_of_its_own_has_no_letters():
    table = layers_table("vit_b_32", network_layers(built("vit_b_32")))
    attention = next(row for row in table.records() if row["kind"] == "other")
    assert attention["M"] is attention["stride"] is None
    assert attention["macs"] > 0


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_renders(alexnet, form):
    assert render(alexnet, form).endswith("\n")
    assert render(models_table(), form).endswith("\n")


def test_parameters_are_shown_with_and_without_auxiliary_heads():
    rows = {row["name"]: row for row in models_table().records()}
    assert rows.keys() == CATALOG.keys()
    assert (rows["googlenet"]["num_inference_parameters"], rows["googlenet"]["parameters"]) == (6_998_552, 13_378_280)
    assert rows["resnet50"]["num_inference_parameters"] == rows["resnet50"]["parameters"] == 25_557_032


def test_columns_show_numbers_with_their_unit_and_nothing_as_a_dash():
    assert quantity_format("FLOP")(4_136_000_000) == "4.14 GFLOP"
    assert bytes_text(2**30) == "1.00 GiB"
    assert quantity_format("FLOP")(None) == bytes_text(None) == MISSING


def test_the_audit_of_the_real_modules_leaves_no_difference_unexplained():
    rows = audit_rows({name: counted_facts(name) for name in COUNTED_MODELS})
    different = [row for row in rows if row.agrees is False]
    assert different
    assert all(row.reason and "unexplained" not in row.reason for row in different)
    assert all(row.counted is not None for row in rows if row.metric != "top5_error_percent")


@pytest.mark.parametrize("form", FORMATS)
def test_the_audit_of_the_real_modules_renders_in_every_format(form):
    assert "unexplained" not in audit_table({name: counted_facts(name) for name in COUNTED_MODELS}, form)


def test_a_row_with_what_is_not_counted_names_it_and_has_no_total_of_nothing():
    from dlbench.worker.counting.layers import layers

    table = layers_table("spectrum", layers("tests.worker.networks.counted:Spectrum"))
    (mixing, head), total = table.records(), sums_of(table)
    assert (mixing["macs"], mixing["forward_flop"], mixing["uncounted"]) == (None, None, "_fft_r2c")
    assert (head["macs"], head["uncounted"]) == (330, None)
    assert (total["macs"], total["uncounted"]) == (330, "_fft_r2c")
    total = sums_of(layers_table("spectrum", layers("tests.worker.networks.counted:OnlySpectrum")))
    assert (total["macs"], total["forward_flop"], total["backward_flop"]) == (None, None, None)


def test_work_done_once_is_in_the_row_of_one_image():
    from dlbench.worker.counting.layers import layers

    table = layers_table("made", layers("tests.worker.networks.counted:MadeWeights"))
    (made, _), total = table.records(), sums_of(table)
    assert made["macs"] == 512 * 128 * 64 + 64 * 512
    assert total["forward_flop"] == 2 * (512 * 128 * 64 + 64 * 512 + 5120)
