"""Which key moves which axis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lapwing.envs import WORLDS, world_spec
from lapwing.errors import ConfigError
from lapwing.run.keys import Device, pairs_of
from lapwing.spec import Axis, RobotSpec

KINDS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def names(spec: RobotSpec, device: Device = "keyboard") -> dict[str, tuple[str, str] | None]:
    pairs = zip(spec.action, pairs_of(spec, device), strict=True)
    return {axis.name: None if pair is None else (pair.less, pair.more) for axis, pair in pairs}


def robot(*axes: str) -> RobotSpec:
    return RobotSpec("some", (), (), tuple(Axis(name, "m", "arm", -1.0, 1.0) for name in axes))


def test_one_arm_has_the_arrows() -> None:
    assert names(robot("x", "y", "z", "gripper")) == {
        "x": ("left", "right"),
        "y": ("down", "up"),
        "z": ("s", "w"),
        "gripper": ("q", "e"),
    }


def test_the_pandas_keys_move_it_as_its_camera_sees_it() -> None:
    found = names(replace(robot("x", "y", "z"), name="panda-state"))
    assert found == {"x": ("up", "down"), "y": ("left", "right"), "z": ("s", "w")}


def test_two_arms_have_a_hand_each() -> None:
    found = names(world_spec("toy-dual-learned"))
    assert (found["left_x"], found["right_x"]) == (("a", "d"), ("left", "right"))
    assert (found["left_gripper"], found["right_gripper"]) == (("q", "e"), ("u", "o"))


@pytest.mark.parametrize("world", [name for name in WORLDS if name.startswith("toy") and not name.endswith("-state")])
def test_no_key_moves_two_axes_and_those_of_the_window_move_none(world: str) -> None:
    pressed = [name for pair in names(world_spec(world)).values() if pair for name in pair]
    assert len(pressed) == len(set(pressed)) == 2 * world_spec(world).action_dim
    assert not {"space", "escape"} & set(pressed)


def test_axes_without_keys_of_their_own_get_what_is_left() -> None:
    found = names(robot("x", "joint_1", "joint_2", "z"))
    assert found["joint_1"] == ("1", "2")
    assert found["joint_2"] == ("3", "4")
    assert found["z"] == ("s", "w")


def test_a_gamepad_leaves_out_what_it_has_no_room_for() -> None:
    one = names(robot(*KINDS), "gamepad")
    assert one["gripper"] == ("a", "b")
    assert None not in one.values()
    two = names(robot(*(side + kind for side in ("left_", "right_") for kind in KINDS)), "gamepad")
    assert (two["left_x"], two["right_y"]) == (
        ("left stick left", "left stick right"),
        ("right stick down", "right stick up"),
    )
    assert two["left_roll"] is None
    used = [name for pair in two.values() if pair for name in pair]
    assert len(used) == len(set(used)) == 16


def test_a_pair_says_what_it_does() -> None:
    [pair] = pairs_of(
        RobotSpec("some", (), (), (Axis("gripper", "open -1, close 1", "gripper", -1.0, 1.0),)), "keyboard"
    )
    assert str(pair) == "q -   e +   gripper (open -1, close 1)"


@pytest.mark.parametrize(
    ("spec", "device", "message"),
    [
        (
            robot(*(f"joint_{number}" for number in range(30))),
            "keyboard",
            "30 action axes are more than there are keys",
        ),
        (robot("joint_1"), "gamepad", "a gamepad moves axes named x, y, z and so on, world 'some' has joint_1"),
        (RobotSpec("some", (), (), (Axis("x"),)), "keyboard", "action axis 'x' has no limits, expected low and high"),
    ],
)
def test_what_cannot_be_moved_is_refused(spec: RobotSpec, device: Device, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pairs_of(spec, device)
