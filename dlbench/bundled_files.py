"""Files that come with dlbench, to use and to copy: suites, site profiles, price lists, container recipes.

They are in the top-level folders of the checkout; a wheel contains them in `dlbench/shipped_files`. User files come
first: those in the current folder, with the same layout (`benchmarks/`, `slurm/`), then those in the folders of
`$DLBENCH_PATH`, with the same layout or without subfolders.
"""

import os
import shutil
from pathlib import Path

from dlbench.errors import BadInput, UnknownName, convert_write_errors

_IN_WHEEL = Path(__file__).parent / "shipped_files"
#: Parent of the folders below.
ROOT = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).resolve().parents[1]
#: Kinds of TOML files, each with its folder.
FOLDERS = {"suite": "benchmarks", "site profile": "slurm", "price list": "benchmarks/prices"}
RECIPES = ROOT / "containers"
REPORTS = ROOT / "reports"


def folders_to_search(kind: str) -> list[Path]:
    """Return the folders searched for files of this kind, user folders first."""
    own = [Path(folder) for folder in os.environ.get("DLBENCH_PATH", "").split(os.pathsep) if folder]
    places = [Path(), *own, ROOT]
    found = [place for folder in places for place in (folder / FOLDERS[kind], *([folder] if folder in own else []))]
    return [folder for folder in found if folder.is_dir()]


def available_files(kind: str) -> dict[str, Path]:
    """Return all files of this kind by name; the first found wins."""
    files: dict[str, Path] = {}
    for folder in folders_to_search(kind):
        for file in sorted(folder.glob("*.toml")):
            files.setdefault(file.stem, file)
    return files


def find_file(kind: str, name: str | Path) -> Path:
    """Find a file by its path or by its name. Raises BadInput without the file, UnknownName without the name."""
    file = Path(name)
    if max(map(len, map(os.fsencode, file.parts)), default=0) > 250 or len(str(name)) > 4000:
        raise BadInput(f"{kind} name of {len(str(name))} characters is too long")
    if file.suffix == ".toml" or file.is_file():
        if not file.is_file():
            raise BadInput(f"{kind} '{name}' does not exist; check the path")
        return file
    for folder in folders_to_search(kind):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise UnknownName(kind, name, available_files(kind), hint="You can also give the path of a TOML file.")


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file or a folder to `target`. Raises BadInput if `target` exists already or cannot be written."""
    if os.path.lexists(target):
        raise BadInput(f"'{target}' already exists; move or delete it first")
    with convert_write_errors(target, kind=BadInput):
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    return target
