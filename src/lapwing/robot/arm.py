"""What the station needs of an arm, and a simulated arm that has the faults of real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lapwing.episode import Array
from lapwing.robot.clock import Clock
from lapwing.robot.transport import Transport


@dataclass(frozen=True)
class Reading:
    """What an arm measured at `stamp`, in s of the station's clock; float [axes] each, in the axes' order and units.

    effort: Nm or N, whatever the driver gives. None: not measured.
    """

    stamp: float
    position: Array
    velocity: Array | None = None
    effort: Array | None = None


class Arm(Protocol):
    """One arm, or the driving base, whose "positions" are velocities. Every call returns at once.

    The two readings are the newest that arrived, None before the first: they are stamped when measured, and may be
    asked for more often than they come. A driver whose bus blocks reads it in a thread of its own.
    """

    def read_state(self) -> Reading | None:
        """The follower's own axes."""
        ...

    def read_leader(self) -> Reading | None:
        """The axes of the leader that an operator holds, in the follower's units; None where there is none."""
        ...

    def send_command(self, command: Array) -> None:
        """Go there: absolute positions, float64 [axes], at the control rate (base: drive with these velocities)."""
        ...

    def stop(self) -> None:
        """Hold the present position (base: stand still), whatever was sent before. Must work at any time."""
        ...


class SimulatedArm:
    """An arm that follows commands at limited speed, behind a transport with latency, jitter and lost messages.

    start, speed: float [axes], where it is and how fast it can move. leader: where the operator holds the leader at a
    time. is_base: its positions are velocities, so that it stops at 0. Commands take `latency` and are lost like
    readings. What it does depends on the clock and the seed alone.
    """

    def __init__(
        self,
        start: Array,
        speed: Array,
        clock: Clock,
        *,
        leader: Callable[[float], Array] | None = None,
        is_base: bool = False,
        rate_hz: float = 200.0,
        latency: float = 0.004,
        jitter: float = 0.2,
        dropped: float = 0.01,
        seed: int = 0,
    ) -> None:
        self._position, self._speed, self._clock = np.array(start, np.float64), np.asarray(speed), clock
        self._target, self._time = self._position, clock.now()
        self._leader, self._is_base, self._latency, self._dropped = leader, is_base, latency, dropped
        self._states = Transport(rate_hz, latency, jitter, dropped, seed, self._time)
        self._leads = Transport(rate_hz, latency, jitter, dropped, seed + 1, self._time)
        self._losses = np.random.default_rng(seed + 2)
        self._commands: deque[tuple[float, Array]] = deque()  # (arrival, target) on their way
        self._state: Reading | None = None
        self._lead: Reading | None = None
        self._travelling: deque[tuple[float, Reading]] = deque()  # (arrival, reading)

    def read_state(self) -> Reading | None:
        now = self._clock.now()
        for stamp, arrival in self._states.measured(now):
            velocity = self._advance(stamp)
            spring = self._target - self._position  # as much effort as the way that is left
            self._travelling.append((arrival, Reading(stamp, self._position, velocity, spring)))
        while self._travelling and self._travelling[0][0] <= now:
            self._state = self._travelling.popleft()[1]
        return self._state

    def read_leader(self) -> Reading | None:
        if self._leader is None:
            return None
        for stamp, _ in self._leads.measured(self._clock.now() - self._latency):
            self._lead = Reading(stamp, np.asarray(self._leader(stamp), np.float64))
        return self._lead

    def send_command(self, command: Array) -> None:
        if self._losses.random() >= self._dropped:
            self._commands.append((self._clock.now() + self._latency, np.array(command, np.float64)))

    def stop(self) -> None:
        self.read_state()
        self._advance(self._clock.now())
        self._commands.clear()
        self._target = np.zeros_like(self._position) if self._is_base else self._position

    def _advance(self, to: float) -> Array:
        """Move on in time; the mean velocity since the last time."""
        before, start = self._position, self._time
        while self._commands and self._commands[0][0] <= to:
            arrival, target = self._commands.popleft()
            self._move(arrival)
            self._target = target
        self._move(to)
        return (self._position - before) / (to - start) if to > start else np.zeros_like(before)

    def _move(self, to: float) -> None:
        if to > self._time:
            reach = self._speed * (to - self._time)
            self._position = self._position + np.clip(self._target - self._position, -reach, reach)
            self._time = to
