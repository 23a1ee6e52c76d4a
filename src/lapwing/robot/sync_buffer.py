"""The messages of one stream that a row may still choose, and the account of those it no longer can."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Literal

import numpy as np

from lapwing.errors import ConfigError, DataError

Choice = Literal["nearest", "previous", "interpolated"]


@dataclass(frozen=True)
class Stream:
    """One source of stamped messages, and how a row chooses among them.

    choice: "nearest" in time (of two equally near the earlier), "previous" (the last at or before the row), or
    "interpolated" (linear between the two around the row; numbers only, yields float64).
    max_skew: bound in seconds on the distance of every message used from the row's stamp.
    capacity: messages kept at most; when full, the oldest goes and is counted as overflowed.
    """

    name: str
    choice: Choice = "nearest"
    max_skew: float = 0.02
    capacity: int = 128

    def __post_init__(self) -> None:
        if self.choice not in ("nearest", "previous", "interpolated"):
            raise ConfigError(f"{self.name}: choice is {self.choice!r}; expected nearest, previous or interpolated")
        if not (isfinite(self.max_skew) and self.max_skew >= 0):
            raise ConfigError(f"{self.name}: max_skew is {self.max_skew}; expected seconds, 0 or more")
        if self.capacity < 2:
            raise ConfigError(f"{self.name}: capacity is {self.capacity}; expected at least 2 messages")


@dataclass(frozen=True)
class Account:
    """What became of the messages of one stream: pushed = used + dropped + waiting, at any moment.

    unused: no row chose it. late: arrived when rows of its time were already settled. repeated: its stamp was already
    there. overflowed: thrown out of a full buffer. reused: uses of a message beyond its first. missed: rows that were
    dropped because this stream had nothing within its bound (one row may be missed by several streams).
    """

    pushed: int
    used: int
    unused: int
    late: int
    repeated: int
    overflowed: int
    waiting: int
    reused: int
    missed: int

    @property
    def dropped(self) -> int:
        return self.unused + self.late + self.repeated + self.overflowed


class Buffer:
    """Messages of one stream in order of their stamps. `newest` is the latest stamp that arrived.

    `closed` stamps are those at or before which nothing is accepted any more; the owner passes it, since it depends on
    the other streams too. Not locked: the owner does that.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.newest = -inf
        self.lost = -inf  # stamp of the latest message that overflowed
        self.stamps: list[float] = []
        self._values: list[Any] = []
        self._uses: list[int] = []
        self._pushed = self._used = self._reused = 0
        self._unused = self._late = self._repeated = self._overflowed = 0
        self.missed = 0

    def push(self, stamp: float, value: Any, closed: float) -> None:
        """Take a message in, or count why not. Raises DataError for a value that cannot be interpolated."""
        if self.stream.choice == "interpolated":
            value = self._numbers(value)
        self._pushed += 1
        place = bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            self._repeated += 1
        elif stamp <= closed:
            self._late += 1
        else:
            self.stamps.insert(place, stamp)
            self._values.insert(place, value)
            self._uses.insert(place, 0)
            self.newest = max(self.newest, stamp)
            self._make_room()

    def _numbers(self, value: Any) -> Any:
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "fiu":
            raise DataError(f"{self.stream.name}: got {numbers.dtype} values; only numbers can be interpolated")
        if self._values and numbers.shape != self._values[-1].shape:
            raise DataError(
                f"{self.stream.name}: got shape {numbers.shape} after {self._values[-1].shape}; expected one shape"
            )
        return numbers.astype(np.float64)

    def _make_room(self) -> None:
        if len(self.stamps) > self.stream.capacity:
            self.lost = self.stamps[0]
            self._overflowed += self._uses[0] == 0
            self._remove(1)

    def is_final(self, stamp: float, closed: float) -> bool:
        """Whether nothing that may still arrive can change the choice for a row at `stamp`."""
        after = bisect_right(self.stamps, stamp)
        nothing_better = stamp + self.stream.max_skew
        if self.stream.choice == "previous" or (after and self.stamps[after - 1] == stamp):
            nothing_better = stamp
        elif self.stream.choice == "interpolated":
            if after < len(self.stamps):
                nothing_better = min(nothing_better, self.stamps[after])
        elif indices := self.choose(stamp):
            nothing_better = max(self.stamps[indices[0]], 2 * stamp - self.stamps[indices[0]])
        return closed >= nothing_better

    def choose(self, stamp: float) -> tuple[int, ...] | None:
        """Indices of the messages that make the value at `stamp`: one, two to interpolate, None if none is in bound."""
        after = bisect_right(self.stamps, stamp)
        if after == 0 and stamp - self.lost <= self.stream.max_skew:
            return None  # what overflowed may have been the right one
        before = after - 1
        if after and self.stamps[before] == stamp:
            return (before,)
        reachable = [i for i in (before, after) if self._in_bound(i, stamp)]
        match self.stream.choice:
            case "previous":
                return (before,) if before in reachable else None
            case "interpolated":
                return (before, after) if len(reachable) == 2 else None
            case "nearest":
                return (min(reachable, key=lambda i: abs(self.stamps[i] - stamp)),) if reachable else None

    def _in_bound(self, index: int, stamp: float) -> bool:
        return 0 <= index < len(self.stamps) and abs(self.stamps[index] - stamp) <= self.stream.max_skew

    def earliest(self, stamp: float, closed: float) -> float:
        """A time, `stamp` or later, before which this stream has nothing for a row; inf if it never will."""
        reach = self.stream.max_skew
        place = bisect_left(self.stamps, stamp - reach)
        following = self.stamps[place] if place < len(self.stamps) else inf
        return max(stamp, min(following, closed) - reach)

    def take(self, indices: tuple[int, ...], stamp: float) -> tuple[Any, float]:
        """The value at `stamp` and the stamp of its message (of two, the one farther away); counts the use."""
        for index in indices:
            self._used += self._uses[index] == 0
            self._reused += self._uses[index] > 0
            self._uses[index] += 1
        stamps = [self.stamps[index] for index in indices]
        farthest = max(stamps, key=lambda one: abs(one - stamp))
        first = self._values[indices[0]]
        if len(indices) == 1:
            return first, farthest
        weight = (stamp - stamps[0]) / (stamps[1] - stamps[0])
        return (1 - weight) * first + weight * self._values[indices[1]], farthest

    def forget(self, horizon: float) -> None:
        """Let go of what no row at or after `horizon` can choose."""
        keep = max(bisect_right(self.stamps, horizon) - 1, 0)
        if self.stamps and self.stamps[keep] < horizon - self.stream.max_skew:
            keep += 1
        self._unused += self._uses[:keep].count(0)
        self._remove(keep)

    def _remove(self, count: int) -> None:
        del self.stamps[:count], self._values[:count], self._uses[:count]

    def account(self) -> Account:
        return Account(
            pushed=self._pushed,
            used=self._used,
            unused=self._unused,
            late=self._late,
            repeated=self._repeated,
            overflowed=self._overflowed,
            waiting=self._uses.count(0),
            reused=self._reused,
            missed=self.missed,
        )
