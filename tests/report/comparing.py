"""Comparison of two sets of rows, as `dlbench compare` makes it of two stores."""

from dlbench.report.analysis.comparison import compare_cases
from dlbench.report.analysis.comparison_matching import ComparisonRules, usable_attempts_of_side


def compare_stores(base, target, rules=None, base_where=(), target_where=(), every_attempt=False):
    rules = rules or ComparisonRules()
    a = usable_attempts_of_side(base, base_where, every_attempt, "BASE", rules)
    return compare_cases(a, usable_attempts_of_side(target, target_where, every_attempt, "TARGET", rules), rules)
