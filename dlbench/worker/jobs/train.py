"""Train a network to a target.

Each epoch goes once through the training set, in an order drawn from the seed. Then both sets are evaluated without
dropout. The time to the target includes the evaluations, as in MLPerf Training, but no start-up.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dlbench.data import digits
from dlbench.data.image_files import find_images
from dlbench.data.jpeg import JpegDataset, require_enough_classes, unused_file_warnings
from dlbench.errors import BadInput
from dlbench.models import BuiltModel, checkpoint
from dlbench.results.training_records import TrainingRun
from dlbench.suites.case import Case, Protocol
from dlbench.suites.training import DIGITS, Training
from dlbench.tasks import Batch
from dlbench.tasks.outputs import main_head_scores
from dlbench.worker.devices import clock_for_device, device_identity, find_device
from dlbench.worker.jobs.job_answer import write_job_answer
from dlbench.worker.measure import open_case_meter
from dlbench.worker.precision import autocast
from dlbench.worker.progress import enter_phase
from dlbench.worker.workload import Workload, build_workload

#: Images in a batch of an evaluation.
_EVALUATION_BATCH = 256


class SampleSet:
    """A set of images, in memory with their labels or as files; gives batches of the task."""

    def __init__(self, images: Any, labels: Tensor | None, task_name: str) -> None:
        self._images, self._labels = images, labels
        self._copies = task_name == "reconstruction"
        self.in_memory = labels is not None
        #: Other files in its folder.
        self.num_others: int = getattr(images, "num_others", 0)
        #: Names of the files that could not be decoded.
        self.broken: set[str] = set()

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int, shuffled: torch.Generator | None, device: torch.device) -> Iterator[Batch]:
        """The whole set once; in training, shuffled, without the rest that fills no batch."""
        size = min(size, len(self))
        parts = self._batches_from_files if self._labels is None else self._batches_from_memory
        for images, labels in parts(size, shuffled):
            inputs = images.to(device)
            yield (inputs,), inputs if self._copies else labels.to(device)

    def _batches_from_files(self, size: int, shuffled: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        loader: DataLoader[Any] = DataLoader(
            *(self._images, size, shuffled is not None),
            generator=shuffled,
            num_workers=max(1, torch.get_num_threads() - 1),
            drop_last=shuffled is not None,
        )
        for images, labels, facts in loader:
            self.broken |= self._images.names_of_broken_files(facts)
            yield images, labels

    def _batches_from_memory(self, size: int, shuffled: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        assert self._labels is not None
        count = len(self)
        order = torch.arange(count) if shuffled is None else torch.randperm(count, generator=shuffled)
        for start in range(0, count if shuffled is None else count - count % size, size):
            part = order[start : start + size]
            yield self._images[part], self._labels[part]


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, and the share of right answers where there are classes."""

    loss: float
    accuracy: float | None


def train_network(training: Training) -> TrainingRun:
    """Train until the target is met, the epochs are over, or the loss is not finite.

    Raises:
        BadInput: network, data and target do not fit together.
        DeviceUnavailable: the device is not there.
        InvalidMeasurement: the network is not in single precision, or no file can be decoded.
    """
    enter_phase("build")
    case = _training_case(training)
    device = find_device(case)
    workload = build_workload(case, device)
    built, module, optimizer = workload.built, workload.module, workload.optimizer
    assert optimizer is not None
    _require_fitting_network(training, built)
    trained, validated = load_sample_sets(training, built)
    _set_dropout(module, training)
    loaded = checkpoint.load_weights(module, training.weights)
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate_or_default
    generator = torch.Generator().manual_seed(training.seed)
    meter = open_case_meter(case, device)
    clock = clock_for_device(device)
    epoch_s: list[float] = []
    of_training: list[Evaluation] = []
    of_validation: list[Evaluation] = []
    status, reached_s, epochs_to_target = "not_reached", None, None
    clock.synchronize()
    meter.start()
    began_s = time.perf_counter()
    for epoch in range(1, training.max_epochs + 1):
        enter_phase(f"epoch {epoch} of {training.max_epochs}")
        running = _train_epoch(workload, trained.batches(training.batch_size, generator, device))
        validation = evaluate(workload, validated)
        # A set of files is large: the mean loss of the epoch's batches replaces a second pass through it.
        own = evaluate(workload, trained) if trained.in_memory else Evaluation(running, None)
        clock.synchronize()
        epoch_s.append(time.perf_counter() - began_s)
        of_training.append(own)
        of_validation.append(validation)
        if not math.isfinite(running) or not math.isfinite(validation.loss):
            status = "diverged"
            break
        if reached_s is None and training.is_target_reached(_target_metric_value(training, validation)):
            status, reached_s, epochs_to_target = "reached", epoch_s[-1], epoch
            if training.stop_at_target == "on":
                break
    reading = meter.stop(began_s, time.perf_counter())
    stops = reached_s is not None and training.stop_at_target == "on"
    values = [v for e in of_validation if math.isfinite(v := _target_metric_value(training, e))]
    best = (max if training.target_metric == "accuracy" else min)(values, default=None)
    checkpoint.save_weights(module, training.save_weights)
    where = device_identity(device)
    unused = unused_file_warnings(trained.broken | validated.broken, trained.num_others + validated.num_others)
    return TrainingRun(
        training=training.to_dict() | {"device": device.type},
        learning_rate=training.learning_rate_or_default,
        status=status,
        best_value=best,
        epoch_s=tuple(epoch_s),
        **_learning_curve_fields("training", of_training),
        **_learning_curve_fields("validation", of_validation),
        epochs_to_target=epochs_to_target,
        time_to_target_s=reached_s,
        energy_to_target_j=reading.energy_j if stops else None,
        energy_j=reading.energy_j,
        energy_source=meter.source if reading.energy_j is not None else "none",
        num_training=len(trained),
        num_validation=len(validated),
        parameters=workload.num_parameters(),
        trained_parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        device_name=where.device_name or where.cpu_model or "",
        hostname=where.hostname,
        warnings=(*workload.warnings, *loaded, *unused, *reading.warnings),
    )


def load_sample_sets(training: Training, built: BuiltModel) -> tuple[SampleSet, SampleSet]:
    """The sets for training and for validation. Raises BadInput where they do not fit the network."""
    name = built.task.name
    if training.data == DIGITS:
        if built.input_shape != digits.IMAGE_SHAPE:
            raise BadInput(
                f"the built-in images of digits have shape 1 x 28 x 28, but '{training.model}' takes "
                f"{built.input_shape}; "
                "use mlp, lenet5 or an autoencoder, or set data to a folder of images"
            )
        require_enough_classes("the digits", digits.NUM_CLASSES, built)
        (images, labels), (others, their_labels) = digits.load_digits()
        return SampleSet(images, labels, name), SampleSet(others, their_labels, name)
    folders = [Path(training.data) / part for part in ("train", "val")]
    trained, validated = (find_images(folder) for folder in folders)
    for folder, found in zip(folders, (trained, validated), strict=True):
        require_enough_classes(f"the images of '{folder}'", found.num_classes, built)
    # A label is the position of its folder's name: with other folders the same label is another class.
    different = set(trained.class_names) ^ set(validated.class_names)
    if built.task.has_classes and different:
        raise BadInput(f"{training.data}: train and val must have the same folders; only one has {min(different)!r}")
    return (
        SampleSet(JpegDataset(trained, built.input_shape, training=True), None, name),
        SampleSet(JpegDataset(validated, built.input_shape, training=False), None, name),
    )


def evaluate(workload: Workload, samples: SampleSet) -> Evaluation:
    """Loss and accuracy over a whole set, without dropout."""
    module, task = workload.module, workload.built.task
    classifies = task.name == "classification"
    module.eval()
    loss = right = 0.0
    with torch.inference_mode(), autocast(workload.case.precision, workload.device.type):
        for inputs, targets in samples.batches(_EVALUATION_BATCH, None, workload.device):
            outputs = module(*inputs)
            loss += float(task.loss(outputs, targets)) * len(targets)
            scores = main_head_scores(outputs)
            if classifies and scores is not None:
                right += float((scores.argmax(1) == targets).sum())
    return Evaluation(loss / len(samples), right / len(samples) if classifies else None)


def _train_epoch(workload: Workload, batches: Iterable[Batch]) -> float:
    """One pass through the training set; the mean of the losses of its batches."""
    workload.module.train()
    losses = []
    for batch in batches:
        workload.batches = iter((batch,))
        workload.step()
        assert workload.loss is not None
        losses.append(workload.loss.detach())
    return float(torch.stack(losses).float().mean())


def _training_case(training: Training) -> Case:
    return Case(
        training.model,
        precision=training.precision,
        batch_size=training.batch_size,
        device=training.device,
        compile=training.compile,
        optimizer=training.optimizer,
        protocol=Protocol(seed=training.seed),
    )


def _require_fitting_network(training: Training, built: BuiltModel) -> None:
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


def _target_metric_value(training: Training, evaluation: Evaluation) -> float:
    return evaluation.loss if training.target_metric == "loss" else float(evaluation.accuracy or 0.0)


def _learning_curve_fields(part: str, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    accuracies = [e.accuracy for e in evaluations]
    return {
        f"{part}_loss": tuple(e.loss for e in evaluations),
        f"{part}_accuracy": () if None in accuracies else tuple(accuracies),
    }


def handle_request(request: dict[str, Any], folder: Path) -> int:
    """Do the training of the request; return the exit status."""
    return write_job_answer(folder, lambda: train_network(Training.from_dict(request["training"])).to_json())
