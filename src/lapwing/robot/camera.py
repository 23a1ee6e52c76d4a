"""What the station needs of a camera, and a simulated one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from lapwing.episode import Array
from lapwing.robot.clock import Clock
from lapwing.robot.transport import Transport


class Camera(Protocol):
    """One camera. `read` returns at once: the newest frame and when it was exposed, None before the first.

    The stamp is in s of the station's clock, the frame uint8 [H, W, 3] RGB and not written to afterwards. It may be
    asked for more often than frames come. A driver that blocks grabs in a thread of its own.
    """

    def read(self) -> tuple[float, Array] | None: ...


class SimulatedCamera:
    """A camera that sees `view(stamp)`, behind a transport with latency, jitter and lost frames."""

    def __init__(
        self,
        view: Callable[[float], Array],
        clock: Clock,
        *,
        rate_hz: float = 50.0,
        latency: float = 0.01,
        jitter: float = 0.1,
        dropped: float = 0.01,
        seed: int = 0,
    ) -> None:
        self._view, self._clock = view, clock
        self._frames = Transport(rate_hz, latency, jitter, dropped, seed, clock.now())
        self._travelling: deque[tuple[float, float]] = deque()  # (arrival, stamp)
        self._newest: tuple[float, Array] | None = None

    def read(self) -> tuple[float, Array] | None:
        now = self._clock.now()
        self._travelling.extend((arrival, stamp) for stamp, arrival in self._frames.measured(now))
        arrived = None
        while self._travelling and self._travelling[0][0] <= now:
            arrived = self._travelling.popleft()[1]
        if arrived is not None:
            self._newest = (arrived, self._view(arrived))
        return self._newest
