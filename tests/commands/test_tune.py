"""Bad input of `dlbench tune` is one line, before anything is measured."""

from __future__ import annotations

import pytest

from dlbench.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet5", "--budget", "soon"], "not a duration: 'soon'"),
        (["lenet5", "--budget", "0s"], "--budget 0s: must be above 0 s"),
        (["lenet5", "--mode", "trainning"], "unknown mode 'trainning'; did you mean 'training'?"),
        (["lenet5", "--for", "power"], "unknown goal 'power'; known: energy, throughput"),
        (["lenet5", "-P", "batch_size=8,16"], "batch_size has several values, but tune measures one case"),
        (["lenet5", "-P", "batch_sise=8"], "unknown axis 'batch_sise'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
