"""The spool: an episode while it is being recorded, in a hidden folder that survives a kill at any moment.

    DIR/.episode_N.spool/header.json    the robot's spec, and what is known of the episode beforehand
                         rows.bin       one record a row: its CRC-32, an observation, and the action that led to it
                         verdict.json   how the episode ended, once that is known

A row counts when all its bytes are there and their CRC is right. The ALOHA file is made from the whole rows, renamed
into place, and only then the spool goes; so at any moment there is a whole file, or a spool to make it from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lapwing.data.formats.aloha_writer import Dialect, episode_path, write_aloha_episode
from lapwing.episode import Array, Episode, Meta
from lapwing.errors import DataError
from lapwing.spec import RobotSpec

Recover = Literal["keep", "discard"]

_CRC_BYTES = 4
_ROOM_TO_SPARE = 16 << 20  # bytes, beside those of the rows


def row_dtype(spec: RobotSpec) -> np.dtype[Any]:
    """A row as it lies in the ring and in the spool, without gaps.

    time is not a number where the world has no clock; action, reward, intervened and grasp_penalty belong to the step
    that led to the row, and are 0 in the first. grasp_penalty is not a number where the world tells none.
    """
    images = [(camera.name, "u1", (camera.height, camera.width, 3)) for camera in spec.cameras]
    sensors = [(sensor.name, sensor.dtype, sensor.shape) for sensor in spec.sensors]
    return np.dtype(
        [
            ("crc", "<u4"),
            ("time", "<f8"),
            ("reward", "<f4"),
            ("intervened", "?"),
            ("grasp_penalty", "<f4"),
            ("state", "<f4", (spec.state_dim,)),
            ("action", "<f4", (spec.action_dim,)),
            ("sensors", sensors),
            ("images", images),
        ]
    )


class Spool:
    """One episode being written. Raises OSError as the disk does."""

    def __init__(self, folder: Path, spec: RobotSpec, dialect: Dialect, meta: Meta) -> None:
        self.number = next_number(folder)
        self.path = spool_path(folder, self.number)
        self.rows = 0
        self.path.mkdir()
        self._file = (self.path / "rows.bin").open("wb", buffering=0)
        size = row_dtype(spec).itemsize
        header = {"spec": spec.to_dict(), "dialect": dialect, "meta": dict(meta), "row_bytes": size}
        _write_json(self.path / "header.json", header)

    def append(self, row: Array) -> None:
        """Write one row, given as its bytes; its CRC is filled in."""
        row[:_CRC_BYTES] = np.frombuffer(_crc(row).to_bytes(_CRC_BYTES, "little"), np.uint8)
        rest = memoryview(row.data)
        while rest:  # an almost full disk takes a part, and refuses the next
            rest = rest[self._file.write(rest) :]
        self.rows += 1

    def finish(self, terminated: bool, success: bool | None, meta: Meta) -> Path:
        """Make the episode's file and remove the spool. Raises DataError, OSError; the spool then stays."""
        verdict = {"rows": self.rows, "terminated": terminated, "success": success, "meta": dict(meta)}
        _write_json(self.path / "verdict.json", verdict)
        self._file.close()
        header = _header(self.path)
        return _complete(self.path, header, _rows(self.path, header.spec), verdict)

    def leave(self) -> None:
        """Stop writing; what can be recovered stays."""
        self._file.close()
        if self.rows < 2:
            remove(self.path)

    def discard(self) -> None:
        self._file.close()
        remove(self.path)


def recover(folder: Path, unfinished: Recover = "keep") -> list[str]:
    """Make files of the episodes that a killed recorder left in `folder`, up to their last whole step.

    An unfinished one has no success and is not terminated, and its meta says "recovered"; or it is discarded. One
    whose end was already known is always finished. Says in one line each what was done. Raises DataError.
    """
    for draft in folder.glob(".episode_*.partial"):  # of files that were being made; the spool is still there
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
    spools = sorted(spools_in(folder), key=_number)
    return [note for note in (_recover(spool, unfinished) for spool in spools) if note]


def _recover(spool: Path, unfinished: Recover) -> str | None:
    file = episode_path(spool.parent, _number(spool))
    if file.exists() or not (spool / "header.json").exists():  # it was whole already, or nothing had begun
        remove(spool)
        return None
    header = _header(spool)
    rows = _rows(spool, header.spec)
    rows = rows[: _sound(rows)]
    verdict = _verdict(spool)
    if len(rows) > 1 and verdict is not None and verdict["rows"] == len(rows):
        _complete(spool, header, rows, verdict)
        return f"{file}: finished, {len(rows) - 1} steps; its recorder was killed while writing it"
    if len(rows) < 2 or unfinished == "discard":
        del rows
        remove(spool)
        return f"{file}: an unfinished recording, discarded"
    unknown = {"terminated": False, "success": None, "meta": {"recovered": True}}
    _complete(spool, header, rows, unknown)
    return (
        f"{file}: recovered the {len(rows) - 1} whole steps of an unfinished recording; whether it succeeds is unknown"
    )


def spool_path(folder: Path, number: int) -> Path:
    return folder / f".episode_{number}.spool"


def spools_in(folder: Path) -> list[Path]:
    """What recorders have left in a folder, or are writing."""
    return [path for path in folder.glob(".episode_*.spool") if re.fullmatch(r"\.episode_\d+\.spool", path.name)]


def next_number(folder: Path) -> int:
    """One more than the highest number of an episode, finished or not."""
    names = [path.name for path in (*folder.glob("episode_*.hdf5"), *spools_in(folder))]
    matches = (re.fullmatch(r"\.?episode_(\d+)\.(?:hdf5|spool)", name) for name in names)
    return max((int(match[1]) for match in matches if match), default=-1) + 1


def remove(spool: Path) -> None:
    """Delete a spool so that what a kill leaves of it is not taken for an unfinished episode."""
    (spool / "header.json").unlink(missing_ok=True)
    shutil.rmtree(spool)


@dataclass(frozen=True)
class _Header:
    spec: RobotSpec
    dialect: Dialect
    meta: Meta


def _complete(spool: Path, header: _Header, rows: Array, verdict: Mapping[str, Any]) -> Path:
    """Rows and verdict -> the episode's file in place of the spool."""
    spec, steps = header.spec, rows[1:]
    time, penalty = np.array(rows["time"]), np.array(steps["grasp_penalty"])
    path = episode_path(spool.parent, _number(spool))
    _expect_room(path, rows.nbytes)
    episode = Episode(
        images={name: rows["images"][name] for name in spec.camera_names},
        state=np.array(rows["state"]),
        action=np.array(steps["action"]),
        reward=np.array(steps["reward"]),
        terminated=verdict["terminated"],
        success=verdict["success"],
        meta={**header.meta, **verdict["meta"]},
        time=None if np.isnan(time).any() else time,
        sensors={sensor.name: rows["sensors"][sensor.name] for sensor in spec.sensors},
        intervened=np.array(steps["intervened"]),
        grasp_penalty=None if np.isnan(penalty).any() else penalty,
    )
    write_aloha_episode(path, episode, spec, header.dialect)
    remove(spool)
    return path


def _expect_room(path: Path, size: int) -> None:
    """Raise DataError unless the disk has room for a file: HDF5 takes the process down with it when it has not."""
    needed, free = (size + _ROOM_TO_SPARE) / 1e6, shutil.disk_usage(path.parent).free / 1e6
    if free < needed:
        raise DataError(f"{path}: cannot be written, {free:.0f} MB are free, expected {needed:.0f} MB; free some space")


def _rows(spool: Path, spec: RobotSpec) -> Array:
    """All rows of full length, mapped."""
    dtype = row_dtype(spec)
    path = spool / "rows.bin"
    count = path.stat().st_size // dtype.itemsize
    rows: Array = np.memmap(path, dtype, "r", shape=(count,)) if count else np.empty(0, dtype)
    return rows


def _sound(rows: Array) -> int:
    """How many rows from the first on have the right CRC."""
    raw = rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
    return next((index for index, row in enumerate(raw) if _crc(row) != rows["crc"][index]), len(rows))


def _crc(row: Array) -> int:
    return zlib.crc32(row[_CRC_BYTES:].data)


def _number(spool: Path) -> int:
    return int(spool.name.removeprefix(".episode_").removesuffix(".spool"))


def _header(spool: Path) -> _Header:
    header = _read_json(spool / "header.json")
    spec = RobotSpec.from_dict(header["spec"], where=str(spool))
    size = row_dtype(spec).itemsize
    if size != header["row_bytes"]:
        raise DataError(
            f"{spool}: rows of {header['row_bytes']} bytes, expected {size}; another version of Lapwing recorded them: "
            "recover with that one, or delete the folder"
        )
    return _Header(spec, header["dialect"], header["meta"])


def _verdict(spool: Path) -> dict[str, Any] | None:
    path = spool / "verdict.json"
    return _read_json(path) if path.exists() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: cannot be read ({error}), expected JSON; delete it and record again with --append: "
            "without its header.json an episode is discarded, without its verdict.json recovered as unfinished"
        ) from error
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(content), encoding="utf-8")
    os.replace(beside, path)
