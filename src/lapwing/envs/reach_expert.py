"""Scripted operators of the toy worlds for SAC. They see what a policy sees in images alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapwing.envs.reach_scene import HALF_BAR, OPEN, REACH, SHUT, STEP, Mode, Scene, distance
from lapwing.envs.scripted import Quality
from lapwing.episode import Array

MOST_TURN = 0.6
"""How far ahead a turning bar is aimed, rad: two hands that each went straight for the far end would only push."""


@dataclass(frozen=True)
class Habit:
    """How an operator works, in units of the action.

    `jitter`: standard deviation of the noise on every arm axis. `slip`: how often a gripper is commanded at random.
    `astray`: how far from the goal the place lies that the operator takes for it, metres. `rest`: how often nothing
    is done. `speed`: lowest and highest share of the fastest motion, drawn for the episode.
    """

    jitter: float
    slip: float = 0.0
    astray: float = 0.0
    rest: float = 0.0
    speed: tuple[float, float] = (1.0, 1.0)


# The good ones slip too: a gripper that shut on nothing is a trap for a policy that never saw one open again.
HABITS = {
    "good": Habit(jitter=0.2, slip=0.1),
    "noisy": Habit(jitter=0.6, slip=0.2),
    "astray": Habit(jitter=0.2, slip=0.02, astray=0.2),
    "human": Habit(jitter=0.1, rest=0.2, speed=(0.4, 0.7)),
}
SHARES: dict[Quality, dict[str, float]] = {
    "mixed": {"good": 0.4, "noisy": 0.3, "astray": 0.3},
    "expert": {"good": 1.0},
    "noisy": {"noisy": 1.0},
    "human": {"human": 1.0},
}


class Operators:
    """One operator per copy of the world, each drawn from its own seed."""

    def __init__(self, mode: Mode, quality: Quality, seeds: Sequence[int], max_steps: int) -> None:
        shares, arms = SHARES[quality], mode.num_arms
        # The second number keeps an operator's luck apart from that of the world with the same seed.
        draws = [np.random.default_rng([seed, 1]) for seed in seeds]
        self.kinds = [str(rng.choice(list(shares), p=list(shares.values()))) for rng in draws]
        pairs = [(HABITS[kind], rng) for kind, rng in zip(self.kinds, draws, strict=True)]
        self._mode = mode
        self._miss = np.stack([_miss(habit, rng) for habit, rng in pairs])
        self._speed = np.array([rng.uniform(*habit.speed) for habit, rng in pairs])
        self._noise = np.stack([rng.normal(0.0, 1.0, (max_steps, arms, 6)) * habit.jitter for habit, rng in pairs])
        self._rests = np.stack([rng.random(max_steps) < habit.rest for habit, rng in pairs])
        self._slips = np.stack([rng.random((max_steps, arms)) < habit.slip for habit, rng in pairs])
        self._slipped = np.stack([rng.integers(-1, 2, (max_steps, arms)) for _, rng in pairs])

    def act(self, scene: Scene, step: int) -> Array:
        """The actions at a step, float32 [N, A]; past `max_steps` luck begins anew."""
        step %= self._noise.shape[1]
        move, grip = expert(scene, self._miss)
        arms = self._noise[:, step].copy()
        arms[..., :2] += self._speed[:, None, None] * move
        resting = self._rests[:, step]
        arms[resting] = 0.0
        grip = np.where(self._slips[:, step], self._slipped[:, step], np.where(resting[:, None], 0.0, grip))
        action = np.clip(arms, -1.0, 1.0)
        if self._mode.learned:
            action = np.concatenate([action, grip[..., None]], axis=-1)
        return action.reshape(len(action), -1).astype(np.float32)


def _miss(habit: Habit, rng: np.random.Generator) -> Array:
    """Where an operator's idea of the goal lies off the goal, [2]."""
    heading = rng.uniform(0.0, 2 * np.pi)
    return habit.astray * np.array([np.cos(heading), np.sin(heading)])


def expert(scene: Scene, miss: Array) -> tuple[Array, Array]:
    """Flawless moves [N, M, 2] and gripper commands [N, M] (-1, 0, +1) towards the goal shifted by `miss` [N, 2].

    Looks at nothing but the scene, so it can take over at any step: a gripper shut on nothing opens first.
    """
    place = _ahead(scene) + miss[:, None]
    gap = np.where(scene.carried[:, None, None], place, scene.grips) - scene.hands
    move = np.clip(gap / STEP, -1.0, 1.0)
    # Closing happens after the move of the same step.
    arrives = distance(gap - STEP * move) < 0.4 * REACH
    grip = np.where(scene.opening == SHUT, 1.0, np.where((scene.opening == OPEN) & arrives, -1.0, 0.0))
    return move, grip


def _ahead(scene: Scene) -> Array:
    """The goal of each grip [N, M, 2]; for a bar far from its tilt there, where a part of the turn takes it."""
    if scene.goal.shape[1] == 1:
        return scene.goal
    (now, there), middle = (_tilt(scene.grips), _tilt(scene.goal)), scene.goal.mean(1)
    turn = (there - now + np.pi) % (2 * np.pi) - np.pi
    tilt = now + np.clip(turn, -MOST_TURN, MOST_TURN)
    across = HALF_BAR * np.stack([np.cos(tilt), np.sin(tilt)], axis=-1)
    return np.stack([middle - across, middle + across], axis=1)


def _tilt(grips: Array) -> Array:
    gap = grips[:, 1] - grips[:, 0]
    tilt: Array = np.arctan2(gap[:, 1], gap[:, 0])
    return tilt
