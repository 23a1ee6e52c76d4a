"""Labelled frames as the training loop's source, and measuring a classifier on those that are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapwing.agent import Labelled, Learner, RewardFacts, Sampling
from lapwing.agents.reward import RewardAgent, RewardConfig
from lapwing.batch import Batch
from lapwing.data.labelled import Division, LabelledFrames, divide
from lapwing.data.labelled_files import read_labelled_files
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array
from lapwing.errors import DataError
from lapwing.run.classification import calibrate, classify, cross_entropy
from lapwing.run.options import TrainOptions
from lapwing.run.source import Measured
from lapwing.spec import RobotSpec

FEW_RECORDINGS = 5  # fewer to test on than this say little about a new day
FEW_FRAMES = 20
_FINER = {
    "episode": (
        "held out by episode, not by file, for there are not three files of each kind (files of the same name count as "
        "one): a new day may be harder than the figures say"
    ),
    "stretch": (
        "held out by stretches of the same files, for there are not three files or episodes of each kind (files of the "
        "same name count as one): neighbouring frames are nearly alike and the figures flatter; record more files"
    ),
}


@dataclass(frozen=True)
class LabelledSource:
    """Labelled frames in three parts: to learn from, to choose the threshold on, and to measure on."""

    spec: RobotSpec
    division: Division
    train: LabelledFrames
    calibration: LabelledFrames
    test: LabelledFrames
    notes: tuple[str, ...]

    @property
    def normalizer(self) -> Normalizer:
        """Of no axis: a classifier sees images alone."""
        none = np.zeros(0, np.float32)
        return Normalizer(none, none, none, none, none, none, none, none, none.astype(np.int64))

    @property
    def collector(self) -> None:
        return None

    @property
    def epoch(self) -> int:
        """As many samples as it takes, half of them of either kind, until every training frame was shown."""
        return 2 * max(self.train.successes, self.train.failures)

    def reward_facts(self, discount: float) -> RewardFacts:
        """Of the reward that the classifier will give: 1 once, at the end."""
        del discount
        return RewardFacts((0.0, 1.0), (0.0, 1.0))

    def expect_fit(self, sampling: Sampling) -> None:
        """Raise DataError where something else than labelled frames is asked for."""
        if not isinstance(sampling, Labelled):
            raise DataError("labelled frames: no actions in them, expected a recording; use `lapwing train reward`")

    def batches(
        self, sampling: Sampling, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Balanced batches; see `LabelledFrames.stream`."""
        self.expect_fit(sampling)
        return self.train.stream(Labelled(), batch_size, seed, start, rank, world_size)

    def judge(self, agent: Learner, device: torch.device, samples: int | None) -> Measured:
        """Choose the agent's temperature and threshold on the calibration part, and measure them on the test part."""
        assert isinstance(agent, RewardAgent)
        config: RewardConfig = agent.config
        logit, label = logits(agent, self.calibration, device, samples)
        chosen = calibrate(logit, label, config.max_false_positive_rate)
        agent.calibrate(chosen.temperature, chosen.threshold)
        found = classify(*logits(agent, self.test, device, samples), chosen, config.max_false_positive_rate)
        row = {
            "valid/loss": cross_entropy(logit, label, chosen.temperature),
            "test/loss": found.loss,
            "test/accuracy": found.accuracy,
            "test/false_positive_rate": found.false_positive_rate,
            "test/false_negative_rate": found.false_negative_rate,
            "test/calibration_error": found.calibration_error,
            "threshold": found.threshold,
            "temperature": found.temperature,
        }
        return Measured(row, found.to_dict())

    def known_states(self) -> None:
        """None: a classifier visits none."""

    def parts(self) -> dict[str, Any]:
        return {
            "unit": self.division.unit,
            "train": [one.name for one in self.division.train],
            "calibration": [one.name for one in self.division.calibration],
            "test": [one.name for one in self.division.test],
        }

    def summary(self) -> dict[str, Any]:
        sides = {"train": self.train, "calibration": self.calibration, "test": self.test}
        files = {one.part.file for side in sides.values() for one in side.stretches}
        return {
            "layout": "labelled frames",
            "spec": self.spec.to_dict(),
            "files": len(files),
            "divided_by": self.division.unit,
            "frames": {name: {"success": one.successes, "failure": one.failures} for name, one in sides.items()},
            "notes": list(self.notes),
        }

    def fingerprint(self) -> str:
        """Of labels, sizes and a few pixels, not of paths: moved files are the same data."""
        digest = hashlib.sha256(repr(self.spec.to_dict()).encode())
        for side in (self.train, self.calibration, self.test):
            digest.update(side.label.tobytes())
            some = np.linspace(0, len(side.label) - 1, 16).round().astype(np.int64)
            for frames in side.images(some).values():
                digest.update(frames.tobytes())
        return digest.hexdigest()[:16]


def open_labelled(
    success: Sequence[Path],
    failure: Sequence[Path],
    recordings: Sequence[Path],
    options: TrainOptions,
    progress: bool = True,
) -> LabelledSource:
    """Read, check and divide; of `options.image_keys` none means all cameras. Raises DataError."""
    files = read_labelled_files(success, failure, recordings, options.reading, options.image_size, progress)
    _expect_both_kinds([part.label for part in files.parts], success, failure, files.notes)
    division = divide(files.parts, options.train_fraction, options.seed)
    train, calibration, test = (
        LabelledFrames(files.cameras, side) for side in (division.train, division.calibration, division.test)
    )
    notes = (*files.notes, *_remarks(division, train, test))
    return LabelledSource(RobotSpec("classifier", files.cameras, (), ()), division, train, calibration, test, notes)


def _remarks(division: Division, train: LabelledFrames, test: LabelledFrames) -> Iterator[str]:
    """What to think of before trusting the figures."""
    if division.unit != "file":
        yield _FINER[division.unit]
    tested = len({one.part.recording for one in test.stretches})
    if division.unit == "file" and tested < FEW_RECORDINGS:
        yield f"only {tested} recordings to measure on: fewer than {FEW_RECORDINGS} say little about a new day"
    for name, count in (("success", test.successes), ("failure", test.failures)):
        if count < FEW_FRAMES:
            yield f"only {count} frames of {name} to measure on: the rates can be far off, see their intervals"
    if train.failures < train.successes:
        yield (
            f"{train.failures} failures to learn from and {train.successes} successes; two or three times as many "
            "failures as successes make false positives rarer"
        )


def _expect_both_kinds(
    labels: Sequence[Array], success: Sequence[Path], failure: Sequence[Path], notes: Sequence[str]
) -> None:
    found = np.concatenate(labels)
    for kind, name, given in ((1, "success", success), (0, "failure", failure)):
        if not (found == kind).any():
            where = ", ".join(map(str, given)) or f"--{name} was not given"
            said = f"; {notes[0]}" if kind == 1 and notes else ""
            raise DataError(
                f"labelled frames: none of {len(found)} shows {name} ({where}), expected frames of both kinds; give "
                f"some with --{name}{said}"
            )


def logits(
    agent: RewardAgent, frames: LabelledFrames, device: torch.device, limit: int | None = None, batch_size: int = 64
) -> tuple[Array, Array]:
    """Logits float32 [N] and labels int [N] of all frames, or of `limit`, evenly spread over each kind."""
    parts = [
        (agent.logit(batch.obs.to(device)).float().cpu().numpy(), rows)
        for batch, rows in frames.ordered(batch_size, limit)
    ]
    return np.concatenate([one for one, _ in parts]), frames.label[np.concatenate([rows for _, rows in parts])]
