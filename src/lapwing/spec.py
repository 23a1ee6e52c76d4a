"""What a robot is, as data: its cameras, its state axes, its action axes and whatever else it measures."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lapwing.errors import SpecError

AxisKind = Literal["arm", "gripper", "base", "other"]


@dataclass(frozen=True)
class Axis:
    """One number of the state or the action, in physical units. `low` and `high` are its limits, where known."""

    name: str
    unit: str = ""
    kind: AxisKind = "other"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Camera:
    """A camera of the robot and the size of its frames in pixels."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class Sensor:
    """A measurement that is recorded beside the state and no policy is fed: velocity, effort, depth, ...

    `shape` is that of one reading, `dtype` a numpy name.
    """

    name: str
    shape: tuple[int, ...]
    unit: str = ""
    dtype: str = "float32"


@dataclass(frozen=True)
class RobotSpec:
    """Cameras, state axes and action axes of a robot. State and action sizes are independent of each other.

    `rate_hz` is the control rate, 0 where the recording does not say.
    """

    name: str
    cameras: tuple[Camera, ...]
    state: tuple[Axis, ...]
    action: tuple[Axis, ...]
    rate_hz: float = 0.0
    sensors: tuple[Sensor, ...] = ()

    @property
    def state_dim(self) -> int:
        return len(self.state)

    @property
    def action_dim(self) -> int:
        return len(self.action)

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; `from_dict` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str = "spec") -> RobotSpec:
        """Read a spec from plain values. Raises SpecError naming the field that does not fit."""
        try:
            return RobotSpec(
                name=str(data["name"]),
                cameras=tuple(Camera(**camera) for camera in data.get("cameras", ())),
                state=tuple(Axis(**axis) for axis in data.get("state", ())),
                action=tuple(Axis(**axis) for axis in data["action"]),
                rate_hz=float(data.get("rate_hz", 0.0)),
                sensors=tuple(Sensor(**{**one, "shape": tuple(one["shape"])}) for one in data.get("sensors", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecError(f"{where}: not a robot spec ({error}); expected name, cameras, state, action") from error

    @staticmethod
    def from_toml(path: Path) -> RobotSpec:
        """Read a spec written by hand. Raises SpecError."""
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SpecError(f"{path}: cannot read the robot spec: {error}") from error
        return RobotSpec.from_dict(data, where=str(path))


def unnamed_axes(prefix: str, count: int) -> tuple[Axis, ...]:
    """Axes for a recording that gives no names: `prefix_0`, `prefix_1`, ..."""
    return tuple(Axis(f"{prefix}_{index}") for index in range(count))
