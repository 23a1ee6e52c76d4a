"""Ranking checkpoints without a robot: each one's value by fitted Q evaluation, and what else a recording can tell.

Choosing by fitted Q evaluation follows Paine et al. (2020). Estimates rank policies; they promise no success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lapwing.agent import Scaling
from lapwing.data.dataset import Dataset
from lapwing.episode import Observation
from lapwing.errors import ConfigError
from lapwing.run.answers import Answers, Nearness, Rows, ask, calibration
from lapwing.run.candidates import (
    Candidate,
    Checkpoint,
    expect_robots,
    find_candidates,
    open_candidate,
    reading_options,
)
from lapwing.run.device import DeviceName, pick_device
from lapwing.run.evidence import Features, expect_rewards, for_values, gather, return_range, start_returns, starts
from lapwing.run.fitted_q import Evidence, Fit, FitOptions, fit_values
from lapwing.run.held_out import Calibration
from lapwing.run.ranking import mean_interval, rank
from lapwing.run.results import read_json
from lapwing.run.selection import Judged, Selection
from lapwing.run.training_data import TrainingData, open_training_data
from lapwing.stats import bootstrap_interval


@dataclass(frozen=True)
class SelectOptions:
    """What checkpoints are judged by."""

    discount: float = 0.99
    """Of the values that are estimated."""
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
    """A policy and what it does."""

    checkpoint: Checkpoint
    algorithm: str
    answers: Answers
    calibration: Calibration | None


def select(
    paths: Sequence[Path], data: Path, options: SelectOptions, fit: FitOptions, device_name: DeviceName = "auto"
) -> Selection:
    """Judge every kept checkpoint of the runs at `paths` by the recording at `data`.

    The split is the selection's own, by `fit.seed`. Raises a LapwingError where runs and recording do not belong
    together, or where the recording has no rewards.
    """
    device = pick_device(device_name)
    checkpoints = find_candidates(paths)
    book = _open(data, checkpoints, options, fit.seed)
    asked: list[_Asked] = []
    for checkpoint in tqdm(checkpoints, desc="ask policies", unit="checkpoint", leave=False, disable=None):
        asked += _ask(book, open_candidate(checkpoint, device), options)
    evidence = {
        chunk: gather(book.train, book.features, options.discount, options.samples, chunk)
        for chunk in {1, *(one.answers.chunk for one in asked)}
    }
    return _assemble(book, asked, evidence[1], _fit(book, asked, evidence, fit, device), options, fit)


@dataclass(frozen=True)
class _Book:
    """The recording, and what is taken from it once for all policies."""

    recorded: TrainingData
    train: Dataset
    features: Features
    start: Observation
    rows: Rows
    trained_on: bool


def _open(data: Path, checkpoints: Sequence[Checkpoint], options: SelectOptions, seed: int) -> _Book:
    recorded = open_training_data(data, reading_options(checkpoints, options.train_fraction, seed), Scaling())
    expect_robots(checkpoints, recorded.spec, data)
    expect_rewards(recorded)
    train = for_values(recorded)
    features = Features(train)
    known = _trained_on(recorded, checkpoints)
    unseen = [index for index in range(len(recorded.recording.episodes)) if index not in known] if known else []
    judged = unseen or list(recorded.split.valid)
    rows = Rows(train.part(judged, train.normalizer), features)
    return _Book(recorded, train, features, starts(recorded, recorded.split.valid), rows, bool(known) and not unseen)


def _trained_on(recorded: TrainingData, checkpoints: Sequence[Checkpoint]) -> set[int]:
    """Episodes of this very recording that some candidate learned from."""
    known: set[int] = set()
    for one in {checkpoint.run: checkpoint for checkpoint in checkpoints}.values():
        if one.settings.get("data") == recorded.fingerprint():
            known |= set((read_json(one.run / "split.json") or {}).get("train", ()))
    return known


def _ask(book: _Book, candidate: Candidate, options: SelectOptions) -> list[_Asked]:
    agent = candidate.agent
    modes = agent.modes if options.all_modes else agent.modes[:1]
    judged = calibration(candidate, book.rows)
    answers = ask(candidate, modes, book.train, options.samples, book.start, book.rows)
    return [_Asked(candidate.checkpoint, candidate.algorithm, one, judged) for one in answers]


def _fit(
    book: _Book, asked: Sequence[_Asked], evidence: Mapping[int, Evidence], fit: FitOptions, device: torch.device
) -> Fit:
    """Values of all, fitted together where they play chunks of one length."""
    chunks = np.array([one.answers.chunk for one in asked])
    groups = [np.flatnonzero(chunks == chunk) for chunk in sorted(set(chunks.tolist()))]
    with tqdm(
        total=len(groups) * fit.steps, desc=f"fit values of {len(asked)} policies", unit="step", disable=None
    ) as bar:
        fits = []
        for group in groups:
            after = np.stack([asked[int(place)].answers.next_action for place in group], 1)
            at_start = np.stack([asked[int(place)].answers.start_action for place in group], 1)
            fits.append(
                fit_values(
                    evidence[int(chunks[group[0]])].to(device),
                    torch.from_numpy(after).to(device),
                    book.features.at(book.start).to(device),
                    torch.from_numpy(at_start).to(device),
                    fit,
                    lambda step: bar.update(1),
                )
            )
    back = np.argsort(np.concatenate(groups))
    value = np.concatenate([one.value for one in fits])[back]
    return Fit(value, np.concatenate([one.course for one in fits], 1)[:, back], fits[0].steps)


def _assemble(
    book: _Book, asked: Sequence[_Asked], evidence: Evidence, values: Fit, options: SelectOptions, fit: FitOptions
) -> Selection:
    ranking = rank(values.value, fit.seed)
    near = Nearness(evidence.feature, evidence.action, book.rows)
    policies = []
    for place in ranking.order:
        one, error = asked[place], book.rows.error(asked[place].answers.judged_action)
        policies.append(
            Judged(
                run=str(one.checkpoint.run),
                checkpoint=one.checkpoint.path.name,
                label=one.checkpoint.label,
                algorithm=one.algorithm,
                mode=one.answers.mode,
                chunk=one.answers.chunk,
                value=float(ranking.value[place]),
                interval=ranking.interval[place],
                best=float(ranking.best[place]),
                behind=None if place == ranking.order[0] else ranking.behind[place],
                action_error=float(error.mean()),
                error_interval=mean_interval(error, book.rows.episode),
                off_data=near.off_data(one.answers.judged_action),
                calibration=one.calibration,
                course=tuple(values.course[:, place].tolist()),
            )
        )
    recorded = book.recorded
    held = [recorded.recording.episodes[index] for index in recorded.split.valid]
    earned = start_returns(held, options.discount)
    return Selection(
        data=str(recorded.recording.path),
        discount=options.discount,
        seed=fit.seed,
        episodes=(len(recorded.recording.episodes), len(recorded.split.train), len(recorded.split.valid)),
        transitions=len(evidence.reward),
        data_value=float(earned.mean()),
        data_interval=bootstrap_interval(earned),
        returns=return_range(recorded.recording.episodes, options.discount),
        bounds=evidence.bounds,
        judged_episodes=len(book.rows.dataset.episodes),
        trained_on=book.trained_on,
        baselines={name: float(book.rows.error(one).mean()) for name, one in book.rows.baselines().items()},
        steps=tuple(values.steps.tolist()),
        policies=tuple(policies),
    )
