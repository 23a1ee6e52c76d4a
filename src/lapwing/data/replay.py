"""A replay buffer: what acting has brought so far, to be drawn from while more comes in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lapwing.agent import Transitions
from lapwing.batch import Batch, Obs
from lapwing.data.normalize import Normalizer
from lapwing.data.replay_files import Block, Index, read_blocks, read_index, write_rows
from lapwing.data.replay_input import Row, first_row, next_row, recorded_rows
from lapwing.data.replay_returns import Returns
from lapwing.data.replay_rows import IMAGES, Rows
from lapwing.episode import Array, Episode, Observation
from lapwing.errors import ConfigError, DataError
from lapwing.spec import RobotSpec


class ReplayBuffer:
    """The newest `capacity` observations and the steps between them, from any number of actors.

    Every frame is kept once, at the size of the spec's camera; with `folder` on that disk, in files that go with the
    process. Values are physical, and normalised when drawn. Sensors are not kept. Any thread may write, draw and save.
    Raises DataError where memory or the disk do not suffice.
    """

    def __init__(
        self, spec: RobotSpec, normalizer: Normalizer, capacity: int = 200_000, folder: Path | None = None
    ) -> None:
        if capacity < 2:
            raise ConfigError(f"capacity: got {capacity}, expected 2 observations or more; try 200000")
        self.spec, self.normalizer = spec, normalizer
        self._rows = Rows(spec, capacity, folder)
        self._running: dict[Hashable, deque[int]] = {}  # actor -> the rows of the episode it is in
        self._returns: dict[float, Returns] = {}  # by gamma
        self._saved: dict[Path, Index] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many transitions there are to draw from."""
        return self._rows.transitions

    @property
    def nbytes(self) -> int:
        """The memory or disk it takes when it is full."""
        return self._rows.nbytes + sum(returns.nbytes for returns in self._returns.values())

    @property
    def head(self) -> int:
        """How many observations it has ever been given."""
        return self._rows.head

    def begin(self, observation: Observation, actor: Hashable = 0) -> None:
        """Start an episode; one that the actor has not ended was cut. Raises SpecError, DataError, as `add` does."""
        row = first_row(observation, self.spec)
        with self._lock:
            self._running[actor] = deque()
            self._append(actor, row)

    def add(
        self,
        action: Array,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_observation: Observation,
        intervened: bool = False,
        grasp_penalty: float = 0.0,
        actor: Hashable = 0,
    ) -> None:
        """A step of the actor's episode. Raises SpecError for other shapes, DataError for what is no finite number."""
        row = next_row(action, reward, terminated, next_observation, intervened, grasp_penalty, self.spec)
        with self._lock:
            if actor not in self._running:
                raise DataError(f"replay buffer: actor {actor!r} is in no episode; expected begin() before add()")
            self._append(actor, row)
            if terminated or truncated:
                del self._running[actor]

    def extend(self, episode: Episode) -> None:
        """A recorded episode. Raises DataError where it has no rewards, and as `add` does."""
        actor = object()
        try:
            for row in recorded_rows(episode, self.spec):
                with self._lock:
                    self._running.setdefault(actor, deque())
                    self._append(actor, row)
        finally:
            with self._lock:
                self._running.pop(actor, None)

    def stream(
        self, sampling: Transitions, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Endless batches from number `start` on, uniform with replacement over what is held when each is asked for.

        Batch t depends on seed, t, rank and what is held alone. Numbers are those of `Dataset.stream`; mc_return ends
        where the episode has got to. A batch from an empty buffer raises DataError, a sampling of several actions at
        once ConfigError.
        """
        if sampling.horizon != 1:
            raise ConfigError(f"replay buffer: asked for {sampling.horizon} actions at once, expected 1; use chunk 1")
        if batch_size % world_size:
            raise ConfigError(
                f"batch_size: got {batch_size}, expected a multiple of the {world_size} processes; choose another"
            )
        with self._lock:
            if sampling.gamma not in self._returns:
                self._returns[sampling.gamma] = self._returns_so_far(sampling.gamma)
        return self._draw(sampling, batch_size, seed, start, slice(rank, None, world_size))

    def to_episodes(self) -> Iterator[Episode]:
        """The episodes that have ended and are held from their beginning, in the order they began."""
        with self._lock:
            running = {chain[-1] for chain in self._running.values()}
            chains = [np.array(chain) for chain in self._rows.chains() if chain[-1] not in running and len(chain) > 1]
        for chain in chains:
            with self._lock:
                if chain[0] < self._rows.oldest or self._rows.get("previous", chain[:1]) != -1:
                    continue
                episode = self._episode(chain)
            yield episode

    def save(self, folder: Path, head: int | None = None) -> None:
        """Write what has come since the last save to, or load from, this folder, up to `head`: None is all there is.

        Others may go on adding meanwhile. Raises DataError when the disk refuses; what was saved before stays.
        """
        place, head = folder.resolve(), self.head if head is None else head
        self._saved[place] = write_rows(folder, self.spec, head, self._copy, self._saved.get(place))

    def load(self, folder: Path) -> None:
        """Hold what was saved instead; every episode has ended, or was cut there. The capacity may be another.

        Raises DataError when it is missing or damaged, and then holds nothing; SpecError when it is of another robot.
        """
        index = read_index(folder, self.spec)
        with self._lock:
            self._running.clear()
            self._saved.clear()
            try:
                self._rows.restore(index["oldest"], index["head"], read_blocks(folder, index, self.spec))
            finally:
                self._returns = {gamma: self._returns_so_far(gamma) for gamma in self._returns}
            self._saved[folder.resolve()] = index

    def _append(self, actor: Hashable, row: Row) -> None:
        chain = self._running[actor]
        chain.append(self._rows.append({"previous": chain[-1] if chain else -1, **row}))
        while chain[0] < self._rows.oldest:
            chain.popleft()
        held = np.fromiter(chain, np.int64)
        for returns in self._returns.values():
            returns.add(held, row["reward"])

    def _returns_so_far(self, gamma: float) -> Returns:
        returns = Returns(gamma, self._rows.capacity)
        for chain in map(np.array, self._rows.chains()):
            reward = self._rows.get("reward", chain)
            for place in np.flatnonzero(reward):
                returns.add(chain[: place + 1], float(reward[place]))
        return returns

    def _draw(self, sampling: Transitions, batch_size: int, seed: int, start: int, part: slice) -> Iterator[Batch]:
        number = start
        while True:
            bits = np.random.Philox(key=seed, counter=np.array([0, number, 0, 0], np.uint64))
            yield self._batch(np.random.Generator(bits), sampling, batch_size, part)
            number += 1

    def _batch(self, random: np.random.Generator, sampling: Transitions, batch_size: int, part: slice) -> Batch:
        """Frames are copied while others write, and once more, while nobody can, if they were overwritten."""
        with self._lock:
            rows, numbers = self._pick(random, sampling, batch_size, part)
        images = self._gather(rows)
        with self._lock:
            if rows.min() < self._rows.oldest:
                rows, numbers = self._pick(random, sampling, batch_size, part)
                images = self._gather(rows)
        size = numbers.size
        assert numbers.next_obs is not None
        return replace(
            numbers,
            obs=Obs({name: frames[:size] for name, frames in images.items()}, numbers.obs.state),
            next_obs=Obs({name: frames[size:] for name, frames in images.items()}, numbers.next_obs.state),
        )

    def _pick(
        self, random: np.random.Generator, sampling: Transitions, batch_size: int, part: slice
    ) -> tuple[Array, Batch]:
        """The rows that a batch observes, before and after [2B], and the batch without their frames."""
        if not len(self):
            raise DataError("replay buffer: no transition to draw from; add some before drawing")
        picks = self._rows.draw(random, batch_size)[part]
        before = self._rows.get("previous", picks)
        after, reward, penalty, discount = self._rows.window(picks, sampling.n_step, sampling.gamma)
        state = self._rows.get("state", before)
        action = self.normalizer.encode_action(self._rows.get("action", picks)[:, None], state)
        next_state = self._rows.get("state", after)
        return np.concatenate([before, after]), Batch(
            obs=Obs({}, torch.from_numpy(self.normalizer.encode_state(state))),
            action=torch.from_numpy(action),
            is_pad=torch.zeros(len(picks), 1, dtype=torch.bool),
            reward=_float32(reward),
            discount=_float32(discount),
            mc_return=_float32(self._returns[sampling.gamma].get(picks)),
            next_obs=Obs({}, torch.from_numpy(self.normalizer.encode_state(next_state))),
            grasp_penalty=_float32(penalty),
            demonstrated=torch.from_numpy(self._rows.get("intervened", picks)),
        )

    def _gather(self, rows: Array) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(self._rows.get(IMAGES + name, rows)) for name in self.spec.camera_names}

    def _episode(self, chain: Array) -> Episode:
        """All rows of an episode."""
        steps, observed = chain[1:], chain[self._rows.get("observed", chain)]
        penalty = self._rows.get("grasp_penalty", steps)
        return Episode(
            images={name: self._rows.get(IMAGES + name, observed) for name in self.spec.camera_names},
            state=self._rows.get("state", observed),
            action=self._rows.get("action", steps),
            reward=self._rows.get("reward", steps),
            terminated=bool(self._rows.get("terminated", steps)[-1]),
            intervened=self._rows.get("intervened", steps),
            grasp_penalty=penalty if penalty.any() else None,
        )

    def _copy(self, first: int, count: int) -> tuple[int, Block]:
        """The oldest row, and up to `count` rows from `first` on, less those that are gone."""
        with self._lock:
            oldest = self._rows.oldest
            rows = np.arange(max(first, oldest), first + count)
            return oldest, (max(first, oldest), {name: self._rows.get(name, rows) for name in self._rows.columns})


def _float32(values: Array) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
