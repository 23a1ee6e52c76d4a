"""Ranking checkpoints without a robot: each one's estimated value, and what else a recording can tell.

Without cameras policies are played in a learned world (`by_model`), with cameras their values are fitted
(`by_fitted_q`). Estimates rank policies; they promise no success.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from lapwing.agent import Scaling
from lapwing.data.dataset import Dataset
from lapwing.episode import Array, Observation
from lapwing.errors import ConfigError
from lapwing.run.answers import Nearness, Rows, calibration, judged_action
from lapwing.run.by_fitted_q import ByFittedQ
from lapwing.run.by_model import ByModel
from lapwing.run.candidates import (
    Candidate,
    Checkpoint,
    expect_robots,
    find_candidates,
    open_candidate,
    reading_options,
    run_of,
)
from lapwing.run.clone import cloned_action
from lapwing.run.device import DeviceName, pick_device
from lapwing.run.evidence import (
    Features,
    expect_rewards,
    for_values,
    gather,
    return_range,
    spread,
    start_returns,
    starts,
)
from lapwing.run.fitted_q import FitOptions
from lapwing.run.held_out import Calibration
from lapwing.run.policy import Policy
from lapwing.run.ranking import Values, mean_interval, rank
from lapwing.run.results import read_json
from lapwing.run.selection import EstimateName, Judged, Selection
from lapwing.run.training_data import TrainingData, open_training_data
from lapwing.stats import bootstrap_interval

STARTS = {"model": 100, "fitted-q": 10_000}  # held-out episodes whose starts are valued, at most


@dataclass(frozen=True)
class SelectOptions:
    """What checkpoints are judged by."""

    discount: float = 0.99
    """Of the values that are estimated."""
    fitted_q: bool = False
    """Without cameras too, value by fitted Q evaluation instead of playing the policies in a learned world."""
    train_fraction: float = 0.8
    """Share of the episodes that values are fitted to; the starts of the others are valued."""
    samples: int = 100_000
    """Transitions to fit to, at most; more are thinned evenly."""
    all_modes: bool = False
    """Judge every way a checkpoint can act (LAPO: pi, z0, bc), not the deployed one alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ConfigError(f"select: discount is {self.discount}, expected 0 to 1; 0.99 is usual")
        if not 0 < self.train_fraction < 1:
            raise ConfigError(f"select: train_fraction is {self.train_fraction}, expected between 0 and 1; try 0.8")
        if self.samples < 1:
            raise ConfigError(f"select: samples is {self.samples}, expected at least 1")


@dataclass(frozen=True)
class _Asked:
    """A policy and what it does at held-out samples. chunk: how many actions it plays before it looks again."""

    checkpoint: Checkpoint
    algorithm: str
    mode: str
    chunk: int
    judged_action: Array
    calibration: Calibration | None


class _Estimate(Protocol):
    """Estimates values. `meet` is told of one policy after the other and returns how many actions of a chunk count."""

    def meet(self, candidate: Candidate, mode: str) -> int: ...

    def values(self) -> Values: ...


def select(
    paths: Sequence[Path], data: Path, options: SelectOptions, fit: FitOptions, device_name: DeviceName = "auto"
) -> Selection:
    """Judge every kept checkpoint of the runs at `paths` by the recording at `data`.

    The split is the selection's own, by `fit.seed`. Raises a LapwingError where runs and recording do not belong
    together, or where the recording has no rewards.
    """
    checkpoints = find_candidates(paths)
    book = _open(data, checkpoints, options, fit.members, fit.seed)
    device = pick_device(device_name if book.estimate == "fitted-q" else "cpu")
    estimate = _estimate(book, options, fit, device)
    asked: list[_Asked] = []
    for checkpoint in tqdm(checkpoints, desc="ask policies", unit="checkpoint", leave=False, disable=None):
        asked += _ask(book, open_candidate(checkpoint, device), estimate, options)
    return _assemble(book, asked, estimate.values(), options, fit)


@dataclass(frozen=True)
class _Book:
    """The recording, and what is taken from it once for all policies. begun: the episodes whose starts are valued."""

    recorded: TrainingData
    train: Dataset
    features: Features
    begun: Sequence[int]
    start: Observation
    rows: Rows
    trained_on: bool
    estimate: EstimateName


def _open(data: Path, checkpoints: Sequence[Checkpoint], options: SelectOptions, members: int, seed: int) -> _Book:
    recorded = open_training_data(data, reading_options(checkpoints, options.train_fraction, seed), Scaling())
    expect_robots(checkpoints, recorded.spec, data)
    expect_rewards(recorded)
    estimate: EstimateName = "fitted-q" if options.fitted_q or recorded.spec.cameras else "model"
    if estimate == "model" and members < 2:
        raise ConfigError(
            "select: members is 1, expected 2 at least, since the learned world is unknown where they differ; give "
            "more, or --fitted-q"
        )
    train = for_values(recorded)
    features = Features(train)
    known = _trained_on(recorded, checkpoints)
    unseen = [index for index in range(len(recorded.recording.episodes)) if index not in known] if known else []
    judged = unseen or list(recorded.split.valid)
    rows = Rows(train.part(judged, train.normalizer), features)
    begun = [recorded.split.valid[place] for place in spread(len(recorded.split.valid), STARTS[estimate])]
    start = starts(recorded, begun)
    return _Book(recorded, train, features, begun, start, rows, bool(known) and not unseen, estimate)


def _trained_on(recorded: TrainingData, checkpoints: Sequence[Checkpoint]) -> set[int]:
    """Episodes of this very recording that some candidate, or a run it began from (`--init`), learned from."""
    known: set[int] = set()
    runs, followed = [checkpoint.run for checkpoint in checkpoints], set[Path]()
    while runs:
        run = runs.pop()
        if run in followed:
            continue
        followed.add(run)
        settings = read_json(run / "config.json")
        if settings is None:  # begun from weights that are gone: nobody knows what they have seen
            return set(range(len(recorded.recording.episodes)))
        if settings.get("data") == recorded.fingerprint():
            known |= set((read_json(run / "split.json") or {}).get("train", ()))
        if begun_from := settings.get("options", {}).get("init"):
            runs.append(run_of(Path(begun_from)))
    return known


def _estimate(book: _Book, options: SelectOptions, fit: FitOptions, device: torch.device) -> _Estimate:
    shared = (book.features, book.start, options.samples, options.discount, fit)
    if book.estimate == "fitted-q":
        return ByFittedQ(book.train, *shared, device)
    begun = [book.recorded.recording.episodes[index] for index in book.begun]
    cut = np.array([one.num_steps if one.truncated else np.inf for one in begun])
    return ByModel(book.train, book.train.part(book.recorded.split.valid, book.train.normalizer), *shared, cut)


def _ask(book: _Book, candidate: Candidate, estimate: _Estimate, options: SelectOptions) -> Iterator[_Asked]:
    agent, judged = candidate.agent, calibration(candidate, book.rows)
    for mode in agent.modes if options.all_modes else agent.modes[:1]:
        policy = Policy(agent, candidate.spec, candidate.normalizer, mode, candidate.device)
        yield _Asked(
            candidate.checkpoint,
            candidate.algorithm,
            mode,
            estimate.meet(candidate, mode),
            judged_action(policy, book.rows),
            judged,
        )


def _assemble(
    book: _Book, asked: Sequence[_Asked], values: Values, options: SelectOptions, fit: FitOptions
) -> Selection:
    _expect_finite(values, asked)
    held = [book.recorded.recording.episodes[index] for index in book.begun]
    earned = start_returns(held, options.discount)
    ranking = rank(values.value, fit.seed)
    gains = None if values.meanwhile is None else rank(values.meanwhile - earned, fit.seed).interval
    evidence = gather(book.train, book.features, options.discount, options.samples)
    near = Nearness(evidence.feature, evidence.action, book.rows)
    policies = []
    for place in ranking.order:
        one, error = asked[place], book.rows.error(asked[place].judged_action)
        policies.append(
            Judged(
                run=str(one.checkpoint.run),
                checkpoint=one.checkpoint.path.name,
                label=one.checkpoint.label,
                algorithm=one.algorithm,
                mode=one.mode,
                chunk=one.chunk,
                value=float(ranking.value[place]),
                interval=ranking.interval[place],
                gain=None if gains is None else gains[place],
                best=float(ranking.best[place]),
                behind=None if place == ranking.order[0] else ranking.behind[place],
                action_error=float(error.mean()),
                error_interval=mean_interval(error, book.rows.episode),
                off_data=near.off_data(one.judged_action),
                lost=None if values.lost is None else float(values.lost[place]),
                calibration=one.calibration,
                course=tuple(values.course[:, place].tolist()),
            )
        )
    recorded = book.recorded
    return Selection(
        data=str(recorded.recording.path),
        estimate=book.estimate,
        fidelity=values.fidelity,
        discount=options.discount,
        seed=fit.seed,
        episodes=(len(recorded.recording.episodes), len(recorded.split.train), len(book.begun)),
        transitions=len(evidence.reward),
        data_value=float(earned.mean()),
        data_interval=bootstrap_interval(earned),
        cut=float(np.mean([one.truncated for one in held])),
        returns=return_range(recorded.recording.episodes, options.discount),
        bounds=evidence.bounds,
        judged_episodes=len(book.rows.dataset.episodes),
        trained_on=book.trained_on,
        baselines={name: float(book.rows.error(one).mean()) for name, one in _baselines(book, options, fit).items()},
        steps=tuple(values.steps.tolist()),
        policies=tuple(policies),
    )


def _expect_finite(values: Values, asked: Sequence[_Asked]) -> None:
    for one, value in zip(asked, values.value, strict=True):
        if not np.isfinite(value).all():
            raise ConfigError(
                f"select: the value of {one.checkpoint.label} ({one.mode}) is no finite number, expected one: what "
                "estimates it diverged; set a lower --lr or --tau"
            )


def _baselines(book: _Book, options: SelectOptions, fit: FitOptions) -> dict[str, Array]:
    """Encoded actions [J, A] that need no candidate; the cloned ones know none of the episodes they are judged by."""
    actions = book.rows.baselines()
    others = [episode for episode in book.train.episodes if episode not in book.rows.dataset.episodes]
    if others:
        known = gather(book.train.part(others, book.train.normalizer), book.features, options.discount, options.samples)
        actions["clone"] = cloned_action(known.feature, known.action, book.rows.feature, fit)
    return actions
