"""Scripted operators of the toy world. They see what no policy does: where the bars are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lapwing.envs.planar import BASE_LIMIT, DECOY, HOME, JOINT_LIMIT, JOINT_STEP, TARGET, Scene
from lapwing.episode import Array

Quality = Literal["mixed", "expert", "noisy", "human"]


@dataclass(frozen=True)
class Habit:
    """How an operator works: which bar it goes for, and how badly.

    `jitter`: standard deviation of the noise on joint targets, rad. `aim`: of a miss that stays through the
    episode, metres. `slip`: how often a gripper is commanded the wrong way. `pause`: how often a step begins a
    rest of up to `longest_rest` steps. `hesitation`: least and most steps between arriving and closing the grippers.
    `speed`: lowest and highest share of the fastest motion, drawn for the episode.
    """

    bar: int
    jitter: float
    aim: float = 0.0
    slip: float = 0.0
    pause: float = 0.0
    longest_rest: int = 6
    hesitation: tuple[int, int] = (0, 0)
    speed: tuple[float, float] = (1.0, 1.0)


HABITS = {
    "good": Habit(TARGET, jitter=0.02),
    "noisy": Habit(TARGET, jitter=0.056, aim=0.04, slip=0.08),
    "wrong-target": Habit(DECOY, jitter=0.03),
    "human": Habit(TARGET, jitter=0.02, pause=0.06, hesitation=(2, 8), speed=(0.3, 0.6)),
}
SHARES: dict[Quality, dict[str, float]] = {
    "mixed": {"good": 0.28, "noisy": 0.26, "wrong-target": 0.46},
    "expert": {"good": 1.0},
    "noisy": {"noisy": 1.0},
    "human": {"human": 1.0},
}


class Operators:
    """One operator per copy of the world, each drawn from its own seed."""

    def __init__(self, quality: Quality, seeds: Sequence[int], max_steps: int) -> None:
        shares = SHARES[quality]
        # The second number keeps an operator's luck apart from that of the world with the same seed.
        draws = [np.random.default_rng([seed, 1]) for seed in seeds]
        self.kinds = [str(rng.choice(list(shares), p=list(shares.values()))) for rng in draws]
        habits = [HABITS[kind] for kind in self.kinds]
        self._bar = np.array([habit.bar for habit in habits])
        pairs = list(zip(habits, draws, strict=True))
        self._miss = np.stack([rng.normal(0.0, 1.0, (2, 2)) * habit.aim for habit, rng in pairs])
        self._noise = np.stack([rng.normal(0.0, 1.0, (max_steps, 14)) * habit.jitter for habit, rng in pairs])
        self._slips = np.stack([rng.random((max_steps, 2)) < habit.slip for habit, rng in pairs])
        self._rests = np.stack([_rests(habit, rng, max_steps) for habit, rng in pairs])
        self._hesitation = np.array([rng.integers(*habit.hesitation, endpoint=True) for habit, rng in pairs])
        self._hovered = np.zeros(len(pairs), np.int64)
        self._speed = np.array([rng.uniform(*habit.speed) for habit, rng in pairs])

    def act(self, scene: Scene, step: int) -> Array:
        """The actions at a step, float32 [N, 16]."""
        action = expert(scene, self._bar, self._miss)
        self._slow_down(action, scene)
        self._hold_still(action, scene, step)
        arms = action[:, :14].reshape(-1, 2, 7)
        arms[..., :6] += self._noise[:, step, :12].reshape(-1, 2, 6)
        arms[..., 6] = np.where(self._slips[:, step], 1.0 - arms[..., 6], arms[..., 6])
        action[:, 14:] += self._noise[:, step, 12:] * 0.2
        return np.concatenate(
            [
                np.clip(arms, -JOINT_LIMIT, JOINT_LIMIT).reshape(-1, 14),
                np.clip(action[:, 14:], -BASE_LIMIT, BASE_LIMIT),
            ],
            axis=1,
            dtype=np.float32,
        )

    def _slow_down(self, action: Array, scene: Scene) -> None:
        slow = self._speed < 1
        arms = action[slow, :14].reshape(-1, 2, 7)
        step = arms[..., :6] - scene.angles[slow]
        arms[..., :6] = scene.angles[slow] + self._speed[slow, None, None] * step
        action[slow, :14] = arms.reshape(-1, 14)

    def _hold_still(self, action: Array, scene: Scene, step: int) -> None:
        """Stay where one is while resting, and at the bar until the hesitation is over."""
        arrived = action[:, 6] == 0
        still = self._rests[:, step] | (arrived & (self._hovered < self._hesitation))
        self._hovered += arrived
        arms = action[still, :14].reshape(-1, 2, 7)
        arms[..., :6], arms[..., 6] = scene.angles[still], 1.0
        action[still, :14] = arms.reshape(-1, 14)
        action[still, 14:] = 0.0


def _rests(habit: Habit, rng: np.random.Generator, max_steps: int) -> Array:
    """The steps of an episode that an operator rests in, bool [max_steps]."""
    resting = np.zeros(max_steps, bool)
    if habit.pause:
        for begin in np.flatnonzero(rng.random(max_steps) < habit.pause):
            resting[begin : begin + rng.integers(2, habit.longest_rest, endpoint=True)] = True
    return resting


def expert(scene: Scene, bar: Array, miss: Array) -> Array:
    """Flawless actions, float64 [N, 16], that take the bar `bar` [N] by its ends, shifted by `miss` [N, 2, 2].

    Each hand follows damped least squares towards its end while the arm leans home in what freedom is left; the
    grippers close when both hands are there; the base drives to bring the bar to where the arms work best.
    """
    goal = scene.ends[np.arange(len(bar)), bar] + miss
    joints = scene.joints
    error = goal - joints[:, :, -1]
    distance = np.hypot(error[..., 0], error[..., 1])
    pull = error * (0.035 / np.maximum(distance, 0.035))[..., None]
    arms = np.empty((len(bar), 2, 7))
    arms[..., :6] = scene.angles + np.clip(_joint_step(scene.angles, joints, pull), -JOINT_STEP, JOINT_STEP)
    arms[..., 6] = (distance >= 0.06).any(1, keepdims=True)
    drive = np.clip(0.25 * (goal.mean(1) - [0.0, 0.7]), -BASE_LIMIT, BASE_LIMIT)
    return np.concatenate([arms.reshape(-1, 14), drive], axis=1)


def _joint_step(angles: Array, joints: Array, pull: Array) -> Array:
    """Joint changes [N, 2, 6] that move the hands by `pull` [N, 2, 2], leaning home in the null space."""
    lever = joints[:, :, -1:] - joints[:, :, :6]
    jacobian = np.stack([-lever[..., 1], lever[..., 0]], axis=-2)  # [N, 2 arms, 2, 6]
    lean = 0.05 * (HOME - angles)
    rest = pull - (jacobian * lean[..., None, :]).sum(-1)
    step: Array = lean + (jacobian * _damped_solve(jacobian, rest)[..., None]).sum(-2)
    return step


def _damped_solve(jacobian: Array, right: Array) -> Array:
    """(J J' + 0.01 I)^-1 right for 2 x 6 Jacobians, written out: [..., 2]."""
    x, y = jacobian[..., 0, :], jacobian[..., 1, :]
    xx, yy, xy = (x * x).sum(-1) + 0.01, (y * y).sum(-1) + 0.01, (x * y).sum(-1)
    first = yy * right[..., 0] - xy * right[..., 1]
    second = xx * right[..., 1] - xy * right[..., 0]
    solved: Array = np.stack([first, second], axis=-1) / (xx * yy - xy * xy)[..., None]
    return solved
