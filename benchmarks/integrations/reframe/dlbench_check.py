"""A ReFrame check that runs a dlbench suite and takes its performance references from an acceptance file.

    reframe -C SETTINGS -c dlbench_check.py -r --performance-report \\
      -S dlbench_check.suite=classic -S dlbench_check.acceptance=/path/acceptance.toml

Each line of the acceptance file becomes a performance variable with its bound and tolerance. The check fails where a
case was not measured, or where a value misses its reference. dlbench must be on PATH, or `dlbench` names it.
"""

import re
import tomllib
from pathlib import Path

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import run_after, run_before, sanity_function, variable

#: Names of metrics in acceptance files, and in the lines that are read here, with their units.
METRICS = {
    "throughput": ("throughput_img_per_s", "img/s"),
    "step_time": ("step_time_s", "s"),
    "energy_per_image": ("energy_per_image_j", "J/img"),
    "average_power": ("average_power_w", "W"),
    "mfu": ("model_flop_utilization", "1"),
    "memory_allocated": ("memory_allocated_peak_bytes", "B"),
}


@rfm.simple_test
class dlbench_check(rfm.RunOnlyRegressionTest):
    """One suite; its cases are performance variables."""

    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    dlbench = variable(str, value="dlbench")
    suite = variable(str, value="quick")
    acceptance = variable(str, value="")
    time_limit = "2h"

    @run_after("init")
    def set_commands(self):
        """Run the suite, then print a line per case."""
        self.executable = self.dlbench
        self.executable_opts = ["run", self.suite, "--results", "results"]
        self.postrun_cmds = [f"{self.dlbench} export results --format jube"]

    @sanity_function
    def all_cases_measured(self):
        """Every case is ok or unstable, and there is one."""
        found = sn.extractall(r"^dlbench: status=(\w+)", self.stdout, 1)
        return sn.and_(sn.assert_ge(sn.len(found), 1), sn.all(sn.map(lambda s: s in ("ok", "unstable"), found)))

    @run_before("performance")
    def set_references(self):
        """A performance variable for each line of the acceptance file; without one, each case's throughput."""
        lines = tomllib.loads(Path(self.acceptance).read_text()).get("line", []) if self.acceptance else []
        self.perf_variables = {}
        references = {}
        for number, line in enumerate(lines, 1):
            if line["metric"] not in METRICS:
                raise ValueError(f"{self.acceptance}, line {number}: metric must be one of {', '.join(METRICS)}")
            name, unit = METRICS[line["metric"]]
            at_least = "at_least" in line
            bound, tolerance = line["at_least" if at_least else "at_most"], line.get("tolerance", 0.0)
            key = f"line_{number}_{name}"
            case = {axis: "_".join(str(value).split()) for axis, value in line["case"].items()}
            pattern = "".join(rf"(?=.* {re.escape(axis)}={re.escape(value)}(?: |$))" for axis, value in case.items())
            value = rf"^dlbench: {pattern}.*\b{name}=(\S+)"
            self.perf_variables[key] = sn.make_performance_function(
                sn.extractsingle(value, self.stdout, 1, float), unit
            )
            references[key] = (bound, -tolerance, None, unit) if at_least else (bound, None, tolerance, unit)
        if not lines:
            value = r"\bthroughput_img_per_s=(\S+)"
            self.perf_variables["throughput"] = sn.make_performance_function(
                sn.extractsingle(value, self.stdout, 1, float), "img/s"
            )
        if references:
            self.reference = {"*": references}
