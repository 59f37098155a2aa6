"""Which operations of torchvision's and timm's networks are not counted: forward and backward, on the meta device.

    pip install timm
    python benchmarks/experiments/count_sweep.py ROWS.jsonl         # about 15 min on one core; resumes where it ended
    python benchmarks/experiments/count_sweep.py ROWS.jsonl --page  # writes docs/experiments/flop_sweep.md

All of torchvision: classification, segmentation, video, optical flow, the backbones of detection, and whole detectors,
which choose boxes by their data and so run on random data on the CPU. Of timm up to `PER_MODULE` networks
of each of its modules, spread over their names, the largest left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlbench.models import build_on_meta
from dlbench.tasks.outputs import find_nested_tensors
from dlbench.worker.counting.flops import FlopCountingMode, suppress_warnings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "experiments" / "flop_sweep.md"
PER_MODULE = 4
BATCH = 2
_LARGE = re.compile(
    r"huge|giant|gigantic|large|enormous|so\d+m|\db\b|_7b|_g_|_h_|xl|_l_|_384|_448|_512|_518|_560|_1024|_1152"
    r"|152|200|269|350|420|_b[678]|_l2|m2_|bitm|efficientnetv2_[lx]|_f[456]\b|regnet[xyzv]_?\d{3}\b(?!0)|120|160|320|640"
)

#: Library, kind, name, and what gives a network on the meta device with its inputs.
Job = tuple[str, str, str, Callable[[], tuple[nn.Module, list[torch.Tensor]]]]


def images(*shape: int) -> torch.Tensor:
    """A batch on the meta device."""
    return torch.empty(BATCH, *shape, device="meta")


def torchvision_jobs() -> Iterator[Job]:
    """Every network of torchvision, quantised ones aside, whose products are integers and have no gradients."""
    from torchvision import models

    def plain(name: str, *shapes: tuple[int, ...], **options: Any) -> Callable[[], tuple[nn.Module, list[Any]]]:
        def build() -> tuple[nn.Module, list[Any]]:
            with torch.device("meta"):
                return models.get_model(name, weights=None, **options), [images(*shape) for shape in shapes]

        return build

    for name in models.list_models(module=models):
        yield "torchvision", "classification", name, _built(f"torchvision:{name}")
    for name in models.list_models(module=models.segmentation):
        auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
        yield "torchvision", "segmentation", name, plain(name, (3, 224, 224), weights_backbone=None, **auxiliary)
    for name in models.list_models(module=models.video):
        side = 224 if "mvit" in name or "swin" in name else 112 if name != "s3d" else 224
        yield "torchvision", "video", name, plain(name, (3, 16, side, side))
    for name in models.list_models(module=models.optical_flow):
        yield "torchvision", "optical flow", name, plain(name, (3, 128, 128), (3, 128, 128))
    for name in models.list_models(module=models.detection):
        whole = plain(name, (3, 320, 320), weights_backbone=None)
        yield "torchvision", "detection, backbone", name, _backbone(whole)
        yield "torchvision", "detection, whole", name, _detector(name)


def _built(name: str) -> Callable[[], tuple[nn.Module, list[torch.Tensor]]]:
    def build() -> tuple[nn.Module, list[torch.Tensor]]:
        built = build_on_meta(name)
        return built.module, [images(*built.input_shape)]

    return build


def _backbone(whole: Callable[[], tuple[Any, list[Any]]]) -> Callable[[], tuple[nn.Module, list[Any]]]:
    def build() -> tuple[nn.Module, list[Any]]:
        network, inputs = whole()
        return network.backbone, inputs

    return build


def _detector(name: str) -> Callable[[], tuple[nn.Module, list[Any]]]:
    """Boxes are chosen by their scores: a whole detector needs data, here random images with one box each."""
    from torchvision import models

    def build() -> tuple[nn.Module, list[Any]]:
        torch.manual_seed(0)
        network = models.get_model(name, weights=None, weights_backbone=None)
        box = {"boxes": torch.tensor([[20.0, 30.0, 200.0, 250.0]]), "labels": torch.ones(1, dtype=torch.long)}
        if name.startswith("mask"):
            box["masks"] = torch.ones(1, 320, 320, dtype=torch.uint8)
        if name.startswith("keypoint"):
            box["keypoints"] = torch.tensor([[[100.0, 100.0, 1.0]] * 17])
        return network, [list(torch.rand(BATCH, 3, 320, 320)), [dict(box) for _ in range(BATCH)]]

    return build


def timm_jobs() -> Iterator[Job]:
    """Up to `PER_MODULE` networks of each module of timm."""
    import timm
    from timm.models import _registry

    by_module = defaultdict(list)
    for name in timm.list_models():
        by_module[_registry._model_to_module[name]].append(name)
    chosen = {}
    for module, names in sorted(by_module.items()):
        small = [name for name in names if not _LARGE.search(name)] or names[:1]
        chosen[module] = [small[i * len(small) // PER_MODULE] for i in range(PER_MODULE)]
    # One of each module first: a sweep that is ended early has seen them all.
    for turn in zip(*chosen.values(), strict=True):
        for module, name in zip(chosen, turn, strict=True):
            yield "timm", module, name, _built(f"timm:{name}")


def count(build: Callable[[], tuple[nn.Module, list[Any]]]) -> dict[str, Any]:
    """MACs of the batch, forward and backward, and the names of operations that are not counted; or why there is none.

    What was counted before an error is kept: it shows which operations were met.
    """
    with suppress_warnings():
        try:
            network, inputs = build()
        except Exception as error:  # one network must not end the sweep
            return {"error": f"not built: {_line(error)}"}
        network.train()
        found: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters())}
        with FlopCountingMode(network) as mode:
            try:
                loss = sum(t.float().sum() for t in find_nested_tensors(_plain(network(*inputs))) if t.requires_grad)
                mode.backward = True
                loss.backward()  # type: ignore[union-attr]
            except Exception as error:
                found["error"] = f"in {'backward' if mode.backward else 'forward'}: {_line(error)}"
    for way, backward in (("forward", False), ("backward", True)):
        operations = [o for o in mode.operations if o.backward == backward]
        found[f"{way}_macs"] = sum(o.macs or 0 for o in operations)
        found[f"{way}_uncounted"] = dict(Counter(o.name for o in operations if o.macs is None))
    return found


def _plain(output: Any) -> Any:
    """Named outputs of other libraries as what they hold."""
    return vars(output) if hasattr(output, "__dict__") and not isinstance(output, torch.Tensor | dict) else output


def _line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {text}"[:160]


def sweep(file: Path, seconds: float) -> None:
    """Counts every network that has no row in `file`, for so long."""
    done = {tuple(json.loads(line)["key"]) for line in file.read_text().splitlines()} if file.exists() else set()
    ends_s = time.monotonic() + seconds
    with file.open("a") as rows:
        for library, kind, name, build in (*torchvision_jobs(), *timm_jobs()):
            if (library, kind, name) in done:
                continue
            done.add((library, kind, name))
            if time.monotonic() > ends_s:
                print("more is left; run the same command again", file=sys.stderr)
                return
            row = {"key": [library, kind, name], **count(build)}
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            print(library, kind, name, row.get("error") or row.get("forward_uncounted"), file=sys.stderr, flush=True)


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as a page of documentation."""
    import torchvision

    try:
        import timm

        timm_version = timm.__version__
    except ImportError:
        timm_version = "not installed"
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        library, kind, _ = row["key"]
        groups[f"{library}, {kind}" if library == "torchvision" else library].append(row)
    partial = [r for r in rows if r.get("forward_uncounted") or r.get("backward_uncounted")]
    failed = [r for r in rows if "error" in r]
    lines = [
        "# Which operations are not counted?",
        "",
        "Written by `benchmarks/experiments/count_sweep.py`; do not edit. "
        f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm_version}; "
        f"{BATCH} images, training, forward and backward, on the meta device. Whole detectors need data and ran on the "
        f"CPU. "
        "An operation is counted by a formula, or known to contain no products, or listed here; "
        "`dlbench/worker/counting/operation_macs.py` has the table. Networks whose own code needs data have no count; "
        "their cases have the warning `flop_unknown`. Fourier transforms, "
        "factorisations, sparse and quantised products and custom operators have no formula and are listed.",
        "",
        "| networks | tried | counted in full | partial | do not run on meta |",
        "|---|---|---|---|---|",
    ]
    for group, of_group in groups.items():
        some = sum(r in partial and r not in failed for r in of_group)
        lost = sum(r in failed for r in of_group)
        lines.append(f"| {group} | {len(of_group)} | {len(of_group) - some - lost} | {some} | {lost} |")
    lines += ["", "## Partial counts", ""]
    if partial:
        lines += ["| network | operations that are not counted (calls) |", "|---|---|"]
    for row in partial:
        calls = Counter(row["forward_uncounted"]) + Counter(row["backward_uncounted"])
        names = ", ".join(f"`{name}` ({number})" for name, number in sorted(calls.items()))
        lines.append(f"| {row['key'][0]} {row['key'][2]} | {names} |")
    if not partial:
        lines.append("None.")
    lines += ["", "## Networks that do not run on the meta device", ""]
    lines += ["| network | reason |", "|---|---|"] if failed else ["None."]
    for row in failed:
        kind = f", {row['key'][1]}" if row["key"][0] == "torchvision" else ""
        lines.append(f"| {row['key'][0]} {row['key'][2]}{kind} | {row['error'].replace('|', '/')} |")
    lines += [
        "",
        "## Networks of timm",
        "",
        ", ".join(sorted(r["key"][2] for r in rows if r["key"][0] == "timm")) + ".",
    ]
    wrapped = [line if line.startswith("|") else textwrap.fill(line, 118) for line in lines]
    return "\n".join(wrapped) + "\n"


def main() -> None:
    """Sweeps, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="JSON lines, one per network")
    parser.add_argument("--page", action="store_true", help="write the page from the rows")
    parser.add_argument("--seconds", type=float, default=1e9, help="end after so long; the same command resumes")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page([json.loads(line) for line in options.rows.read_text().splitlines()]))
    else:
        sweep(options.rows, options.seconds)


if __name__ == "__main__":
    main()
