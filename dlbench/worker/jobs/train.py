"""Train a network to a target.

Each epoch goes once through the training set, in an order drawn from the seed; then both sets are evaluated without
dropout. The time to the target holds the evaluations, as in MLPerf Training, and no start-up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dlbench.data.digits import load_digits
from dlbench.data.image_files import find_images
from dlbench.data.jpeg import JpegDataset
from dlbench.errors import BadInput
from dlbench.models import BuiltModel, build
from dlbench.results.training_records import TrainingRun
from dlbench.suites.case import Case, Protocol
from dlbench.suites.training import DIGITS, Training
from dlbench.tasks import Batch
from dlbench.tasks.outputs import main_scores
from dlbench.worker.devices import clock_for, device_identity, device_uuid, find_device
from dlbench.worker.jobs.job import answer
from dlbench.worker.meters.energy import open_meter
from dlbench.worker.precision import AUTOCAST_DTYPES, autocast
from dlbench.worker.progress import enter_phase
from dlbench.worker.settings import Settings
from dlbench.worker.workload import compiled, make_optimizer

#: Images in a batch of an evaluation.
_EVALUATED = 256


class Samples:
    """One set in memory, or of files; gives batches of the task."""

    def __init__(self, images: Any, labels: Tensor | None, task_name: str, num_workers: int = 0) -> None:
        self._images, self._labels = images, labels
        self._copies = task_name == "reconstruction"
        self._num_workers = num_workers
        self.in_memory = labels is not None

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int, shuffled: torch.Generator | None, device: torch.device) -> Iterator[Batch]:
        """The whole set once; in training, shuffled, without the rest that fills no batch."""
        if self._labels is None:
            loader: DataLoader[Any] = DataLoader(
                *(self._images, size, shuffled is not None),
                generator=shuffled,
                num_workers=self._num_workers,
                drop_last=shuffled is not None,
            )
            for images, labels, _ in loader:
                yield self._batch(images.to(device), labels.to(device))
            return
        count = len(self)
        order = torch.arange(count) if shuffled is None else torch.randperm(count, generator=shuffled)
        end = count if shuffled is None else count - count % min(size, count)
        for start in range(0, end, size):
            part = order[start : start + size]
            yield self._batch(self._images[part].to(device), self._labels[part].to(device))

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        return (images,), images if self._copies else labels


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, and the share of right answers where there are classes."""

    loss: float
    accuracy: float | None


def train(training: Training) -> TrainingRun:
    """Train until the target is met, the epochs are over, or the loss is not finite.

    Raises:
        BadInput: network, data and target do not fit together.
        DeviceUnavailable: the device is not there.
    """
    enter_phase("build")
    case = _case(training)
    device = find_device(case)
    settings = Settings(case, device)
    settings.set_seeds()
    built = build(training.model, training=True)
    _require_fitting(training, built)
    trained, validated = load(training, built)
    module = built.module.to(device)
    _set_dropout(module, training)
    settings.set_seeds()
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise BadInput(f"model '{training.model}' has no trainable parameter")
    optimizer = make_optimizer(case, parameters, lr=training.rate)
    run = compiled(module, training.compile, device)
    generator = torch.Generator().manual_seed(training.seed)
    meter = open_meter("auto", device.type, device_uuid(device), None)
    clock = clock_for(device)
    curves: dict[str, list[Any]] = {"epoch_s": [], "training": [], "validation": []}
    status, reached_s, epochs_to_target = "not_reached", None, None
    clock.synchronize()
    meter.start()
    began_s = time.perf_counter()
    for epoch in range(1, training.max_epochs + 1):
        enter_phase(f"epoch {epoch} of {training.max_epochs}")
        running = _epoch(
            training, built, module, run, optimizer, trained.batches(training.batch_size, generator, device)
        )
        validation = evaluate(training, built, module, validated, device)
        # Of files, which are many, the mean of the epoch's own batches stands for the training set.
        own = evaluate(training, built, module, trained, device) if trained.in_memory else Evaluation(running, None)
        clock.synchronize()
        curves["epoch_s"].append(time.perf_counter() - began_s)
        curves["training"].append(own)
        curves["validation"].append(validation)
        if not math.isfinite(running) or not math.isfinite(validation.loss):
            status = "diverged"
            break
        if reached_s is None and training.is_reached(_value(training, validation)):
            status, reached_s, epochs_to_target = "reached", curves["epoch_s"][-1], epoch
            if training.stop_at_target == "on":
                break
    reading = meter.stop(began_s, time.perf_counter())
    stops = reached_s is not None and training.stop_at_target == "on"
    values = [v for e in curves["validation"] if math.isfinite(v := _value(training, e))]
    best = (max if training.target_metric == "accuracy" else min)(values, default=None)
    where = device_identity(device)
    return TrainingRun(
        training=training.to_dict() | {"device": device.type},
        learning_rate=training.rate,
        status=status,
        best_value=best,
        epoch_s=tuple(curves["epoch_s"]),
        **_curves(curves),
        epochs_to_target=epochs_to_target,
        time_to_target_s=reached_s,
        energy_to_target_j=reading.energy_j if stops else None,
        energy_j=reading.energy_j,
        energy_source=meter.source if reading.energy_j is not None else "none",
        num_training=len(trained),
        num_validation=len(validated),
        parameters=sum(p.numel() for p in module.parameters()),
        trained_parameters=sum(p.numel() for p in parameters),
        device_name=where.device_name or where.cpu_model or "",
        hostname=where.hostname,
        warnings=(*built.warnings, *reading.warnings),
    )


def load(training: Training, built: BuiltModel) -> tuple[Samples, Samples]:
    """The sets for training and for validation. Raises BadInput where they do not fit the network."""
    if training.data == DIGITS:
        if built.input_shape != (1, 28, 28):
            raise BadInput(
                f"the digits are 1 x 28 x 28, but '{training.model}' takes {built.input_shape}; "
                "take mlp, lenet5 or an autoencoder, or set data to a folder of images"
            )
        (images, labels), (others, their_labels) = load_digits()
        name = built.task.name
        return Samples(images, labels, name), Samples(others, their_labels, name)
    sets = []
    for part in ("train", "val"):
        found = find_images(Path(training.data) / part)
        if built.task.has_classes and found.num_classes > built.num_classes:
            raise BadInput(
                f"{training.data}/{part} has {found.num_classes} classes, "
                f"but '{training.model}' has {built.num_classes}"
            )
        dataset = JpegDataset(found, built.input_shape, part == "train")
        sets.append(Samples(dataset, None, built.task.name, max(1, torch.get_num_threads() - 1)))
    return sets[0], sets[1]


def evaluate(
    training: Training, built: BuiltModel, module: nn.Module, samples: Samples, device: torch.device
) -> Evaluation:
    """Loss and accuracy over a whole set, without dropout."""
    module.eval()
    loss = right = 0.0
    with torch.inference_mode(), autocast(training.precision, device.type):
        for inputs, targets in samples.batches(_EVALUATED, None, device):
            outputs = module(*inputs)
            loss += float(built.task.loss(outputs, targets)) * len(targets)
            scores = main_scores(outputs)
            if built.task.name == "classification" and scores is not None:
                right += float((scores.argmax(1) == targets).sum())
    module.train()
    accuracy = right / len(samples) if built.task.name == "classification" else None
    return Evaluation(loss / len(samples), accuracy)


def _epoch(
    training: Training,
    built: BuiltModel,
    module: nn.Module,
    run: Any,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
) -> float:
    """One pass through the training set; the mean of the losses of its batches."""
    module.train()
    device = next(module.parameters()).device
    scaler = torch.amp.GradScaler(device.type) if training.precision == "amp_fp16" else None
    mixed = training.precision in AUTOCAST_DTYPES
    losses = []
    for inputs, targets in batches:
        optimizer.zero_grad(set_to_none=True)
        with autocast(training.precision, device.type) if mixed else nullcontext():
            loss = built.task.loss(run(*inputs), targets)
        if scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        else:
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
        losses.append(loss.detach())
    return float(torch.stack(losses).float().mean())


def _case(training: Training) -> Case:
    return Case(
        training.model,
        precision=training.precision,
        batch_size=training.batch_size,
        device=training.device,
        compile=training.compile,
        optimizer=training.optimizer,
        protocol=Protocol(seed=training.seed),
    )


def _require_fitting(training: Training, built: BuiltModel) -> None:
    if len(built.input_shape) != 3:
        raise BadInput(f"'{training.model}' takes no images, and dlbench has no real data for its task")
    if training.target_metric == "accuracy" and built.task.name != "classification":
        raise BadInput(
            f"target_metric is 'accuracy', but '{training.model}' has no classes; set target_metric = \"loss\""
        )


def _set_dropout(module: nn.Module, training: Training) -> None:
    layers = [part for part in module.modules() if isinstance(part, nn.Dropout)]
    if training.dropout > 0 and not layers:
        raise BadInput(f"dropout is {training.dropout}, but '{training.model}' has no dropout layer")
    if training.dropout > 0 or training.model == "mlp":
        for part in layers:
            part.p = training.dropout


def _value(training: Training, evaluation: Evaluation) -> float:
    return evaluation.loss if training.target_metric == "loss" else float(evaluation.accuracy or 0.0)


def _curves(curves: dict[str, list[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in ("training", "validation"):
        found[f"{part}_loss"] = tuple(e.loss for e in curves[part])
        accuracies = [e.accuracy for e in curves[part]]
        found[f"{part}_accuracy"] = () if None in accuracies else tuple(accuracies)
    return found


def serve(request: dict[str, Any], folder: Path) -> int:
    """Do the training of the request; gives the exit status."""
    return answer(folder, lambda: train(Training.from_dict(request["training"])).to_json())
