"""The two-arm-lift world's robot: known without robosuite, so that commands can ask before anything is loaded."""

from __future__ import annotations

from lapwing.errors import ConfigError
from lapwing.spec import Axis, Camera, RobotSpec

CAMERAS = {"front": "agentview", "left_wrist": "robot0_eye_in_hand", "right_wrist": "robot1_eye_in_hand"}
"""By name, and what the package calls them."""
SIDES = ("left_", "right_")
RATE_HZ = 10.0
SMALLEST = 16


def spec(cameras: bool, size: int = 84) -> RobotSpec:
    """The robot with three cameras of `size` pixels; or with none, its state ending in the ways to the handles.

    Raises ConfigError.
    """
    felt = tuple(axis for side in SIDES for axis in _felt(side))
    action = tuple(axis for side in SIDES for axis in _action(side))
    if not cameras:
        gaps = tuple(Axis(f"{side}hand_to_handle_{axis}", "m") for side in SIDES for axis in "xyz")
        return RobotSpec("two-arm-lift-state", (), (*felt, *gaps), action, RATE_HZ)
    if size < SMALLEST:
        raise ConfigError(f"size: got {size}, expected at least {SMALLEST} pixels for the two-arm-lift world's cameras")
    return RobotSpec("two-arm-lift", tuple(Camera(name, size, size) for name in CAMERAS), felt, action, RATE_HZ)


def _felt(side: str) -> tuple[Axis, ...]:
    return (
        *(Axis(f"{side}joint_{number}", "rad", "arm") for number in range(1, 8)),
        *(Axis(f"{side}hand_{axis}", "m", "arm") for axis in "xyz"),
        Axis(f"{side}gripper_opening", "share", "gripper", 0.0, 1.0),
    )


def _action(side: str) -> tuple[Axis, ...]:
    return (
        *(Axis(f"{side}{axis}", "0.05 m/step", "arm", -1.0, 1.0) for axis in "xyz"),
        *(Axis(f"{side}{axis}", "0.5 rad/step", "arm", -1.0, 1.0) for axis in ("roll", "pitch", "yaw")),
        Axis(f"{side}gripper", "close -1, hold 0, open 1", "gripper", -1.0, 1.0),
    )
