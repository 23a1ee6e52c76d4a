"""One bag in step: the synchroniser joins the messages of a map's topics to rows, and rows become episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapwing.episode import Array, Episode, Meta
from lapwing.errors import DataError
from lapwing.robot.bag_scan import BagFrames, Track, scan
from lapwing.robot.ros_messages import NANOSECONDS
from lapwing.robot.sync import Account, Stream, Synchroniser, SyncOptions
from lapwing.robot.topics import GRID, Source, TopicMap
from lapwing.spec import Axis, Camera, RobotSpec, Sensor

_BASE_AXES = (Axis("base_linear", "m/s", "base"), Axis("base_angular", "rad/s", "base"))
_POSITION = 0  # in the values of a track of joints, [M, 3, joints]
_BESIDE = {"velocity": (1, "rad/s"), "effort": (2, "N m")}


@dataclass(frozen=True)
class BagRows:
    """The rows of a bag, and what they are made of.

    topics: the map without what the bag lacks. origin: nanoseconds of the bag's clock that `time` counts from, in
    seconds [T]. values, stamps: of the message that each row took, by stream [T, ...]; for images the value is its
    number. dropped: rows that some stream had nothing for.
    """

    bag: Path
    topics: TopicMap
    tracks: Mapping[str, Track]
    origin: int
    time: Array
    values: Mapping[str, Array]
    stamps: Mapping[str, Array]
    account: Mapping[str, Account]
    dropped: int

    @staticmethod
    def read(bag: Path, topics: TopicMap) -> BagRows:
        """Bring a bag in step. Raises DataError, also for stamps that go back and for streams that never meet."""
        tracks = scan(bag, topics.recorded)
        topics = topics.without({source.name for source in topics.sources} - set(tracks))
        for source in topics.sources:
            _expect_order(bag, source, tracks[source.name], topics.max_disorder)
        origin = min(min(tracks[source.name].stamps) for source in topics.sources)
        synchroniser = Synchroniser(_sync_options(topics, tracks))
        rows = list(synchroniser.replay(_in_order_of_time(topics, tracks, origin)))
        if len(rows) < 2:
            raise DataError(
                f"{bag}: {len(rows)} rows in step, expected at least 2; seconds of the streams: "
                f'{_spans(topics, tracks, origin)}; set clock = "receive" for those that differ, or max_skew_ms higher'
            )
        return BagRows(
            bag=bag,
            topics=topics,
            tracks=tracks,
            origin=origin,
            time=np.array([row.stamp for row in rows]),
            values={one.name: np.stack([row.values[one.name] for row in rows]) for one in topics.sources},
            stamps={one.name: np.array([row.stamps[one.name] for row in rows]) for one in topics.sources},
            account=synchroniser.account(),
            dropped=synchroniser.dropped_rows,
        )

    def skew(self, name: str) -> Array:
        """How far from each row the message of a stream lies, in seconds [T], never negative."""
        skew: Array = np.abs(self.stamps[name] - self.time)
        return skew

    def spec(self) -> RobotSpec:
        """What the bag's robot is; images have the sizes they have in the bag."""
        state, action = (
            tuple(axis for source in part for axis in source.axes) for part in (self.topics.state, self.topics.action)
        )
        sensors = [Sensor(name, (len(state),), _BESIDE[name][1]) for name in self._beside()]
        if self.topics.base:
            sensors.append(Sensor("base_velocity", (2,), "m/s, rad/s"))
        sensors += [Sensor(one.name, self.tracks[one.name].size, "", "uint16") for one in self.topics.depth.values()]
        sensors += [Sensor(f"stamp_{source.name}", (), "s", "float64") for source in self.topics.sources]
        return RobotSpec(
            name=self.topics.name,
            cameras=tuple(Camera(name, *self.tracks[name].size) for name in self.topics.cameras),
            state=state,
            action=(*action, *(_BASE_AXES if self._base_acts else ())),
            rate_hz=self.topics.rate_hz,
            sensors=tuple(sensors),
        )

    def episodes(self) -> list[Episode]:
        """The whole bag, or what lies between its marks. Raises DataError where that is nothing."""
        parts = [slice(*np.searchsorted(self.time, interval)) for interval in self._intervals()]
        parts = [part for part in parts if part.stop - part.start >= 2]
        if self.topics.marks and not parts:
            raise DataError(
                f"{self.bag}: {self.topics.marks.topic}: no rows between a start and a stop; mend the marks"
            )
        return [self._episode(part) for part in parts]

    def _intervals(self) -> list[tuple[float, float]]:
        """From the starts to the stops, on the rows' clock; the bag's end stops what still runs."""
        if self.topics.marks is None:
            return [(-np.inf, np.inf)]
        track = self.tracks[self.topics.marks.name]
        times = [*((stamp - self.origin) / NANOSECONDS for stamp in track.stamps), np.inf]
        running = [False, *(bool(value) for value in track.values), False]
        starts = [time for time, before, now in zip(times, running, running[1:], strict=False) if now and not before]
        stops = [time for time, before, now in zip(times, running, running[1:], strict=False) if before and not now]
        return list(zip(starts, stops, strict=True))

    def _episode(self, part: slice) -> Episode:
        values = {name: column[part] for name, column in self.values.items()}
        state = np.concatenate([values[source.name] for source in self.topics.state], 2).astype(np.float32)
        action = [values[source.name][:, _POSITION] for source in self.topics.action]
        sensors: dict[str, Array | BagFrames] = {name: state[:, _BESIDE[name][0]] for name in self._beside()}
        if self.topics.base:
            sensors["base_velocity"] = values["base"].astype(np.float32)
            action += [values["base"]] if self._base_acts else []
        sensors |= {one.name: self._frames(one, values) for one in self.topics.depth.values()}
        sensors |= {f"stamp_{name}": stamps[part] for name, stamps in self.stamps.items()}
        return Episode(
            images={name: self._frames(source, values) for name, source in self.topics.cameras.items()},
            state=state[:, _POSITION],
            action=np.concatenate(action, 1)[:-1].astype(np.float32),
            reward=None,
            terminated=False,
            meta=self._meta(),
            time=self.time[part],
            sensors=sensors,
        )

    def _frames(self, source: Source, values: Mapping[str, Array]) -> BagFrames:
        return BagFrames(self.bag, source, self.tracks[source.name], values[source.name])

    def _meta(self) -> Meta:
        """Where the episode comes from, and what became of the messages of its whole bag."""
        meta: dict[str, str | int | float] = {
            "bag": self.bag.name,
            "topics": self.topics.digest,
            "start_time": self.origin / NANOSECONDS,
            "dropped_rows": self.dropped,
        }
        for name, account in self.account.items():
            skew_ms = 1000 * self.skew(name)
            meta |= {
                f"{name}_dropped": account.dropped,
                f"{name}_duplicated": account.reused,
                f"{name}_missed": account.missed,
                f"{name}_skew_mean_ms": round(float(skew_ms.mean()), 3),
                f"{name}_skew_max_ms": round(float(skew_ms.max()), 3),
            }
        return meta

    def _beside(self) -> list[str]:
        """What all joints of the state report beside their positions."""
        tracks = [self.tracks[source.name] for source in self.topics.state]
        return [name for name, (place, _) in _BESIDE.items() if all(track.filled[place] for track in tracks)]

    @property
    def _base_acts(self) -> bool:
        return self.topics.base is not None and self.topics.base_use == "action"


def _expect_order(bag: Path, source: Source, track: Track, max_disorder: float) -> None:
    stamps = np.array(track.stamps)
    back = (np.maximum.accumulate(stamps) - stamps) / NANOSECONDS
    if back.max() > max_disorder:
        worst = int(np.argmax(back > max_disorder))
        raise DataError(
            f"{bag}: {source.topic}: stamps go back by {back[worst]:.3f} s at {stamps[worst] / NANOSECONDS:.3f} s "
            f"(message {worst}), at most {max_disorder:g} s is allowed; cut the bag there, raise max_disorder_ms, "
            'or set clock = "receive" for the topic'
        )


def _sync_options(topics: TopicMap, tracks: Mapping[str, Track]) -> SyncOptions:
    """Nothing is late in a bag that is replayed in order of time, and buffers are as large as they need be."""
    streams = [
        Stream(source.name, source.choice, topics.max_skew, capacity=max(2, len(tracks[source.name].stamps)))
        for source in topics.sources
    ]
    return SyncOptions(tuple(streams), topics.rate_hz if topics.reference == GRID else topics.reference)


def _in_order_of_time(
    topics: TopicMap, tracks: Mapping[str, Track], origin: int
) -> Iterator[tuple[str, float, int | Array]]:
    """What the synchroniser is fed: stream, stamp in seconds, values or the number of an image."""
    every = [
        (stamp, number, source.name)
        for source in topics.sources
        for number, stamp in enumerate(tracks[source.name].stamps)
    ]
    for stamp, number, name in sorted(every):
        values = tracks[name].values
        yield name, (stamp - origin) / NANOSECONDS, values[number] if values else number


def _spans(topics: TopicMap, tracks: Mapping[str, Track], origin: int) -> str:
    return ", ".join(
        f"{source.name} {(min(stamps) - origin) / NANOSECONDS:.3f} to {(max(stamps) - origin) / NANOSECONDS:.3f}"
        for source in topics.sources
        for stamps in (tracks[source.name].stamps,)
    )
