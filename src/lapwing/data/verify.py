"""Whether an episode reads back as it was written: numbers compared, frames by checksums taken on the way out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lapwing.episode import Array, Episode, Frames
from lapwing.errors import DataError

_BLOCK_BYTES = 32 << 20
_LOSSY_GAP = 8.0  # of 255, in the mean colour of a frame: JPEG of quality 50 keeps it to 1 or 2
_OWN_META = ("file", "mirror")  # what the ALOHA reader says of the file itself


class Unreadable(Exception):
    """Frames that cannot be read. Holds the reason."""


@dataclass(frozen=True)
class Watched:
    """Frames on their way out: each row read is counted in a bar, and what tells it apart is kept.

    facts: of each row its checksum, uint32 [rows]; or, where the format is lossy, its mean colour, float32 [rows, 3].
    """

    frames: Frames
    bar: tqdm = field(repr=False)
    lossy: bool
    facts: Array

    @staticmethod
    def of(frames: Frames, bar: tqdm, lossy: bool) -> Watched:
        rows = frames.shape[0]
        return Watched(frames, bar, lossy, np.zeros((rows, 3), np.float32) if lossy else np.zeros(rows, np.uint32))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.frames.shape

    def __getitem__(self, rows: Any, /) -> Array:
        """Raises Unreadable where the frames cannot be read."""
        try:
            block = self.frames[rows]
        except DataError as error:
            raise Unreadable(str(error)) from error
        numbers = np.arange(self.shape[0])[rows].reshape(-1)
        self.facts[numbers] = _facts(block, self.lossy)
        self.bar.update(len(numbers))
        return block


def sum_of_sums(facts: Array) -> int:
    """One checksum for the checksums of many frames."""
    return zlib.crc32(facts.tobytes())


def expect_same_numbers(where: str, written: Episode, found: Episode, timed: bool = False, ending: bool = True) -> None:
    """Raise DataError unless `found`, as read back, has the numbers that were written and its layout has room for.

    timed: whether the layout has room for time stamps; ending: for the observation after the last action.
    """
    steps, rows = written.num_steps, found.num_rows
    pairs: dict[str, tuple[Any, Any]] = {
        "action": (written.action, found.action),
        "state": (written.state if ending else written.state[:rows], found.state),
        "reward": (written.reward, found.reward),
        "terminated": (bool(written.terminated), bool(found.terminated)),
        "intervened": (written.intervened, found.intervened),
        "grasp penalty": (written.grasp_penalty, found.grasp_penalty),
        "success": (_as_bool(written.success), _as_bool(found.success)),
        "what is known of the episode": (_meta(written), _meta(found)),
    }
    if timed:
        pairs |= {"time": (written.time, found.time)}
    for what, (expected, got) in pairs.items():
        if found.num_steps != steps or not _equal(expected, got):
            raise _difference(where, what)


def expect_same_sensors(where: str, written: Mapping[str, Frames], found: Mapping[str, Frames]) -> None:
    """Raise DataError unless every sensor that was written is there with the same readings."""
    for name, readings in written.items():
        block = max(1, _BLOCK_BYTES // (8 * max(1, int(np.prod(readings.shape[1:])))))
        for start in range(0, readings.shape[0], block):
            some = slice(start, min(start + block, readings.shape[0]))
            if name not in found or not _equal(np.asarray(readings[some]), np.asarray(found[name][some])):
                raise _difference(where, f"sensor {name!r}")


def expect_same_frames(where: str, camera: str, facts: Array, found: Frames, lossy: bool) -> None:
    """Raise DataError unless all frames of `found` have the facts of those that were written (see Watched)."""
    for start, got in _read_facts(found, lossy):
        expected = facts[start : start + len(got)]
        same = np.abs(got - expected).max(1) <= _LOSSY_GAP if lossy else got == expected
        if not same.all():
            raise _difference(where, f"frame {start + int(np.argmin(same))} of camera {camera!r}")


def expect_sum(where: str, camera: str, expected: int, found: Frames, bar: tqdm) -> None:
    """Raise DataError unless the frames of `found` have the sum of checksums `expected`."""
    parts = []
    for _, facts in _read_facts(found, lossy=False):
        parts.append(facts)
        bar.update(len(facts))
    if sum_of_sums(np.concatenate(parts)) != expected:
        raise _difference(where, f"camera {camera!r}")


def _read_facts(frames: Frames, lossy: bool) -> Iterator[tuple[int, Array]]:
    block = max(1, _BLOCK_BYTES // int(np.prod(frames.shape[1:])))
    for start in range(0, frames.shape[0], block):
        yield start, _facts(frames[start : min(start + block, frames.shape[0])], lossy)


def _facts(frames: Array, lossy: bool) -> Array:
    pixels = frames.reshape(-1, int(np.prod(frames.shape[-3:])))
    if lossy:
        colours: Array = pixels.reshape(len(pixels), -1, 3).mean(1, dtype=np.float32)
        return colours
    return np.array([zlib.crc32(np.ascontiguousarray(one).data) for one in pixels], np.uint32)


def checksum_of_file(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value


def _meta(episode: Episode) -> dict[str, Any]:
    return {key: value for key, value in episode.meta.items() if key not in _OWN_META}


def _as_bool(value: bool | None) -> bool | None:
    return None if value is None else bool(value)


def _equal(expected: Any, got: Any) -> bool:
    if not isinstance(expected, np.ndarray) or not isinstance(got, np.ndarray):
        return type(expected) is type(got) and bool(expected == got)
    # The files hold float32 where the episode may be more precise.
    is_float = expected.dtype.kind == "f" and got.dtype.kind == "f"
    return bool(np.array_equal(expected.astype(got.dtype), got, equal_nan=is_float))


def _difference(where: str, what: str) -> DataError:
    return DataError(f"{where}: {what} reads back other than it was written; check the disk and convert again")
