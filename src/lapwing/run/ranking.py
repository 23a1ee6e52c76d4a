"""Estimates of several policies: which is best, and how sure that is by bootstrap over episodes and networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lapwing.episode import Array

DRAWS = 2000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Values:
    """Estimates of P policies from S starts, by each of M networks apart, and how they came about.

    value: float64 [P, M, S]; course: [T, P], means at `steps` int64 [T]: while fitting, or, played in a learned world,
    what was earned by then. Of such a world alone, meanwhile: [P, M, S], what was earned until the recorded episode of
    the same start was cut, all where it was not; lost: [P], share of the played episodes that came where the world is
    unknown; fidelity: rank correlation of recorded returns with those of the same actions in it, NaN where either does
    not vary.
    """

    value: Array
    course: Array
    steps: Array
    meanwhile: Array | None = None
    lost: Array | None = None
    fidelity: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Policies by their estimates; all in the order in which they were given.

    order: int64 [P], their places, the best first. value: float64 [P]. interval: of each value, 95 %. best: float64
    [P], probability of having the highest value, shared where several have it. behind: 95 % interval of the highest
    value less each.
    """

    order: Array
    value: Array
    interval: tuple[Interval, ...]
    best: Array
    behind: tuple[Interval, ...]


def rank(value: Array, seed: int = 0, draws: int = DRAWS) -> Ranking:
    """Rank policies by their mean values, float [P, M, S]: of M networks each, at the starts of S episodes.

    A draw takes S episodes and one network with replacement, the same for all policies: what makes an episode easy for
    all of them does not blur their order. By the mean, not the lower bound: all share their episodes, so the width of
    an interval says how much these differ, hardly how good one policy is beside another.
    """
    policies, members, starts = value.shape
    random = np.random.default_rng(seed)
    drawn = np.empty((draws, policies))
    for draw in range(draws):
        episodes = random.integers(0, starts, starts)
        drawn[draw] = value[:, random.integers(0, members)][:, episodes].mean(1)
    mean = value.mean((1, 2))
    order = np.argsort(-mean, kind="stable")
    highest = drawn == drawn.max(1, keepdims=True)
    best = (highest / highest.sum(1, keepdims=True)).mean(0)
    return Ranking(order, mean, _intervals(drawn), best, _intervals(drawn[:, order[:1]] - drawn))


def mean_interval(value: Array, episode: Array, seed: int = 0, draws: int = DRAWS) -> Interval:
    """95 % bootstrap interval of the mean of samples [N], whole episodes (int [N]) being drawn."""
    _, place = np.unique(episode, return_inverse=True)
    total, count = np.bincount(place, value), np.bincount(place)
    picks = np.random.default_rng(seed).integers(0, len(count), (draws, len(count)))
    return _intervals((total[picks].sum(1) / count[picks].sum(1))[:, None])[0]


def _intervals(drawn: Array) -> tuple[Interval, ...]:
    """The middle 95 % of each column of draws."""
    return tuple((float(low), float(high)) for low, high in np.quantile(drawn, [0.025, 0.975], axis=0).T)
