"""`dlbench.run` and `dlbench.layers`: measurement and layer counts from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.errors import BadInput
from dlbench.suites.case import AXES, Case

if TYPE_CHECKING:
    import pandas as pd

    from dlbench.facts.layers import LayerRow
    from dlbench.suites.suite import Suite


def run(
    what: str | Path | Case,
    results: str | Path = "results",
    *,
    launcher: str = "local",
    fresh: bool = False,
    **axes: Any,
) -> pd.DataFrame:
    """Measure a suite or a single case, each case in a separate process; skip cases already measured.

    ``dlbench.run("quick", model="lenet5", batch_size=[8, 16])`` or ``dlbench.run(dlbench.Case("lenet5"))``.

    Args:
        what: a suite (a TOML file, or a name from `dlbench suites`), or a `dlbench.Case`.
        results: the results folder.
        launcher: rank launcher: local, torchrun, mpirun or srun.
        fresh: also measure cases already measured.
        axes: one value or a list of values per axis; they replace those of the suite.

    Returns:
        As `dlbench.metrics`, only of these cases; failed cases are missing.

    Raises:
        BadInput: the suite or a value cannot be used.
        KeyboardInterrupt: the run was interrupted; what was measured is kept.
    """
    from dlbench.campaign import measure, preparation
    from dlbench.launch import processes
    from dlbench.report.analysis.content import metrics

    suite = _suite_from_argument(what, axes)
    with processes.stop_on_signals():
        try:
            campaign, cases = preparation.prepare_campaign(suite, Path(results), launcher)
            measure.measure_cases(campaign, cases, fresh, suite.max_processes, None)
        except processes.StoppedBySignal as stop:
            raise KeyboardInterrupt(f"stopped by {stop.signal_name}") from None
    frame = metrics(results)
    return frame[frame["case_id"].isin([case.id for case in cases])].reset_index(drop=True)


def layers(model: str, auxiliary: bool = False) -> pd.DataFrame:
    """Return the layers of a network, one row each: shapes, weights, MACs, FLOP and bytes per image.

    Args:
        model: a name from `dlbench models`, or package.module:factory.
        auxiliary: include training-only layers.
    """
    import pandas as pd

    return pd.DataFrame([dataclasses.asdict(row) for row in layer_rows(model, auxiliary)])


def layer_rows(model: str, auxiliary: bool = False) -> Sequence[LayerRow]:
    """Return the layers of a network: from the catalogue, or counted with torch."""
    from dlbench.facts.layers import catalogue_layers

    rows = catalogue_layers(model, auxiliary)
    if rows is not None:
        return rows
    from dlbench.worker.counting import layers as counting

    return counting.layers(model, auxiliary)


def _suite_from_argument(what: str | Path | Case, axes: dict[str, Any]) -> Suite:
    from dlbench.suites.suite import Suite, load_suite

    if not isinstance(what, Case):
        texts = {axis: ",".join(map(str, v)) if isinstance(v, list | tuple) else v for axis, v in axes.items()}
        return load_suite(what, [f"{axis}={text}" for axis, text in texts.items()])
    if axes:
        raise BadInput(f"cannot override {', '.join(axes)} of a case; set these axes in dlbench.Case(...)")
    return Suite("cases", 1, "", {axis: (getattr(what, axis),) for axis in AXES}, (), what.protocol, "dlbench.Case")
