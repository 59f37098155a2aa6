"""A model of how a step grows with the devices, fitted to what was measured and asked about sizes not yet bought.

    step(n) = compute(b) + max(0, transfer * (n-1)/n + latency * hops(n) - overlap * compute(b))
    compute(b) = fixed + per_image * b

b images per device on n devices. An all-reduce moves 2(n-1)/n of the gradients over each link (Patarasuk and Yuan, J.
Parallel Distrib. Comput. 69, 2009), so `transfer` is twice the gradients' bytes over the bandwidth. Its latency grows
with the hops: 2(n-1) around a ring, 2 log2(n) up and down a tree; the one that fits better is taken. Both are fitted to
the all-reduce of all gradients by itself, which each case times after its window: from the step alone one cannot tell
less communication from more that is hidden. What backward hides is a share `overlap` of the computation. One kind of
link is assumed: a fit within a node says nothing beyond it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]


def nonnegative_least_squares(matrix: _Array, values: _Array) -> tuple[_Array, float]:
    """Least squares without negative coefficients, and the norm of what is left (Lawson & Hanson 1974)."""
    # It takes some time to import, and most reports fit no model.
    from scipy import optimize

    found: tuple[_Array, float] = optimize.nnls(matrix, values)
    return found


#: Exposed communication below this share of the computation is noise.
MIN_EXPOSED_SHARE = 0.005
#: What exceeds so many standard deviations of the noise is no noise.
SIGMAS = 3.0
HOPS: dict[str, Callable[[_Array], _Array]] = {
    "ring": lambda devices: 2 * (devices - 1),
    "tree": lambda devices: 2 * np.log2(devices),
}


@dataclass(frozen=True)
class ScalingSample:
    """One measured size: median step time [s], and without synchronisation where that was measured [s]."""

    devices: int
    batch_size: int  # per device
    step_s: float
    compute_s: float | None = None
    communication_s: float | None = None  # an all-reduce of all gradients by itself


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
    overlap_known: bool = True  # False: all communication was hidden, and `overlap` is what it was at least
    fit_error: float = 0.0  # largest relative error at a fitted size
    left_out_error: float | None = None  # largest relative error at a size that the fit did not see; None: not tested

    def compute_s(self, batch_size: float) -> float:
        """Time of a step's own work [s]."""
        return self.fixed_s + self.per_image_s * batch_size

    def exposed_communication_s(self, devices: int, batch_size: float) -> float:
        """Communication that is not hidden [s]."""
        if devices == 1:
            return 0.0
        n = np.array([float(devices)])
        total = self.transfer_s * (devices - 1) / devices + self.latency_s * float(HOPS[self.algorithm](n)[0])
        return max(0.0, total - self.overlap * self.compute_s(batch_size))

    def step_s(self, devices: int, batch_size: float) -> float:
        """Time of a step [s]."""
        return self.compute_s(batch_size) + self.exposed_communication_s(devices, batch_size)

    def minimum_step_s(self, devices: int, batch_size: float) -> float:
        """The same if what is not known of the overlap were in our favour [s]; a step is between the two."""
        return self.step_s(devices, batch_size) if self.overlap_known else self.compute_s(batch_size)


def fit_scaling_model(samples: Sequence[ScalingSample]) -> ScalingModel | None:
    """The model of these samples with its error at left-out ones; None with fewer than two sizes beyond one device."""
    model = _fit_model(samples)
    if model is None:
        return None
    errors = []
    for i, left_out in enumerate(samples):
        rest = [*samples[:i], *samples[i + 1 :]]
        other = _fit_model(rest) if left_out.devices > 1 and _has_enough_sizes(rest) else None
        if other is not None:
            errors.append(abs(other.step_s(left_out.devices, left_out.batch_size) / left_out.step_s - 1))
    own = [abs(model.step_s(s.devices, s.batch_size) / s.step_s - 1) for s in samples]
    return replace(model, fit_error=max(own), left_out_error=max(errors) if errors else None)


def _has_enough_sizes(samples: Sequence[ScalingSample]) -> bool:
    return len({s.devices for s in samples if s.devices > 1}) >= 2


def _fit_model(samples: Sequence[ScalingSample]) -> ScalingModel | None:
    if not _has_enough_sizes(samples):
        return None
    fixed_s, per_image_s = _fit_computation_time(samples)
    if not math.isfinite(fixed_s):
        return None
    several = [s for s in samples if s.devices > 1]
    devices = np.array([float(s.devices) for s in several])
    steps = np.array([s.step_s for s in several])
    compute = np.array([fixed_s + per_image_s * s.batch_size for s in several])
    own = np.array([compute[i] if s.compute_s is None else s.compute_s for i, s in enumerate(several)])
    exposed = np.maximum(0.0, steps - own)
    totals = np.array([math.nan if s.communication_s is None else s.communication_s for s in several])
    noise = _computation_noise(samples, fixed_s, per_image_s)
    if np.isfinite(totals).all():
        # Weighted by themselves: a time is known to a percentage.
        algorithm, transfer_s, latency_s = _fit_communication(devices, totals, 1 / totals, noise)
        overlap, known = _fit_communication_overlap(totals, exposed, compute, noise)
    else:
        algorithm, transfer_s, latency_s = _fit_communication(devices, exposed, 1 / steps, noise)
        overlap, known = 0.0, True
    fitted = tuple(sorted({s.devices for s in samples}))
    return ScalingModel(fixed_s, per_image_s, transfer_s, latency_s, overlap, algorithm, fitted, known)


def _fit_computation_time(samples: Sequence[ScalingSample]) -> tuple[float, float]:
    """Fixed and per-image time [s] of a step's own work, by least relative squares; constant where the batch is."""
    known = [(s.batch_size, s.step_s if s.devices == 1 else s.compute_s) for s in samples]
    pairs = [(float(b), c) for b, c in known if c is not None and c > 0]
    if not pairs:
        return math.nan, math.nan
    batches, times = np.array([b for b, _ in pairs]), np.array([c for _, c in pairs])
    if np.unique(batches).size < 2:
        return float(np.median(times)), 0.0
    (fixed_s, per_image_s), _ = nonnegative_least_squares(
        np.stack([1 / times, batches / times], axis=1), np.ones(len(times))
    )
    return float(fixed_s), float(per_image_s)


def _fit_communication(devices: _Array, times: _Array, weights: _Array, noise: float) -> tuple[str, float, float]:
    """The algorithm with the smaller error, and its transfer and latency [s], by least weighted squares from 0 on.

    Latency counts only where it explains more than noise does: made of noise it is a large error at larger sizes.
    """
    shares = (devices - 1) / devices * weights
    (alone_s,), error = nonnegative_least_squares(shares[:, None], times * weights)
    without = (float(error), "ring", float(alone_s), 0.0)
    best = (math.inf, "ring", 0.0, 0.0)
    for name, hops in HOPS.items():
        matrix = np.stack([shares, hops(devices) * weights], axis=1)
        (transfer_s, latency_s), error = nonnegative_least_squares(matrix, times * weights)
        best = min(best, (float(error), name, float(transfer_s), float(latency_s)))
    return best[1:] if without[0] > max(noise * math.sqrt(len(times)), 2 * best[0]) else without[1:]


def _computation_noise(samples: Sequence[ScalingSample], fixed_s: float, per_image_s: float) -> float:
    """Relative standard deviation of measured computation around the fitted one; 0 where too little was measured."""
    known = [(s.batch_size, s.step_s if s.devices == 1 else s.compute_s) for s in samples]
    errors = [c / (fixed_s + per_image_s * b) - 1 for b, c in known if c is not None and c > 0]
    free = len(errors) - (1 if per_image_s == 0 else 2)
    return math.sqrt(sum(e * e for e in errors) / free) if free > 0 else 0.0


def _fit_communication_overlap(totals: _Array, exposed: _Array, compute: _Array, noise: float) -> tuple[float, bool]:
    """The share of the computation behind which communication hides, and whether that is more than a lower bound.

    Where some of it is seen, the hidden part is the rest; where all is hidden the share is at least that large.
    """
    # The difference of two times that scatter by `noise` each.
    seen = exposed > max(MIN_EXPOSED_SHARE, SIGMAS * math.sqrt(2) * noise) * compute
    hidden = np.clip((totals - exposed) / compute, 0.0, 1.0)
    return (float(np.median(hidden[seen])), True) if seen.any() else (float(hidden.max()), False)
