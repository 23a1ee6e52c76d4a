"""Arms and cameras as a world: what the recorder and a policy run on is the robot itself.

`step` sends the action through the gate, waits for the next tick and yields the next row of the synchroniser, at most
one behind the newest. Nothing else sends commands. When rows or commands stop coming, the gate brakes, the arms are
stopped, and only the next `reset` lets them move again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping

import numpy as np

from lapwing.env import Info
from lapwing.episode import Array, Meta, Observation
from lapwing.errors import RobotError, SpecError
from lapwing.robot.arm import Arm
from lapwing.robot.camera import Camera
from lapwing.robot.clock import Clock
from lapwing.robot.description import Description
from lapwing.robot.limits import Gate
from lapwing.robot.sensing import Sensing
from lapwing.robot.sync import Account, Synced

POLL = 0.002  # s between two looks at all devices
STARTING = 5.0  # s that devices may take until the first row


class Station:
    """Arms (the base is one of them, as "base") and cameras behind the Env protocol. Use `close`, or `with`.

    Reward is 0 and no step terminates: success is the operator's to tell. `info` of a step that ended in a stop has
    "stopped", and "stalled_<stream>" for every stream that fell silent; such a step is truncated and repeats the last
    observation, its stamps included. With `watch` a thread brakes the arms when `step` is not called for the watchdog's
    time; without, `keep` has to be called. Whatever a driver raises stops all arms and comes out of `reset` or `step`.
    """

    def __init__(
        self,
        description: Description,
        arms: Mapping[str, Arm],
        cameras: Mapping[str, Camera],
        clock: Clock,
        *,
        max_steps: int = 1000,
        watch: bool = True,
    ) -> None:
        self.spec, self.max_steps = description.spec, max_steps
        _expect_names("arms", arms, description.parts)
        _expect_names("cameras", cameras, {camera.name: camera for camera in self.spec.cameras})
        self._description, self._arms, self._cameras, self._clock = description, arms, cameras, clock
        self._sensing = Sensing(description, arms, cameras)
        self._gate = Gate(self.spec.action, description.limits)
        self._period = 1 / self.spec.rate_hz
        self._lock = threading.RLock()  # held while devices are spoken to
        self._may_move = False
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="station watchdog", daemon=True) if watch else None
        if self._watcher:
            self._watcher.start()

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self, seed: int) -> Observation:
        """Wait for a first row and arm the gate where the robot is; nothing moves. Raises RobotError, SpecError."""
        try:
            self._stop()
            self._failure = None
            self._sensing, self._steps = Sensing(self._description, self._arms, self._cameras), 0
            self._row = self._first_row()
            self._expect_stamps_of_our_clock()
            observation = self._sensing.observation(self._row)
            with self._lock:
                now = self._clock.now()
                self._gate.arm(self._sensing.position(), now)
                self._sent = self._tick = now
                self._may_move = True
        except BaseException:
            self._stop()
            raise
        return observation

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        """Command the arms, and observe one period later."""
        try:
            with self._lock:
                now = self._clock.now()
                if self._may_move:
                    self._send(self._gate.command(action, now, self._row.stamp), now)
            row = self._next_row()
        except BaseException:
            self._stop()
            raise
        self._steps += 1
        self._row = row or self._row
        info = {} if row else self._describe_stop()
        truncated = row is None or self._steps >= self.max_steps
        return self._sensing.observation(self._row), 0.0, False, truncated, info

    def close(self) -> None:
        """Stop the arms and the watchdog."""
        self._closing.set()
        if self._watcher:
            self._watcher.join()
        self._stop()

    @property
    def stopped(self) -> str | None:
        """Why the gate stopped the arms; None while they may move."""
        return self._gate.stopped

    @property
    def refused(self) -> str | None:
        """Why the gate refused a command, the latest since `reset`; None where it refused none."""
        return self._gate.refused

    @property
    def skipped_rows(self) -> int:
        """Rows since `reset` that were not handed out, since younger ones had come."""
        return self._sensing.skipped_rows

    def account(self) -> dict[str, Account]:
        """What became of the messages of every stream since `reset`."""
        return self._sensing.synchroniser.account()

    def read_leaders(self) -> Array | None:
        """Where the operator holds the leaders, float64 [A]; None while one is unknown or older than `max_age`."""
        with self._lock:
            readings = [self._arms[name].read_leader() for name in self._description.parts]
        oldest = self._clock.now() - self._description.limits.max_age
        fresh = [one.position for one in readings if one is not None and one.stamp >= oldest]
        return np.concatenate(fresh) if len(fresh) == len(readings) else None

    def keep(self) -> None:
        """Go on braking if the gate has stopped, until the arms stand; then stop them."""
        with self._lock:
            now = self._clock.now()
            if not self._may_move or not self._gate.check(now):
                return
            if now - self._sent >= self._period:
                self._send(self._gate.brake(now), now)
            if self._gate.at_rest:
                self._stop()

    def _watch(self) -> None:
        while not self._closing.wait(self._period):
            try:
                self.keep()
            except Exception as error:  # of a driver: the next step raises it
                self._failure = error
                with contextlib.suppress(Exception):
                    self._stop()

    def _send(self, command: Array, now: float) -> None:
        """Give every arm its part of the command."""
        start = 0
        for name, axes in self._description.parts.items():
            self._arms[name].send_command(command[start : start + len(axes)])
            start += len(axes)
        self._sent = now

    def _stop(self) -> None:
        """Stop every arm, also if another one fails to."""
        failures = []
        with self._lock:
            self._may_move = False
            for arm in self._arms.values():
                try:
                    arm.stop()
                except Exception as error:  # of a driver
                    failures.append(error)
        if failures:
            raise failures[0]

    def _first_row(self) -> Synced:
        until = self._clock.now() + STARTING
        while self._clock.now() < until:
            with self._lock:
                self._sensing.look()
            if self._sensing.rows:
                return self._sensing.rows.pop()
            self._clock.sleep(POLL)
        raise RobotError(f"{self.spec.name}: no row of readings in {STARTING:g} s: {self._sensing.why_no_row()}")

    def _expect_stamps_of_our_clock(self) -> None:
        """Stamps from ahead would pass for fresh for ever; the gate refuses those from behind."""
        ahead = self._row.stamp - self._clock.now()
        if ahead > self._description.limits.max_age:
            raise RobotError(
                f"{self.spec.name}: readings are stamped {ahead:.3f} s ahead of the station's clock; "
                "stamp them with time.monotonic()"
            )

    def _next_row(self) -> Synced | None:
        """The next row at the next tick, or as soon after it as there is one; None if the arms had to be stopped."""
        self._tick = max(self._tick + self._period, self._clock.now())
        while True:
            with self._lock:
                self._sensing.look()
            self.keep()
            if not self._may_move:
                break
            if (now := self._clock.now()) >= self._tick:
                if self._sensing.rows:
                    return self._sensing.rows.popleft()
                self._tick = now  # late rows move the ticks, to where they come in time
            self._clock.sleep(POLL)
        if self._failure:
            raise self._failure
        return None

    def _describe_stop(self) -> Info:
        stalled = self._sensing.synchroniser.stalled(self._clock.now())
        return {"stopped": True, **{f"stalled_{name}": True for name in stalled}}


class Leaders:
    """The leader arms as a source of actions; it ends when their readings do."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def reset(self, seed: int) -> Meta:
        """Raises RobotError where no leader answers."""
        if self._station.read_leaders() is None:
            raise RobotError("leaders: no fresh reading of all of them; see whether they are switched on")
        return {"source": "leader arms"}

    def __call__(self, observation: Observation, /) -> Array | None:
        return self._station.read_leaders()


def _expect_names(what: str, got: Mapping[str, object], expected: Mapping[str, object]) -> None:
    if set(got) != set(expected):
        raise SpecError(f"{what}: got {sorted(got)}, expected those of the description: {sorted(expected)}")
