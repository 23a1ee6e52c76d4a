"""Small statistics used everywhere: intervals for success rates and for means."""

from __future__ import annotations

import math

import numpy as np

from lapwing.episode import Array


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a rate (95 % by default). (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def bootstrap_interval(values: Array, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `values` [N]."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return math.nan, math.nan
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's rank correlation with averaged ties; NaN when either side is constant or shorter than two."""
    if len(first) < 2:
        return math.nan
    ranks = [_average_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    spread = ranks[0].std() * ranks[1].std()
    if spread == 0:
        return math.nan
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread)


def _average_ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = (ends - (counts - 1) / 2)[inverse]
    return ranks
