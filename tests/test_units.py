"""How figures are printed."""

from __future__ import annotations

import pandas as pd
import pytest

from dlbench import units
from dlbench.report.chapters.tables import metric_column


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0042, "±0.42 %"), (0.25, "±25 %"), (1.0, "±100 %"), (330.0, "±> 100 %"), (None, "no ±")]
)
def test_an_interval_wider_than_its_value_says_no_more_than_that(fraction, text):
    assert units.half_width(fraction) == text


def test_a_column_of_intervals_says_the_same():
    column = metric_column("step_time_half_width", pd.Series([0.011, 330.0]), 3)
    assert [column.show(cell) for cell in (0.011, 330.0, None)] == ["1.1", "> 100", units.MISSING]
