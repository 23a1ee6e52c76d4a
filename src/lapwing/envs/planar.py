"""The physics of the toy world: two planar six-link arms, two bars on the floor and a base that drives.

Everything is in the frame of the base: x to the right, y forward, metres, radians. Letters: N copies.
Only elementwise arithmetic is used, so that a copy's numbers do not depend on how many stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapwing.episode import Array

LINKS = np.array([0.30, 0.25, 0.20, 0.12, 0.08, 0.05])
SHOULDERS = np.array([[-0.25, 0.0], [0.25, 0.0]])
HOME = np.array([[2.6, -0.9, -0.6, -0.3, -0.2, -0.1], [np.pi - 2.6, 0.9, 0.6, 0.3, 0.2, 0.1]])
HALF_BAR = 0.15
TARGET, DECOY = 0, 1

JOINT_LIMIT = float(np.pi)
BASE_LIMIT = 0.03
"""Largest base velocity, metres per step."""
JOINT_STEP, GRIPPER_STEP, BASE_STEP = 0.07, 0.25, 0.015
"""How far a step moves a joint, a gripper and the base velocity towards what is commanded."""

CLOSED = 0.3
"""A gripper below this opening holds."""
REACH = 0.09
"""A hand this near to its end of a bar can hold it."""
HOLD_STEPS = 2


@dataclass(frozen=True)
class Scene:
    """N copies of the world. Arms are ordered left, right; bars target, decoy; bar ends left, right.

    angles [N, 2, 6], opening [N, 2] (1 open, 0 closed), velocity [N, 2], centre [N, 2, 2] and tilt [N, 2] of the
    bars, held [N, 2]: steps in a row that both hands have held each bar. The arrays are changed in place.
    """

    angles: Array
    opening: Array
    velocity: Array
    centre: Array
    tilt: Array
    held: Array

    @property
    def state(self) -> Array:
        """What the robot feels, float32 [N, 16]. Nothing in it tells where the bars are."""
        left, right = (np.c_[self.angles[:, arm], self.opening[:, arm]] for arm in (0, 1))
        return np.concatenate([left, right, self.velocity], axis=1, dtype=np.float32)

    @property
    def joints(self) -> Array:
        """Where the links begin and end, shoulder first and hand last, [N, 2, 7, 2]."""
        heading = np.cumsum(self.angles, axis=-1)
        links = LINKS[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        first = np.broadcast_to(SHOULDERS[:, None], (len(links), 2, 1, 2))
        return np.cumsum(np.concatenate([first, links], axis=2), axis=2)

    @property
    def ends(self) -> Array:
        """The two ends of each bar, [N, 2 bars, 2 ends, 2]."""
        half = HALF_BAR * np.stack([np.cos(self.tilt), np.sin(self.tilt)], axis=-1)
        return np.stack([self.centre - half, self.centre + half], axis=2)


def new_scene(seeds: Sequence[int]) -> Scene:
    """One copy per seed: arms near home, grippers open, bars somewhere in reach and apart."""
    drawn = [_draw_start(np.random.default_rng(seed)) for seed in seeds]
    num = len(drawn)
    return Scene(
        angles=np.stack([angles for angles, _, _ in drawn]),
        opening=np.ones((num, 2)),
        velocity=np.zeros((num, 2)),
        centre=np.stack([centre for _, centre, _ in drawn]),
        tilt=np.stack([tilt for _, _, tilt in drawn]),
        held=np.zeros((num, 2), np.int64),
    )


def _draw_start(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    angles = HOME + rng.normal(0.0, 0.06, HOME.shape)
    tilt = rng.uniform(-0.5, 0.5, 2)
    while True:
        centre = rng.uniform([-0.5, 0.5], [0.5, 1.1], (2, 2))
        if np.hypot(*(centre[TARGET] - centre[DECOY])) >= 0.45:
            return angles, centre, tilt


def advance(scene: Scene, rows: Array, action: Array) -> None:
    """Move the copies `rows` [M] one step towards `action` [M, 16], laid out like the state."""
    arms = action[:, :14].reshape(-1, 2, 7)
    angles, opening, velocity = scene.angles[rows], scene.opening[rows], scene.velocity[rows]
    angles += np.clip(arms[..., :6] - angles, -JOINT_STEP, JOINT_STEP)
    opening += np.clip(arms[..., 6] - opening, -GRIPPER_STEP, GRIPPER_STEP)
    velocity += np.clip(action[:, 14:] - velocity, -BASE_STEP, BASE_STEP)
    scene.angles[rows] = np.clip(angles, -JOINT_LIMIT, JOINT_LIMIT)
    scene.opening[rows] = np.clip(opening, 0.0, 1.0)
    scene.velocity[rows] = velocity = np.clip(velocity, -BASE_LIMIT, BASE_LIMIT)
    scene.centre[rows] -= velocity[:, None]  # the base drives, so the floor moves the other way
    scene.held[rows] = np.where(_holding(scene)[rows], scene.held[rows] + 1, 0)


def _holding(scene: Scene) -> Array:
    """Whether both hands are closed near their ends of each bar, bool [N, 2 bars]."""
    gap = scene.ends - scene.joints[:, None, :, -1]
    near = np.hypot(gap[..., 0], gap[..., 1]) < REACH
    holding: Array = (near & (scene.opening < CLOSED)[:, None]).all(-1)
    return holding
