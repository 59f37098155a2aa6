"""How figures are printed."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from dlbench import units
from dlbench.report.chapters.tables import metric_column
from dlbench.table import Column, Table, half_width_cell, half_width_text, render


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0042, "±0.42 %"), (0.2, "±20 %"), (330.0, "±> 100 %"), (None, "no ±"), (math.nan, "no ±")]
)
def test_an_interval_is_a_half_width_or_so_wide_that_nothing_is_known(fraction, text):
    assert units.plus_minus_text(fraction) == text


@pytest.mark.parametrize("reach", [1.25, 1.4, 2.0, 5.0])
def test_a_wide_interval_in_logarithms_is_shown_by_both_ends(reach):
    down, up = units.number_text(100 * (1 - 1 / reach), 2), units.number_text(100 * (reach - 1), 2)
    assert down != up
    assert units.plus_minus_text((reach - 1 / reach) / 2) == f"−{down} to +{up} %"
    assert units.plus_minus_text((reach - 1 / reach) / 2, (1 / reach, reach)) == f"−{down} to +{up} %"


def test_both_ends_of_an_interval_that_are_equally_far_stay_one_number():
    assert units.plus_minus_text(0.4, (0.6, 1.4)) == "±40 %"
    assert units.plus_minus_text(0.4, (0.71, 1.51)) == "−29 to +51 %"
    # A median of two processes may lie outside of an interval that was made of other ones.
    assert units.plus_minus_text(0.4, (1.1, 1.9)) == "+10 to +90 %"


def test_a_column_of_intervals_says_the_same_and_keeps_its_numbers():
    column = metric_column("step_time_half_width", pd.Series([0.011, 330.0]), 3)
    wide = half_width_cell(0.343, 200.0, 142.8, 280.0)
    assert [column.show(cell) for cell in (0.011, 330.0, wide, None)] == ["1.1", "> 100", "−29 to +40", units.MISSING]
    assert half_width_text(wide) == "−29 to +40 %"
    table = Table([Column("half_width", "±", "right", half_width_text)], [[wide]])
    assert render(table, "csv") == "half_width\n0.343\n"
    assert json.loads(render(table, "json"))["rows"] == [{"half_width": 0.343}]
