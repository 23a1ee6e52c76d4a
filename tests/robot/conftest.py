"""A small robot: two arms of two axes and a base, two cameras of 4 x 6 pixels, all on one manual clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lapwing.episode import Array
from lapwing.robot.arm import SimulatedArm
from lapwing.robot.camera import SimulatedCamera
from lapwing.robot.clock import ManualClock
from lapwing.robot.description import Description, read_description

ROBOT = """
name = "small"
rate_hz = 50
sensors = ["velocity", "effort"]
[arms.left]
axes = [
    { name = "shoulder", unit = "rad", kind = "arm", low = -1.0, high = 2.0 },
    { name = "gripper", unit = "open", kind = "gripper", low = 0.0, high = 1.0 },
]
[arms.right]
axes = [
    { name = "shoulder", unit = "rad", kind = "arm", low = -1.0, high = 2.0 },
    { name = "gripper", unit = "open", kind = "gripper", low = 0.0, high = 1.0 },
]
[base]
axes = [
    { name = "linear", unit = "m/s", low = -0.5, high = 0.5 },
    { name = "angular", unit = "rad/s", low = -1.0, high = 1.0 },
]
[cameras.front]
height = 4
width = 6
[cameras.wrist]
height = 4
width = 6
[sync]
reference = "front"
max_skew_ms = 15
patience_ms = 100
[sync.choice]
state_left = "interpolated"
[limits]
max_age_ms = 100
watchdog_ms = 150
[limits.speed]
arm = 2.0
gripper = 5.0
base = 1.0
[limits.acceleration]
arm = 20.0
left_shoulder = 10.0
gripper = 100.0
base = 10.0
"""


@pytest.fixture
def robot_file(tmp_path: Path) -> Path:
    path = tmp_path / "robot.toml"
    path.write_text(ROBOT)
    return path


@pytest.fixture
def description(robot_file: Path) -> Description:
    return read_description(str(robot_file))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


def shade(time: float) -> Array:
    """A frame that tells when it was taken, in units of 10 ms."""
    return np.full((4, 6, 3), round(time * 100) % 256, np.uint8)


@pytest.fixture
def arms(clock: ManualClock) -> dict[str, SimulatedArm]:
    start, speed = np.array([0.3, 0.5]), np.array([3.0, 6.0])
    return {
        "right": SimulatedArm(start, speed, clock, leader=lambda time: np.array([1.0, 0.2]), seed=1),
        "left": SimulatedArm(-start + 0.6, speed, clock, leader=lambda time: np.array([1.5, 0.8]), seed=4),
        "base": SimulatedArm(np.zeros(2), speed, clock, leader=lambda time: np.array([0.2, 0.0]), is_base=True, seed=7),
    }


@pytest.fixture
def cameras(clock: ManualClock) -> dict[str, SimulatedCamera]:
    return {name: SimulatedCamera(shade, clock, seed=seed) for seed, name in enumerate(("wrist", "front"), start=10)}
