"""A scripted operator of the two-arm-lift scene: over the handles, down, close, up."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lapwing.envs.two_arm_lift_physics import STEP_METRES, STEP_RADIANS, Physics
from lapwing.episode import Array, Meta, Observation

Quality = Literal["expert", "noisy"]

_OVER, _ABOVE, _AT = 0.08, 0.03, 0.015  # m: how high to come from, when to descend, when to close
_ALIGNED = 0.15  # rad
_CLOSING = 12  # steps; fewer and the pot slips
_NOISE = 0.3  # standard deviation of what a noisy operator adds to its motions, in steps
_LIFTED = 0.1  # m


class Expert:
    """An operator of one scene, who looks before every step and remembers only what it is at."""

    def __init__(self, physics: Physics, quality: Quality) -> None:
        self._physics, self._quality = physics, quality

    def reset(self, seed: int) -> Meta:
        """Begin anew with open grippers, from where things are."""
        self._random = np.random.default_rng((seed, 1))
        self._descending, self._closed_for = False, 0
        return {"kind": self._quality}

    def remaining(self) -> float:
        """How far the task is from done, in m: from each hand to its handle, and from there up."""
        gaps = np.linalg.norm(self._physics.handles - self._physics.hands, axis=1)
        return float(gaps.sum()) + max(0.0, _LIFTED - self._physics.lift)

    def __call__(self, observation: Observation, /) -> Array:
        """The next action, float32 [14]."""
        gaps, turns = self._physics.handles - self._physics.hands, self._turns()
        if not self._descending:
            gaps[:, 2] += _OVER
        self._proceed(np.linalg.norm(gaps, axis=1).max(), np.abs(turns).max())
        action = np.zeros((2, 7))
        action[:, :3], action[:, 5] = gaps / STEP_METRES, turns / STEP_RADIANS
        if self._closed_for > _CLOSING:
            action[:, :6] = 0.0, 0.0, 1.0, 0.0, 0.0, 0.0
        if self._quality == "noisy":
            action[:, :3] += _NOISE * self._random.normal(size=(2, 3))
        action[:, 6] = -1.0 if self._closed_for else 1.0
        return np.clip(action, -1, 1).reshape(-1).astype(np.float32)

    def _proceed(self, far: float, turned: float) -> None:
        """What to be at next. far: the farther hand from where it is to go, m; turned: the more turned one, rad."""
        if self._closed_for or (self._descending and far < _AT):
            self._closed_for += 1
        elif not self._descending:
            self._descending = far < _ABOVE and turned < _ALIGNED

    def _turns(self) -> Array:
        """How far each hand is to turn about the vertical for its fingers to close along the pot, rad, [2]."""
        along = (self._physics.handles[1] - self._physics.handles[0])[:2]
        fingers = self._physics.across
        angles = np.arctan2(along[1], along[0]) - np.arctan2(fingers[:, 1], fingers[:, 0])
        turns: Array = (angles + np.pi / 2) % np.pi - np.pi / 2
        return turns
