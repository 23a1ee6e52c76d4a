"""The toy world's cameras: discs stamped along arms and bars into images of palette indices, then coloured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from lapwing.envs.planar import CLOSED, LINKS, SHOULDERS, Scene
from lapwing.episode import Array

PALETTE = np.array(
    [
        (58, 62, 70),  # 0 floor
        (92, 98, 110),  # 1 body
        (150, 158, 172),  # 2 links
        (84, 140, 205),  # 3 joints of the left arm
        (222, 140, 60),  # 4 joints of the right arm
        (250, 215, 50),  # 5 target
        (225, 45, 45),  # 6 its left end
        (50, 70, 235),  # 7 its right end
        (60, 190, 90),  # 8 decoy
        (15, 95, 45),  # 9 its ends
        (255, 255, 255),  # 10 open hand
        (235, 60, 220),  # 11 closed hand
    ],
    np.uint8,
)
BODY, LINK, LEFT_JOINT, RIGHT_JOINT = 1, 2, 3, 4
TARGET_BAR, LEFT_END, RIGHT_END, DECOY_BAR, DECOY_END = 5, 6, 7, 8, 9
OPEN_HAND, CLOSED_HAND = 10, 11

WRIST_WINDOW, GLOBAL_WINDOW = 0.7, 2.0
"""Width and height of what a camera sees, metres."""
GLOBAL_CENTRE = np.array([0.0, 0.6])


class Stroke(NamedTuple):
    """Discs of one radius: points [N, P, 2] and their palette indices, broadcastable to [N, P]."""

    points: Array
    radius: float
    colour: Array


def draw(scene: Scene, rows: Array, size: int) -> dict[str, Array]:
    """The three cameras' images of the copies `rows` [M]: name -> uint8 [M, size, size, 3]."""
    joints = scene.joints[rows]
    strokes = list(_strokes(joints, scene.ends[rows], scene.opening[rows]))
    middle = np.broadcast_to(GLOBAL_CENTRE, (len(rows), 2))
    return {
        "left": picture(strokes, joints[:, 0, -1], WRIST_WINDOW, size),
        "right": picture(strokes, joints[:, 1, -1], WRIST_WINDOW, size),
        "global": picture(strokes, middle, GLOBAL_WINDOW, size),
    }


def _strokes(joints: Array, ends: Array, opening: Array) -> Iterator[Stroke]:
    """Everything there is to draw, from the floor up. Bars lie over the arms: no arm may hide them."""
    num = len(joints)
    along = np.linspace(0.0, 1.0, 11)[:, None]
    shoulders = np.linspace(SHOULDERS[0], SHOULDERS[1], 21)
    yield Stroke(np.broadcast_to(shoulders, (num, 21, 2)), 0.05, np.array(BODY))
    link, fraction = _link_samples()
    points = joints[:, :, link] + fraction[:, None] * (joints[:, :, link + 1] - joints[:, :, link])
    yield Stroke(points.reshape(num, -1, 2), 0.022, np.array(LINK))
    yield Stroke(joints[:, :, :6].reshape(num, -1, 2), 0.03, np.repeat([LEFT_JOINT, RIGHT_JOINT], 6))
    bars = ends[:, :, :1] + along * (ends[:, :, 1:] - ends[:, :, :1])
    yield Stroke(bars.reshape(num, -1, 2), 0.024, np.repeat([TARGET_BAR, DECOY_BAR], 11))
    yield Stroke(ends.reshape(num, 4, 2), 0.042, np.array([LEFT_END, RIGHT_END, DECOY_END, DECOY_END]))
    hand = np.where(opening < CLOSED, CLOSED_HAND, OPEN_HAND)
    yield Stroke(_hands(joints, opening), 0.022, np.repeat(hand, 5, axis=1))


def _hands(joints: Array, opening: Array) -> Array:
    """Palm and two fingers of each hand, further apart the more it is open, [N, 2 x 5, 2]."""
    wrist, hand = joints[:, :, -2], joints[:, :, -1]
    ahead = (hand - wrist) / LINKS[-1]
    across = np.stack([-ahead[..., 1], ahead[..., 0]], axis=-1) * (0.02 + 0.04 * opening[..., None])
    forward = 0.03 * ahead
    hands = [hand, hand + across, hand - across, hand + across + forward, hand - across + forward]
    return np.stack(hands, axis=2).reshape(len(joints), 10, 2)


@cache
def _link_samples() -> tuple[Array, Array]:
    """For each disc along an arm: its link, and how far along that link it lies."""
    counts = np.ceil(LINKS / 0.025).astype(int)
    link = np.repeat(np.arange(len(LINKS)), counts)
    return link, np.concatenate([np.arange(count) / count for count in counts])


def picture(strokes: list[Stroke], centre: Array, window: float, size: int) -> Array:
    """One camera above `centre` [N, 2]: uint8 [N, size, size, 3], y up."""
    scale = size / window
    widest = max(stroke.radius for stroke in strokes)
    border = int(widest * scale) + 2  # a disc may stand out of the picture, not out of the canvas
    side = size + 2 * border
    canvas = np.zeros((len(centre), side, side), np.uint8)
    flat = canvas.reshape(-1)
    first = np.arange(len(centre))[:, None] * side * side
    for points, radius, colour in strokes:
        column = np.floor((points[..., 0] - centre[:, :1] + window / 2) * scale).astype(np.int64) + border
        row = np.floor((centre[:, 1:] + window / 2 - points[..., 1]) * scale).astype(np.int64) + border
        dy, dx = _disc(radius * scale)
        reach = int(dx.max())
        seen = (np.minimum(row, column) >= reach) & (np.maximum(row, column) < side - reach)
        pixel = (first + row * side + column)[seen]
        flat[pixel[:, None] + dy * side + dx] = np.broadcast_to(colour, seen.shape)[seen][:, None]
    inner = canvas[:, border : side - border, border : side - border]
    return np.take(PALETTE, inner, axis=0, mode="clip")


@cache
def _disc(radius: float) -> tuple[Array, Array]:
    """Row and column offsets of a disc. Its middle pixel is always there: nothing thin vanishes."""
    reach = int(radius + 0.5)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = dy * dy + dx * dx <= radius * (radius + 1)  # half a pixel wider is rounder on a grid
    inside[reach, reach] = True
    return dy[inside], dx[inside]
