"""The last gate before motors: position, speed and acceleration limits per axis, in discrete time, and stops.

An axis is braked early enough: after every command the way left to its limit is at least v^2 / (2 a), the way it needs
to stop. With backward differences (speed: change of the command over the time since the one before; acceleration:
change of that speed over the same time) this suffices for ticks of any length, late ones included, because braking in
steps never covers more than braking continuously. A trajectory within the limits passes unchanged. Another one is
followed as closely as the limits allow.

An axis of kind "base" is commanded as a velocity. Its low and high bound the velocity, `speed` its change per second,
`acceleration` the change of that; to stop means 0 there, and to hold the position elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from lapwing.episode import Array
from lapwing.errors import ConfigError, RobotError, SpecError
from lapwing.spec import Axis


@dataclass(frozen=True)
class Limits:
    """How fast axes may move, and when they must stop.

    speed, acceleration: by the name of an axis, or for all axes of a kind, in the axis' unit per s and s^2.
    max_age: s; a command that was decided on an older observation is refused. watchdog: s without an accepted command
    until the gate stops for good (until it is armed again).
    """

    speed: Mapping[str, float]
    acceleration: Mapping[str, float]
    max_age: float = 0.2
    watchdog: float = 0.2

    def __post_init__(self) -> None:
        for name, value in (("max_age", self.max_age), ("watchdog", self.watchdog)):
            if not 0 < value < inf:
                raise ConfigError(f"limits: {name} is {value}, expected seconds above 0")
        for field, values in (("speed", self.speed), ("acceleration", self.acceleration)):
            for key, value in values.items():
                if not 0 < value < inf:
                    raise ConfigError(f"limits: {field}: {key} is {value}, expected a number above 0")


@dataclass(frozen=True)
class Bounds:
    """The limits of every axis, float64 [A]. rests_at_zero, bool [A]: axes commanded as a velocity."""

    low: Array
    high: Array
    speed: Array
    acceleration: Array
    rests_at_zero: Array


@dataclass(frozen=True)
class Motion:
    """Where the command is, how fast it moves, and what it was last asked for: float64 [..., A]."""

    position: Array
    velocity: Array
    target: Array


def make_bounds(axes: Sequence[Axis], limits: Limits) -> Bounds:
    """The limits by axis. Raises ConfigError naming the axis that lacks one, and names that are no axis."""
    known = {axis.name for axis in axes} | {axis.kind for axis in axes}
    for field, values in (("speed", limits.speed), ("acceleration", limits.acceleration)):
        if unknown := [key for key in values if key not in known]:
            raise ConfigError(f"limits: {field}: {unknown[0]!r} is no axis and no kind of this robot's axes")
    for axis in axes:
        if axis.low is None or axis.high is None or not -inf < axis.low < axis.high < inf:
            raise ConfigError(f"{axis.name}: low {axis.low}, high {axis.high}; expected two numbers, low below high")
        if axis.kind == "base" and not axis.low <= 0 <= axis.high:
            raise ConfigError(f"{axis.name}: low {axis.low}, high {axis.high}; a velocity must be able to be 0")
    return Bounds(
        low=np.array([axis.low for axis in axes], np.float64),
        high=np.array([axis.high for axis in axes], np.float64),
        speed=np.array([_of_axis(axis, "speed", limits.speed) for axis in axes]),
        acceleration=np.array([_of_axis(axis, "acceleration", limits.acceleration) for axis in axes]),
        rests_at_zero=np.array([axis.kind == "base" for axis in axes]),
    )


def _of_axis(axis: Axis, field: str, values: Mapping[str, float]) -> float:
    for key in (axis.name, axis.kind):
        if key in values:
            return float(values[key])
    raise ConfigError(f"limits: {field}: nothing for axis {axis.name!r}; give it, or one for the kind {axis.kind!r}")


def follow(bounds: Bounds, motion: Motion, target: Array, dt: Array | float) -> Motion:
    """The command `dt` > 0 seconds after `motion`: at `target` [..., A], or as near as the limits allow.

    A row of targets that has one which is no finite number is not followed: all its axes brake. dt: float or
    [..., 1].
    """
    wanted = np.asarray(np.isfinite(target).all(-1, keepdims=True))
    goal = np.clip(np.where(wanted, target, motion.position), bounds.low, bounds.high)
    goal_velocity = np.clip((goal - motion.target) / dt, -bounds.speed, bounds.speed)
    # Catch up with a goal that moves on, so as to arrive with its velocity: no lag behind a feasible trajectory, and
    # no shooting past a goal that has jumped and then stands.
    behind = goal - goal_velocity * dt - motion.position
    velocity = goal_velocity + _approach(behind, bounds.acceleration, dt)
    return _moved(bounds, motion, np.where(wanted, velocity, _halting(bounds, motion, dt)), goal, wanted, dt)


def brake(bounds: Bounds, motion: Motion, dt: Array | float) -> Motion:
    """The command `dt` > 0 seconds after `motion` on the way to a stop."""
    nothing = np.zeros((*motion.position.shape[:-1], 1), bool)
    return _moved(bounds, motion, _halting(bounds, motion, dt), motion.position, nothing, dt)


def _halting(bounds: Bounds, motion: Motion, dt: Array | float) -> Array:
    """The velocity that leads to a stop: none, or towards 0 where the command itself is a velocity."""
    return np.where(bounds.rests_at_zero, _approach(-motion.position, bounds.acceleration, dt), 0.0)


def _approach(distance: Array, acceleration: Array, dt: Array | float) -> Array:
    """The velocity with which `distance` is covered without overshooting."""
    length = np.abs(distance)
    direct = length / dt
    # The last stretch is done in one tick, if the next one (of the same length) can stop there.
    velocity: Array = np.where(direct <= acceleration * dt, direct, _stoppable(length, acceleration, dt))
    return np.sign(distance) * velocity


def _stoppable(length: Array, acceleration: Array, dt: Array | float) -> Array:
    """The highest v after whose tick there is room to stop: v dt + v^2 / (2 a) = length."""
    velocity: Array = 2 * length / (dt + np.sqrt(dt**2 + 2 * length / acceleration))
    return velocity


def _moved(bounds: Bounds, motion: Motion, velocity: Array, goal: Array, wanted: Array, dt: Array | float) -> Motion:
    """Move with `velocity`, limited. An axis that starts outside its limits may only come back."""
    low, high = np.minimum(bounds.low, motion.position), np.maximum(bounds.high, motion.position)
    change = bounds.acceleration * dt
    slowest = np.maximum(
        np.maximum(motion.velocity - change, -bounds.speed),
        -_stoppable(motion.position - low, bounds.acceleration, dt),
    )
    fastest = np.minimum(
        np.minimum(motion.velocity + change, bounds.speed),
        _stoppable(high - motion.position, bounds.acceleration, dt),
    )
    limited = np.minimum(np.maximum(velocity, slowest), fastest)
    position = np.clip(motion.position + limited * dt, low, high)
    # Where the goal was reached but for rounding, it is reached: what is within the limits passes unchanged.
    position = np.where(wanted & (np.abs(position - goal) < 1e-12), goal, position)
    return Motion(position, limited, np.where(wanted, goal, position))


class Gate:
    """Passes the commands of a running loop on to the motors, within the limits, or brakes.

    A command is refused, and that tick brakes, when it is no finite number or was decided on an observation older
    than `max_age`; the next good one is followed again. After `watchdog` seconds without an accepted command the gate
    is stopped: `stopped` says why, every tick brakes, until `arm`. `refused` is the reason of the latest refusal.
    Time is the caller's, in s of one clock. Not locked.
    """

    def __init__(self, axes: Sequence[Axis], limits: Limits) -> None:
        self._axes, self._limits = tuple(axes), limits
        self._bounds = make_bounds(axes, limits)
        self._motion: Motion | None = None
        self._time = self._accepted = -inf
        self._unanswered: str | None = None  # the latest refusal, if no command was accepted after it
        self.stopped: str | None = None
        self.refused: str | None = None

    def arm(self, position: Array, now: float) -> None:
        """Begin at rest where the robot is, [A]. Raises SpecError when that is not known."""
        position = np.asarray(position, np.float64)
        if position.shape != (len(self._axes),) or not np.isfinite(position).all():
            raise SpecError(f"gate: armed at {position.tolist()}, expected {len(self._axes)} finite numbers")
        self._motion = Motion(position, np.zeros_like(position), position)
        self._time = self._accepted = now
        self.stopped = self.refused = self._unanswered = None

    @property
    def at_rest(self) -> bool:
        """Whether the command no longer moves (and a commanded velocity is 0)."""
        motion = self._expect_armed()
        away = np.where(self._bounds.rests_at_zero, motion.position, 0.0)
        return bool((np.abs([motion.velocity, away]) < 1e-9).all())

    def command(self, target: Array, now: float, observed: float) -> Array:
        """What to send to the motors, [A], when `target` is asked for; `observed`: stamp of what it was decided on."""
        self.check(now)
        refusal = self.stopped or self._refusal(target, now - observed)
        if refusal is not None:
            self.refused = self._unanswered = refusal
            return self.brake(now)
        self._accepted, self._unanswered = now, None
        return self._tick(np.asarray(target, np.float64), now)

    def brake(self, now: float) -> Array:
        """What to send to the motors, [A], on the way to a stop."""
        self.check(now)
        return self._tick(None, now)

    def check(self, now: float) -> bool:
        """Stop if the watchdog's time is over; whether the gate is stopped."""
        self._expect_armed()
        silence = now - self._accepted
        if self.stopped is None and silence > self._limits.watchdog:
            last = f"; the last was refused: {self._unanswered}" if self._unanswered else ""
            self.stopped = (
                f"no command accepted for {silence:.3f} s, expected one every {self._limits.watchdog} s{last}"
            )
        return self.stopped is not None

    def _refusal(self, target: Array, age: float) -> str | None:
        target = np.asarray(target)
        if target.shape != (len(self._axes),):
            return f"command of shape {list(target.shape)}, expected {len(self._axes)} numbers"
        for axis, value in zip(self._axes, target, strict=True):
            if not np.isfinite(value):
                return f"command of {axis.name} is {value}, expected a number"
        if age > self._limits.max_age:
            return f"decided on an observation {age:.3f} s old, expected at most {self._limits.max_age} s"
        return None

    def _tick(self, target: Array | None, now: float) -> Array:
        motion, dt = self._expect_armed(), now - self._time
        if dt > 0:  # a clock that stands or goes back moves nothing
            move = brake(self._bounds, motion, dt) if target is None else follow(self._bounds, motion, target, dt)
            self._motion, self._time = move, now
            return move.position
        return motion.position

    def _expect_armed(self) -> Motion:
        if self._motion is None:
            raise RobotError("gate: not armed; arm it with the measured position first")
        return self._motion
