import json
import math

import numpy as np
import pandas as pd

from dlbench.report.forms import frame_json
from dlbench.report.forms.frame_json import json_row_chunks


def written(frame):
    return json.loads("[" + "".join(json_row_chunks(frame, of_json="protocol")) + "]")


def test_every_kind_of_cell_is_read_back_from_json(monkeypatch):
    monkeypatch.setattr(frame_json, "_ROWS_PER_PART", 2)  # three parts
    names = ["plain", 'a "quoted"\nline', "Ö", "\\", "%s"]
    shared = np.array(["busy_host: 3 %"], dtype=object)
    frame = pd.DataFrame(
        {
            "attempt_id": pd.Series(names, dtype="str"),
            "text": pd.Series([None, "b", "c", "d", "e"], dtype="str"),
            "step_s": [0.1, 1e-05, math.nan, math.inf, 1e22],
            "unknown": [math.nan] * 5,
            "repeat": range(5),
            "steady": pd.Series([True, False, None, True, True], dtype=object),
            "warnings": pd.Series([shared, shared, None, [], ["x", "y"]], dtype=object),
            "started_at": pd.to_datetime(
                ["2026-01-01T00:00:00.120Z", None, *["2026-01-02T00:00:00.000Z"] * 3], utc=True
            ),
            "protocol": pd.Series(['{"min_steps": 3}', *[None] * 4], dtype=object),
        }
    )
    rows = written(frame)
    assert [row["attempt_id"] for row in rows] == names
    assert [row["text"] for row in rows] == [None, "b", "c", "d", "e"]
    assert [row["step_s"] for row in rows] == [0.1, 1e-05, None, None, 1e22]
    assert [row["unknown"] for row in rows] == [None] * 5
    assert [row["repeat"] for row in rows] == list(range(5))
    assert [row["steady"] for row in rows] == [True, False, None, True, True]
    assert [row["warnings"] for row in rows] == [["busy_host: 3 %"]] * 2 + [None, [], ["x", "y"]]
    assert [row["started_at"] for row in rows][:3] == [
        "2026-01-01T00:00:00.120+00:00",
        None,
        "2026-01-02T00:00:00.000+00:00",
    ]
    assert [row["protocol"] for row in rows] == [{"min_steps": 3}, {}, {}, {}, {}]


def test_rows_that_are_all_alike_are_each_written():
    assert written(pd.DataFrame({"a": [math.nan] * 3, "b": ["x"] * 3})) == [{"a": None, "b": "x"}] * 3
