"""Networks as tables: the catalogue, which needs no install, the layers of one, and the oneDNN kernels of its step."""

from collections import defaultdict
from collections.abc import Sequence

from dlbench import units
from dlbench.facts.layers import LayerRow
from dlbench.suites.catalog import CATALOG
from dlbench.table import Cell, Column, Table, bytes_text, percent_text, quantity_format, seconds_text

_SHAPE_LETTERS = ("M", "C", "H", "W", "R", "S", "P", "Q", "groups")


def models_table() -> Table:
    """One row per network of the catalogue."""
    columns = [
        Column("name", "model"),
        Column("title", "network"),
        Column("input", align="right"),
        Column("num_inference_parameters", "parameters", "right", quantity_format("")),
        Column("parameters", "in training", "right", quantity_format("")),
        Column("forward_macs", "MACs", "right", quantity_format("MAC")),
        Column("training_flop", "FLOP fwd+bwd", "right", quantity_format("FLOP")),
        Column("source"),
    ]
    rows: list[list[Cell]] = [
        [
            *(m.name, m.title, "x".join(map(str, m.input_shape)), m.num_inference_parameters, m.parameters),
            *(m.forward_macs, m.training_flop, m.source),
        ]
        for m in CATALOG.values()
    ]
    notes = [
        "Per image or sequence. Biases count as parameters. In training, GoogLeNet has two additional auxiliary heads.",
        "Also available: every torchvision and timm classification model by its name (`dlbench models --all`), and "
        "your own networks as package.module:factory.",
    ]
    return Table(columns, rows, "Networks of the catalogue", notes)


def layers_table(model: str, rows: Sequence[LayerRow]) -> Table:
    """One row per layer, from the counting of a worker, and the sums; work and bytes are those of one image."""
    columns = [
        Column("name", "layer", "left"),
        Column("kind"),
        *(Column(letter, align="right") for letter in _SHAPE_LETTERS),
        Column("stride", align="right"),
        Column("weights", align="right"),
        Column("macs", "MACs", "right"),
        Column("forward_flop", "FLOP fwd", "right", quantity_format("FLOP")),
        Column("backward_flop", "FLOP bwd", "right", quantity_format("FLOP")),
        Column("forward_bytes", "bytes fwd", "right", bytes_text),
        Column("backward_bytes", "bytes bwd", "right", bytes_text),
    ]
    cells: list[list[Cell]] = [
        [
            row.name,
            row.kind,
            *(getattr(row, letter) for letter in _SHAPE_LETTERS),
            _stride_text(row.stride),
            row.weights,
            *(
                work or None if row.uncounted else work
                for work in (
                    row.macs + row.forward_flop_fixed // 2,
                    row.forward_flop + row.forward_flop_fixed,
                    row.backward_flop + row.backward_flop_fixed,
                )
            ),
            row.forward_bytes_per_image + row.forward_bytes_fixed,
            row.backward_bytes_per_image + row.backward_bytes_fixed,
        ]
        for row in rows
    ]
    first_sum = 3 + len(_SHAPE_LETTERS)
    partial = {row.name or "the network itself": ", ".join(row.uncounted) for row in rows if row.uncounted}
    sums: list[Cell] = [sum(int(row[i] or 0) for row in cells) for i in range(first_sum, len(columns))]
    # A sum of nothing but what is not counted is missing as well.
    known = [any(row[i] is not None for row in cells) for i in range(first_sum, len(columns))]
    sums = [total if has or not partial else None for total, has in zip(sums, known, strict=True)]
    total: list[Cell] = ["total", None, *[None] * len(_SHAPE_LETTERS), None, *sums]
    if partial:
        columns.append(Column("uncounted", "not counted", "left"))
        cells = [[*row, ", ".join(layer.uncounted) or None] for row, layer in zip(cells, rows, strict=True)]
        total.append(", ".join(dict.fromkeys(partial.values())))
    notes = [
        "Per image, without biases. M filters, C input channels, H x W input, R x S filter, P x Q output.",
        "FLOP = 2 x MAC. Bytes: every operand and result counted once, in fp32, for a batch of one image.",
    ]
    if partial:
        notes.append(
            "Not counted: operations that may multiply, but have no formula. The MACs and FLOP of their layers are "
            "lower bounds."
        )
    return Table(columns, cells, f"{model}: {units.count_text(len(rows), 'layer')}", notes, total)


def _stride_text(stride: tuple[int, ...] | None) -> Cell:
    if stride is None or len(set(stride)) == 1:
        return stride[0] if stride else None
    return "x".join(map(str, stride))


def kernels_table(log: str) -> Table:
    """One row per kind of work and kernel of one step, the one that takes longest first.

    Args:
        log: lines such as "onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_training,...,0.12";
            older versions have no "v1,primitive,".
    """
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for line in log.splitlines():
        words = line.strip().split(",")
        if words[0] != "onednn_verbose" or "exec" not in words:
            continue
        rest = words[words.index("exec") + 2 :]
        try:
            found[rest[0], rest[1], rest[2]].append(float(rest[-1]) * 1e-3)
        except (IndexError, ValueError):
            continue
    whole = sum(map(sum, found.values()))
    rows: list[list[Cell]] = [
        [*names, len(times), sum(times), sum(times) / whole if whole else None]
        for names, times in sorted(found.items(), key=lambda one: -sum(one[1]))
    ]
    columns = [
        Column("work", "Work"),
        Column("kernel", "Kernel of oneDNN"),
        Column("direction", "Direction"),
        Column("calls", "Calls", "right"),
        Column("time_s", "Time", "right", seconds_text),
        Column("share", "Share", "right", percent_text),
    ]
    notes = ["Time: measured by oneDNN itself in one step, without other operations of PyTorch."]
    return Table(columns, rows, "Kernels of oneDNN in one step", notes)
