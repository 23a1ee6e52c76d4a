"""The robot's file: what it says is what the station gets, and what cannot be meant is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.errors import ConfigError
from lapwing.robot.description import SHIPPED, Description, read_description
from lapwing.robot.limits import make_bounds


def test_the_axes_are_those_of_the_arms_and_the_action_has_the_base_too(description: Description) -> None:
    spec = description.spec
    arms = ["left_shoulder", "left_gripper", "right_shoulder", "right_gripper"]
    assert [axis.name for axis in spec.state] == arms
    assert [axis.name for axis in spec.action] == [*arms, "base_linear", "base_angular"]
    assert [axis.kind for axis in spec.action] == ["arm", "gripper", "arm", "gripper", "base", "base"]
    assert (spec.name, spec.rate_hz, spec.camera_names) == ("small", 50.0, ("front", "wrist"))
    assert (spec.state[0].low, spec.state[0].high, spec.state[0].unit) == (-1.0, 2.0, "rad")


def test_the_sensors_are_those_measured_and_the_stamps_of_all_streams(description: Description) -> None:
    sensors = {sensor.name: (sensor.shape, sensor.dtype) for sensor in description.spec.sensors}
    assert sensors.pop("velocity") == sensors.pop("effort") == ((4,), "float32")
    assert sensors.pop("base_velocity") == ((2,), "float32")
    streams = ["front", "wrist", "state_left", "state_right", "base"]
    assert sensors == {f"stamp_{name}": ((), "float64") for name in streams}


def test_synchronisation_and_limits_are_in_seconds(description: Description) -> None:
    sync, limits = description.sync, description.limits
    assert (sync.reference, sync.disorder, sync.patience) == ("front", 0.0, 0.1)
    assert {stream.name: stream.choice for stream in sync.streams} == {
        "front": "nearest",
        "wrist": "nearest",
        "state_left": "interpolated",
        "state_right": "nearest",
        "base": "nearest",
    }
    assert {stream.max_skew for stream in sync.streams} == {0.015}
    assert (limits.max_age, limits.watchdog) == (0.1, 0.15)
    assert make_bounds(description.spec.action, limits).acceleration.tolist() == [10, 100, 20, 100, 10, 10]


def test_a_rate_may_be_the_reference_and_the_base_and_sensors_may_be_missing(robot_file: Path) -> None:
    text = robot_file.read_text()
    base = text[text.index("[base]") : text.index("[cameras.front]")]
    for old, new in {base: "", "base = 1.0\n": "", "base = 10.0\n": "", '"front"\nmax': "30\nmax"}.items():
        assert old in text
        text = text.replace(old, new)
    robot_file.write_text(text.replace('sensors = ["velocity", "effort"]', ""))
    description = read_description(str(robot_file))
    assert description.sync.reference == 30.0
    assert description.spec.state == description.spec.action
    assert all(sensor.name.startswith("stamp_") for sensor in description.spec.sensors)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_robots_have_two_arms_and_three_cameras(name: str) -> None:
    description = read_description(name)
    assert list(description.parts) == ["left", "right", "base"]
    assert (description.spec.state_dim, description.spec.action_dim, len(description.spec.cameras)) == (14, 16, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "small"\n', "", "robot: name is missing; add it"),
        ('name = "small"\n', "name = 3\n", "robot: name is 3, expected a text"),
        ("rate_hz = 50", "rate_hz = 0", "robot: rate_hz is 0, expected a number above 0"),
        ('"velocity", "effort"', '"torque"', r"robot: sensors is \['torque'\], expected a list of velocity, effort"),
        ("[arms.left]", "[arms.left]\nsize = 2", "arms.left: size is unknown; known are axes"),
        ("[arms.left]", "[arms.base]", "arms.base: an arm cannot be called so"),
        ("low = -1.0, high = 2.0 },\n", "low = -1.0 },\n", r"arms.left.axes\[0\]: high is missing; add it"),
        ('kind = "gripper"', 'kind = "hand"', r"arms.left.axes\[1\]: kind is 'hand', expected one of arm, gripper"),
        ('kind = "gripper"', 'kind = "base"', r"arms.left.axes\[1\]: kind is 'base', expected one of arm, gripper"),
        ('"velocity", "effort"', '["velocity"]', r"robot: sensors is \[\['velocity'\]\], expected a list of velocity"),
        ('name = "gripper"', "name = 3", r"arms.left.axes\[1\]: name is 3, expected a text"),
        ('unit = "open"', "unit = 1", r"arms.left.axes\[1\]: unit is 1, expected a text"),
        ("low = -1.0", "low = 3.0", "left_shoulder: low 3.0, high 2.0; expected two numbers, low below high"),
        ("low = -1.0", "low = nan", r"arms.left.axes\[0\]: low is nan, expected a number"),
        ('name = "gripper"', 'name = "shoulder"', "arms.left.axes: names are .*, each name once"),
        ('unit = "m/s"', 'unit = "m/s", kind = "arm"', r"base.axes\[0\]: kind is unknown"),
        ("height = 4", "height = 4.5", "cameras.front: height is 4.5, expected pixels"),
        ("height = 4", "height = 0", "cameras.front: 0 x 6 pixels, expected at least 1 x 1"),
        ('reference = "front"', 'reference = "back"', "sync: reference is 'back'; expected a rate in Hz or one of"),
        ('reference = "front"', "", "sync: reference is missing"),
        ("state_left =", "left_state =", "sync.choice: left_state is unknown; known are front, wrist, state_left"),
        ('"interpolated"', '"last"', "state_left: choice is 'last'; expected nearest, previous or interpolated"),
        ("patience_ms = 100", "patience_ms = -1", "sync: patience_ms is -1, expected a number above 0"),
        ("arm = 2.0", "arm = true", "limits.speed: arm is True, expected a number above 0"),
        ("gripper = 5.0", "", "limits: speed: nothing for axis 'left_gripper'"),
        ("left_shoulder =", "left_knee =", "limits: acceleration: 'left_knee' is no axis and no kind"),
        ("[limits.speed]", "[limits.pace]", "limits: speed is missing; add it|limits: pace is unknown"),
        ("[cameras.wrist]", "[cameras.state_left]", "sync: streams are .*each name once"),
        ("[arms.left]", "[arms.left", "cannot read the robot"),
    ],
)
def test_a_mistake_is_named_with_file_and_field(robot_file: Path, old: str, new: str, message: str) -> None:
    text = robot_file.read_text()
    assert old in text
    robot_file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=f"^{robot_file}: .*({message})"):
        read_description(str(robot_file))


def test_a_robot_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: no such robot; give a TOML file or one of aloha"):
        read_description("nowhere.toml")
