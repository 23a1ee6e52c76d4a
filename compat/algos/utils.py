"""The original's replay buffer: transitions of vectors, drawn by `lapwing.data`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algos.utils_multimodal import MultimodalReplayBuffer, expect_dims
from lapwing.agent import Transitions
from lapwing.data.formats import read_recording
from lapwing.data.formats.d4rl import Steps, episodes_of
from lapwing.episode import Array, Recording
from lapwing.errors import DataError
from lapwing.spec import RobotSpec, unnamed_axes

_NEEDED = ("observations", "actions", "next_observations", "rewards", "terminals")


class ReplayBuffer(MultimodalReplayBuffer):
    """All transitions of a data set, states and actions normalised by their own statistics.

    max_size is accepted and has no effect: a buffer is as large as what it was given.
    """

    def __init__(
        self, state_dim: int, action_dim: int, device: str = "cpu", max_size: int = 2_000_000, seed: int = 0
    ) -> None:
        super().__init__(action_dim, state_dim, str(device), seed)
        self.max_size = max_size

    def load(self, data: Mapping[str, Array]) -> None:
        """Take over the arrays of D4RL's `qlearning_dataset`. Raises DataError where one is missing or does not fit."""
        missing = [key for key in _NEEDED if key not in data]
        if missing:
            found = ", ".join(data) or "nothing"
            raise DataError(f"data: no {missing[0]!r} (found {found}), expected {', '.join(_NEEDED)}; add it")
        rows = len(data["observations"])
        for key in _NEEDED:
            if len(data[key]) != rows:
                raise DataError(f"data: {key!r} has {len(data[key])} rows, expected {rows} as 'observations' has")
        state, action, following = (np.asarray(data[key], np.float32) for key in _NEEDED[:3])
        reward = np.asarray(data["rewards"], np.float32).reshape(-1)
        terminal = np.asarray(data["terminals"], bool).reshape(-1)
        steps = Steps(state, action, reward, following, terminal, None)
        where = Path("data")
        episodes, _ = episodes_of(steps, where)
        spec = RobotSpec("data", (), unnamed_axes("state", state.shape[1]), unnamed_axes("action", action.shape[1]))
        expect_dims(spec, "data", self.action_dim, self.joint_dim)
        self._take(Recording(where, "d4rl", spec, episodes))

    def load_from_hdf5(self, path: str | Path) -> None:
        """Open a data set of any layout that has no images. Raises DataError when its dimensions are others."""
        recording = read_recording(Path(path))
        expect_dims(recording.spec, str(path), self.action_dim, self.joint_dim)
        self._take(recording)

    def sample(self, batch_size: int = 512) -> tuple[Tensor, ...]:
        """state, action, next_state: normalised [B, ...]; reward [B, 1] as stored; not_done [B, 1]; on the device."""
        if batch_size not in self._streams:
            sampling = Transitions(gamma=1.0)  # so that the discount is 1, or 0 at the end
            self._streams[batch_size] = self.data.train.stream(sampling, batch_size, self.seed)
        batch = next(self._streams[batch_size]).to(self.device)
        assert batch.next_obs is not None  # promised by Transitions
        reward, not_done = batch.reward[:, None], batch.discount[:, None]
        return batch.obs.state, batch.action[:, 0], batch.next_obs.state, reward, not_done

    def normalize_state(self, state: Array) -> Array:
        """Physical states [..., S] in units of their standard deviations."""
        return self.data.normalizer.encode_state(np.asarray(state, np.float32))

    def unnormalize_action(self, action: Array | Tensor) -> Array:
        """Normalised actions [..., A] as the world takes them, within the range of the data."""
        values = action.detach().cpu().numpy() if isinstance(action, torch.Tensor) else np.asarray(action, np.float32)
        state = np.zeros((*values.shape[:-1], self.joint_dim), np.float32)  # no action is relative to it
        return self.data.normalizer.decode_action(values, state)
