"""An old Python, such as the system's on many login nodes, gets one plain line instead of a traceback."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What is read before the version is looked at.
READ_FIRST = ("dlbench/__main__.py", "dlbench/__init__.py", "dlbench/version.py")


@pytest.mark.parametrize("name", READ_FIRST)
def test_what_an_old_python_reads_first_is_python_3_6(name):
    tree = ast.parse((ROOT / name).read_text(), feature_version=(3, 6))
    # ast takes any feature for known; 3.6 does not know this one.
    futures = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert futures == []
    # No built-in generics and unions where annotations are evaluated.
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            notes = [*(a.annotation for a in node.args.args), node.returns]
            assert all(isinstance(note, ast.Name | ast.Constant | None) for note in notes)


@pytest.mark.parametrize("version", [(3, 6, 8, "final", 0), (3, 9, 18, "final", 0), (3, 10, 0, "final", 0)])
def test_an_old_python_is_told_in_one_line_which_one_is_needed(version):
    code = f"import runpy, sys; sys.version_info = {version}; runpy.run_module('dlbench', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    number = ".".join(map(str, version[:3]))
    assert line.startswith(f"dlbench: needs Python 3.11 or newer, but {sys.executable} is {number};")
