"""Set-ups as the axes make them, and the ways in which others tell a gripper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.errors import SpecError
from lapwing.gripper import (
    expect_mode,
    grasp_axes,
    index_from_signed,
    opening_from_signed,
    setup_mode,
    signed_from_index,
    signed_from_opening,
)
from lapwing.spec import Axis, RobotSpec, unnamed_axes


def robot(*names: str) -> RobotSpec:
    """A robot of these action axes; what is called a gripper is one."""
    kinds = ("gripper" if "gripper" in name else "base" if "base" in name else "arm" for name in names)
    return RobotSpec("bot", (), (), tuple(Axis(name, kind=kind) for name, kind in zip(names, kinds, strict=True)))


SINGLE_FIXED = robot("x", "y")
SINGLE_LEARNED = robot("x", "y", "gripper")
DUAL_FIXED = robot("left_x", "right_x")
DUAL_LEARNED = robot("left_x", "left_gripper", "right_x", "right_gripper", "base_x")


@pytest.mark.parametrize(
    ("spec", "axes", "mode"),
    [
        (SINGLE_FIXED, (), "single-arm-fixed-gripper"),
        (SINGLE_LEARNED, (2,), "single-arm-learned-gripper"),
        (DUAL_FIXED, (), "dual-arm-fixed-gripper"),
        (DUAL_LEARNED, (1, 3), "dual-arm-learned-gripper"),
        (robot("right_gripper", "right_x", "left_gripper", "left_x"), (2, 0), "dual-arm-learned-gripper"),
        (robot("left_x", "left_gripper"), (1,), "single-arm-learned-gripper"),
        (RobotSpec("bot", (), (), unnamed_axes("action", 6)), (), "single-arm-fixed-gripper"),
    ],
)
def test_set_up_follows_from_the_axes(spec: RobotSpec, axes: tuple[int, ...], mode: str) -> None:
    assert grasp_axes(spec) == axes
    assert setup_mode(spec) == mode
    expect_mode(spec, mode)


def test_hilserl_has_the_grippers_at_6_and_13() -> None:
    sides = [f"{side}_{axis}" for side in ("left", "right") for axis in (*"xyzabc", "gripper")]
    assert grasp_axes(robot(*sides)) == (6, 13)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (robot("x", "gripper_1", "gripper_2"), "name one arm and as grippers gripper_1, gripper_2; expected one"),
        (robot("left_x", "right_x", "right_gripper"), "name two arms and as grippers right_gripper; expected one"),
        (robot("left_x", "right_x", "left_gripper_a", "left_gripper_b"), "two arms and as grippers left_gripper_a, "),
        (robot("gripper_1", "gripper_2", "gripper_3"), "3 action axes are grippers .*, expected at most 2; give"),
    ],
)
def test_what_is_no_set_up_is_said(spec: RobotSpec, said: str) -> None:
    with pytest.raises(SpecError, match=f"robot 'bot': .*{said}"):
        setup_mode(spec)


@pytest.mark.parametrize(
    ("spec", "mode", "said"),
    [
        (SINGLE_FIXED, "single-arm-learned-gripper", "2 action axes make 'single-arm-fixed-gripper' .grippers: none"),
        (SINGLE_LEARNED, "single-arm-fixed-gripper", "make 'single-arm-learned-gripper' .grippers: gripper"),
        (SINGLE_FIXED, "dual-arm-fixed-gripper", "make 'single-arm-fixed-gripper' .*; state that mode, or mend names"),
        (DUAL_LEARNED, "dual-arm-fixed-gripper", ".grippers: left_gripper, right_gripper.; state that mode"),
    ],
)
def test_a_mode_that_does_not_fit_is_refused(spec: RobotSpec, mode: str, said: str) -> None:
    with pytest.raises(SpecError, match=f"robot 'bot': mode is '{mode}', but .*{said}"):
        expect_mode(spec, mode)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(SpecError, match="mode 'three-arms' is unknown; expected one of single-arm-fixed-gripper, "):
        expect_mode(SINGLE_FIXED, "three-arms")


def test_gym_hils_numbers_open_with_0_and_close_with_2() -> None:
    assert signed_from_index(np.array([0, 1, 2])).tolist() == [1, 0, -1]
    assert index_from_signed(np.array([1, 0, -1])).tolist() == [0, 1, 2]


def test_openings_by_hand() -> None:
    signed, before = np.array([-1, -0.5, 0, 0.4, 1]), np.array([80.0, 80.0, 0.0, 30.0, 0.0])
    assert opening_from_signed(signed, before, 0.0, 80.0).tolist() == [0.0, 80.0, 0.0, 30.0, 80.0]
    opening, before = np.array([0.0, 80.0, 0.0, 70.0, 80.0]), np.array([80.0, 0.0, 5.0, 80.0, 80.0])
    assert signed_from_opening(opening, before, 0.0, 80.0).tolist() == [-1, 1, 0, 0, 0]


@given(st.lists(st.booleans(), min_size=1), st.booleans())
def test_openings_are_told_and_reached_again(is_open: list[bool], was_open: bool) -> None:
    opening = np.where([was_open, *is_open], 0.08, 0.01)
    signed = signed_from_opening(opening[1:], opening[:-1], 0.01, 0.08)
    reached = [opening[0]]
    for one in signed:
        reached.append(float(opening_from_signed(one, reached[-1], 0.01, 0.08)))
    assert reached == opening.tolist()
