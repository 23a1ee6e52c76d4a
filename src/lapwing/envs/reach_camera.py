"""The camera of the toy worlds for SAC: it looks down on the table and sees all there is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lapwing.envs.drawing import (
    BODY,
    CLOSED_HAND,
    DECOY_BAR,
    DECOY_END,
    LEFT_END,
    LEFT_JOINT,
    LINK,
    OPEN_HAND,
    RIGHT_END,
    RIGHT_JOINT,
    TARGET_BAR,
    Stroke,
    picture,
)
from lapwing.envs.reach_scene import OPEN, Scene
from lapwing.episode import Array

GOAL, GOAL_GRIP = DECOY_BAR, DECOY_END
"""What is green on the table is the place to bring the thing to."""
WINDOW = 1.1
"""Width and height of what the camera sees, metres."""
CENTRE = np.array([0.0, 0.36])
SHOULDER_Y = -0.16


def draw(scene: Scene, rows: Array, size: int) -> Array:
    """The images of the copies `rows` [R]: uint8 [R, size, size, 3]."""
    part = Scene(scene.hands[rows], scene.opening[rows], scene.grips[rows], scene.goal[rows])
    return picture(list(_strokes(part)), np.broadcast_to(CENTRE, (len(rows), 2)), WINDOW, size)


def _strokes(scene: Scene) -> Iterator[Stroke]:
    """Everything there is to draw, from the table up. Goal and thing lie over the arms: no arm may hide them."""
    num, arms = scene.opening.shape
    shoulders = np.array([[0.0, SHOULDER_Y]]) if arms == 1 else np.array([[-0.3, SHOULDER_Y], [0.3, SHOULDER_Y]])
    first = np.broadcast_to(shoulders, (num, arms, 2))
    yield Stroke(_between(first, scene.hands, 40), 0.02, np.array(LINK))
    yield Stroke(first, 0.05, np.array(BODY))
    yield from _thing(scene.goal, 0.055, GOAL, (GOAL_GRIP, GOAL_GRIP))
    yield from _thing(scene.grips, 0.038, TARGET_BAR, (LEFT_END, RIGHT_END))
    yield Stroke(scene.hands, 0.012, np.array([LEFT_JOINT, RIGHT_JOINT])[:arms])
    yield _fingers(scene)


def _thing(grips: Array, radius: float, colour: int, ends: tuple[int, int]) -> Iterator[Stroke]:
    """A disc of one colour, or a bar with ends of two others."""
    if grips.shape[1] == 1:
        yield Stroke(grips, radius, np.array(colour))
        return
    yield Stroke(_between(grips[:, :1], grips[:, 1:], 12), 0.6 * radius, np.array(colour))
    yield Stroke(grips, radius, np.array(ends))


def _fingers(scene: Scene) -> Stroke:
    """Two fingers a hand, far apart when open, in a colour that tells open from closed."""
    spread = 0.022 + 0.04 * scene.opening[..., None, None]
    fingers = scene.hands[:, :, None] + spread * np.array([[-1.0, 0.0], [1.0, 0.0]])
    colour = np.where(scene.opening == OPEN, OPEN_HAND, CLOSED_HAND)
    return Stroke(fingers.reshape(len(fingers), -1, 2), 0.016, np.repeat(colour, 2, axis=1))


def _between(start: Array, end: Array, count: int) -> Array:
    """`count` points from each start to its end [N, M, 2], ends included: [N, M * count, 2]."""
    along = np.linspace(0.0, 1.0, count)[:, None]
    points = start[:, :, None] + along * (end - start)[:, :, None]
    discs: Array = points.reshape(len(points), -1, 2)
    return discs
