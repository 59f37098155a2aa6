"""Trainings: the target is met, or the record says how near they came; curves and tables of what is stored."""

from __future__ import annotations

import dataclasses
import math
import re
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dlbench.data import digits
from dlbench.errors import BadInput, UnknownName
from dlbench.exit_codes import INTERRUPTED
from dlbench.report.chapters.convergence import convergence_section, training_table, write_training_curves
from dlbench.results import store, training_store
from dlbench.results.training_records import TrainingRun
from dlbench.suites.training import Training, load_trainings
from dlbench.worker.jobs.train import train_network
from tests.worker.conftest import NETWORKS

pytest.importorskip("sklearn")


def named(run, number=0):
    return dataclasses.replace(run, run_id=f"run-{number}", suite="s", started_at=f"2026-01-01T00:00:0{number}+00:00")


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_a_network_learns_the_digits_to_97_percent(model):
    run = train_network(Training(model, optimizer="adam", max_epochs=40))
    assert (run.status, run.num_training, run.num_validation) == ("reached", 1437, 360)
    assert run.best_value >= 0.97
    assert run.validation_accuracy[-1] == run.best_value
    assert len(run.epoch_s) == run.epochs_to_target
    assert run.time_to_target_s == run.epoch_s[-1] > 0
    assert run.training_loss[-1] < run.training_loss[0]


def test_a_frozen_network_starts_from_saved_weights_and_trains_its_last_layer_alone(tmp_path):
    path = str(tmp_path / "lenet5.pt")
    full = train_network(Training("lenet5", optimizer="adam", max_epochs=3, save_weights=path))
    frozen = train_network(Training("frozen:lenet5", optimizer="adam", max_epochs=1, weights=path))
    assert frozen.trained_parameters == 84 * 10 + 10 < full.trained_parameters
    assert frozen.best_value > full.validation_accuracy[0]
    anew = train_network(Training("frozen:lenet5", optimizer="adam", max_epochs=1))
    assert anew.best_value < frozen.best_value
    with pytest.raises(BadInput, match="cannot be read"):
        train_network(Training("lenet5", weights=str(tmp_path / "nothing.pt")))


def test_a_target_that_is_never_met_is_a_record_with_the_best_value():
    run = train_network(Training("mlp", target_value=1.01, max_epochs=2))
    assert (run.status, run.time_to_target_s, len(run.epoch_s)) == ("not_reached", None, 2)
    assert 0.1 < run.best_value < 1


def test_a_loss_that_is_not_finite_ends_the_training():
    run = train_network(Training("mlp", learning_rate=1e12, max_epochs=5))
    assert run.status == "diverged"
    assert len(run.epoch_s) < 5


def test_equal_seeds_give_equal_curves_and_dropout_another():
    setting = Training("mlp", max_epochs=1, target_value=1.0)
    first, second = train_network(setting), train_network(setting)
    assert first.validation_loss == second.validation_loss
    dropped = train_network(dataclasses.replace(setting, dropout=0.4))
    assert dropped.validation_loss != first.validation_loss


def test_an_autoencoder_learns_by_its_loss():
    setting = Training("conv_autoencoder", optimizer="adam", target_metric="loss", target_value=0.0, max_epochs=2)
    run = train_network(setting)
    assert run.validation_loss[1] < run.validation_loss[0]
    assert run.validation_accuracy == ()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Training("lenet5", dropout=0.2), "'lenet5' has no dropout layer"),
        (Training("resnet18"), "the built-in images of digits have shape 1 x 28 x 28"),
        (Training("lstm_lm"), "takes no images"),
        (Training("conv_autoencoder"), 'set target_metric = "loss"'),
        (Training("lenet5", data="/nowhere"), "the folder does not exist"),
    ],
)
def test_what_does_not_fit_together_is_one_line(setting, message):
    with pytest.raises(BadInput) as caught:
        train_network(setting)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def images(tmp_path):
    """Folders train and val with four images of two classes each."""
    for part in ("train", "val"):
        for i in range(4):
            file = tmp_path / "images" / part / f"class_{i % 2}" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (40, 40), 60 * i).save(file)
    return tmp_path / "images"


def train_on(folder):
    return train_network(Training("mlp", data=str(folder), max_epochs=1, target_value=1.01))


def test_files_are_trained_on_and_broken_ones_named_even_if_they_fill_no_batch(images):
    (images / "val" / "class_1" / "3.jpg").write_bytes(b"no image")
    run = train_on(images)
    assert (run.num_training, run.num_validation, len(run.epoch_s)) == (4, 4, 1)
    (warning,) = (w for w in run.warnings if w.startswith("broken_images: 1 files"))
    assert "val/class_1/3.jpg" in warning


def test_text_files_beside_the_images_are_left_out_and_counted(images):
    for place in (images / "train", images / "val" / "class_0"):
        (place / "labels.txt").write_text("0 1")
    run = train_on(images)
    assert run.num_training == 4
    assert any(w.startswith("other_files: 2 files or folders are not JPEG") for w in run.warnings)


def test_folders_of_other_classes_are_one_line(images):
    (images / "val" / "class_0").rename(images / "val" / "class_2")
    with pytest.raises(BadInput, match="train and val must have the same folders; only one has 'class_0'"):
        train_on(images)


def test_digits_need_a_network_of_ten_classes(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(NETWORKS)])
    with pytest.raises(BadInput, match="the digits have labels of 10 classes, but odd_networks:two_classes has 2"):
        train_network(Training("odd_networks:two_classes"))


def test_switches_that_a_networks_code_changes_are_reset_and_named(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(NETWORKS)])
    run = train_network(Training("odd_networks:tf32", max_epochs=1))
    assert any(w.startswith("settings_reset: ") and "matrix product is tf32" in w for w in run.warnings)


def test_in_fp16_the_scale_of_the_loss_is_kept_from_epoch_to_epoch(monkeypatch):
    made = []
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a: made.append(scaler(*a)) or made[-1])
    train_network(Training("mlp", precision="amp_fp16", max_epochs=2, batch_size=512, target_value=1.01))
    assert len(made) == 1


def test_without_scikit_learn_one_is_told_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(BadInput, match="pip install scikit-learn"):
        digits.load_digits()


def test_what_is_stored_is_read_again_with_its_table_and_figures(tmp_path):
    runs = [train_network(Training("mlp", optimizer=o, max_epochs=2, target_value=0.5)) for o in ("sgd", "adam")]
    for i, run in enumerate(runs):
        kept = named(run, i)
        assert TrainingRun.from_json(kept.to_json()) == kept
        training_store.write_training(tmp_path, kept)
    (tmp_path / "trainings" / "training-broken.parquet").write_bytes(b"x")
    with pytest.warns(store.SkippedPart, match="training-broken.parquet"):
        epochs = training_store.read_trainings([tmp_path, tmp_path / "nowhere"])
    assert store.find_parts_with_warnings(tmp_path) == []
    assert len(epochs) == sum(len(run.epoch_s) for run in runs)
    assert epochs.loc[epochs["run_id"] == "run-0", "validation_loss"].tolist() == list(runs[0].validation_loss)
    older = tmp_path / "trainings" / "training-run-0.parquet"
    pq.write_table(pq.read_table(older).drop_columns(["weights", "save_weights"]), older)
    with pytest.warns(store.SkippedPart):
        epochs = training_store.read_trainings([tmp_path])
    table = training_table(epochs)
    assert [row[1] for row in table.rows] == ["adam", "sgd"]
    assert [path.name for path in write_training_curves(epochs, tmp_path)] == [
        "convergence_loss.svg",
        "convergence_accuracy.svg",
    ]
    assert len(convergence_section(epochs).blocks) == 4
    assert not convergence_section(training_store.read_trainings([])).blocks


def test_results_of_trainings_alone_give_a_report(tmp_path):
    run = named(train_network(Training("mlp", optimizer="sgd", max_epochs=1, target_value=0.5)), 0)
    training_store.write_training(tmp_path / "results", run)
    command = [sys.executable, "-m", "dlbench", "report", str(tmp_path / "results"), "-o", str(tmp_path / "report")]
    subprocess.run(command, check=True, capture_output=True)
    page = (tmp_path / "report" / "report.md").read_text()
    assert "1 of 1 training reached the target; MLP with sgd was the fastest" in page
    assert re.findall(r"^## (.*)", page, re.MULTILINE) == ["In brief", "Convergence"]


def test_a_suites_lists_multiply_and_options_replace_them(tmp_path):
    (tmp_path / "s.toml").write_text(
        '[axes]\nmodel="x"\n[train]\nmodel=["mlp"]\noptimizer=["sgd","adam"]\nmax_epochs=3\n'
    )
    name, found = load_trainings(str(tmp_path / "s.toml"), ["dropout=0,0.2", "seed=1"])
    assert (name, len(found)) == ("s", 4)
    assert {(t.optimizer, t.dropout, t.seed, t.max_epochs) for t in found} == {
        (o, d, 1, 3) for o in ("sgd", "adam") for d in (0.0, 0.2)
    }
    assert all(math.isclose(t.learning_rate_or_default, {"sgd": 0.02, "adam": 1e-3}[t.optimizer]) for t in found)


@pytest.mark.parametrize(
    ("text", "override", "error"),
    [
        ("[axes]\nmodel='x'\n", "", "has no table [train]"),
        ("[train]\nmodel='mlp'\noptimiser='sgd'\n", "", "did you mean 'optimizer'"),
        ("[train]\nmodel='mlp'\noptimizer='sdg'\n", "", "did you mean 'sgd'"),
        ("[train]\nmodel='mlp'\nmax_epochs=0\n", "", "must be at least 1"),
        ("[train]\nmodel='mlp'\n", "max_epochs=many", "must be a whole number"),
        ("[train]\nmodel='mlp'\n", "epochs=3", "unknown key 'epochs'"),
        ("[train]\nmodel='mlp'\ndropout=1.0\n", "", "from 0 to below 1"),
        ("[train]\nmodel='mlp'\noptimiser='sgd'\n", "", "unknown key in [train] 'optimiser'"),
        ("[train]\nmodel=[]\n", "", "has no values"),
    ],
)
def test_a_wrong_suite_is_one_line(tmp_path, text, override, error):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises((BadInput, UnknownName)) as caught:
        load_trainings(str(tmp_path / "s.toml"), [override] if override else [])
    assert error in str(caught.value)


def test_a_signal_stops_all_trainings(tmp_path):
    (tmp_path / "s.toml").write_text('[train]\nmodel = ["mlp", "lenet5"]\nmax_epochs = 5000\nstop_at_target = "off"\n')
    argv = [sys.executable, "-m", "dlbench", "train", "s.toml", "--results", str(tmp_path / "r")]
    process = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "r" / "trainings").glob("*/stderr.txt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, said
    assert "stopped by SIGINT" in said
    assert len(list((tmp_path / "r" / "trainings").glob("*/request.json"))) == 1
