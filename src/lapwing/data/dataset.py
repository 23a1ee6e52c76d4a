"""Batches out of a recording: what a valid sample is, and drawing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lapwing.agent import Chunks, FromEpisodes, Transitions
from lapwing.batch import Batch, Obs
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Episode, Recording, returns_to_go
from lapwing.errors import ConfigError, DataError


@dataclass(frozen=True)
class Split:
    """Indices of the episodes to learn from and of those held out, each in order."""

    train: tuple[int, ...]
    valid: tuple[int, ...]


def split_episodes(num_episodes: int, train_fraction: float = 0.8, seed: int = 0) -> Split:
    """Divide whole episodes at random; both sides get one at least.

    With a fraction of 1, and with a lone episode, all are for training.
    """
    if not 0 < train_fraction <= 1:
        raise ConfigError(f"train_fraction: got {train_fraction}, expected above 0 and at most 1; try 0.8")
    order = np.random.default_rng(seed).permutation(num_episodes)
    most = num_episodes if train_fraction == 1 else num_episodes - 1
    num_train = max(1, min(round(train_fraction * num_episodes), most))
    return Split(tuple(sorted(order[:num_train].tolist())), tuple(sorted(order[num_train:].tolist())))


@dataclass(frozen=True)
class _Samples:
    """Every valid sample of a sampling, one entry each [V]. Rows count within the dataset."""

    row: Array  # int64, the observation
    next_row: Array  # int64, the observation to bootstrap from
    last_row: Array  # int64, the episode's last action
    reward: Array  # float32, discounted sum over the n steps
    discount: Array  # float32, 0 where the task terminated
    mc_return: Array  # float32
    grasp_penalty: Array  # float32, discounted sum over the n steps; 0 where none was recorded


class Dataset:
    """Some episodes of a recording, ready to be drawn from.

    Rows count the observations of these episodes, one episode after another. States, actions and rewards are in
    memory, frames are gathered from the store for each batch, and the next observation is a row number.
    """

    def __init__(
        self,
        recording: Recording,
        frames: FrameStore,
        episodes: Sequence[int],
        normalizer: Normalizer,
    ) -> None:
        self.recording, self.normalizer = recording, normalizer
        self.episodes = tuple(episodes)
        self.spec = replace(recording.spec, cameras=frames.cameras)
        self._frames = frames
        chosen = self._chosen()
        if not chosen:
            raise DataError(f"{recording.path}: no episode in this split; record more episodes")
        self.has_reward = all(episode.reward is not None for episode in chosen)
        self.has_grasp_penalty = any(episode.grasp_penalty is not None for episode in chosen)
        self._state = np.concatenate([episode.state for episode in chosen])
        self._action = np.concatenate([_one_per_row(episode, episode.action) for episode in chosen])
        self._demonstrated = np.concatenate([_one_per_row(episode, episode.demonstrated) for episode in chosen])
        lengths = np.array([episode.num_rows for episode in chosen])
        self._first_row = lengths.cumsum() - lengths
        self._store_row = np.repeat(frames.row_of_episode[list(self.episodes)] - self._first_row, lengths)
        self._store_row += np.arange(lengths.sum())

    def _chosen(self) -> list[Episode]:
        return [self.recording.episodes[index] for index in self.episodes]

    def part(self, episodes: Sequence[int], normalizer: Normalizer) -> Dataset:
        """Some episodes of the same recording, at other scales."""
        return Dataset(self.recording, self._frames, episodes, normalizer)

    def num_samples(self, sampling: FromEpisodes) -> int:
        """How many different samples there are."""
        return len(self._samples(sampling).row)

    def stream(
        self, sampling: FromEpisodes, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Endless batches, uniform with replacement, from number `start` on.

        Batch t depends on seed, t and rank alone, so a stream continues where it was left. `world_size` processes
        share the `batch_size` samples of a batch: each gets its own part, and together they see what one would.
        Raises DataError when there are fewer samples than `batch_size`, ConfigError when it cannot be shared.
        """
        samples = self._samples(sampling)
        if not len(samples.row):
            needed = sampling.horizon if isinstance(sampling, Transitions) else 1
            raise DataError(
                f"{self.recording.path}: no episode of this split has {needed} "
                f"step{'s' * (needed > 1)} and an observation after, expected some to learn from; record longer "
                "ones, or set a smaller chunk"
            )
        if len(samples.row) < batch_size:
            raise DataError(
                f"{self.recording.path}: {len(samples.row)} samples in this split, fewer than the batch size "
                f"{batch_size}; record more or set a smaller batch size"
            )
        if batch_size % world_size:
            raise ConfigError(
                f"batch_size: got {batch_size}, expected a multiple of the {world_size} processes; choose another"
            )
        return self._draw(samples, sampling, batch_size, seed, start, rank, world_size)

    def _draw(
        self,
        samples: _Samples,
        sampling: FromEpisodes,
        batch_size: int,
        seed: int,
        start: int,
        rank: int,
        world_size: int,
    ) -> Iterator[Batch]:
        number, pick = start, _picking(samples, sampling)
        while True:
            bits = np.random.Philox(key=seed, counter=np.array([0, number, 0, 0], np.uint64))
            picks = pick(np.random.Generator(bits), batch_size)
            yield self._batch(samples, picks[rank::world_size], sampling)
            number += 1

    def ordered(
        self, sampling: FromEpisodes, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[Batch, Array]]:
        """Each sample once, with the rows it begins at (int64 [b]); the last batch may be smaller.

        `limit` thins the samples evenly to that many.
        """
        samples = self._samples(sampling)
        count = len(samples.row)
        picks = np.arange(count)
        if limit is not None and limit < count:
            picks = np.linspace(0, count - 1, limit).round().astype(np.int64)
        for start in range(0, len(picks), batch_size):
            part = picks[start : start + batch_size]
            yield self._batch(samples, part, sampling), samples.row[part]

    def raw(self, rows: Array) -> tuple[Array, Array]:
        """Physical state float32 [b, S] and action float32 [b, A] at `rows`."""
        return self._state[rows], self._action[rows]

    def episode_of(self, rows: Array) -> Array:
        """The index in the recording of the episode each row belongs to, int64 [b]."""
        return np.array(self.episodes)[np.searchsorted(self._first_row, rows, side="right") - 1]

    def _reward(self, episode: Episode) -> Array:
        if episode.reward is None:
            return np.zeros(episode.num_steps)
        return episode.reward.astype(np.float64)

    def _samples(self, sampling: FromEpisodes) -> _Samples:
        if isinstance(sampling, Transitions) and not self.has_reward:
            lacking = next(index for index in self.episodes if self.recording.episodes[index].reward is None)
            raise DataError(
                f"{self.recording.path}: no rewards in episode {lacking}, which this algorithm needs in all; add "
                "'rewards' [N] to the recording"
            )
        parts = [
            _episode_samples(episode, self._reward(episode), int(first), sampling)
            for episode, first in zip(self._chosen(), self._first_row, strict=True)
        ]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        rows, numbers = columns[:3], [column.astype(np.float32) for column in columns[3:]]
        return _Samples(*rows, *numbers)

    def _batch(self, samples: _Samples, picks: Array, sampling: FromEpisodes) -> Batch:
        row = samples.row[picks]
        steps = row[:, None] + np.arange(sampling.horizon)
        last = samples.last_row[picks, None]
        state = self._state[row]
        action = self.normalizer.encode_action(self._action[np.minimum(steps, last)], state)
        observed = [row, samples.next_row[picks]] if isinstance(sampling, Transitions) else [row]
        obs = self._observe(observed)
        return Batch(
            obs=obs[0],
            action=torch.from_numpy(action),
            is_pad=torch.from_numpy(steps > last),
            reward=torch.from_numpy(samples.reward[picks]),
            discount=torch.from_numpy(samples.discount[picks]),
            mc_return=torch.from_numpy(samples.mc_return[picks]),
            next_obs=obs[1] if len(obs) > 1 else None,
            grasp_penalty=torch.from_numpy(samples.grasp_penalty[picks]) if self.has_grasp_penalty else None,
            demonstrated=None if self._demonstrated.all() else torch.from_numpy(self._demonstrated[row]),
        )

    def _observe(self, groups: Sequence[Array]) -> list[Obs]:
        """One observation for each group of as many rows; all their frames are gathered in one pass."""
        rows, size = np.concatenate(groups), len(groups[0])
        state = self.normalizer.encode_state(self._state[rows])
        store_rows = self._store_row[rows]
        images = {camera.name: self._frames.gather(camera.name, store_rows) for camera in self.spec.cameras}
        return [
            Obs(
                {name: torch.from_numpy(frames[start : start + size]) for name, frames in images.items()},
                torch.from_numpy(state[start : start + size]),
            )
            for start in range(0, len(rows), size)
        ]


def _picking(samples: _Samples, sampling: FromEpisodes) -> Callable[[np.random.Generator, int], Array]:
    """A function that draws places of samples, int64 [count], with replacement."""
    if not (isinstance(sampling, Chunks) and sampling.by_episode):
        return lambda random, count: random.integers(0, len(samples.row), count)
    first = np.flatnonzero(np.diff(samples.last_row, prepend=-1))  # samples of one episode share their last row
    lengths = np.diff(first, append=len(samples.row))

    def pick(random: np.random.Generator, count: int) -> Array:
        episode = random.integers(0, len(first), count)
        return first[episode] + random.integers(0, lengths[episode])

    return pick


def _one_per_row(episode: Episode, of_steps: Array) -> Array:
    """What each step has, the last repeated where an observation follows it, so that rows number both."""
    rows: Array = of_steps[np.minimum(np.arange(episode.num_rows), episode.num_steps - 1)]
    return rows


def _episode_samples(episode: Episode, reward: Array, first: int, sampling: FromEpisodes) -> tuple[Array, ...]:
    """The columns of `_Samples` for one episode whose first row is `first`.

    A transition is valid when the observation after it was recorded, or the task terminated there. Windows of
    n steps shorten at the end, but not below the actions of a transition. A single step of a chunk is valid always.
    """
    steps = episode.num_steps
    n_step, gamma, usable, starts = 1, 1.0, steps, steps
    if isinstance(sampling, Transitions):
        n_step, gamma = sampling.n_step, sampling.gamma
        usable = episode.num_transitions
        starts = usable if episode.terminated else max(usable + 1 - sampling.horizon, 0)
    step = np.arange(starts)
    after = np.minimum(step + n_step, usable)
    total = _over_window(reward[:usable], n_step, gamma)[:starts]
    penalty = np.zeros(usable) if episode.grasp_penalty is None else episode.grasp_penalty[:usable].astype(np.float64)
    ends = episode.terminated & (after == steps)
    discount = np.where(ends, 0.0, gamma ** (after - step))
    next_row = np.minimum(after, episode.num_rows - 1)
    last = np.full(starts, first + steps - 1)
    mc_return = returns_to_go(reward, gamma)[:starts]
    penalty = _over_window(penalty, n_step, gamma)[:starts]
    return first + step, first + next_row, last, total, discount, mc_return, penalty


def _over_window(values: Array, n_step: int, gamma: float) -> Array:
    """Discounted sums of each value and the n - 1 that follow, as far as there are any, float64 [N]."""
    total = np.zeros(len(values))
    for ahead in range(min(n_step, len(values))):
        total[: len(values) - ahead] += gamma**ahead * values[ahead:]
    return total
