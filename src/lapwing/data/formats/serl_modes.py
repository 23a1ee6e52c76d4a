"""Set-up modes: which action axes are arms and which are grippers, where a file does not name them.

Layouts are those of HIL-SERL: [arm], [arm, gripper], [left, right], [left, its gripper, right, its gripper].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lapwing.episode import Array, Recording
from lapwing.errors import DataError, SpecError
from lapwing.gripper import SIDES, SetupMode, expect_mode
from lapwing.spec import Axis

__all__ = ["SetupMode", "with_mode", "with_usual_mode"]

_OF_SIZE: dict[int, SetupMode] = {
    3: "single-arm-fixed-gripper",  # HIL-SERL's egg flip
    6: "single-arm-fixed-gripper",
    7: "single-arm-learned-gripper",
    12: "dual-arm-fixed-gripper",
    14: "dual-arm-learned-gripper",
}
_MOST_ARM_AXES = 6  # a pose
_CLEAR, _SHARE = 0.25, 2 / 3  # of values drawn uniformly from -1 to 1, half are within a quarter of -1, 0 or 1


def with_mode(recording: Recording, mode: SetupMode) -> Recording:
    """The recording with action axes named as `mode` says, where the file does not name them.

    Raises DataError where the number of axes does not fit, a gripper's values are none, or the file says otherwise.
    """
    path, axes = recording.path, recording.spec.action
    if not _are_unnamed(axes):
        try:
            expect_mode(recording.spec, mode)
        except SpecError as error:
            raise DataError(f"{path}: {error}") from error
        return recording
    action = np.concatenate([episode.action for episode in recording.episodes])
    action = action[np.isfinite(action).all(1)]  # the checks find the rest
    named = _named(mode, len(axes))
    if named is None:
        fits = _OF_SIZE.get(len(axes))
        advice = f"{len(axes)} suit --mode {fits}" if fits else "choose another --mode, or leave it out"
        raise DataError(f"{path}: actions have {len(axes)} axes, expected {_sizes(mode)} for {mode}; {advice}")
    for index, axis in enumerate(named):
        if axis.kind == "gripper" and len(action) and not _is_gripper(action[:, index]):
            low, high = action[:, index].min(), action[:, index].max()
            raise DataError(
                f"{path}: action axis {index} is the gripper in {mode}, but goes from {low:.3g} to {high:.3g}, "
                "expected values near -1, 0 and 1 (or 0, 1 and 2); choose another --mode, or round them"
            )
    return replace(recording, spec=replace(recording.spec, action=_limited(named, action)))


def with_usual_mode(recording: Recording) -> Recording:
    """The recording with unnamed action axes named as their number tells, where it does, and a note that they are."""
    mode = _OF_SIZE.get(recording.spec.action_dim)
    if mode is None or not _are_unnamed(recording.spec.action):
        return recording
    try:
        named = with_mode(recording, mode)
    except DataError:  # seven joints
        return recording
    note = f"{recording.spec.action_dim} action axes that nothing names: read as {mode} (--mode says otherwise)"
    return replace(named, notes=(*named.notes, note))


def _are_unnamed(axes: Sequence[Axis]) -> bool:
    return all(axis.kind == "other" and axis.name == f"action_{index}" for index, axis in enumerate(axes))


def _named(mode: SetupMode, size: int) -> tuple[Axis, ...] | None:
    """The axes in HIL-SERL's order, each arm's gripper last; None where there are not as many in this mode."""
    sides, learned = SIDES if mode.startswith("dual") else ("",), "learned" in mode
    joints, rest = divmod(size, len(sides))
    joints -= learned
    if rest or not 1 <= joints <= _MOST_ARM_AXES:
        return None
    return tuple(
        axis
        for side in sides
        for axis in (
            *(Axis(f"{side}arm_{index}", kind="arm") for index in range(joints)),
            *[Axis(f"{side}gripper", kind="gripper")] * learned,
        )
    )


def _sizes(mode: SetupMode) -> str:
    most = _MOST_ARM_AXES + ("learned" in mode)
    return f"{2 * most} (or {most - 1}, {most - 2}, ... an arm)" if mode.startswith("dual") else f"{most} or fewer"


def _is_gripper(values: Array) -> bool:
    """Whether values [N], N > 0, tell close, hold and open: most of them near -1, 0 and 1, or all of them 0, 1 or 2."""
    if np.isin(values, (0, 1, 2)).all():
        return True
    near = np.abs(values - values.round()) <= _CLEAR
    return bool(np.abs(values).max() <= 1 and near.mean() >= _SHARE)


def _limited(axes: Sequence[Axis], action: Array) -> tuple[Axis, ...]:
    """The axes with limits: -1 to 1 where all of the arm's actions are within, grippers by themselves."""
    arm = [index for index, axis in enumerate(axes) if axis.kind == "arm"]
    most = np.abs(action).max(0, initial=0.0)
    limited = []
    for index, axis in enumerate(axes):
        if axis.kind == "gripper":
            low, high = (-1.0, 1.0) if most[index] <= 1 else (0.0, 2.0)
            limited.append(replace(axis, low=low, high=high))
        else:
            limited.append(replace(axis, low=-1.0, high=1.0) if most[arm].max() <= 1 else axis)
    return tuple(limited)
