"""The file of a user's own mix of work: read whole, or refused in one line."""

import pytest

from dlbench.errors import BadInput, DlbenchError
from dlbench.report.analysis.workload_mix import WorkShare, read_workload_mix


def mix(tmp_path, text):
    path = tmp_path / "mix.toml"
    path.write_text(text)
    return read_workload_mix(path)


def test_work_is_read_with_and_without_mode_and_precision(tmp_path):
    text = '[[work]]\nmodel = "resnet50"\nmode = "training"\nprecision = "fp32"\nshare = 70\n[[work]]\nmodel = "vgg16"\nshare = 30'
    assert mix(tmp_path, text) == (WorkShare("resnet50", 70.0, "training", "fp32"), WorkShare("vgg16", 30.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no \[\[work\]\]"),
        ("work = 3", "must be tables"),
        ("[[work]]\nmodel = 'a'", "share is missing"),
        ("[[work]]\nmodel = 'a'\nshare = 0", "above 0"),
        ("[[work]]\nmodel = 'a'\nshare = nan", "must be a number"),
        ("[[work]]\nmodel = 'a'\nshare = true", "must be a number"),
        ("[[work]]\nmodel = 'a'\nshare = 1\nmode = 'trainin'", "training"),
        ("[[work]]\nmodel = 'a'\nshare = 1\nmodle = 'x'", "model"),
        ("[[work", "not valid TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises((BadInput, DlbenchError), match=message) as caught:
        mix(tmp_path, text)
    assert "\n" not in str(caught.value)
