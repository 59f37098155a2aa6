"""Does a suite give the same cases and the same world sizes whoever starts its ranks? One real run for each launcher.

    python benchmarks/experiments/launchers.py [--suite scaling_weak] [--write] [--results FOLDER] [-P axis=value ...]

local, torchrun, and mpirun of MPICH and of Open MPI. Each MPI comes from its wheel into a small environment of its own,
which borrows everything else from this one; pip fetches it. Throughput is beside each, and is not what is compared: the
launchers run one after the other, for a comparison take `dlbench ab`.
"""

from __future__ import annotations

import argparse
import os
import site
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np

import dlbench
from dlbench import units

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "experiments" / "launchers.md"
#: Name of each way, the launcher's name, and the wheel whose mpirun it needs.
WAYS = (
    ("local", "local", None),
    ("torchrun", "torchrun", None),
    ("mpirun, MPICH", "mpirun", "mpich"),
    ("mpirun, Open MPI", "mpirun", "openmpi"),
)


def main() -> int:
    """Run all ways and hold their records against each other; 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="scaling_weak")
    parser.add_argument("-P", dest="overrides", action="append", default=[], help="as for `dlbench run`")
    parser.add_argument("--results", type=Path, help="keep the stores here, one folder for each way")
    parser.add_argument("--write", action="store_true", help=f"also write {DOC.relative_to(ROOT)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.results or Path(temporary)
        found = {}
        for name, launcher, wheel in WAYS:
            python = environment_with(wheel, Path(temporary) / wheel) if wheel else Path(sys.executable)
            store = folder / name.replace(", ", "-").replace(" ", "-").lower()
            overrides = [word for o in options.overrides for word in ("-P", o)]
            argv = [python, "-m", "dlbench", "run", options.suite, "--launcher", launcher, "--results", store]
            print(f"== {name}", flush=True)
            subprocess.run([*map(str, argv), *overrides], cwd=ROOT, check=False)
            found[name] = rows_of(store)
    same = len({tuple((r["case_id"], r["world_size"]) for r in rows) for rows in found.values()}) == 1
    text = page(options, found, same)
    print(text)
    if options.write:
        DOC.parent.mkdir(parents=True, exist_ok=True)
        DOC.write_text(text, encoding="utf-8")
    return 0 if same and all(r["good"] for rows in found.values() for r in rows) else 1


def environment_with(wheel: str, folder: Path) -> Path:
    """A virtual environment with this MPI and mpi4py that sees all other packages of ours; gives its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    purelib = next((folder / "lib").glob("python3*")) / "site-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", wheel, "mpi4py"],
        check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    # Behind its own packages, so that its mpi4py and its MPI come first.
    (purelib / "borrowed.pth").write_text("\n".join([*site.getsitepackages(), str(ROOT)]) + "\n", encoding="utf-8")
    return python


def rows_of(store: Path) -> list[dict[str, Any]]:
    """Of each case what its latest attempt says, by case."""
    frame = dlbench.load(store)
    cases = []
    for case_id, ranks in frame.groupby("case_id", sort=True):
        last = ranks[ranks["attempt_id"] == ranks["attempt_id"].max()]
        first = last.iloc[0]
        steps = [np.asarray(s, dtype=float) for s in last["step_s"]]
        shortest = min(map(len, steps))
        slowest = np.max([s[:shortest] for s in steps], axis=0) if shortest else np.array([np.nan])
        sources = {str(d) for d in last["system_details"].str.extract(r'"rank_source": "([^"]*)"')[0].dropna()}
        cases.append(
            {
                "case_id": str(case_id),
                "model": first["model"],
                "asked": int(first["nodes"] * first["devices_per_node"]),
                "world_size": int(first["world_size"]),
                "ranks": len(last),
                "good": first["status"] in ("ok", "unstable") and len(last) == int(first["world_size"]),
                "status": first["status"],
                "batch": int(first["batch_size"]),
                "rate": float(first["batch_size"] * len(last) / np.median(slowest)),
                "by": ", ".join(sorted(sources)) or "–",
            }
        )
    return sorted(cases, key=lambda c: (c["model"], c["asked"]))


def page(options: argparse.Namespace, found: dict[str, list[dict[str, Any]]], same: bool) -> str:
    """The outcome as Markdown."""
    one = next(iter(found.values()))
    verdict = "The cases and the numbers of ranks are the same for all launchers." if same else "**They differ.**"
    lines = [
        "# The same suite under every launcher",
        "",
        f"Written by `benchmarks/experiments/launchers.py --write` (suite {options.suite}"
        f"{', ' + ', '.join(options.overrides) if options.overrides else ''}), {os.cpu_count()} CPU cores, one rank "
        f"per device, Gloo. {verdict} Four ranks share two cores here, so the table shows that the launchers work, not "
        f"how they scale.",
        "",
        "| network | ranks requested |  " + " | ".join(f"{name} [img/s]" for name in found) + " |",
        "|---|---:|" + "---:|" * len(found),
    ]
    for i, case in enumerate(one):
        cells = []
        for rows in found.values():
            cells.append(_cell(rows[i]) if i < len(rows) else "missing")
        lines.append(f"| {case['model']} | {case['asked']} | {' | '.join(cells)} |")
    sources = {name: sorted({r["by"] for r in rows if r["asked"] > 1}) for name, rows in found.items()}
    lines += ["", "Source of the rank number:  "]
    lines[-1] += "; ".join(f"{name}: {', '.join(by)}" for name, by in sources.items()) + "."
    return "\n".join([*lines, ""])


def _cell(case: dict[str, Any]) -> str:
    return f"{case['rate']:.0f} ({units.count_text(case['ranks'], 'rank')})" if case["good"] else str(case["status"])


if __name__ == "__main__":
    sys.exit(main())
