"""A model of how a step grows with the devices, fitted to what was measured and asked about sizes not yet bought.

    step(n) = compute(b) + max(0, transfer * (n-1)/n + latency * hops(n) - overlap * compute(b))
    compute(b) = fixed + per_image * b

b images per device on n devices. An all-reduce moves 2(n-1)/n of the gradients over each link (Patarasuk and Yuan, J.
Parallel Distrib. Comput. 69, 2009), so `transfer` is twice the gradients' bytes over the bandwidth. Its latency grows
with the hops: 2(n-1) around a ring, 2 log2(n) up and down a tree; the one that fits better is taken. What backward hides
is a share `overlap` of the computation. One kind of link is assumed: a fit within a node says nothing beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

_Array = NDArray[np.float64]


def _ring(devices: _Array) -> _Array:
    return 2 * (devices - 1)


def _tree(devices: _Array) -> _Array:
    return 2 * np.log2(devices)


HOPS: dict[str, Callable[[_Array], _Array]] = {"ring": _ring, "tree": _tree}


@dataclass(frozen=True)
class Sample:
    """One measured size: median step time [s], and without synchronisation where that was measured [s]."""

    devices: int
    batch_size: int
    step_s: float
    compute_s: float | None = None


@dataclass(frozen=True)
class ScalingModel:
    """See the module; times in seconds."""

    fixed_s: float
    per_image_s: float
    transfer_s: float
    latency_s: float
    overlap: float
    algorithm: str
    fitted: tuple[int, ...]  # numbers of devices
    left_out_error: float | None = None  # largest relative error at a size that the fit did not see; None: not tested

    def compute_s(self, batch_size: float) -> float:
        """Time of a step's own work [s]."""
        return self.fixed_s + self.per_image_s * batch_size

    def exposed_s(self, devices: int, batch_size: float) -> float:
        """Communication that is not hidden [s]."""
        if devices == 1:
            return 0.0
        n = np.array([float(devices)])
        total = self.transfer_s * (devices - 1) / devices + self.latency_s * float(HOPS[self.algorithm](n)[0])
        return max(0.0, total - self.overlap * self.compute_s(batch_size))

    def step_s(self, devices: int, batch_size: float) -> float:
        """Time of a step [s]."""
        return self.compute_s(batch_size) + self.exposed_s(devices, batch_size)


def fit(samples: Sequence[Sample]) -> ScalingModel | None:
    """The model of these samples with its error at left-out ones; None with fewer than two sizes beyond one device."""
    model = _fit(samples)
    if model is None:
        return None
    errors = []
    for i, left_out in enumerate(samples):
        rest = [*samples[:i], *samples[i + 1 :]]
        # A size that both neighbours bracket is the easy half; the largest is an extrapolation, as the use will be.
        other = _fit(rest) if left_out.devices > 1 and _enough(rest) else None
        if other is not None:
            errors.append(abs(other.step_s(left_out.devices, left_out.batch_size) / left_out.step_s - 1))
    return replace(model, left_out_error=max(errors) if errors else None)


def _enough(samples: Sequence[Sample]) -> bool:
    return len({s.devices for s in samples if s.devices > 1}) >= 2


def _fit(samples: Sequence[Sample]) -> ScalingModel | None:
    if not _enough(samples):
        return None
    fixed_s, per_image_s = _fit_compute(samples)
    if not math.isfinite(fixed_s):
        return None
    several = [s for s in samples if s.devices > 1]
    devices = np.array([float(s.devices) for s in several])
    steps = np.array([s.step_s for s in several])
    compute = np.array([fixed_s + per_image_s * s.batch_size for s in several])
    with_overlap = len({s.devices for s in several}) > 2
    fits = [(*_fit_exposed(devices, steps, compute, name, with_overlap), name) for name in HOPS]
    cost, (transfer_s, latency_s, overlap), algorithm = min(fits, key=lambda f: f[0])
    fitted = tuple(sorted({s.devices for s in samples}))
    return ScalingModel(fixed_s, per_image_s, transfer_s, latency_s, overlap, algorithm, fitted)


def _fit_compute(samples: Sequence[Sample]) -> tuple[float, float]:
    """Fixed and per-image time [s] of a step's own work, by least relative squares; constant where the batch is."""
    known = [(s.batch_size, s.step_s if s.devices == 1 else s.compute_s) for s in samples]
    pairs = [(float(b), c) for b, c in known if c is not None and c > 0]
    if not pairs:
        return math.nan, math.nan
    batches, times = np.array([b for b, _ in pairs]), np.array([c for _, c in pairs])
    if np.unique(batches).size < 2:
        return float(np.median(times)), 0.0
    matrix = np.stack([1 / times, batches / times], axis=1)
    (fixed_s, per_image_s), _ = nnls(matrix, np.ones(len(times)))
    return float(fixed_s), float(per_image_s)


def _fit_exposed(
    devices: _Array, steps: _Array, compute: _Array, algorithm: str, with_overlap: bool
) -> tuple[float, tuple[float, float, float]]:
    """Sum of squared relative errors, and transfer [s], latency [s] and overlap that make it smallest."""
    share, hops = (devices - 1) / devices, HOPS[algorithm](devices)
    matrix = np.stack([share, hops, -compute], axis=1)[:, : 3 if with_overlap else 2]
    scale = float(steps.max())

    def errors(x: _Array) -> _Array:
        # In units of the longest step, so that all three are of one size.
        exposed = matrix @ (np.append(x[:2] * scale, x[2:])[: matrix.shape[1]])
        found: _Array = (compute + np.maximum(0.0, exposed)) / steps - 1
        return found

    # Where nothing is hidden altogether the problem is linear; beside it, starts from which hidden ones are reached.
    linear, _ = nnls(matrix / steps[:, None], (steps - compute) / steps)
    starts = [np.append(linear[:2] / scale, linear[2:])]
    starts += [np.array([t, l, o])[: matrix.shape[1]] for t in (0.1, 1.0) for l in (1e-4, 1e-2) for o in (0.1, 0.5)]
    limits = (np.zeros(matrix.shape[1]), np.array([np.inf, np.inf, 1.0])[: matrix.shape[1]])
    best = min(
        (least_squares(errors, np.clip(s, *limits), bounds=limits, x_scale=[1.0, 1e-2, 1.0][: len(s)]) for s in starts),
        key=lambda result: float(result.cost),
    )
    candidates = [best.x, np.clip(starts[0], *limits)]
    x = min(candidates, key=lambda c: float(errors(c) @ errors(c)))
    overlap = float(x[2]) if with_overlap else 0.0
    return float(errors(x) @ errors(x)), (float(x[0]) * scale, float(x[1]) * scale, overlap)
