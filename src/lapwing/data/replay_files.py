"""Saving the rows of a replay buffer: what has come since the last time goes into files of its own.

    FOLDER/index.json           what the robot is, which rows are held, and the files they are in, with their CRC-32
           rows_TOKEN_ROW.npz   some rows from ROW on, by column; never changed once written

The index is renamed into place last, so the folder holds a whole save at any moment.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.replay_rows import row_fields
from lapwing.episode import Array
from lapwing.errors import DataError, SpecError
from lapwing.spec import RobotSpec

Index = dict[str, Any]
Block = tuple[int, Mapping[str, Array]]  # rows in order: the first's number, and their columns

_VERSION = 1
_FILE_BYTES = 32 << 20  # held twice in memory while it is written or read
_FIELDS = ("cameras", "state", "action")


def write_rows(
    folder: Path, spec: RobotSpec, head: int, read: Callable[[int, int], tuple[int, Block]], before: Index | None
) -> Index:
    """Bring `folder` up to row `head` and return its index. `before`: what the last save or load there returned.

    read: (a row, how many) -> the oldest row held just then, and those rows, less what is gone. Raises DataError; what
    was saved before is then still there.
    """
    known = _known_files(folder, before)
    fresh: list[dict[str, Any]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        oldest, row = _write_files(folder, spec, head, read, known, fresh)
        files = [one for one in known + fresh if one["first"] + one["rows"] > oldest]
        index = {"version": _VERSION, "spec": spec.to_dict(), "oldest": oldest, "head": row, "files": files}
        text = json.dumps({**index, "crc": _crc_of_index(index)}, indent=1)
        _write(folder / "index.json", text.encode())
    except OSError as error:
        for one in fresh:
            (folder / one["name"]).unlink(missing_ok=True)
        raise DataError(
            f"{folder}: the replay buffer cannot be saved ({error.strerror or error}); free some space; what was saved "
            "there before is whole"
        ) from error
    _remove_others(folder, {one["name"] for one in files})
    saved: Index = json.loads(text)
    return saved


def read_index(folder: Path, spec: RobotSpec) -> Index:
    """What a folder holds. Raises DataError when it is no whole save, SpecError when it is of another robot."""
    path = folder / "index.json"
    try:
        index: Index = json.loads(path.read_text(encoding="utf-8"))
        if index["version"] != _VERSION:
            raise DataError(
                f"{path}: version {index['version']}, expected {_VERSION}; load it with the Lapwing it is of"
            )
        if index["crc"] != _crc_of_index(index):
            raise ValueError("its checksum is wrong")
        saved = RobotSpec.from_dict(index["spec"], where=str(path))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no replay buffer, index.json is missing; choose another folder") from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); restore it, or collect again") from error
    for name, got, expected in zip(_FIELDS, _compared(saved), _compared(spec), strict=True):
        if got != expected:
            raise SpecError(f"{folder}: {name} {got}, expected {expected}; choose the replay buffer of this robot")
    return index


def read_blocks(folder: Path, index: Index, spec: RobotSpec) -> Iterator[Block]:
    """The rows that an index speaks of, file by file. Raises DataError for one that is missing or damaged."""
    for one in index["files"]:
        path = folder / one["name"]
        try:
            content = path.read_bytes()
            if zlib.crc32(content) != one["crc"]:
                raise ValueError(f"its {len(content)} bytes have another checksum than those that were written")
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                columns = {name: archive[name] for name in row_fields(spec)}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: damaged ({error}); restore it, or collect again") from error
        yield one["first"], columns


def _known_files(folder: Path, before: Index | None) -> list[dict[str, Any]]:
    """The files of the last save, if the folder is still as it left it."""
    try:
        return list(before["files"]) if before and json.loads((folder / "index.json").read_text()) == before else []
    except (OSError, ValueError):
        return []


def _write_files(
    folder: Path,
    spec: RobotSpec,
    head: int,
    read: Callable[[int, int], tuple[int, Block]],
    known: list[dict[str, Any]],
    fresh: list[dict[str, Any]],
) -> tuple[int, int]:
    """Write what comes after the `known` files and note it in `fresh`. Returns the oldest row and the end."""
    token = secrets.token_hex(4)  # no save replaces a file of another
    most = max(1, _FILE_BYTES // _row_bytes(spec))
    row = known[-1]["first"] + known[-1]["rows"] if known else 0
    while True:
        oldest, (first, columns) = read(row, min(most, head - row))
        count = len(columns["previous"])
        if count:
            content = io.BytesIO()
            np.savez(content, allow_pickle=False, **columns)
            name = f"rows_{token}_{first}.npz"
            fresh.append({"name": name, "first": first, "rows": count, "crc": zlib.crc32(content.getbuffer())})
            _write(folder / name, content.getbuffer())
        row = first + count
        if row >= head:
            return min(oldest, row), row


def _write(path: Path, content: bytes | memoryview) -> None:
    """Write beside, let it reach the disk, and rename."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_others(folder: Path, names: set[str]) -> None:
    """Delete files whose rows are all overwritten, and what a kill has left."""
    for path in (*folder.glob("rows_*.npz"), *folder.glob(".rows_*.partial")):
        if path.name not in names:
            path.unlink(missing_ok=True)


def _compared(spec: RobotSpec) -> tuple[Any, ...]:
    """What two robots must share, by `_FIELDS`."""
    cameras = [f"{camera.name} {camera.height}x{camera.width}" for camera in spec.cameras]
    return cameras, [axis.name for axis in spec.state], [axis.name for axis in spec.action]


def _row_bytes(spec: RobotSpec) -> int:
    return sum(np.dtype((kind, shape)).itemsize for kind, shape in row_fields(spec).values())


def _crc_of_index(index: Index) -> int:
    rest = {name: value for name, value in index.items() if name != "crc"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())
