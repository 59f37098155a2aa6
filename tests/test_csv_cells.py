import csv
import io

import numpy as np
import pandas as pd
import pytest

from dlbench.csv_cells import escape_formula
from dlbench.report.forms.frame_csv import csv_chunks
from dlbench.table import Column, Table, render

HOSTILE = (
    "=1+1",
    "@SUM(A1)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "\t=1",
    "\r=1",
    '=HYPERLINK("http://x","y")',
    "＝1",
    "-inf-",
    "+-1",
)
PLAIN = ("", "resnet50", "-1.5", "+3", "-2e-05", "a=b", "1-2", "'quoted", "10 %")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_spreadsheet_would_run_stands_behind_an_apostrophe(text):
    assert escape_formula(text) == "'" + text


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_and_numbers_stay_as_they_are(text):
    assert escape_formula(text) == text


def cells(text):
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_writer_of_csv_lets_a_formula_through(text):
    frame = pd.DataFrame({"label": [text, "b"], "value": [-1.5, -np.inf], "all": [text, text]})
    assert cells("".join(csv_chunks(frame, list(frame)))) == [
        ["label", "value", "all"],
        ["'" + text, "-1.5", "'" + text],
        ["b", "-inf", "'" + text],
    ]
    table = Table([Column(text), Column("n")], [[text, -1.5], ["b", -3]])
    assert cells(render(table, "csv")) == [["'" + text, "n"], ["'" + text, "-1.5"], ["b", "-3"]]
