"""A steady pace for a control loop: absolute deadlines, and an honest account of those that were missed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How well a loop kept its rate. `missed`: ticks that passed without a step; `latest`: worst delay in s."""

    steps: int
    seconds: float
    missed: int
    latest: float

    @property
    def mean_hz(self) -> float:
        return self.steps / self.seconds if self.seconds > 0 else 0.0


class Pacer:
    """Ticks at `rate_hz`, from the moment it is made; without a rate it only takes the time.

    A step that is late delays only itself: the next one has its own place on the same grid. Whole ticks that have
    passed are counted and skipped, not caught up with. `clock` and `sleep` are in seconds.
    """

    def __init__(
        self,
        rate_hz: float | None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._period = None if rate_hz is None else 1.0 / rate_hz
        self._clock, self._sleep = clock, sleep
        self._start = clock()
        self._ticks = self._steps = self._missed = 0
        self._latest = 0.0

    @property
    def elapsed(self) -> float:
        return self._clock() - self._start

    @property
    def due(self) -> float:
        """When the step that is being made will be over: at the next tick, or now if that has passed."""
        return max(self.elapsed, (self._ticks + 1) * (self._period or 0.0))

    def tick(self) -> None:
        """A step is done: wait for the next tick."""
        self._steps += 1
        if self._period is None:
            return
        self._ticks += 1
        ahead = self._ticks * self._period - self.elapsed
        if ahead > 0:
            self._sleep(ahead)
            return
        self._latest = max(self._latest, -ahead)
        skipped = int(-ahead / self._period)
        self._missed += skipped
        self._ticks += skipped

    def report(self) -> Pace:
        return Pace(self._steps, self.elapsed, self._missed, self._latest)
