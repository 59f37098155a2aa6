"""Dispersion of one attempt's steps as the textbook has it, to hold the figures of whole stores against."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean, pstdev, stdev

from dlbench import stats


def coefficient_of_variation(steps):
    """Standard deviation over mean; None for fewer than two steps."""
    return stdev(steps) / fmean(steps) if len(steps) >= 2 else None


def autocorrelation(steps):
    """Σ d_t d_{t+1} / Σ d_t², d = x - mean; None for equal steps and for fewer than three."""
    mean = fmean(steps)
    if len(steps) < 3 or pstdev(steps) <= 1e-12 * mean:
        return None
    deviations = [x - mean for x in steps]
    products = sum(a * b for a, b in pairwise(deviations))
    return products / sum(d * d for d in deviations)


def count_outliers(samples):
    """More than 3 interquartile ranges beyond the quartiles: Tukey's fences (1977)."""
    low, high = stats.percentile(samples, 25), stats.percentile(samples, 75)
    reach = 3 * (high - low)
    return sum(1 for x in samples if x < low - reach or x > high + reach)
