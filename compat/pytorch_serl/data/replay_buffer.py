"""The document's replay buffer, over `lapwing.data.replay`: transitions in, batches of them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapwing.agent import Transitions
from lapwing.batch import Batch
from lapwing.data import replay
from lapwing.data.formats import read_recording
from lapwing.data.formats.options import ReadOptions
from lapwing.episode import Observation
from lapwing.errors import DataError
from lapwing.spec import RobotSpec, unnamed_axes
from pytorch_serl.translation import as_documented, masks_of, observation_of, robot_of, unscaled, vector
from pytorch_serl.utils.device import DEVICE


class ReplayBuffer:
    """The newest transitions, of `capacity` observations: each frame is kept once."""

    def __init__(
        self,
        image_keys: Sequence[str] = ("image",),
        capacity: int = 200_000,
        seed: int = 0,
        device: str | torch.device = DEVICE,
    ) -> None:
        self.image_keys, self.capacity, self.seed = tuple(image_keys), capacity, seed
        self.device = torch.device(device)
        self._buffer: replay.ReplayBuffer | None = None
        self._last: Observation | None = None
        self._streams: dict[int, Iterator[Batch]] = {}

    def __len__(self) -> int:
        return 0 if self._buffer is None else len(self._buffer)

    def insert(self, transition: Mapping[str, Any]) -> None:
        """Add a transition in the document's format. One that does not follow the last begins another episode.

        `dones` with a mask of 1 is the end of an episode that was cut, not of the task. Raises SpecError, DataError.
        """
        missing = [key for key in ("observations", "actions", "next_observations", "rewards") if key not in transition]
        if missing:
            raise DataError(f"transition: no {missing[0]!r}, it has {', '.join(sorted(transition))}")
        action = vector(transition["actions"], 1)
        spec = robot_of(transition["observations"], self.image_keys, unnamed_axes("action", len(action)))
        buffer = self._opened(spec)
        now, later = (observation_of(transition[key], buffer.spec) for key in ("observations", "next_observations"))
        if self._last is None or not _same(self._last, now):
            buffer.begin(now)
        terminated = not masks_of(transition)
        truncated = not terminated and bool(transition.get("dones", False))
        penalty = float(transition.get("grasp_penalty", 0.0))
        buffer.add(action, float(transition["rewards"]), terminated, truncated, later, grasp_penalty=penalty)
        self._last = None if terminated or truncated else later

    def load(self, path: str | Path) -> None:
        """Add the demonstrations of a file or folder. Raises DataError."""
        recording = read_recording(path, ReadOptions(image_keys=self.image_keys))
        buffer = self._opened(recording.spec)
        for episode in recording.episodes:
            buffer.extend(episode)

    def sample(self, batch_size: int = 256) -> dict[str, Any]:
        """Transitions in the document's format, each entry with a leading axis [B], on the device."""
        if self._buffer is None:
            raise DataError("replay buffer: empty; insert transitions or load a file first")
        if batch_size not in self._streams:
            sampling = Transitions(gamma=1.0)  # so that the discount is the mask
            self._streams[batch_size] = self._buffer.stream(sampling, batch_size, self.seed)
        return _documented(next(self._streams[batch_size]).to(self.device))

    def _opened(self, spec: RobotSpec) -> replay.ReplayBuffer:
        if self._buffer is None:
            self._buffer = replay.ReplayBuffer(spec, unscaled(spec), self.capacity)
        return self._buffer


def _documented(batch: Batch) -> dict[str, Any]:
    assert batch.next_obs is not None  # promised by Transitions
    entries: dict[str, Tensor | dict[str, Tensor] | None] = {
        "observations": as_documented(batch.obs.images, batch.obs.state),
        "actions": batch.action[:, 0],
        "next_observations": as_documented(batch.next_obs.images, batch.next_obs.state),
        "rewards": batch.reward,
        "dones": batch.discount == 0,
        "masks": batch.discount,
        "grasp_penalty": batch.grasp_penalty,
    }
    return entries


def _same(one: Observation, other: Observation) -> bool:
    pairs = [(one.state, other.state), *((one.images[name], other.images[name]) for name in one.images)]
    return all(np.array_equal(before, after) for before, after in pairs)
