"""From a recording to what a run learns from and is judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapwing.agent import Labelled, Learner, RewardFacts, Sampling, Scaling, Transitions, acts
from lapwing.batch import Batch
from lapwing.data.align import align
from lapwing.data.dataset import Dataset, Split, split_episodes
from lapwing.data.formats import read_recording
from lapwing.data.frames import FrameStore
from lapwing.data.info import success
from lapwing.data.normalize import Normalizer
from lapwing.data.numbers import LAST_REWARD_ADVICE, last_rewards_alone
from lapwing.episode import Array, Episode, Recording, endless_returns
from lapwing.errors import ConfigError, DataError
from lapwing.run.held_out import metrics
from lapwing.run.off_data import KnownStates
from lapwing.run.offline import held_out
from lapwing.run.options import TrainOptions
from lapwing.run.source import Measured
from lapwing.spec import RobotSpec

RL_SAMPLES = 2048  # held-out samples that offline RL is judged on, unless more are asked for


@dataclass(frozen=True)
class TrainingData:
    """A recording, divided by episode: the `Source` of offline training. `valid` is None where none is held out."""

    recording: Recording
    split: Split
    train: Dataset
    valid: Dataset | None

    @property
    def spec(self) -> RobotSpec:
        return self.train.spec

    @property
    def normalizer(self) -> Normalizer:
        return self.train.normalizer

    @property
    def notes(self) -> tuple[str, ...]:
        if self.valid is None:
            return (*self.recording.notes, "no episode is held out: nothing is measured, `best` is the last checkpoint")
        return self.recording.notes

    @property
    def epoch(self) -> int:
        """One start from every training episode, as the original ACT counts."""
        return len(self.split.train)

    def batches(
        self, sampling: Sampling, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """See `Source`. Raises DataError when the training episodes do not make a batch."""
        if isinstance(sampling, Labelled):
            raise DataError(f"{self.recording.path}: a recording, expected labelled frames; see `lapwing train reward`")
        return self.train.stream(sampling, batch_size, seed, start, rank, world_size)

    def judge(self, agent: Learner, device: torch.device, samples: int | None) -> Measured | None:
        """The agent on the held-out episodes; by default on all for imitation, on 2048 samples for offline RL."""
        sampling = agent.sampling
        if self.valid is None or isinstance(sampling, Labelled) or self.valid.num_samples(sampling) == 0:
            return None
        if samples is None and isinstance(sampling, Transitions):
            samples = RL_SAMPLES
        assert acts(agent)  # what learns from a recording does
        result = held_out(agent, self.valid, device=device, limit=samples)
        return Measured(metrics(result), result.to_dict())

    def known_states(self) -> KnownStates | None:
        """See `Source`."""
        probes = set(self.split.valid or self.split.train[::5])
        others = [index for index in self.split.train if index not in probes]
        if self.spec.cameras or not others:
            return None
        parts = (self.split.train, sorted(probes), others)
        return KnownStates.of(*(self._normalised_states(part) for part in parts))

    def _normalised_states(self, episodes: Sequence[int]) -> Array:
        return self.normalizer.encode_state(
            np.concatenate([self.recording.episodes[index].state for index in episodes])
        )

    def parts(self) -> dict[str, Any]:
        return asdict(self.split)

    @property
    def collector(self) -> None:
        return None

    def reward_facts(self, discount: float) -> RewardFacts:
        """Range of rewards and of discounted returns in the transitions to learn from; zeros where there are none."""
        episodes = self._training_episodes()
        rewarded = [(one.transition_reward, one.terminated) for one in episodes if one.transition_reward is not None]
        joined = np.concatenate([np.zeros(0), *(reward for reward, _ in rewarded)])
        if not len(joined):
            return RewardFacts((0.0, 0.0), (0.0, 0.0))
        returns = np.concatenate([endless_returns(reward, terminated, discount) for reward, terminated in rewarded])
        return RewardFacts(
            (float(joined.min()), float(joined.max())),
            (min(0.0, float(returns.min())), max(0.0, float(returns.max()))),
        )

    def expect_fit(self, sampling: Sampling) -> None:
        """Raise DataError where rewards are asked for and none tells a good step from a bad one."""
        if not isinstance(sampling, Transitions):
            return
        low, high = self.reward_facts(0.0).reward
        if not self.train.has_reward or not low == high == 0:
            return
        advice = "record successes, or imitate with `lapwing train act` or `train bc`"
        expect_rewards_in_transitions(self.recording.path, self._training_episodes(), " in the training split", advice)

    def _training_episodes(self) -> list[Episode]:
        return [self.recording.episodes[index] for index in self.split.train]

    def summary(self) -> dict[str, Any]:
        """What the report says of the data, and each episode's length and return."""
        episodes = self.recording.episodes
        told = success(episodes)
        return {
            "path": str(self.recording.path),
            "layout": self.recording.layout,
            "spec": self.spec.to_dict(),
            "episodes": len(episodes),
            "train_episodes": len(self.split.train),
            "valid_episodes": len(self.split.valid),
            "steps": self.recording.num_steps,
            "success_rate": None if told is None else told["rate"],
            "lengths": [episode.num_steps for episode in episodes],
            "returns": [float(episode.reward.sum()) for episode in episodes if episode.reward is not None],
            "notes": list(self.recording.notes),
        }

    def fingerprint(self) -> str:
        """Of the numbers, not of the path or the pixels: a moved file is the same data."""
        digest = hashlib.sha256(repr(self.spec.to_dict()).encode())
        for episode in self.recording.episodes:
            digest.update(repr((episode.num_steps, episode.num_rows, episode.terminated)).encode())
            for values in (episode.state, episode.action, episode.reward):
                digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:16]


def expect_rewards_in_transitions(path: Path, episodes: Sequence[Episode], where: str, advice: str) -> None:
    """Raise DataError where rewards are 0 in all steps that can be learned from."""
    if last_rewards_alone(episodes):
        raise DataError(
            f"{path}: 'rewards' are 0{where} but for the last step of episodes that were cut, with no observation "
            f"after it, expected some in steps that can be learned from; {LAST_REWARD_ADVICE}"
        )
    if not any(one.reward is not None and one.reward.any() for one in episodes):
        raise DataError(f"{path}: 'rewards' are all 0{where}, expected some that differ; {advice}")


def open_training_data(path: Path, options: TrainOptions, scaling: Scaling, progress: bool = True) -> TrainingData:
    """Read, check, divide and normalise. Statistics come from the training split alone. Raises DataError."""
    stored = read_recording(path, options.reading)
    _expect_finite(stored)
    if options.image_size is not None and not stored.spec.cameras:
        raise ConfigError(f"--image-size is {options.image_size}, and {path} has no cameras; leave it out")
    frames = FrameStore.open(stored, options.image_size, progress=progress).begin_at(max(0, -options.alignment))
    recording = align(stored, options.alignment)
    split = split_episodes(len(recording.episodes), options.train_fraction, options.seed)
    training = [recording.episodes[index] for index in split.train]
    normalizer = Normalizer.fit(training, recording.spec, options.relative_actions, scaling)
    train = Dataset(recording, frames, split.train, normalizer)
    valid = Dataset(recording, frames, split.valid, normalizer) if split.valid else None
    return TrainingData(recording, split, train, valid)


def _expect_finite(recording: Recording) -> None:
    for index, episode in enumerate(recording.episodes):
        fields = {"state": episode.state, "action": episode.action, "reward": episode.reward}
        for field, values in fields.items():
            if values is None or np.isfinite(values).all():
                continue
            step = int(np.argwhere(~np.isfinite(values))[0][0])
            broken = values[~np.isfinite(values)][0]
            raise DataError(
                f"{recording.path}: {field} of episode {index} has {broken} at step {step}, expected "
                "finite numbers; `lapwing data check` lists every such place"
            )
