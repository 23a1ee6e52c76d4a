"""The Panda world's robot: known without MuJoCo, so that commands can ask before anything is loaded."""

from __future__ import annotations

from lapwing.errors import ConfigError
from lapwing.spec import Axis, Camera, RobotSpec

CAMERAS = {"front": "front", "wrist": "handcam_rgb"}
"""By name, and what the package calls them."""
AXES = ("x", "y", "z", "gripper")
RATE_HZ = 10.0
SMALLEST = 16

_JOINTS = tuple(range(1, 8))
_ROBOT = (
    *(Axis(f"joint_{number}", "rad", "arm") for number in _JOINTS),
    *(Axis(f"joint_{number}_velocity", "rad/s", "arm") for number in _JOINTS),
    Axis("gripper_closed", "commanded share: open 0, closed 1", "gripper", 0.0, 1.0),
    *(Axis(f"hand_{axis}", "m", "arm") for axis in "xyz"),
)
_BLOCK = tuple(Axis(f"block_{axis}", "m") for axis in "xyz")
_ACTION = (
    *(Axis(axis, "0.025 m/step", "arm", -1.0, 1.0) for axis in "xyz"),
    Axis("gripper", "open -1, hold 0, close 1", "gripper", -1.0, 1.0),
)


def spec(cameras: bool, size: int = 128) -> RobotSpec:
    """The robot with two cameras of `size` pixels; or with none, its state ending in the block's place.

    Raises ConfigError.
    """
    if not cameras:
        return RobotSpec("panda-state", (), (*_ROBOT, *_BLOCK), _ACTION, RATE_HZ)
    if size < SMALLEST:
        raise ConfigError(f"size: got {size}, expected at least {SMALLEST} pixels for the panda world's cameras")
    return RobotSpec("panda", tuple(Camera(name, size, size) for name in CAMERAS), _ROBOT, _ACTION, RATE_HZ)
