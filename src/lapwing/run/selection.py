"""What a selection found: the record of select.json, and its verdict in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lapwing.run.by_fitted_q import LONGEST
from lapwing.run.held_out import FEW_EPISODES, Calibration
from lapwing.run.page import Finding, Tone
from lapwing.run.verdict import RANKS_WELL, percent
from lapwing.stats import rank_correlation

SURE, LIKELY = 0.95, 0.7  # probability of being the best from which on the verdict says so
STRANGE = 0.3  # share of actions far from the data from which on an estimate is a guess; of the data itself it is 0.05
AT_ODDS = -0.3  # rank correlation of value and nearness to the data below which the two disagree
STRAYS = 0.5  # share of the played episodes that left the known world from which on a value says little
FAITHFUL = 0.3  # rank correlation of recorded returns with those replayed in the learned world, below which it is poor
TOO_FAR = 1.3  # times the error of holding still or of the mean action from which on a policy is no imitator at all

EstimateName = Literal["model", "fitted-q"]


@dataclass(frozen=True)
class Judged:
    """One policy: a checkpoint in one of its modes, in the order of the ranking.

    value: the estimate, discounted, in units of reward, with its 95 % interval; gain: 95 % interval of what it
    earns more than the recorded episodes from the same starts, stopped where those were cut, None without a learned
    world; best: probability that it is the best of those judged; behind: 95 % interval of the best estimate less
    this one, None for the best itself; action_error: in units of the variance; off_data: share of actions far from
    all recorded ones; lost: share of its played episodes that came where the learned world is unknown, None without
    one; chunk: actions that it plays before it looks again; course: means at the steps of the selection.
    """

    run: str
    checkpoint: str
    label: str
    algorithm: str
    mode: str
    chunk: int
    value: float
    interval: tuple[float, float]
    gain: tuple[float, float] | None
    best: float
    behind: tuple[float, float] | None
    action_error: float
    error_interval: tuple[float, float]
    off_data: float
    lost: float | None
    calibration: Calibration | None
    course: tuple[float, ...]


@dataclass(frozen=True)
class Selection:
    """Policies in order, and what they were judged by.

    estimate: where values come from; fidelity: of the learned world, rank correlation of held-out returns with
    those of the same actions in it, None without one; episodes: all, those the values were fitted to, and those of
    the others whose starts were valued; data_value: mean discounted return of the latter as recorded, with its
    interval; cut: share of them that were cut, and not ended; returns: lowest and highest discounted return in the
    data; bounds: between which values were kept; judged_episodes: for actions and calibration; trained_on: whether
    a candidate learned from these; baselines: action errors of holding still, of the mean action and, where other
    episodes were left to learn from, of a small policy cloned from them; steps: of fitting, or of playing in the
    learned world, at which the courses were looked at.
    """

    data: str
    estimate: EstimateName
    fidelity: float | None
    discount: float
    seed: int
    episodes: tuple[int, int, int]
    transitions: int
    data_value: float
    data_interval: tuple[float, float]
    cut: float
    returns: tuple[float, float]
    bounds: tuple[float, float]
    judged_episodes: int
    trained_on: bool
    baselines: dict[str, float]
    steps: tuple[int, ...]
    policies: tuple[Judged, ...]

    @property
    def first(self) -> Judged:
        return self.policies[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"verdict": [finding._asdict() for finding in verdict(self)]}


def verdict(found: Selection) -> list[Finding]:
    """Which checkpoint to try first and how sure that is; then what speaks against it."""
    return [_choice(found), *_against_data(found), *_doubts(found)]


def _choice(found: Selection) -> Finding:
    first = found.first
    name = f"{first.label} ({first.mode})"
    if len(found.policies) == 1:
        return Finding("fair", f"{name} is the only one judged: its value is estimated, there is nothing to rank.")
    second = found.policies[1]
    basis = "in the learned worlds, which may share a mistake" if found.estimate == "model" else "by the fitted values"
    sure = f"it has the highest estimate in {percent(first.best)} of the bootstrap draws"
    if first.best >= SURE and second.behind is not None and second.behind[0] > 0:
        return Finding("good", f"Try {name} first: {sure}, clearly ahead of {second.label} ({second.mode}) {basis}.")
    tied = [one for one in found.policies[1:] if one.behind is not None and one.behind[0] <= 0]
    others = ", ".join(f"{one.label} ({one.mode})" for one in tied[:3]) + (", ..." if len(tied) > 3 else "")
    tone: Tone = "good" if first.best >= LIKELY else "fair"
    if not tied:
        return Finding(tone, f"Try {name} first: {sure}.")
    return Finding(tone, f"Try {name} first, but {sure}: not clearly ahead of {others}.")


def _against_data(found: Selection) -> Iterator[Finding]:
    low, high = found.first.interval
    said = f"Its value is estimated at {found.first.value:.3g} ({low:.3g} to {high:.3g})"
    data = f"the recorded episodes from the same starts earned {found.data_value:.3g} until they ended or were cut"
    if found.first.gain is not None:
        yield _beside_them(f"{said}; {data}", *found.first.gain, found.cut)
    elif low > found.data_interval[1] and found.cut:
        yield Finding("fair", f"{said}; {data}, as {percent(found.cut)} were: the estimate looks beyond.")
    elif low > found.data_interval[1]:
        yield Finding("good", f"{said}; {data}.")
    elif high < found.data_interval[0]:
        yield Finding("bad", f"{said}, clearly less than the data: {data}. None of these may be worth trying.")
    else:
        yield Finding("fair", f"{said}, not clearly more than the data: {data}.")


def _beside_them(said: str, low: float, high: float, cut: float) -> Finding:
    it = "Stopped where they were cut, it" if cut else "It"
    if low > 0:
        return Finding("good", f"{said}. {it} earns {low:.3g} to {high:.3g} more than they did.")
    if high < 0:
        low_by_design = (
            "what is earned where the learned world is unknown does not count, so values are on the low side"
        )
        return Finding("fair", f"{said}. {it} earns {-high:.3g} to {-low:.3g} less than they did: {low_by_design}.")
    return Finding("fair", f"{said}. {it} does not clearly earn more than they did ({low:.3g} to {high:.3g}).")


def _doubts(found: Selection) -> Iterator[Finding]:
    first, starts = found.first, found.episodes[2]
    if starts < FEW_EPISODES:
        yield Finding("bad", f"Only {starts} held-out episodes: fewer than {FEW_EPISODES} rank checkpoints poorly.")
    low, high = found.returns
    if not low <= first.value <= high:
        yield Finding(
            "fair", f"Its value lies outside the recorded returns ({low:.3g} to {high:.3g}): trust the order at most."
        )
    yield from _model_doubts(found) if found.estimate == "model" else _fitted_doubts(found)
    yield from _disagreement(found)
    rank = math.nan if first.calibration is None else first.calibration.spearman
    if rank < RANKS_WELL:
        yield Finding("fair", f"Its own critic ranks the held-out returns with a correlation of only {rank:.2f}.")
    if found.trained_on:
        yield Finding("fair", "Some runs trained on the episodes judged here: their action errors flatter them.")
    yield Finding("fair", "Estimates rank checkpoints, they promise no success: try the first few with care.")


def _model_doubts(found: Selection) -> Iterator[Finding]:
    """Where the learned world does not know."""
    if found.fidelity is not None and not found.fidelity >= FAITHFUL:
        known = "all earned alike" if math.isnan(found.fidelity) else f"a rank correlation of {found.fidelity:.2f}"
        yield Finding(
            "bad",
            "The learned world is not known to be faithful: the recorded actions of held-out episodes, played again "
            f"in it, tell little of what these earned ({known}).",
        )
    if found.first.lost is not None and found.first.lost > STRAYS:
        yield Finding(
            "fair",
            f"{percent(found.first.lost)} of its played episodes came where the learned world is unknown: what they "
            "might earn from there on does not count.",
        )


def _fitted_doubts(found: Selection) -> Iterator[Finding]:
    """Where fitted Q guesses, or has not settled."""
    if found.first.off_data > STRANGE:
        share = percent(found.first.off_data)
        yield Finding("bad", f"{share} of its actions are far from all recorded ones: its value there is a guess.")
    yield from _unsettled(found)
    if any(one.chunk == LONGEST for one in found.policies):
        yield Finding(
            "fair", f"Of chunks {LONGEST} actions were judged, as `lapwing eval --execute {LONGEST}` plays them."
        )


def _disagreement(found: Selection) -> Iterator[Finding]:
    """Where the estimate prefers policies that act unlike the data."""
    first, nearest = found.first, min(found.policies, key=lambda one: one.action_error)
    rival = min(found.baselines["hold"], found.baselines["mean"])
    if first.action_error > TOO_FAR * rival:
        yield Finding("bad", "Its actions are farther from the recorded ones than holding still or the mean action.")
    if len(found.policies) > 3:
        values = np.array([one.value for one in found.policies])
        errors = np.array([one.action_error for one in found.policies])
        if rank_correlation(values, -errors) < AT_ODDS:
            yield Finding(
                "fair",
                "Values and action errors disagree: the policies valued highest act least like the data. Where most "
                f"episodes succeed, try {nearest.label} ({nearest.mode}) too, the nearest to it.",
            )


def _unsettled(found: Selection) -> Iterator[Finding]:
    """Where the estimate was still on its way when fitting ended."""
    course = found.first.course
    late, before = course[-1], course[-1 - len(course) // 4]
    width = found.first.interval[1] - found.first.interval[0]
    if abs(late - before) > max(width / 2, 0.05 * (found.bounds[1] - found.bounds[0])):
        yield Finding("bad", f"Its estimate still moved ({before:.3g} to {late:.3g} at the end): give more --steps.")
