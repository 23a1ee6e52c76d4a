"""ROS 1 and ROS 2 bags through the `rosbags` package: what lies in them when, and frames read when indexed."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.episode import Array
from lapwing.errors import DataError
from lapwing.robot import ros_messages as messages
from lapwing.robot.topics import Source

_SUFFIXES = (".bag", ".db3", ".mcap")
_JOINT_FIELDS = ("position", "velocity", "effort")


def is_bag(path: Path) -> bool:
    """Whether the path is a ROS 1 bag, a ROS 2 bag (its folder or its file), or a folder of bags."""
    return bool(find_bags(path))


def find_bags(path: Path) -> list[Path]:
    """The bags at a path, in the order of their names with numbers counted."""
    if _is_one_bag(path):
        return [path]
    return sorted(filter(_is_one_bag, path.iterdir()), key=_in_natural_order) if path.is_dir() else []


def _is_one_bag(path: Path) -> bool:
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return path.suffix in _SUFFIXES and path.is_file()


def _in_natural_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(re.split(r"(\d+)", path.name))]


@dataclass
class Track:
    """What one source has in a bag, in the order of receiving, which numbers its messages.

    received, stamps: nanoseconds; stamps are of the source's clock. values: base velocity [2], joints [3, joints]:
    position, velocity and effort; of images nothing. filled: whether all messages have the three. size: height and
    width of images.
    """

    received: list[int] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    filled: tuple[bool, ...] = (True, True, True)
    size: tuple[int, int] = (0, 0)


def scan(path: Path, sources: Sequence[Source]) -> dict[str, Track]:
    """Read a bag once without keeping images: a track for each source by name, without the optional ones it lacks.

    Raises DataError for a needed topic that is missing or empty, a message that cannot be used, a damaged bag.
    """
    with closing(_open(path)) as reader:
        present = _present(path, reader, sources)
        tracks = {source.name: Track() for source in present}
        for topic, received, message in _messages(path, reader, {source.topic for source in present}):
            for source in present:
                if source.topic == topic:
                    with _placed(path, topic, received):
                        _take(tracks[source.name], source, message, received)
    for source in present:
        if not tracks[source.name].received:
            raise DataError(f"{path}: {source.topic} ({source.name}) has no message; record it or change the map")
    return tracks


def _present(path: Path, reader: Any, sources: Sequence[Source]) -> list[Source]:
    """The sources whose topics the bag has, with the types they need."""
    types: dict[str, set[str]] = {}
    for one in reader.connections:
        types.setdefault(one.topic, set()).add(one.msgtype)
    filled = {one.topic for one in reader.connections if one.msgcount}
    present = [source for source in sources if not source.optional or source.topic in filled]
    for source in present:
        if source.topic not in types:
            found = ", ".join(sorted(types)) or "none"
            raise DataError(f"{path}: no topic {source.topic} (stream {source.name}); it has {found}; change the map")
        expected = messages.TYPES[source.kind]
        if odd := types[source.topic].difference(expected):
            raise DataError(f"{path}: {source.topic} is {min(odd)}, expected {' or '.join(expected)}; change the map")
    return present


def _take(track: Track, source: Source, message: Any, received: int) -> None:
    """Note one message. Raises DataError."""
    stamp = messages.header_stamp(message) if source.clock == "header" else None
    match source.kind:
        case "image" | "depth":
            _take_size(track, source, message)
        case "joints":
            _take_joints(track, source, message)
        case "base":
            track.values.append(messages.base_velocity(message))
        case "mark":
            track.values.append(np.array([float(message.data)]))
    track.received.append(received)
    track.stamps.append(received if stamp is None else stamp)


def _take_size(track: Track, source: Source, message: Any) -> None:
    if source.kind == "image" and not hasattr(message, "encoding") and track.received:
        return  # a compressed one is decoded when its row is read; that shows its size
    depth = source.kind == "depth"
    size = messages.depth_size(message) if depth else messages.image_size(message, source.channels)
    if track.received and size != track.size:
        raise DataError(f"image of {size} pixels, expected {track.size} as before; cut the bag there")
    track.size = size


def _take_joints(track: Track, source: Source, message: Any) -> None:
    read = [messages.joint_values(message, source.joints, len(source.axes), name) for name in _JOINT_FIELDS]
    if read[0] is None:
        raise DataError("a JointState without positions; choose another topic in the map")
    track.filled = tuple(before and values is not None for before, values in zip(track.filled, read, strict=True))
    track.values.append(np.stack([np.zeros_like(read[0]) if values is None else values for values in read]))


class BagFrames:
    """Images of one topic for each row, [T, H, W, 3] uint8 RGB or [T, H, W] uint16 depth, decoded when indexed.

    Reading forward goes through the bag once; reading backward looks the message up by its time. Raises DataError
    where an image does not decode or the bag is damaged there.
    """

    def __init__(self, path: Path, source: Source, track: Track, numbers: Array) -> None:
        """numbers: which message of the topic each row shows."""
        self.path = path
        self.shape = (len(numbers), *track.size, *((3,) if source.kind == "image" else ()))
        self._source = source
        self._numbers = numbers
        self._received = np.array(track.received)
        self._coming: Iterator[tuple[int, tuple[str, int, Any]]] = iter(())
        self._number = len(track.received)
        self._pixels = np.zeros(self.shape[1:], np.uint8 if source.kind == "image" else np.uint16)
        self._release: Callable[[], object] | None = None

    def __getitem__(self, rows: Any, /) -> Array:
        wanted = self._numbers[rows]
        flat = np.asarray(wanted).reshape(-1)
        out = np.empty((len(flat), *self.shape[1:]), self._pixels.dtype)
        try:
            for place in np.argsort(flat, kind="stable"):
                self._seek(int(flat[place]))
                out[place] = self._pixels
        except DataError:
            self._let_go()  # reading has passed what it could not give; the next one looks anew
            raise
        if self._number == self._numbers.max():
            self._let_go()
        return out.reshape(*np.shape(wanted), *self.shape[1:])

    def _seek(self, number: int) -> None:
        """Make message `number` the current one."""
        if number == self._number:
            return
        if number < self._number or self._release is None:
            self._look_up(number)
        for coming, (topic, received, message) in self._coming:
            if coming == number:
                with _placed(self.path, topic, received):
                    self._pixels = self._decode(message)
                self._number = number
                return
        raise DataError(
            f"{self.path}: {self._source.topic} ends before message {number}; the bag has changed meanwhile"
        )

    def _look_up(self, number: int) -> None:
        """Go to the first message that was received when `number` was."""
        self._let_go()
        reader = _open(self.path)
        self._release = weakref.finalize(self, reader.close)
        start = int(self._received[number])
        numbers = np.flatnonzero(self._received >= start).tolist()
        self._coming = zip(numbers, _messages(self.path, reader, {self._source.topic}, start), strict=False)

    def _let_go(self) -> None:
        """Close the file; the next message that is not the current one is looked up."""
        if self._release:
            self._release()
            self._release = None

    def _decode(self, message: Any) -> Array:
        depth = self._source.kind == "depth"
        pixels = messages.depth_image(message) if depth else messages.color_image(message, self._source.channels)
        if pixels.shape != self.shape[1:]:
            raise DataError(
                f"image of {pixels.shape[:2]} pixels, expected {self.shape[1:3]} as before; cut the bag there"
            )
        return pixels


def _open(path: Path) -> Any:
    """An open `rosbags` reader, to be closed. Raises DataError."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise DataError(
            f'{path}: ROS bags need the rosbags package; run `pip install -e ".[ros]"` in the clone'
        ) from error
    with _foreign_faults(path):
        # ROS 2 bags before Iron do not say what their messages are made of; ours are the same in all of ROS 2.
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
        return reader


def _messages(path: Path, reader: Any, topics: set[str], start: int | None = None) -> Iterator[tuple[str, int, Any]]:
    """Topic, time of receiving in nanoseconds and message, in the order of receiving."""
    with _foreign_faults(path):
        connections = [one for one in reader.connections if one.topic in topics]
        for connection, received, raw in reader.messages(connections=connections, start=start):
            yield connection.topic, received, reader.deserialize(raw, connection.msgtype)


@contextmanager
def _foreign_faults(path: Path) -> Iterator[None]:
    """One kind of error for all that `rosbags` raises on damaged bags: its own, but also assertions, struct, SQLite."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise DataError(
            f"{path}: not a readable ROS bag ({reason}); restore it, or reindex what was cut off"
        ) from error


@contextmanager
def _placed(path: Path, topic: str, received: int) -> Iterator[None]:
    """Say in errors about a message where it lies."""
    try:
        yield
    except DataError as error:
        raise DataError(
            f"{path}: {topic}, message received at {received / messages.NANOSECONDS:.3f} s: {error}"
        ) from error
