"""Scripted operators of the Panda scene. They see what no policy does: where the block and the commanded hand are.

An operator looks before every step and remembers little, so that it goes on from wherever another has left the arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lapwing.envs.panda_physics import LIFTED, STEP_METRES, Physics
from lapwing.episode import Array, Meta, Observation

Quality = Literal["mixed", "expert", "noisy"]

# clean: nothing goes wrong. noisy: every motion is off and the gripper slips, again and again, until it is done.
# missed: closes beside the block and lifts nothing. dropped: lets go on the way up. stopped: lifts too low and stays.
# hesitant: goes to the block and never closes.
SHARES: dict[Quality, dict[str, float]] = {
    "expert": {"clean": 1.0},
    "noisy": {"noisy": 1.0},
    "mixed": {"clean": 0.36, "noisy": 0.36, "missed": 0.07, "dropped": 0.07, "stopped": 0.07, "hesitant": 0.07},
}
OPEN, HOLD, CLOSE = -1.0, 0.0, 1.0

_OVER, _AT = 0.015, 0.012  # m aside, from where to descend; m off, from where to close
_HELD = 0.03  # m between hand and block, while it is held
_STILL = 0.2  # rad/s of the fingers, when they have closed on something or on each other
_CLOSING = 4  # steps
_LINGER = 14  # steps that a failure is shown for
_TIRED = 25  # steps
_STAY, _UP = np.zeros(3), np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Style:
    """How one episode is done.

    hover: m above the block, to come from; noise: standard deviation of what is added to a motion, in steps; slip: how
    often the gripper is commanded at random; miss: m from the block to where it is sought; height: m of lift at which
    a dropping or a stopping operator does so.
    """

    kind: str
    hover: float
    noise: float
    slip: float
    miss: Array
    height: float


def draw_style(quality: Quality, rng: np.random.Generator) -> Style:
    """Draw how the next episode is done."""
    shares = SHARES[quality]
    kind = str(rng.choice(list(shares), p=list(shares.values())))
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.08)
    hover, noise, height = rng.uniform(0.05, 0.09), rng.uniform(0.3, 0.8), rng.uniform(0.02, 0.055)
    return Style(
        kind=kind,
        hover=hover,
        noise=noise if kind == "noisy" else 0.0,
        slip=0.03 if kind == "noisy" else 0.0,
        miss=distance * np.array([np.cos(angle), np.sin(angle), 0.0]) * (kind == "missed"),
        height=height if kind in ("dropped", "stopped") else np.inf,
    )


class Expert:
    """An operator of one scene."""

    def __init__(self, physics: Physics, quality: Quality) -> None:
        self._physics, self._quality = physics, quality

    def reset(self, seed: int) -> Meta:
        """Begin as the operator that belongs to `seed`, from where things are."""
        self._random = np.random.default_rng((seed, 1))  # the second number: its luck is not that of the block
        self._style = draw_style(self._quality, self._random)
        self._steps = self._failed_for = 0
        return {"kind": self._style.kind}

    def remaining(self) -> float:
        """How far the task is from done, in m: from the hand to the block, and from there up."""
        physics = self._physics
        return float(np.linalg.norm(physics.block - physics.hand)) + max(0.0, LIFTED - physics.lift)

    def __call__(self, observation: Observation, /) -> Array | None:
        """The next action, float32 [4]; None when a failure has been shown for long enough."""
        if self._failed_for > _LINGER:
            return None
        self._steps += 1
        motion, gripper = self._intend()
        motion = motion + self._style.noise * self._random.normal(size=3)
        if self._random.random() < self._style.slip:
            gripper = float(self._random.choice([OPEN, HOLD, CLOSE]))
        return np.append(np.clip(motion, -1, 1), gripper).astype(np.float32)

    def _intend(self) -> tuple[Array, float]:
        """A motion in steps and what the gripper should do."""
        physics, style = self._physics, self._style
        tired = style.kind == "missed" and self._steps > _TIRED  # a finger stands on the block
        if self._failed_for or tired or physics.lift > style.height:
            return self._fail()
        if physics.gripper < 0.5:
            return self._approach(physics.block + style.miss)
        if np.linalg.norm(physics.block - physics.hand) > _HELD:
            return _UP, OPEN  # closed on nothing
        return (_STAY if physics.finger_speed > _STILL else _UP), CLOSE

    def _approach(self, goal: Array) -> tuple[Array, float]:
        """Come from above, descend, close."""
        physics = self._physics
        opening = OPEN if physics.gripper > 0 else HOLD
        if np.linalg.norm((goal - physics.hand)[:2]) > _OVER:
            above = goal + self._style.hover * _UP
            if physics.hand[2] < goal[2] + self._style.hover / 2:
                above[:2] = physics.target[:2]  # first up, so that the fingers do not push the block along
            return self._towards(above), opening
        if np.linalg.norm(goal - physics.hand) > _AT:
            return self._towards(goal), opening
        return self._fail() if self._style.kind in ("missed", "hesitant") else (_STAY, CLOSE)

    def _fail(self) -> tuple[Array, float]:
        self._failed_for += 1
        match self._style.kind:
            case "dropped":
                return _STAY, OPEN
            case "hesitant":
                return _STAY, HOLD
            case "missed" if self._failed_for > _CLOSING:
                return _UP, CLOSE
        return _STAY, CLOSE

    def _towards(self, goal: Array) -> Array:
        """From the commanded place, not from where the hand is: it lags behind."""
        motion: Array = np.clip((goal - self._physics.target) / STEP_METRES, -1, 1)
        return motion
