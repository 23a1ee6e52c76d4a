"""Which action axes are arms and which are grippers, where a file of transitions does not name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lapwing.data.formats.serl_modes import with_mode, with_usual_mode
from lapwing.episode import Array, Episode, Recording
from lapwing.errors import DataError
from lapwing.gripper import setup_mode
from lapwing.spec import Axis, RobotSpec, unnamed_axes

MODES = {
    "single-arm-fixed-gripper": 6,
    "single-arm-learned-gripper": 7,
    "dual-arm-fixed-gripper": 12,
    "dual-arm-learned-gripper": 14,
}


def recording(action: Array, axes: tuple[Axis, ...] = ()) -> Recording:
    """A recording of one episode with these actions [N, A]."""
    action = np.asarray(action, np.float32)
    spec = RobotSpec("robot", (), unnamed_axes("state", 1), axes or unnamed_axes("action", action.shape[1]))
    return Recording(Path("demos.pkl"), "serl", spec, [Episode({}, np.zeros((len(action), 1)), action, None, False)])


def moves(axes: int, steps: int = 30) -> Array:
    """Actions in HIL-SERL's layout: arms anywhere in -1 to 1, grippers at 6 and 13 close to -1, 0 or 1."""
    rng = np.random.default_rng(0)
    action = rng.uniform(-0.9, 0.9, (steps, axes))
    for gripper in {7: [6], 14: [6, 13]}.get(axes, []):
        action[:, gripper] = rng.choice([-1, 0, 1], steps) * rng.uniform(0.9, 1, steps)
    return action


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_names_the_axes(mode) -> None:
    spec = with_mode(recording(moves(MODES[mode])), mode).spec
    axes = spec.action
    grippers = [index for index, axis in enumerate(axes) if axis.kind == "gripper"]
    assert grippers == {7: [6], 14: [6, 13]}.get(MODES[mode], [])
    assert all(axis.kind == "arm" for index, axis in enumerate(axes) if index not in grippers)
    assert len({axis.name for axis in axes}) == len(axes)
    if mode.startswith("dual"):
        half = len(axes) // 2
        assert all(axis.name.startswith("left_") for axis in axes[:half])
        assert all(axis.name.startswith("right_") for axis in axes[half:])
    assert {(axis.low, axis.high) for axis in axes} == {(-1, 1)}
    assert setup_mode(spec) == mode


@pytest.mark.parametrize(
    ("axes", "mode"), [(3, "single-arm-fixed-gripper"), *((axes, mode) for mode, axes in MODES.items())]
)
def test_the_number_of_axes_tells_the_mode_where_nothing_else_does(axes, mode) -> None:
    found = with_usual_mode(recording(moves(axes)))
    assert setup_mode(found.spec) == mode
    assert found.notes == (f"{axes} action axes that nothing names: read as {mode} (--mode says otherwise)",)


def test_seven_joints_are_not_taken_for_an_arm_with_a_gripper() -> None:
    joints = recording(np.linspace(-2, 2, 210).reshape(30, 7))
    assert with_usual_mode(joints) == joints


@pytest.mark.parametrize("axes", [1, 2, 5, 8, 16])
def test_other_numbers_of_axes_stay_unnamed(axes) -> None:
    assert with_usual_mode(recording(moves(axes))).spec.action == unnamed_axes("action", axes)


@pytest.mark.parametrize(
    ("axes", "mode", "message"),
    [
        (
            7,
            "single-arm-fixed-gripper",
            r"actions have 7 axes, expected 6 or fewer .*--mode single-arm-learned-gripper",
        ),
        (14, "single-arm-learned-gripper", r"actions have 14 axes, expected 7 or fewer .*--mode dual-arm-learned-grip"),
        (1, "single-arm-learned-gripper", r"actions have 1 axes, expected 7 or fewer"),
        (7, "dual-arm-fixed-gripper", r"actions have 7 axes, expected 12 \(or 5, 4, \.\.\. an arm\)"),
        (
            12,
            "dual-arm-learned-gripper",
            r"action axis 5 is the gripper in dual-arm-learned-gripper, but goes from -0\.",
        ),
        (13, "dual-arm-learned-gripper", r"actions have 13 axes, expected 14 \(or 6, 5, \.\.\. an arm\)"),
    ],
)
def test_a_mode_that_does_not_fit_is_refused(axes, mode, message) -> None:
    with pytest.raises(DataError, match=rf"demos\.pkl: {message}"):
        with_mode(recording(moves(axes) * 0.49 + 0.0), mode)


def test_grippers_of_0_1_2_keep_their_scale() -> None:
    action = moves(7)
    action[:, 6] = np.arange(30) % 3
    axes = with_mode(recording(action), "single-arm-learned-gripper").spec.action
    assert (axes[6].low, axes[6].high) == (0, 2)
    assert (axes[0].low, axes[0].high) == (-1, 1)


def test_an_arm_that_leaves_minus_one_to_one_has_no_limits() -> None:
    action = moves(7)
    action[3, 2] = 1.5
    axes = with_mode(recording(action), "single-arm-learned-gripper").spec.action
    assert {(axis.low, axis.high) for axis in axes[:6]} == {(None, None)}
    assert (axes[6].low, axes[6].high) == (-1, 1)


def test_actions_that_are_not_finite_are_left_to_the_checks() -> None:
    action = moves(7)
    action[0] = np.nan
    axes = with_mode(recording(action), "single-arm-learned-gripper").spec.action
    assert (axes[6].low, axes[6].high) == (-1, 1)
    assert with_usual_mode(recording(np.full((2, 7), np.nan))).spec.action[6].kind == "gripper"


def test_a_mode_other_than_the_file_tells_is_refused() -> None:
    named = (Axis("left_x", kind="arm"), Axis("right_x", kind="arm"))
    assert with_mode(recording(moves(2), named), "dual-arm-fixed-gripper").spec.action == named
    with pytest.raises(DataError, match=r"demos\.pkl: .*mode is 'single-arm-fixed-gripper', but .* make 'dual-arm-fi"):
        with_mode(recording(moves(2), named), "single-arm-fixed-gripper")
