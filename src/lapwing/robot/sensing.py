"""All devices of a robot read into the synchroniser, and its rows as observations."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from lapwing.episode import Array, Observation
from lapwing.errors import RobotError, SpecError
from lapwing.robot.arm import Arm, Reading
from lapwing.robot.camera import Camera
from lapwing.robot.description import BASE, Description, stream_of
from lapwing.robot.sync import Synced, Synchroniser


class Sensing:
    """The senses of one episode. Not locked.

    rows: those waiting to be handed out, at most two. Two cameras in phase let rows come in pairs, a period without one
    between them; handing out the older one keeps the rate. skipped_rows: those that went because younger ones came.
    """

    def __init__(self, description: Description, arms: Mapping[str, Arm], cameras: Mapping[str, Camera]) -> None:
        self._description, self._spec = description, description.spec
        self._arms, self._cameras = arms, cameras
        self._last_stamp: dict[str, float] = {}
        self._origin: float | None = None
        self.synchroniser = Synchroniser(description.sync)
        self.rows: deque[Synced] = deque()
        self.skipped_rows = 0

    def look(self) -> None:
        """Take in what is new of all devices. Raises SpecError, and DataError for a stamp that is no number."""
        for name, camera in self._cameras.items():
            if frame := camera.read():
                self._push(name, *frame)
        for name in self._description.parts:
            if reading := self._arms[name].read_state():
                self._push(stream_of(name), reading.stamp, self._numbers(name, reading))
        while row := self.synchroniser.pop():
            self.rows.append(row)
        while len(self.rows) > 2:
            self.rows.popleft()
            self.skipped_rows += 1

    def observation(self, row: Synced) -> Observation:
        """A row as the spec describes it; its stamps count from the first row's. Raises SpecError for other frames."""
        if self._origin is None:
            self._check_frames(row)
            self._origin = row.stamp
        arms = np.concatenate([row.values[stream_of(name)] for name in self._description.parts if name != BASE], axis=1)
        state, *measured = arms.astype(np.float32)
        sensors: dict[str, Array] = dict(zip(self._measured_by_arms(), measured, strict=True))
        if BASE in self._description.parts:
            sensors["base_velocity"] = row.values[BASE][0].astype(np.float32)
        sensors |= {f"stamp_{name}": np.array(stamp - self._origin) for name, stamp in row.stamps.items()}
        return Observation({camera.name: row.values[camera.name] for camera in self._spec.cameras}, state, sensors)

    def position(self) -> Array:
        """Where the robot is, as an action, float64 [A]: the newest positions, and no velocity of the base."""
        parts = []
        for name in self._description.parts:
            reading = self._arms[name].read_state()
            if reading is None:
                raise RobotError(f"{name}: no reading of its position; see after its driver")
            parts.append(np.zeros_like(reading.position) if name == BASE else reading.position)
        return np.concatenate(parts)

    def why_no_row(self) -> str:
        """Which streams are to blame."""
        account = self.synchroniser.account()
        if silent := [name for name, one in account.items() if not one.pushed]:
            return f"nothing came from {', '.join(silent)}; see after the drivers"
        apart = [name for name, one in account.items() if 2 * one.missed > self.synchroniser.dropped_rows]
        stamps = ", ".join(f"{name} {self._last_stamp[name]:.3f}" for name in account)
        return (
            f"{', '.join(apart) or 'the streams'} had nothing within max_skew; see after their clocks and rates "
            f"(newest stamps: {stamps})"
        )

    def _push(self, stream: str, stamp: float, value: Array) -> None:
        if self._last_stamp.get(stream) != stamp:
            self._last_stamp[stream] = stamp
            self.synchroniser.push(stream, stamp, value)

    def _numbers(self, name: str, reading: Reading) -> Array:
        """All that an arm measures and the spec wants in one array, float64 [kinds, axes]."""
        expected = len(self._description.parts[name])
        kinds = {"position": reading.position}
        if name != BASE:
            kinds |= {kind: getattr(reading, kind) for kind in self._measured_by_arms()}
        for kind, numbers in kinds.items():
            if numbers is None or np.shape(numbers) != (expected,):
                got = "nothing" if numbers is None else f"shape {list(np.shape(numbers))}"
                raise SpecError(f"{name}: {kind}: got {got}, expected {expected} numbers, one an axis")
        return np.stack([np.asarray(numbers, np.float64) for numbers in kinds.values()])

    def _measured_by_arms(self) -> list[str]:
        return [sensor.name for sensor in self._spec.sensors if sensor.name in ("velocity", "effort")]

    def _check_frames(self, row: Synced) -> None:
        for camera in self._spec.cameras:
            frame, expected = row.values[camera.name], (camera.height, camera.width, 3)
            if frame.shape != expected or frame.dtype != np.uint8:
                raise SpecError(f"{camera.name}: frames are {frame.dtype} {frame.shape}, expected uint8 {expected}")
