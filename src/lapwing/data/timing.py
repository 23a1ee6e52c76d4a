"""Checks of time stamps: order, rate, gaps and jitter of the observations, and how far the streams lie apart.

`Episode.time` says when each observation was made. A sensor `stamp_<stream>` says when that stream's part of it was
(a camera's exposure), in seconds on the same clock.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapwing.data.problems import Problem, listed
from lapwing.episode import Array, Episode

STAMP = "stamp_"

_SLOW, _FAST = 0.9, 1.1  # of the declared rate
_GAP = 2.0  # periods between two observations: a tick was missed
_JITTER = 0.2  # of a period, standard deviation of the intervals that are no gaps
_APART_SHARE = 0.01  # of the observations whose streams may lie more than a period apart
_REPEATED_SHARE = 0.1  # of the observations that may show a stream's reading of the one before
_ORDER_ADVICE = "look after the recorder's clock; record these episodes again, or leave them out"


@dataclass(frozen=True)
class Timing:
    """What the stamps of some episodes say.

    labels: how those episodes are called; rates_hz: of each, float64 [episodes]; intervals: in seconds, of all;
    period: seconds, declared or else the usual interval; declared_hz: 0 where nothing is; streams: name -> stamps
    less the observation's time, in seconds; repeated: stream -> share of stamps equal to the one before.
    """

    labels: list[str]
    rates_hz: Array
    intervals: Array
    period: float
    declared_hz: float
    streams: dict[str, Array]
    repeated: dict[str, float]

    @property
    def gaps(self) -> Array:
        return self.intervals[self.intervals > _GAP * self.period]

    @property
    def jitter(self) -> float:
        """Standard deviation of the intervals that are no gaps, in seconds."""
        steady = self.intervals[self.intervals <= _GAP * self.period]
        return float(steady.std()) if len(steady) else 0.0

    @property
    def apart(self) -> Array:
        """From the earliest to the latest stream of each observation, in seconds; empty without streams."""
        if not self.streams:
            return np.zeros(0)
        stamps = np.stack([np.zeros(len(next(iter(self.streams.values())))), *self.streams.values()])
        spread: Array = np.ptp(stamps, axis=0)
        return spread


def check_order(path: Path, episodes: Sequence[Episode], labels: Sequence[str]) -> list[Problem]:
    """Stamps that are no numbers or go backwards, of the observations and of every stream."""
    stamps: dict[str, list[tuple[str, Array]]] = defaultdict(list)
    for label, episode in zip(labels, episodes, strict=True):
        for name, values in _stamps(episode).items():
            stamps[name].append((label, values))
    problems = []
    for name, parts in sorted(stamps.items()):
        unclear = _rows_where(_is_no_number, parts)
        bad = unclear or _rows_where(_goes_back, parts)
        if bad:
            what, expected = ("are no numbers", "finite seconds") if unclear else ("go backwards", "stamps that grow")
            label, row = bad[0]
            got = (
                f"stamps that {what} in {len(bad)} of {len(parts)} episodes ({listed(one for one, _ in bad)}), "
                f"the first at row {row} of {label}"
            )
            problems.append(Problem("error", str(path), name, got, expected, _ORDER_ADVICE))
    return problems


def measure_timing(episodes: Sequence[Episode], labels: Sequence[str], rate_hz: float) -> Timing | None:
    """Rates, intervals and skew of the episodes that have stamps in order; None where there are none."""
    sound = [(label, one) for label, one in zip(labels, episodes, strict=True) if _is_timed(one)]
    if not sound:
        return None
    times = [np.asarray(one.time, np.float64) for _, one in sound]
    intervals = np.concatenate([np.diff(time) for time in times])
    period = 1 / rate_hz if rate_hz > 0 else float(np.median(intervals))
    rates = np.array([(len(time) - 1) / (time[-1] - time[0]) for time in times])
    shared = set.intersection(*(set(_stamps(one)) for _, one in sound)) - {"time"}
    stamps = {name: [_stamps(one)[name] for _, one in sound] for name in sorted(shared)}
    return Timing(
        labels=[label for label, _ in sound],
        rates_hz=rates,
        intervals=intervals,
        period=period,
        declared_hz=rate_hz,
        streams={
            name: np.concatenate([stamp - time for stamp, time in zip(parts, times, strict=True)])
            for name, parts in stamps.items()
        },
        repeated={
            name: float(np.mean(np.concatenate([np.diff(stamp) == 0 for stamp in parts])))
            for name, parts in stamps.items()
        },
    )


def check_timing(path: Path, timing: Timing) -> list[Problem]:
    """Episodes off the declared rate, missed ticks, jitter, streams that lie apart or are slower than the loop."""
    problems = [*_check_rate(path, timing), *_check_intervals(path, timing)]
    apart = timing.apart
    late = int((apart > 1.01 * timing.period).sum())  # stamps are rounded
    if late > _APART_SHARE * len(apart):
        medians = {name: float(np.median(values)) for name, values in timing.streams.items()} | {"time": 0.0}
        first, last = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
        got = (
            f"streams more than a period ({_ms(timing.period)}) apart in {late} of {len(apart)} observations, "
            f"{_ms(float(apart.max()))} at most; {first} is the earliest, {last} the latest"
        )
        advice = "look for a slow camera or a queue that is not emptied"
        problems.append(Problem("warning", str(path), "skew", got, "streams within a period", advice))
    slow = [f"{name} {share:.0%}" for name, share in timing.repeated.items() if share > _REPEATED_SHARE]
    if slow:
        got = f"readings shown twice in a row: {listed(slow)}"
        advice = "these streams are slower than the loop: raise their rate or lower the recorder's"
        problems.append(Problem("warning", str(path), "skew", got, "a fresh reading for each observation", advice))
    return problems


def describe_timing(timing: Timing) -> list[str]:
    """The figures as notes."""
    rates, gaps = timing.rates_hz, len(timing.gaps)
    declared = f"{timing.declared_hz:g} Hz declared" if timing.declared_hz else "no rate declared"
    notes = [
        f"time stamps: {np.median(rates):.4g} Hz ({rates.min():.4g} to {rates.max():.4g} by episode, {declared}), "
        f"jitter {_ms(timing.jitter)}, {gaps} gap{'s' * (gaps != 1)}"
    ]
    if timing.streams:
        names = listed(name.removeprefix(STAMP) for name in timing.streams)
        middle, largest = float(np.median(timing.apart)), float(timing.apart.max())
        notes.append(f"skew of {names}: median {_ms(middle)}, at most {_ms(largest)}")
    return notes


def _check_rate(path: Path, timing: Timing) -> list[Problem]:
    if not timing.declared_hz:
        return []
    problems = []
    share = timing.rates_hz / timing.declared_hz
    for off, how, advice in (
        (share < _SLOW, "slower", "the policy will run at the declared rate and move faster than it was shown"),
        (share > _FAST, "faster", "the declared rate seems wrong: mend it where it is declared"),
    ):
        if off.any():
            rates = timing.rates_hz[off]
            names = listed(label for label, flag in zip(timing.labels, off, strict=True) if flag)
            got = (
                f"{len(rates)} of {len(off)} episodes ran {how}, at {rates.min():.4g} to {rates.max():.4g} Hz: {names}"
            )
            expected = f"the declared {timing.declared_hz:g} Hz"
            problems.append(Problem("warning", str(path), "time", got, expected, advice))
    return problems


def _check_intervals(path: Path, timing: Timing) -> list[Problem]:
    problems, gaps = [], timing.gaps
    if len(gaps):
        got = f"{len(gaps)} of {len(timing.intervals)} intervals are gaps, the longest {_ms(float(gaps.max()))}"
        expected = f"at most {_GAP:g} periods of {_ms(timing.period)}"
        advice = "ticks were missed there: look for what stalls the recorder"
        problems.append(Problem("warning", str(path), "time", got, expected, advice))
    if timing.jitter > _JITTER * timing.period:
        got = f"intervals vary by {_ms(timing.jitter)} (standard deviation)"
        expected = f"at most {_JITTER:.0%} of the period of {_ms(timing.period)}"
        advice = "training takes the steps as equally long: pace the recorder by the clock"
        problems.append(Problem("warning", str(path), "time", got, expected, advice))
    return problems


def _stamps(episode: Episode) -> dict[str, Array]:
    """All stamps of an episode, float64 [rows]: "time" and those of the streams. A stamp is one value a row."""
    stamps = {
        name: np.asarray(readings[:], np.float64).reshape(readings.shape[0])
        for name, readings in episode.sensors.items()
        if name.startswith(STAMP) and math.prod(readings.shape[1:]) == 1
    }
    return stamps if episode.time is None else {"time": np.asarray(episode.time, np.float64), **stamps}


def _rows_where(is_bad: Callable[[Array], Array], parts: Sequence[tuple[str, Array]]) -> list[tuple[str, int]]:
    """(label, first bad row) of the stamps that have one."""
    return [(label, int(np.argmax(is_bad(values)))) for label, values in parts if is_bad(values).any()]


def _is_no_number(values: Array) -> Array:
    return ~np.isfinite(values)


def _goes_back(values: Array) -> Array:
    return np.diff(values, prepend=values[:1]) < 0


def _is_timed(episode: Episode) -> bool:
    """Whether an episode has a duration and all its stamps are in order."""
    time = episode.time
    if time is None or len(time) < 2 or not time[-1] > time[0]:
        return False
    return all(np.isfinite(values).all() and not _goes_back(values).any() for values in _stamps(episode).values())


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1e3, 2):.3g} ms"
