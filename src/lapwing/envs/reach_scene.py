"""The physics of the toy worlds for SAC: one or two hands on a table bring a thing to its goal.

One hand carries a disc; two carry a bar by its ends, the left hand by the left one. x to the right, y forward, metres.
Letters: N copies, M arms, which is also the number of the thing's grips. Only elementwise arithmetic is used, so that a
copy's numbers do not depend on how many stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lapwing.episode import Array

ArmCount = Literal["single", "dual"]
GripperMode = Literal["fixed", "learned"]

LOW, HIGH = np.array([-0.5, 0.0]), np.array([0.5, 0.8])
"""The corners of the table: hands and things stay on it."""
STEP = 0.06
"""How far an action of 1 moves a hand along x or y."""
HALF_BAR = 0.15
REACH, NEAR = 0.1, 0.08
"""A hand nearer than REACH to its grip can take it; a thing with every grip nearer than NEAR to its place is there."""
APART = 0.25
"""Least distance between where a thing starts and where it is to go."""
OPEN, HOLDING, SHUT = 1.0, 0.5, 0.0
"""Gripper openings: nothing else occurs. A gripper that shut on nothing cannot take anything before it has opened."""
TOGGLE_COST = -0.02
"""The penalty of each gripper that opens or closes."""


@dataclass(frozen=True)
class Mode:
    """A set-up of HIL-SERL: one or two arms, grippers that stay shut on the thing or that are part of the action."""

    arms: ArmCount
    gripper: GripperMode

    @property
    def num_arms(self) -> int:
        return 1 if self.arms == "single" else 2

    @property
    def learned(self) -> bool:
        return self.gripper == "learned"


@dataclass(frozen=True)
class Scene:
    """N copies of the world: hands, grips and goal [N, M, 2] (a goal for each grip), opening [N, M].

    The arrays are changed in place.
    """

    hands: Array
    opening: Array
    grips: Array
    goal: Array

    @property
    def holding(self) -> Array:
        """Which hands hold their grip, bool [N, M]."""
        holding: Array = np.equal(self.opening, HOLDING)
        return holding

    @property
    def carried(self) -> Array:
        """Whether every hand holds the thing, bool [N]."""
        return np.asarray(self.holding.all(1))

    @property
    def at_goal(self) -> Array:
        """Whether the thing is carried and at its goal, bool [N]."""
        return np.asarray(self.carried & (distance(self.goal - self.grips) < NEAR).all(1))


def distance(gap: Array) -> Array:
    """Length of vectors [..., 2]."""
    length: Array = np.hypot(gap[..., 0], gap[..., 1])
    return length


def new_scene(mode: Mode, seeds: Sequence[int]) -> Scene:
    """One copy per seed: a thing and its goal apart, the hands near home and open, or holding where they are fixed."""
    drawn = [_draw_start(mode.num_arms, np.random.default_rng(seed)) for seed in seeds]
    hands, grips, goal = (np.stack(parts) for parts in zip(*drawn, strict=True))
    if not mode.learned:
        hands = grips.copy()
    return Scene(hands, np.full(hands.shape[:2], OPEN if mode.learned else HOLDING), grips, goal)


def _draw_start(arms: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    home = np.array([[0.0, 0.1]]) if arms == 1 else np.array([[-0.3, 0.1], [0.3, 0.1]])
    hands = home + rng.uniform(-0.05, 0.05, home.shape)
    half = 0.0 if arms == 1 else HALF_BAR
    low, high = LOW + 0.08 + half, HIGH - 0.08 - half
    while True:
        centre = rng.uniform(low, high, (2, 2))
        if distance(centre[1] - centre[0]) >= APART:
            break
    tilt = rng.uniform(-0.5, 0.5, 2)
    across = half * np.stack([np.cos(tilt), np.sin(tilt)], axis=-1)
    side = np.linspace(-1.0, 1.0, arms)[:, None] if arms > 1 else np.zeros((1, 1))
    grips, goal = centre[:, None] + side * across[:, None]
    return hands, grips, goal


def advance(scene: Scene, rows: Array, move: Array, grip: Array | None) -> Array:
    """Take the copies `rows` [R] a step: move [R, M, 2] in -1..1, and grip [R, M] (None where grippers are fixed).

    grip: below -0.5 closes, above 0.5 opens, else the gripper stays. Returns how many grippers toggled, int [R].
    """
    opening = scene.opening[rows]
    scene.hands[rows], scene.grips[rows] = _moved(scene, rows, STEP * np.clip(move, -1.0, 1.0))
    if grip is None:
        return np.zeros(len(rows), np.int64)
    near = distance(scene.grips[rows] - scene.hands[rows]) < REACH
    closes, opens = (opening == OPEN) & (grip < -0.5), (opening != OPEN) & (grip > 0.5)
    opening = np.where(closes, np.where(near, HOLDING, SHUT), np.where(opens, OPEN, opening))
    scene.opening[rows] = opening
    takes = closes & near
    scene.hands[rows] = np.where(takes[..., None], scene.grips[rows], scene.hands[rows])  # fingers centre on it
    toggled: Array = (closes | opens).sum(1)
    return toggled


def _moved(scene: Scene, rows: Array, step: Array) -> tuple[Array, Array]:
    """Hands and grips after `step` [R, M, 2]: a thing moves when every hand holds it, too heavy for fewer."""
    hands, grips, holding = scene.hands[rows], scene.grips[rows], scene.holding[rows]
    carried = scene.carried[rows, None, None]
    free = np.clip(hands + step, LOW, HIGH)
    carrying = _stiff(hands + step)
    moved = np.where(carried, carrying, np.where(holding[..., None], hands, free))
    return moved, np.where(carried, carrying, grips)


def _stiff(hands: Array) -> Array:
    """Where hands [R, M, 2] on one thing end up: on the table and, two on a bar, as far apart as its ends."""
    if hands.shape[1] == 1:
        return np.clip(hands, LOW, HIGH)
    gap = hands[:, 1] - hands[:, 0]
    half = HALF_BAR * gap / distance(gap)[:, None]
    middle = np.clip(hands.mean(1), LOW + HALF_BAR, HIGH - HALF_BAR)
    return np.stack([middle - half, middle + half], axis=1)
