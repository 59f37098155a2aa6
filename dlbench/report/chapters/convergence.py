"""Trainings: a table of when each met its target, and their curves with training and validation apart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis.labels import network_title, sort_networks
from dlbench.report.document import Block, Plot, Section
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import label_outer_axes, panel_grid
from dlbench.report.figures.log_axes import make_log_axis
from dlbench.table import Cell, Column, Table

_SETTING_COLUMNS = ("optimizer", "learning_rate", "dropout", "precision", "compile", "batch_size", "seed", "weights")
_COLOURS = (look.BLUE, look.ORANGE, look.GREEN, look.VERMILION, look.PINK, look.SKY)
_CURVE_STYLES: dict[str, dict[str, Any]] = {
    "validation": {"color": look.MUTED, "marker": "", "ls": "-"},
    "training": {"color": look.MUTED, "marker": "", "ls": ":"},
}
#: A panel shows so many trainings; the table holds all.
_MAX_CURVES, _MAX_PANELS = 6, 6
_INTRODUCTION = (
    "Each network was trained on real data until its validation reached the target, or for all epochs. Time to target "
    "includes the evaluations, but not the start-up. Solid: validation; dotted: training. If the gap between the two "
    "grows, the network is overfitting."
)


def convergence_section(epochs: pd.DataFrame) -> Section:
    """The chapter on `epochs`, as `read_trainings` gives them; without blocks where nothing was trained."""
    if epochs.empty:
        return Section("convergence", "Convergence")
    plots = [Block(plot=plot) for plot in training_curve_plots(epochs)]
    blocks = [Block(words=_INTRODUCTION), *plots, Block(table=training_table(epochs))]
    return Section("convergence", "Convergence", blocks, _trainings_finding_sentence(_last_epochs(epochs)))


def _trainings_finding_sentence(runs: pd.DataFrame) -> str:
    """How many trainings reached their target, and which was the fastest."""
    reached = runs[runs["status"] == "reached"]
    words = f"{len(reached)} of {units.count_text(len(runs), 'training')} reached the target"
    if reached.empty:
        return f"{words}."
    fast = reached.iloc[reached["time_to_target_s"].argmin()]
    time = units.seconds_text(fast["time_to_target_s"])
    return f"{words}; {network_title(fast['model'])} with {fast['optimizer']} was the fastest, in {time}."


def training_table(epochs: pd.DataFrame) -> Table:
    """One row per training."""
    runs = _last_epochs(epochs)
    axes = [name for name in _SETTING_COLUMNS if name in ("optimizer", "learning_rate") or runs[name].nunique() > 1]
    columns = [Column("model", "Network"), *(Column(name, name.replace("_", " ").capitalize()) for name in axes)]
    columns += [
        Column("status", "Status"),
        Column("target", "Target"),
        Column("best", "Best", "right"),
        Column("epochs", "Epochs", "right"),
        Column("time", "Time to target", "right"),
        Column("energy", "Energy to target", "right"),
        Column("gap", "Loss gap", "right"),
    ]
    rows: list[list[Cell]] = []
    for run in runs.to_dict("records"):
        accuracy = run["target_metric"] == "accuracy"
        sign = "≥" if accuracy else "≤"
        reached = run["status"] == "reached"
        rows.append(
            [
                *(network_title(run["model"]), *(_to_python_scalar(run[name]) for name in axes), run["status"]),
                f"{run['target_metric']} {sign} {_format_share_or_number(run['target_value'], accuracy)}",
                _format_share_or_number(run["best_value"], accuracy),
                int(run["epochs_to_target"]) if reached else int(run["epoch"]),
                units.seconds_text(run["time_to_target_s"]) if reached else units.MISSING,
                f"{units.number_text(run['energy_to_target_j'])} J" if run["energy_to_target_j"] > 0 else units.MISSING,
                units.number_text(run["validation_loss"] - run["training_loss"]),
            ]
        )
    notes = ["Loss gap: validation loss minus training loss after the last epoch. A large gap means overfitting."]
    return Table(columns, rows, "Trainings", notes)


def training_curve_plots(epochs: pd.DataFrame) -> Iterator[Plot]:
    """The losses and, where there are classes, the accuracies over the epochs: one panel per network."""
    for kind, unit in (("loss", ""), ("accuracy", " [%]")):
        known = epochs[epochs[f"validation_{kind}"].notna()]
        if known.empty:
            continue
        names = sort_networks(known["model"])[:_MAX_PANELS]
        figure, panels = panel_grid(len(names), height=2.4)
        marks: dict[str, dict[str, Any]] = {}
        for name, axes in zip(names, panels, strict=True):
            own = known[known["model"] == name]
            labels = _training_labels(own)
            for run_id, colour in zip(list(labels)[:_MAX_CURVES], _COLOURS, strict=False):
                curve = own[own["run_id"] == run_id].sort_values("epoch")
                factor = 100 if kind == "accuracy" else 1
                axes.plot(curve["epoch"], factor * curve[f"validation_{kind}"], color=colour, lw=1.4)
                axes.plot(curve["epoch"], factor * curve[f"training_{kind}"], color=colour, lw=1.1, ls=":")
                marks.setdefault(labels[run_id], {"color": colour})
            if kind == "loss":
                make_log_axis(axes, "y")
            precisions = ", ".join(own["precision"].unique())
            axes.set_title(f"{look.fit_text_for_figure(network_title(name), 26)}\nTraining · {precisions}")
        label_outer_axes(panels, "Epoch", f"{kind.capitalize()}{unit}")
        look.add_legend(figure, marks | _CURVE_STYLES)
        yield Plot(f"convergence_{kind}", f"{kind.capitalize()}: solid is validation, dotted is training.", figure)


def write_training_curves(epochs: pd.DataFrame, folder: Path) -> list[Path]:
    """The curves as SVG files in `folder`."""
    written = []
    for plot in training_curve_plots(epochs):
        assert plot.figure is not None
        written.append(folder / f"{plot.name}.svg")
        plot.figure.savefig(written[-1])
    return written


def _last_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """The last epoch of each training; the latest where the same was trained again."""
    last = epochs.sort_values(["started_at", "run_id", "epoch"]).drop_duplicates("run_id", keep="last")
    last = last.assign(weights=last["weights"].fillna(""))  # which older trainings lack
    setting = ["suite", "model", *_SETTING_COLUMNS, "data", "target_metric", "target_value", "device_name"]
    last = last.drop_duplicates(setting, keep="last")
    order = {name: i for i, name in enumerate(sort_networks(last["model"]))}
    return last.sort_values(
        ["model", *_SETTING_COLUMNS], key=lambda c: c.map(lambda v: order.get(v, v)) if c.name == "model" else c
    )


def _training_labels(own: pd.DataFrame) -> dict[str, str]:
    """What tells each training of one network from the others."""
    runs = _last_epochs(own)
    varying = [name for name in _SETTING_COLUMNS if runs[name].nunique() > 1 and name != "learning_rate"]

    def format_hyperparameter(name: str, value: Any) -> str:
        return value if isinstance(value, str) else f"{name.replace('_', ' ')} {value:g}"

    return {
        run["run_id"]: ", ".join(format_hyperparameter(name, run[name]) for name in varying or ["optimizer"])
        for run in runs.to_dict("records")
    }


def _to_python_scalar(value: Any) -> Cell:
    return value if isinstance(value, str) else float(value) if isinstance(value, float) else int(value)


def _format_share_or_number(value: float, is_share: bool) -> str:
    if value != value:
        return units.MISSING
    return f"{100 * value:.1f} %" if is_share else f"{value:.3g}"
