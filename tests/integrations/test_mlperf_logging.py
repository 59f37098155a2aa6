"""MLPerf's own parser reads the log lines of `dlbench export --format mllog`."""

import subprocess

import pytest

from dlbench.report.export import export_chunks
from tests.fakes import records as fakes

pytestmark = pytest.mark.integrations
PARSE = """
import sys
from mlperf_logging.compliance_checker.mlp_parser import parse_file
lines, errors = parse_file(sys.argv[1], ruleset="5.1.0")
print(len(lines), len(errors), sorted({line.key for line in lines}))
"""


def test_every_line_is_parsed_without_errors(tools, tmp_path):
    text = "".join(export_chunks([fakes.fill(tmp_path / "store", fakes.quick(fakes.GPU))], "mllog"))
    (tmp_path / "result_0.txt").write_text(text)
    done = subprocess.run(
        [tools / "python", "-c", PARSE, tmp_path / "result_0.txt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, errors, keys = done.stdout.split(maxsplit=2)
    assert (int(count), int(errors)) == (len(text.splitlines()), 0)
    assert "tracked_stats" in keys
