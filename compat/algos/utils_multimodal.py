"""The documents' replay buffer: the steps of a flat HDF5 file, drawn by `lapwing.data`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lapwing.agent import Transitions
from lapwing.batch import Batch
from lapwing.data.dataset import Dataset, Split
from lapwing.data.formats import read_recording
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.episode import Recording
from lapwing.errors import ConfigError, DataError
from lapwing.run.device import pick_device
from lapwing.run.training_data import TrainingData
from lapwing.spec import RobotSpec

CAMERAS = ("left", "right", "global")


class MultimodalReplayBuffer:
    """All steps of a recording. Frames stay in the file; states and actions are normalised by their own statistics."""

    def __init__(self, action_dim: int = 16, joint_dim: int = 16, device: str = "cuda", seed: int = 0) -> None:
        self.action_dim, self.joint_dim, self.seed = action_dim, joint_dim, seed
        self.device = usable_device(device)
        self._data: TrainingData | None = None
        self._streams: dict[int, Iterator[Batch]] = {}

    def load_from_hdf5(self, path: str | Path) -> None:
        """Open a file in place. Raises DataError when it does not fit the dimensions and the three cameras."""
        recording = read_recording(Path(path))
        expect_robot(recording.spec, str(path), self.action_dim, self.joint_dim)
        for index, episode in enumerate(recording.episodes):
            if episode.reward is not None and not np.isfinite(episode.reward).all():
                raise DataError(f"{path}: 'rewards' of episode {index} holds NaN or infinity, expected finite numbers")
        self._take(recording)

    def _take(self, recording: Recording) -> None:
        """Draw from this recording from now on, all of it."""
        split = Split(tuple(range(len(recording.episodes))), ())
        normalizer = Normalizer.fit(recording.episodes, recording.spec)
        dataset = Dataset(recording, FrameStore.open(recording), split.train, normalizer)
        self._data, self._streams = TrainingData(recording, split, dataset, None), {}

    @property
    def data(self) -> TrainingData:
        """The recording as the package trains on it. Raises ConfigError before `load_from_hdf5`."""
        if self._data is None:
            raise ConfigError("replay buffer: empty; call load_from_hdf5(path) first")
        return self._data

    @property
    def size(self) -> int:
        """Steps in the recording."""
        return self.data.recording.num_steps

    def normalize_as(self, normalizer: Normalizer) -> None:
        """Go over to the statistics that a loaded model learned with."""
        recording, split = self.data.recording, self.data.split
        dataset = Dataset(recording, FrameStore.open(recording), split.train, normalizer)
        self._data, self._streams = TrainingData(recording, split, dataset, None), {}

    def sample(self, batch_size: int = 64) -> tuple[Tensor, ...]:
        """left, right, global images, joints, actions, the same four one step later, rewards, not_done: on the device.

        Images: uint8 [B, 3, H, W]; joints [B, S] and actions [B, A]: normalised; rewards [B, 1] as recorded;
        not_done [B, 1]: 0 where the task ended, else 1. Steps whose successor was not recorded are left out.
        """
        if batch_size not in self._streams:
            sampling = Transitions(gamma=1.0)  # so that the discount is 1, or 0 at the end
            self._streams[batch_size] = self.data.train.stream(sampling, batch_size, self.seed)
        batch = next(self._streams[batch_size]).to(self.device)
        assert batch.next_obs is not None  # promised by Transitions
        images, next_images = (
            [obs.images[name].permute(0, 3, 1, 2) for name in CAMERAS] for obs in (batch.obs, batch.next_obs)
        )
        now, later = (*images, batch.obs.state, batch.action[:, 0]), (*next_images, batch.next_obs.state)
        return (*now, *later, batch.reward[:, None], batch.discount[:, None])


def expect_robot(spec: RobotSpec, where: str, action_dim: int, joint_dim: int) -> None:
    """Raise DataError unless the robot has the three cameras and these numbers of axes."""
    if set(spec.camera_names) != set(CAMERAS):
        raise DataError(
            f"{where}: cameras {', '.join(spec.camera_names) or 'none'}, expected left, right and global, which these "
            "classes know; use `lapwing train lapo` for others"
        )
    expect_dims(spec, where, action_dim, joint_dim)


def expect_dims(spec: RobotSpec, where: str, action_dim: int | None, joint_dim: int | None) -> None:
    """Raise DataError unless actions and joints have these numbers of axes; None asks for nothing."""
    for key, flag, got, expected in (
        ("actions", "action_dim", spec.action_dim, action_dim),
        ("joint", "joint_dim", spec.state_dim, joint_dim),
    ):
        if expected is not None and got != expected:
            raise DataError(f"{where}: '{key}' has {got} axes, expected {expected}; set {flag} to {got}")


@cache
def usable_device(name: str) -> torch.device:
    """The device asked for; the CPU, with a warning, where CUDA is asked for and missing."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        print("lapwing: warning: no CUDA on this machine, computing on the CPU: much slower", file=sys.stderr)
        return torch.device("cpu")
    return pick_device(name)
