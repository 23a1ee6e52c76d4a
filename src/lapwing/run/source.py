"""What a run learns from and is judged on, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from lapwing.agent import Learner, RewardFacts, Sampling
from lapwing.batch import Batch
from lapwing.data.normalize import Normalizer
from lapwing.run.off_data import KnownStates
from lapwing.run.online import Collector
from lapwing.spec import RobotSpec


@dataclass(frozen=True)
class Measured:
    """A measurement on held-out data. row: for progress.csv, the same columns each time; record: all of it, JSON."""

    row: Mapping[str, float]
    record: Mapping[str, Any]


class Source(Protocol):
    """A recording with its held-out episodes, labelled frames, or a world that is being explored.

    notes: what the user should hear of the data; epoch: how many samples one epoch shows; parts: what is for
    training and what is held out, plain JSON; summary: what the report says of the data, plain JSON.
    """

    @property
    def spec(self) -> RobotSpec: ...

    @property
    def normalizer(self) -> Normalizer: ...

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def epoch(self) -> int: ...

    @property
    def collector(self) -> Collector | None:
        """What brings in more while the run goes on; None where there is nothing but what was recorded."""
        ...

    def reward_facts(self, discount: float) -> RewardFacts: ...

    def expect_fit(self, sampling: Sampling) -> None:
        """Raise DataError where nothing can be learnt from such samples."""
        ...

    def batches(
        self, sampling: Sampling, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Batches without end from number `start` on, the part of process `rank` of each."""
        ...

    def judge(self, agent: Learner, device: torch.device, samples: int | None) -> Measured | None:
        """Measure on `samples` held-out samples, None: as many as suit; None where nothing is held out."""
        ...

    def known_states(self) -> KnownStates | None:
        """What a rollout is compared with; None where images tell more than the state, or nothing is held out."""
        ...

    def parts(self) -> dict[str, Any]: ...

    def summary(self) -> dict[str, Any]: ...

    def fingerprint(self) -> str:
        """Of the numbers, not of the place: a moved file is the same data."""
        ...
