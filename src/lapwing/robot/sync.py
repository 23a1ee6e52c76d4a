"""Soft synchronisation: messages of independent streams, joined to rows by their time stamps.

A row stands at the stamp of each message of a reference stream, or at the times of a fixed grid; every other stream
gives the message that its choice names, within its bound on skew, or the row is dropped and counted. A row leaves only
when every choice is final, so what comes out does not depend on the order in which messages came in, as long as they
came within the allowed disorder and patience. Stamps are seconds of one clock.

Latency, in stamp time: "previous" waits for a message at or after the row, "nearest" and "interpolated" for one beyond
it, each `disorder` longer; a stream that stays silent is waited for no longer than `patience` (+ max_skew).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import floor, inf, isfinite
from threading import Lock
from typing import Any

from lapwing.errors import ConfigError, DataError
from lapwing.robot.sync_buffer import Account, Buffer, Choice, Stream

__all__ = ["Account", "Choice", "Stream", "SyncOptions", "Synced", "Synchroniser"]


@dataclass(frozen=True)
class SyncOptions:
    """Which streams are joined, and where the rows stand.

    reference: the name of the stream whose messages make the rows, or a rate in Hz: rows then stand at whole multiples
    of its period, wherever at least one stream has something within its bound.
    disorder: a message may arrive after one of its own stream that is this many seconds younger.
    patience: a message may arrive this many seconds (of stamps) behind the youngest message of all streams; later ones
    are dropped. It should exceed the period of the slowest stream and the transport delays.
    """

    streams: tuple[Stream, ...]
    reference: str | float
    disorder: float = 0.0
    patience: float = 0.5

    def __post_init__(self) -> None:
        names = [stream.name for stream in self.streams]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"sync: streams are {names}; expected at least one, each name once")
        if isinstance(self.reference, str) and self.reference not in names:
            raise ConfigError(f"sync: reference is {self.reference!r}; expected a rate in Hz or one of {names}")
        if not isinstance(self.reference, str) and not (isfinite(self.reference) and self.reference > 0):
            raise ConfigError(f"sync: reference is {self.reference} Hz; expected more than 0, or a stream's name")
        if not 0 <= self.disorder <= self.patience < inf:
            raise ConfigError(
                f"sync: disorder is {self.disorder} s, patience {self.patience} s; expected 0 <= disorder <= patience"
            )


@dataclass(frozen=True)
class Synced:
    """One row: a value per stream, the stamp of the message it came from (of two interpolated ones the farther)."""

    stamp: float
    values: Mapping[str, Any]
    stamps: Mapping[str, float]

    @property
    def skews(self) -> dict[str, float]:
        """Seconds by which each stream's message is younger than the row (negative: older)."""
        return {name: stamp - self.stamp for name, stamp in self.stamps.items()}


class Synchroniser:
    """Joins streams; `push` and `pop` may be called from any threads.

    Processes feed it through a queue that one thread empties into `push`. `dropped_rows` counts the rows that at least
    one stream had nothing for; `account` says which.
    """

    def __init__(self, options: SyncOptions) -> None:
        self.options = options
        self.rows = 0
        self.dropped_rows = 0
        self._lock = Lock()
        self._buffers = {stream.name: Buffer(stream) for stream in options.streams}
        self._oldest, self._newest = inf, -inf
        self._settled = -inf  # the last row, emitted or dropped
        self._finished = False

    def push(self, stream: str, stamp: float, value: Any) -> None:
        """Hand a message in. Raises DataError for an unknown stream, a stamp or a value that cannot be used."""
        if stream not in self._buffers:
            raise DataError(f"sync: message of stream {stream!r}; expected one of {list(self._buffers)}")
        if not isfinite(stamp):
            raise DataError(f"{stream}: stamp is {stamp}; expected seconds")
        with self._lock:
            buffer = self._buffers[stream]
            buffer.push(stamp, value, self._closed(buffer))
            self._oldest = min(self._oldest, stamp)
            self._newest = max(self._newest, stamp)

    def pop(self) -> Synced | None:
        """The next row, or None while there is none whose choices are all final."""
        with self._lock:
            row = None
            while row is None and (stamp := self._next_stamp()) is not None:
                if not all(buffer.is_final(stamp, self._closed(buffer)) for buffer in self._buffers.values()):
                    break
                row = self._settle(stamp)
            self._forget()
            return row

    def finish(self) -> None:
        """Say that no message follows: what waits is then settled with what is there."""
        with self._lock:
            self._finished = True

    def replay(self, messages: Iterable[tuple[str, float, Any]]) -> Iterator[Synced]:
        """The rows of recorded messages (stream, stamp, value), in about the order of time, to their end."""
        for message in messages:
            self.push(*message)
            while (row := self.pop()) is not None:
                yield row
        self.finish()
        while (row := self.pop()) is not None:
            yield row

    def stalled(self, now: float = -inf) -> tuple[str, ...]:
        """Streams whose newest message is more than `patience` older than the newest of all, or than `now`."""
        with self._lock:
            overdue = max(now, self._newest) - self.options.patience
            begun = -inf if self._oldest == inf else self._oldest  # a stream that never came is late from there on
            return tuple(name for name, one in self._buffers.items() if max(one.newest, begun) < overdue)

    def account(self) -> dict[str, Account]:
        """What became of every message so far, by stream."""
        with self._lock:
            return {name: buffer.account() for name, buffer in self._buffers.items()}

    def _closed(self, buffer: Buffer) -> float:
        """The stamp at or before which nothing of a stream is accepted any more; it never goes back."""
        if self._finished:
            return inf
        return max(buffer.newest - self.options.disorder, self._newest - self.options.patience, buffer.lost)

    def _next_stamp(self) -> float | None:
        """Where the next row stands; None while unknown."""
        if not isinstance(self.options.reference, str):
            return self._next_tick(self.options.reference)
        reference = self._buffers[self.options.reference]
        place = bisect_right(reference.stamps, self._settled)
        if place < len(reference.stamps) and reference.stamps[place] <= self._closed(reference):
            return reference.stamps[place]
        return None

    def _next_tick(self, rate: float) -> float | None:
        """The next grid time; where every stream is silent, beyond the gap (which may be years: unset stamps)."""
        following = (round(self._settled * rate) + 1) / rate if self._settled > -inf else -inf
        earliest = min(buffer.earliest(following, self._closed(buffer)) for buffer in self._buffers.values())
        return max(following, floor(earliest * rate) / rate) if isfinite(earliest) else None

    def _settle(self, stamp: float) -> Synced | None:
        """Emit the row at `stamp`, or count who had nothing for it."""
        choices = {name: buffer.choose(stamp) for name, buffer in self._buffers.items()}
        self._settled = stamp
        missing = [name for name, indices in choices.items() if indices is None]
        if not missing:
            self.rows += 1
            taken = {name: self._buffers[name].take(indices, stamp) for name, indices in choices.items() if indices}
            values, stamps = ({name: pair[i] for name, pair in taken.items()} for i in (0, 1))
            return Synced(stamp, values, stamps)
        if len(missing) < len(choices):
            self.dropped_rows += 1
            for name in missing:
                self._buffers[name].missed += 1
        return None

    def _forget(self) -> None:
        """Let go of messages that no coming row can choose."""
        horizon = self._next_stamp()
        if horizon is None:
            horizon = min(self._closed(buffer) for buffer in self._buffers.values())
        for buffer in self._buffers.values():
            buffer.forget(horizon)
