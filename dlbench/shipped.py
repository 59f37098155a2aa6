"""Files that come with dlbench, to use and to copy: suites, site profiles, price lists, container recipes.

They live in the top-level folders of the checkout; a wheel carries them in `dlbench/shipped_files`. A user's own come
first: those in the current folder, laid out alike (`benchmarks/`, `slurm/`), then those in the folders of
`$DLBENCH_PATH`, laid out alike or without subfolders.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dlbench.errors import BadInput, UnknownName

_IN_WHEEL = Path(__file__).parent / "shipped_files"
#: Where the folders below lie.
ROOT = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).resolve().parents[1]
#: What TOML files there are, each with its folder.
FOLDERS = {"suite": "benchmarks", "site profile": "slurm", "price list": "benchmarks/prices"}
RECIPES = ROOT / "containers"
REPORTS = ROOT / "reports"


def folders(kind: str) -> list[Path]:
    """Where files of this kind are looked for, the user's own first."""
    own = [Path(folder) for folder in os.environ.get("DLBENCH_PATH", "").split(os.pathsep) if folder]
    places = [Path(), *own, ROOT]
    found = [place for folder in places for place in (folder / FOLDERS[kind], *([folder] if folder in own else []))]
    return [folder for folder in found if folder.is_dir()]


def available(kind: str) -> dict[str, Path]:
    """All files of this kind by name; of two with one name that which is found first."""
    files: dict[str, Path] = {}
    for folder in folders(kind):
        for file in sorted(folder.glob("*.toml")):
            files.setdefault(file.stem, file)
    return files


def find(kind: str, name: str | Path) -> Path:
    """The file that a command line names, by its path or by its name alone.

    Raises:
        BadInput: there is no such file.
        UnknownName: no file of this kind has this name.
    """
    file = Path(name)
    if max(map(len, map(os.fsencode, file.parts)), default=0) > 250 or len(str(name)) > 4000:
        raise BadInput(f"no {kind} has a name of {len(str(name))} characters")
    if file.suffix == ".toml" or file.is_file():
        if not file.is_file():
            raise BadInput(f"no {kind} at '{name}': there is no such file")
        return file
    for folder in folders(kind):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise UnknownName(kind, name, available(kind), hint="Or give the path of a TOML file.")


def copy(source: Path, target: Path) -> Path:
    """Copy a file or a folder to `target`, which must not exist yet.

    Raises:
        BadInput: `target` exists or cannot be written.
    """
    if os.path.lexists(target):
        raise BadInput(f"'{target}' exists already; move it away first")
    try:
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror or error}") from error
    return target
