"""What was recorded: observations, actions, rewards and how each episode ended. Physical units throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lapwing.errors import DataError
from lapwing.spec import RobotSpec

Array = NDArray[Any]
Meta = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels. images: camera name -> uint8 [H, W, 3] RGB; state: float32 [S].

    sensors: further readings by name, as the spec describes them; policies do not look at them. A batch of
    observations has a leading axis on every array.
    """

    images: Mapping[str, Array]
    state: Array
    sensors: Mapping[str, Array] = field(default_factory=dict)


class Frames(Protocol):
    """RGB frames of one camera, uint8 [T, H, W, 3], read when indexed. A numpy array is one.

    Sensors with large readings (depth) may come the same way, in their own shape and dtype.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Array: ...


@dataclass(frozen=True)
class Episode:
    """N steps. Observations have N rows, or N + 1 where the one after the last action was recorded too.

    images: camera -> uint8 [N or N+1, H, W, 3]; state: float32 [N or N+1, S]; action: float32 [N, A];
    reward: float32 [N], or None where the recording has none. `terminated`: the task ended at the last step;
    otherwise the recording was cut there (`truncated`) and the value of what follows is unknown, not zero.
    time: float64 [N or N+1], when each observation was made, in seconds from any origin; sensors: name -> [N or
    N+1, ...]; intervened: bool [N], True where a human overrode the policy; grasp_penalty: float32 [N], a cost (0 or
    below) of working a gripper that is kept apart from the reward. None or empty where not recorded.
    Raises DataError when the lengths do not agree.
    """

    images: Mapping[str, Frames]
    state: Array
    action: Array
    reward: Array | None
    terminated: bool
    success: bool | None = None
    meta: Meta = field(default_factory=dict)
    time: Array | None = None
    sensors: Mapping[str, Frames] = field(default_factory=dict)
    intervened: Array | None = None
    grasp_penalty: Array | None = None

    def __post_init__(self) -> None:
        steps, rows = len(self.action), len(self.state)
        if steps < 1 or rows not in (steps, steps + 1):
            raise DataError(f"episode: {rows} states for {steps} actions; expected as many, or one more")
        for name, frames in self.images.items():
            if frames.shape[0] != rows:
                raise DataError(f"episode: camera {name!r} has {frames.shape[0]} frames for {rows} states")
        for name, readings in self.sensors.items():
            if readings.shape[0] != rows:
                raise DataError(f"episode: sensor {name!r} has {readings.shape[0]} readings for {rows} states")
        if self.time is not None and len(self.time) != rows:
            raise DataError(f"episode: {len(self.time)} time stamps for {rows} states")
        for name, values in (
            ("rewards", self.reward),
            ("intervention marks", self.intervened),
            ("grasp penalties", self.grasp_penalty),
        ):
            if values is not None and len(values) != steps:
                raise DataError(f"episode: {len(values)} {name} for {steps} actions")

    @property
    def num_steps(self) -> int:
        return len(self.action)

    @property
    def num_rows(self) -> int:
        """Rows of observations: N, or N + 1."""
        return len(self.state)

    @property
    def num_transitions(self) -> int:
        """Steps after which it is known what came: not the last one of a cut episode without an observation there."""
        return self.num_steps if self.terminated or self.num_rows > self.num_steps else self.num_steps - 1

    @property
    def transition_reward(self) -> Array | None:
        """The rewards that can be learned from, float32 [num_transitions]."""
        return None if self.reward is None else self.reward[: self.num_transitions]

    @property
    def demonstrated(self) -> Array:
        """bool [N], True where a demonstrator acted: where somebody took over, and throughout where nobody had to."""
        if self.intervened is None or not np.any(self.intervened):
            return np.ones(self.num_steps, bool)
        return self.intervened

    @property
    def truncated(self) -> bool:
        return not self.terminated


@dataclass(frozen=True)
class Recording:
    """Everything one path holds. `notes` are facts the reader wants the user to hear (not problems)."""

    path: Path
    layout: str
    spec: RobotSpec
    episodes: Sequence[Episode]
    notes: tuple[str, ...] = ()

    @property
    def num_steps(self) -> int:
        return sum(episode.num_steps for episode in self.episodes)


def endless_returns(reward: Array, terminated: bool, gamma: float) -> Array:
    """What each step is worth where the task goes on after a cut as it went until there, float64 [N].

    An episode that terminated is worth its discounted return. One that was cut earns the k steps from there to the cut
    over and over, which is return / (1 - gamma**k). With a gamma of 1 that has no end, and the return to the cut
    stands.
    """
    returns = returns_to_go(reward, gamma)
    if terminated or gamma == 1:
        return returns
    scaled: Array = returns / (1 - gamma ** np.arange(len(reward), 0, -1))
    return scaled


def returns_to_go(reward: Array, gamma: float) -> Array:
    """Discounted sum of the rewards from each step to the end, float64 [N]."""
    out = np.zeros(len(reward), np.float64)
    total = 0.0
    for step in range(len(reward) - 1, -1, -1):
        total = float(reward[step]) + gamma * total
        out[step] = total
    return out
