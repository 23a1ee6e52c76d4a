"""Which key, or which part of a gamepad, moves which axis of a robot: found from the names of the axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lapwing.errors import ConfigError
from lapwing.gripper import SIDES
from lapwing.spec import Axis, RobotSpec

Device = Literal["keyboard", "gamepad"]
Names = tuple[str, str]

_KEYS: dict[str, Mapping[str, Names]] = {
    "": {
        "x": ("left", "right"), "y": ("down", "up"), "z": ("s", "w"), "gripper": ("q", "e"),
        "roll": ("a", "d"), "pitch": ("z", "x"), "yaw": ("c", "v"),
    },
    "left_": {
        "x": ("a", "d"), "y": ("s", "w"), "z": ("f", "r"), "gripper": ("q", "e"),
        "roll": ("z", "x"), "pitch": ("c", "v"), "yaw": ("g", "t"),
    },
    "right_": {
        "x": ("left", "right"), "y": ("down", "up"), "z": ("k", "i"), "gripper": ("u", "o"),
        "roll": ("j", "l"), "pitch": ("n", "m"), "yaw": ("h", "y"),
    },
}  # fmt: skip
_PAD: dict[str, Mapping[str, Names]] = {
    "": {
        "x": ("left stick left", "left stick right"), "y": ("left stick down", "left stick up"),
        "z": ("right stick down", "right stick up"), "yaw": ("right stick left", "right stick right"),
        "roll": ("pad left", "pad right"), "pitch": ("pad down", "pad up"), "gripper": ("a", "b"),
    },
    "left_": {
        "x": ("left stick left", "left stick right"), "y": ("left stick down", "left stick up"),
        "z": ("pad down", "pad up"), "gripper": ("pad left", "pad right"),
    },
    "right_": {
        "x": ("right stick left", "right stick right"), "y": ("right stick down", "right stick up"),
        "z": ("a", "y"), "gripper": ("x", "b"),
    },
}  # fmt: skip
_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl;", "zxcvbnm,./")
_SEEN_FROM_AHEAD = ("panda", "panda-state")  # their x comes towards the camera that looks at the arm


@dataclass(frozen=True)
class Pair:
    """What moves an axis towards its low end and towards its high one."""

    axis: Axis
    less: str
    more: str

    def __str__(self) -> str:
        return f"{self.less} -   {self.more} +   {self.axis.name} ({self.axis.unit})"


def pairs_of(spec: RobotSpec, device: Device) -> tuple[Pair | None, ...]:
    """A pair for each action axis, None for one that a gamepad has no room for.

    x, y, z, roll, pitch, yaw and gripper have their own, with two arms those of each arm; the other axes get what keys
    are left, row by row. Raises ConfigError where they do not suffice, and where an axis has no limits to move within.
    """
    for axis in spec.action:
        if axis.low is None or axis.high is None:
            raise ConfigError(
                f"intervene: action axis {axis.name!r} has no limits, expected low and high; set --intervene none"
            )
    own = [_own(axis.name, spec.name, _KEYS if device == "keyboard" else _PAD) for axis in spec.action]
    if device == "gamepad":
        if not any(own):
            raise ConfigError(
                f"intervene: a gamepad moves axes named x, y, z and so on, world {spec.name!r} has "
                f"{spec.action[0].name} and others; set --intervene keyboard"
            )
        return tuple(Pair(axis, *names) if names else None for axis, names in zip(spec.action, own, strict=True))
    taken = {name for names in own if names for name in names}
    left = [names for row in _ROWS for names in zip(row[::2], row[1::2], strict=True) if taken.isdisjoint(names)]
    if own.count(None) > len(left):
        raise ConfigError(
            f"intervene: {len(spec.action)} action axes are more than there are keys for; set --intervene scripted"
        )
    return tuple(Pair(axis, *(names or left.pop(0))) for axis, names in zip(spec.action, own, strict=True))


def _own(axis: str, robot: str, layout: Mapping[str, Mapping[str, Names]]) -> Names | None:
    side = next((side for side in SIDES if axis.startswith(side)), "")
    place = axis.removeprefix(side)
    if robot in _SEEN_FROM_AHEAD and place in ("x", "y"):
        across, along = layout[side]["x"], layout[side]["y"]
        return (along[1], along[0]) if place == "x" else across
    return layout[side].get(place)
