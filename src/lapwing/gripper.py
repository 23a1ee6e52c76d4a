"""Which axes of a robot are grippers, what set-up that makes it, and the ways in which others tell a gripper."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from lapwing.episode import Array
from lapwing.errors import SpecError
from lapwing.spec import RobotSpec

SetupMode = Literal[
    "single-arm-fixed-gripper", "single-arm-learned-gripper", "dual-arm-fixed-gripper", "dual-arm-learned-gripper"
]
SIDES = ("left_", "right_")


def grasp_axes(spec: RobotSpec) -> tuple[int, ...]:
    """Places of the gripper axes in the action: none, one, or left and right. Raises SpecError."""
    found = [place for place, axis in enumerate(spec.action) if axis.kind == "gripper"]
    if len(found) > len(SIDES):
        names = ", ".join(spec.action[place].name for place in found)
        raise SpecError(
            f"robot {spec.name!r}: {len(found)} action axes are grippers ({names}), expected at most 2; "
            "give the others another kind in the spec"
        )
    if len(found) == 2 and tuple(_side(spec, place) for place in found) == ("right_", "left_"):
        found.reverse()
    return tuple(found)


def setup_mode(spec: RobotSpec) -> SetupMode:
    """The set-up that the action axes make: arms by the prefixes left_ and right_, grippers by their kind.

    Raises SpecError where it is none of the four: each arm has one gripper, or none has any.
    """
    sides = {axis.name.startswith(SIDES[0]) for axis in spec.action if axis.name.startswith(SIDES)}
    arms = max(len(sides), 1)
    grippers = grasp_axes(spec)
    if not grippers:
        return "dual-arm-fixed-gripper" if arms == 2 else "single-arm-fixed-gripper"
    if len(grippers) != arms or (arms == 2 and [_side(spec, place) for place in grippers] != list(SIDES)):
        names = ", ".join(spec.action[place].name for place in grippers)
        count = "two arms" if arms == 2 else "one arm"
        raise SpecError(
            f"robot {spec.name!r}: its action axes name {count} and as grippers {names}; expected one gripper "
            "on each arm, or none; name axes left_... and right_... in the spec where there are two arms"
        )
    return "dual-arm-learned-gripper" if arms == 2 else "single-arm-learned-gripper"


def expect_mode(spec: RobotSpec, mode: SetupMode) -> None:
    """Raise SpecError, naming what does not fit, unless the spec makes the set-up `mode`."""
    if mode not in get_args(SetupMode):
        raise SpecError(f"mode {mode!r} is unknown; expected one of {', '.join(get_args(SetupMode))}")
    found = setup_mode(spec)
    if found == mode:
        return
    grippers = ", ".join(spec.action[place].name for place in grasp_axes(spec)) or "none"
    raise SpecError(
        f"robot {spec.name!r}: mode is {mode!r}, but its {spec.action_dim} action axes make {found!r} (grippers: "
        f"{grippers}); state that mode, or mend names (left_, right_) and kinds (gripper) of the axes in the spec"
    )


def _side(spec: RobotSpec, place: int) -> str:
    return next((side for side in SIDES if spec.action[place].name.startswith(side)), "")


def signed_from_index(index: Array) -> Array:
    """gym-hil's 0 opens, 1 holds, 2 closes -> HIL-SERL's -1 closes, 0 holds, 1 opens; any shape."""
    signed: Array = 1 - index
    return signed


def index_from_signed(signed: Array) -> Array:
    """HIL-SERL's -1 closes, 0 holds, 1 opens -> gym-hil's 0 opens, 1 holds, 2 closes; any shape."""
    index: Array = 1 - signed
    return index


def opening_from_signed(signed: Array, before: Array, low: float, high: float) -> Array:
    """The opening to be at, given the one before, both of one shape and in the axis's unit: `low` closed, `high` open.

    As in HIL-SERL, below -0.5 closes and above 0.5 opens; anything between holds what was.
    """
    opening: Array = np.where(signed < -0.5, low, np.where(signed > 0.5, high, before))
    return opening


def signed_from_opening(opening: Array, before: Array, low: float, high: float) -> Array:
    """What told a gripper to go from the opening before to this one, each of which counts as open or closed.

    0 where it stays: this is `opening_from_signed` undone, but for commands that changed nothing.
    """
    middle = (low + high) / 2
    signed: Array = (opening > middle).astype(np.float32) - (before > middle).astype(np.float32)
    return signed
