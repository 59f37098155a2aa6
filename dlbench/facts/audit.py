"""Audit: published CNN figures compared with figures counted from the modules, with the reason for each difference.

A reason is arithmetic: it lists the parts whose sum is the printed figure, and the steps from the counted figure to
that sum. It is printed only if both are exact; otherwise the difference is reported as unexplained.
"""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from dlbench.errors import BadInput
from dlbench.facts.csv_files import read_csv_rows
from dlbench.facts.layer_totals import LayerTotals
from dlbench.table import Cell, Column, Table, default_cell_text, escape_latex, escape_markdown, render
from dlbench.table_width import terminal_width
from dlbench.units import MISSING, percent_text

#: Networks of the published table -> names in the catalogue.
MODEL_OF_NETWORK: dict[str, str] = {
    "LeNet-5": "lenet5",
    "AlexNet": "alexnet",
    "OverFeat fast": "overfeat_fast",
    "VGG-16": "vgg16",
    "GoogLeNet": "googlenet",
    "ResNet-50": "resnet50",
}
#: Networks needed by the audit: those of the table, and the variant that explains GoogLeNet's figures.
COUNTED_MODELS: tuple[str, ...] = (*MODEL_OF_NETWORK.values(), "googlenet_floor")
PUBLISHED_SOURCE = "Sze, Chen, Yang, Emer, Proc. IEEE 105(12), 2017, table II"

#: Figures of the published table, by metric and network, as printed; blank cells are omitted.
PublishedTable = Mapping[str, Mapping[str, str]]

_TEXT_WIDTH = 118
_SI_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class PublishedNumber:
    """One row of the published table."""

    key: str
    title: str
    count: Callable[[LayerTotals, str], int | str] | None  # of the facts and the printed figure; None: not counted


@dataclass(frozen=True)
class AuditRow:
    """One published figure with its counted value."""

    metric: str
    network: str  # as the published table calls it
    model: str  # as the catalogue calls it
    published: str  # as printed
    counted: int | str | None  # exact; None: not counted
    difference: int | None  # published - counted; 0 if they agree in the printed digits, None if not a number
    relative_difference: float | None  # difference divided by the counted figure
    agrees: bool | None  # None: not counted
    reason: str | None

    @property
    def title(self) -> str:
        """Network and metric, for display."""
        name = _PUBLISHED_FIGURES[self.metric].title
        return f"{self.network}, {name if name[1:2].isupper() else name[0].lower() + name[1:]}"


@dataclass(frozen=True)
class DifferenceReason:
    """Why a printed number differs from the counted one: its actual parts, and the steps to it."""

    says: str
    parts: tuple[tuple[str, int], ...]  # their sum is what was printed
    steps: tuple[tuple[int, str], ...]  # added to the counted figure they give the same sum
    closing: str = ""

    @property
    def value(self) -> int:
        """Exact value of the rounded printed figure."""
        return sum(amount for _, amount in self.parts)

    def explains_published_figure(self, counted: int, published: str) -> bool:
        """Whether the steps lead from `counted` to the printed figure."""
        return counted + sum(amount for amount, _ in self.steps) == self.value and rounds_to_published(
            published, self.value
        )

    def reason_text(self, counted: int) -> str:
        """Format the reason as sentences."""
        total = " + ".join(f"{name} {default_cell_text(amount)}" for name, amount in self.parts)
        said = f"{self.says}: {total}" + (f" = {default_cell_text(self.value)}." if len(self.parts) > 1 else ".")
        steps = "; ".join(f"{_signed_number(amount)} {what}" for amount, what in self.steps)
        found = f"dlbench counts {default_cell_text(counted)}; {steps} gives the published number."
        return " ".join(filter(None, (said, found, self.closing)))


def read_published() -> dict[str, dict[str, str]]:
    """Read the bundled published table: figures as printed, by metric and network."""
    rows = read_csv_rows("published_cnn_table.csv")
    return {row.pop("metric"): {network: figure for network, figure in row.items() if figure} for row in rows}


def audit_rows(counted: Mapping[str, LayerTotals], published: PublishedTable | None = None) -> list[AuditRow]:
    """Compare every published figure with the counted one, metric by metric.

    Args:
        counted: the facts of each of `COUNTED_MODELS`, by its name in the catalogue.
        published: a table to use instead of the bundled one.

    Raises:
        BadInput: the published table has an unknown metric or network, or an invalid figure.
    """
    missing = sorted(set(COUNTED_MODELS) - set(counted))
    assert not missing, f"the audit needs the facts of {', '.join(missing)}"
    rows = []
    for metric, figures in (read_published() if published is None else published).items():
        for network, figure in figures.items():
            if metric not in _PUBLISHED_FIGURES or network not in MODEL_OF_NETWORK:
                raise BadInput(
                    f"published table: unknown metric or network: {metric} of {network}; see dlbench/facts/README.md"
                )
            rows.append(_audit_row(_PUBLISHED_FIGURES[metric], network, figure, counted))
    return rows


def rounds_to_published(published: str, counted: int) -> bool:
    """Whether `counted` rounds to the printed figure (half-way: to both). Raises BadInput if that is no "2.67G"."""
    value, unit = _parse_published_number(published)
    return abs(counted - value) <= unit / 2


def audit_table(counted: Mapping[str, LayerTotals], format: str, published: PublishedTable | None = None) -> str:
    """Format the audit in one of the formats of `dlbench.table`.

    Text, Markdown and LaTeX show published and counted figures, then the differences with reasons; CSV and JSON
    contain one record per published figure.

    Raises:
        UnknownName: unknown format.
        BadInput: as `audit_rows`.
    """
    rows = audit_rows(counted, published)
    listing = _FORMAT_DIFFERENCES.get(format)
    if listing is None:
        return render(audit_records_table(rows), format)
    return render(published_and_counted_table(rows), format) + "\n" + listing(differing_rows(rows))


def differing_rows(rows: Sequence[AuditRow]) -> list[AuditRow]:
    """Return the figures that differ, by network; the first is number [1] of the table."""
    order = {network: i for i, network in enumerate(MODEL_OF_NETWORK)}
    return sorted((row for row in rows if row.agrees is False), key=lambda row: order[row.network])


def audit_records_table(rows: Sequence[AuditRow]) -> Table:
    """Build a table with one record per published figure, for CSV and JSON."""
    keys = (
        *("metric", "network", "model", "published", "counted"),
        *("difference", "relative_difference", "agrees", "reason"),
    )
    cells: list[list[Cell]] = [[getattr(row, key) for key in keys] for row in rows]
    return Table([Column(key) for key in keys], cells, title=_AUDIT_TITLE, notes=_notes_below_audit_table(rows))


def published_and_counted_table(rows: Sequence[AuditRow]) -> Table:
    """Build a table of metrics by networks: published figure above counted figure; differences are numbered."""
    numbers = {(row.metric, row.network): i for i, row in enumerate(differing_rows(rows), 1)}
    networks = [network for network in MODEL_OF_NETWORK if any(row.network == network for row in rows)]
    columns = [Column("metric", "Per image"), Column("origin", " ", "left")]
    columns += [Column(MODEL_OF_NETWORK[network], network, "right") for network in networks]
    body: list[list[Cell]] = []
    for metric, figures in groupby(rows, key=lambda row: row.metric):
        found = {row.network: row for row in figures}
        printed = (found[n].published if n in found else None for n in networks)
        body.append([_PUBLISHED_FIGURES[metric].title, "published", *printed])
        if _PUBLISHED_FIGURES[metric].count is not None:
            cells = (_cell_with_note_number(found.get(n), numbers.get((metric, n))) for n in networks)
            body.append(["", "counted", *cells])
    return Table(columns, body, title=_AUDIT_TITLE, notes=_notes_below_audit_table(rows))


def differences_table(rows: Sequence[AuditRow]) -> Table:
    """Build a table of the differing figures with reasons, numbered as in `published_and_counted_table`."""
    columns = [
        *(Column("number", "#"), Column("network", "Network"), Column("metric", "Figure")),
        *(Column("published", "Published", "right"), Column("counted", "Counted", "right")),
        Column("difference", "Published − counted", "right", _signed_count),
        Column("relative_difference", "Of counted", "right", _signed_percent),
        Column("reason", "Reason"),
    ]
    body: list[list[Cell]] = []
    for number, row in enumerate(differing_rows(rows), 1):
        figures = (row.published, row.counted, row.difference, row.relative_difference)
        body.append([number, row.network, _PUBLISHED_FIGURES[row.metric].title, *figures, row.reason])
    return Table(columns, body, title="Differences and their reasons")


def _audit_row(metric: PublishedNumber, network: str, published: str, counted: Mapping[str, LayerTotals]) -> AuditRow:
    model = MODEL_OF_NETWORK[network]
    if metric.count is None:
        return AuditRow(metric.key, network, model, published, None, None, None, None, _NOT_COUNTED)
    found = metric.count(counted[model], published)
    same = found == published.replace(" ", "") if isinstance(found, str) else rounds_to_published(published, found)
    difference = None if isinstance(found, str) else 0 if same else int(_parse_published_number(published)[0]) - found
    relative = None if isinstance(found, str) or difference is None or not found else difference / found
    reason = None if same else _difference_reason(metric.key, model, published, found, counted)
    return AuditRow(metric.key, network, model, published, found, difference, relative, same, reason)


def _difference_reason(
    metric: str, model: str, published: str, found: int | str, counted: Mapping[str, LayerTotals]
) -> str:
    if (model, metric, published, found) == ("lenet5", "num_filters", "20,50", "6,16"):
        return _CAFFE_FILTERS
    reason = _LENET_REASONS.get(metric) if model == "lenet5" else None
    if model == "googlenet" and metric in ("conv_macs", "total_macs"):
        reason = _floor_pooling_reason(metric, counted)
    if reason is None or isinstance(found, str) or not reason.explains_published_figure(found, published):
        return _UNEXPLAINED
    return reason.reason_text(found)


def _floor_pooling_reason(metric: str, counted: Mapping[str, LayerTotals]) -> DifferenceReason:
    floor = getattr(counted["googlenet_floor"], metric)
    fewer = floor - getattr(counted["googlenet"], metric)
    return DifferenceReason(
        "The published number assumes pooling that rounds down (maps of 55, 27, 13 and 6 pixels), PyTorch's default",
        (("googlenet_floor has", floor),),
        ((fewer, "for the smaller maps"),),
        "The original network in Caffe, which is counted here, rounds the size of pooled maps up (56, 28, 14 and 7).",
    )


def _parse_published_number(published: str) -> tuple[Decimal, Decimal]:
    """Return the printed number, and one unit of its last digit."""
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?([kMGT]?)", published.strip())
    if match is None:
        raise BadInput(f"published table: '{published}' is not a number; write for example '53', '283k' or '2.67G'")
    whole, decimals, prefix = match[1], match[2] or "", _SI_FACTORS[match[3]]
    return Decimal(f"{whole}.{decimals or 0}") * prefix, Decimal(prefix).scaleb(-len(decimals))


def _filter_sizes_text(facts: LayerTotals, published: str) -> str:
    return ",".join(str(r) if r == s else f"{r}x{s}" for r, s in facts.filter_sizes)


def _filter_counts_text(facts: LayerTotals, published: str) -> str:
    """Return all numbers of filters, or minimum and maximum of a printed range."""
    if "-" in published and facts.num_filters:
        return f"{min(facts.num_filters)}-{max(facts.num_filters)}"
    return ",".join(map(str, facts.num_filters))


def _layer_total_getter(key: str) -> Callable[[LayerTotals, str], int | str]:
    return lambda facts, published: int(getattr(facts, key))


def _cell_with_note_number(row: AuditRow | None, number: int | None) -> str | None:
    if row is None:
        return None
    return default_cell_text(row.counted) if number is None else f"[{number}] {default_cell_text(row.counted)}"


def _signed_number(amount: float) -> str:
    return f"{'−' if amount < 0 else '+'}{default_cell_text(abs(amount))}"


def _signed_count(cell: Cell) -> str:
    return _signed_number(cell) if isinstance(cell, int) else MISSING


def _signed_percent(fraction: Cell) -> str:
    if not isinstance(fraction, int | float):
        return MISSING
    return f"{'−' if fraction < 0 else '+'}{percent_text(abs(fraction), 3)}"


def _notes_below_audit_table(rows: Sequence[AuditRow]) -> list[str]:
    num = {verdict: sum(row.agrees is verdict for row in rows) for verdict in (True, False, None)}
    verdicts = f"{num[True]} of {len(rows)} published figures agree after rounding, {num[False]} differ"
    uncounted = f"; {num[None]} (top-5 errors) are not checked: they need trained weights" if num[None] else ""
    return [
        f"{verdicts}{uncounted}.",
        "Weights exclude biases. Each use of a weight in the forward pass of one image is one MAC.",
        f"Published: {PUBLISHED_SOURCE}. Counted: from the PyTorch modules.",
    ]


def _published_and_counted_text(row: AuditRow) -> str:
    figures = f"published {row.published}; counted {default_cell_text(row.counted)}"
    if row.difference is None:
        return figures
    return f"{figures}; difference {_signed_number(row.difference)} ({_signed_percent(row.relative_difference)})"


def _differences_as_text(rows: Sequence[AuditRow]) -> str:
    lines = [_DIFFERENCES_TITLE, ""] if rows else []
    width = min(terminal_width() or _TEXT_WIDTH, _TEXT_WIDTH)
    for number, row in enumerate(rows, 1):
        label = f"[{number}]".ljust(5)
        indent = " " * len(label)
        for start, text in ((label, f"{row.title}: {_published_and_counted_text(row)}"), (indent, row.reason or "")):
            lines += textwrap.wrap(text, width, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False)
        lines.append("")
    return "\n".join(lines)


def _differences_as_markdown(rows: Sequence[AuditRow]) -> str:
    lines = [f"**{escape_markdown(_DIFFERENCES_TITLE)}**", ""] if rows else []
    for number, row in enumerate(rows, 1):
        head = f"**{escape_markdown(row.title)}**: {escape_markdown(_published_and_counted_text(row))}."
        lines.append(f"{number}. {head} {escape_markdown(row.reason or '')}")
    return "\n".join([*lines, ""])


def _differences_as_latex(rows: Sequence[AuditRow]) -> str:
    if not rows:
        return ""
    lines = [rf"\paragraph{{{escape_latex(_DIFFERENCES_TITLE)}}}", r"\begin{enumerate}"]
    lines.append(r"\renewcommand{\labelenumi}{[\arabic{enumi}]}")
    for row in rows:
        head = rf"\textbf{{{escape_latex(row.title)}}}: {escape_latex(_published_and_counted_text(row))}."
        lines.append(rf"\item {head} {escape_latex(row.reason or '')}")
    return "\n".join([*lines, r"\end{enumerate}", ""])


_AUDIT_TITLE = "Layers, weights and MACs of CNNs: published and counted"
_DIFFERENCES_TITLE = "Differences (published − counted, relative to counted) and their reasons"
_NOT_COUNTED = "not checked: this value needs trained weights and ImageNet"
_UNEXPLAINED = "unexplained: no known reason for this difference"

_FORMAT_DIFFERENCES: dict[str, Callable[[Sequence[AuditRow]], str]] = {
    "text": _differences_as_text,
    "markdown": _differences_as_markdown,
    "latex": _differences_as_latex,
}

_PUBLISHED_FIGURES: dict[str, PublishedNumber] = {
    metric.key: metric
    for metric in (
        PublishedNumber("top5_error_percent", "Top-5 error [%]", None),
        PublishedNumber("input_size", "Input size", lambda facts, _: "x".join(map(str, facts.input_shape[1:]))),
        PublishedNumber("conv_layers", "Conv. layers", _layer_total_getter("conv_layers")),
        PublishedNumber("filter_sizes", "Filter sizes", _filter_sizes_text),
        PublishedNumber("num_filters", "Filters", _filter_counts_text),
        PublishedNumber("conv_weights", "Conv. weights", _layer_total_getter("conv_weights")),
        PublishedNumber("conv_macs", "Conv. MACs", _layer_total_getter("conv_macs")),
        PublishedNumber("fc_layers", "FC layers", _layer_total_getter("fc_layers")),
        PublishedNumber("fc_weights", "FC weights", _layer_total_getter("fc_weights")),
        PublishedNumber("fc_macs", "FC MACs", _layer_total_getter("fc_macs")),
        PublishedNumber("total_weights", "All weights", _layer_total_getter("total_weights")),
        PublishedNumber("total_macs", "All MACs", _layer_total_getter("total_macs")),
    )
}

# LeCun et al. 1998, Section II.B, states trainable parameters and connections of each layer. Both have biases, a C3
# that sees only some of the maps of S2, sub-sampling with coefficients of its own; the output layer, of radial basis
# functions on 84 inputs, has connections and no trainable parameters.
_LENET_PARAMETERS = {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}
_LENET_CONNECTIONS = {"C1": 122_304, "S2": 5_880, "C3": 151_600, "S4": 2_000, "C5": 48_120, "F6": 10_164, "output": 840}


def _counts_of_layers(layers: Mapping[str, int], *names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, layers[name]) for name in names)


def _lenet_c5_f6_reason(what: str) -> DifferenceReason:
    # A fully connected layer has as many connections as parameters.
    return DifferenceReason(
        f"The published number is that of LeCun's {what}, with biases, without the output layer",
        _counts_of_layers(_LENET_CONNECTIONS, "C5", "F6"),
        ((-840, "output layer"), (120 + 84, "biases of C5 and F6")),
    )


_LENET_REASONS: dict[str, DifferenceReason] = {
    "conv_macs": DifferenceReason(
        "The published number is that of LeCun's connections without C5 and F6, not of MACs",
        _counts_of_layers(_LENET_CONNECTIONS, "C1", "S2", "C3", "S4", "output"),
        (
            (-90_000, "connections missing in LeCun's sparsely connected layer C3"),
            (4_704 + 1_600, "biases of C1 and C3"),
            (5_880 + 2_000, "sub-sampling S2 and S4"),
            (840, "output layer"),
        ),
    ),
    "fc_layers": DifferenceReason(
        "The published number of FC layers includes only C5 and F6, like the published number of FC weights, 58k",
        (("C5", 1), ("F6", 1)),
        ((-1, "output layer (radial basis functions in LeCun's paper)"),),
        "C5 is a convolution over its whole 5x5 input. It is counted as fully connected here and in the paper.",
    ),
    "fc_weights": _lenet_c5_f6_reason("trainable parameters"),
    "fc_macs": _lenet_c5_f6_reason("connections"),
    "total_weights": DifferenceReason(
        "The published number is that of LeCun's trainable parameters, with biases",
        _counts_of_layers(_LENET_PARAMETERS, "C1", "S2", "C3", "S4", "C5", "F6"),
        (
            (-900, "weights missing in LeCun's sparsely connected layer C3"),
            (6 + 16 + 120 + 84, "biases"),
            (12 + 32, "coefficients and biases of the sub-sampling S2 and S4"),
            (-840, "output layer, whose weights LeCun set by hand"),
        ),
        f"The published 2.6k conv. weights assume that C3 is connected to all maps of S2 (150 + 2400 = "
        f"{default_cell_text(2_550)}). The published parts, 2.6k + 58k, therefore exceed the published total.",
    ),
    "total_macs": DifferenceReason(
        "The published number is that of all of LeCun's connections, not of MACs",
        _counts_of_layers(_LENET_CONNECTIONS, "C1", "S2", "C3", "S4", "C5", "F6", "output"),
        (
            (-90_000, "connections missing in LeCun's sparsely connected layer C3"),
            (4_704 + 1_600 + 120 + 84, "biases of C1, C3, C5 and F6"),
            (5_880 + 2_000, "sub-sampling S2 and S4"),
        ),
    ),
}
_CAFFE_FILTERS = (
    f"The published 20 and 50 filters are those of Caffe's LeNet, a different network with "
    f"{default_cell_text(20 * 25 + 50 * 20 * 25)} conv. weights and "
    f"{default_cell_text(20 * 25 * 24**2 + 50 * 20 * 25 * 8**2)} "
    f"conv. MACs ({default_cell_text(25_500 + 800 * 500 + 500 * 10)} and "
    f"{default_cell_text(1_888_000 + 800 * 500 + 500 * 10)} over all layers). LeCun's C1 and "
    "C3 have 6 and 16 filters, as "
    f"counted here; only these give the published 2.6k conv. weights."
)
