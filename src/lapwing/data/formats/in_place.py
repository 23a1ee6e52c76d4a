"""Rows of datasets that lie in their files as plain bytes: where each begins, and reading it there."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lapwing.episode import Array
from lapwing.errors import DataError

_ROWS_AT_ONCE = 128  # bounds the files that are open at a time


@dataclass(frozen=True)
class InPlace:
    """Frames or large readings [T, *item] in one file or many, read when indexed; no file stays open in between.

    Row t begins at byte `offsets[t]` of `paths[file[t]]`; file and offsets are int64 [T]. Plain reads that are
    announced to the system all at once fetch random rows from a disk several times faster than a memory map does,
    which waits for every few pages, and leave no resident pages in the process.
    """

    paths: tuple[Path, ...]
    file: Array = field(repr=False)
    offsets: Array = field(repr=False)
    item: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.offsets), *self.item)

    def __getitem__(self, rows: Any, /) -> Array:
        files, offsets = np.asarray(self.file[rows]), np.asarray(self.offsets[rows])
        out = np.empty((*files.shape, *self.item), self.dtype)
        pieces = out.reshape(-1).view(np.uint8).reshape(files.size, self.dtype.itemsize * math.prod(self.item))
        for start in range(0, files.size, _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            self._read(files.reshape(-1)[some].tolist(), offsets.reshape(-1)[some].tolist(), pieces[some])
        return out

    def _read(self, files: Sequence[int], offsets: Sequence[int], pieces: Array) -> None:
        opened: dict[int, int] = {}
        try:
            for file, offset in zip(files, offsets, strict=True):
                if file not in opened:
                    opened[file] = os.open(self.paths[file], os.O_RDONLY)
                if hasattr(os, "posix_fadvise"):  # not on macOS
                    os.posix_fadvise(opened[file], offset, pieces.shape[1], os.POSIX_FADV_WILLNEED)
            for file, offset, piece in zip(files, offsets, pieces, strict=True):
                if os.preadv(opened[file], [piece], offset) != piece.nbytes:
                    raise OSError("it ends early")
        except OSError as error:
            path = self.paths[file]
            raise DataError(f"{path}: frames cannot be read ({error}); copy or record the file again") from error
        finally:
            for handle in opened.values():
                os.close(handle)


def join(parts: Sequence[InPlace]) -> InPlace:
    """The rows of all parts, which are of one item and type, one part after another."""
    counts = np.cumsum([0, *(len(part.paths) for part in parts)])
    return InPlace(
        tuple(path for part in parts for path in part.paths),
        np.concatenate([part.file + first for part, first in zip(parts, counts, strict=False)]),
        np.concatenate([part.offsets for part in parts]),
        parts[0].item,
        parts[0].dtype,
    )


def in_place(*datasets: h5py.Dataset) -> InPlace | None:
    """The rows of datasets of one file, one dataset after the other; None if some cannot be read as plain bytes.

    Raises DataError when the file does not hold all rows.
    """
    first = datasets[0]
    if {(one.shape[1:], one.dtype) for one in datasets} != {(first.shape[1:], first.dtype)}:
        return None
    parts = [_row_offsets(dataset) for dataset in datasets]
    known = [offsets for offsets in parts if offsets is not None]
    if len(known) < len(parts):
        return None
    path, offsets = Path(first.file.filename).absolute(), [offset for part in known for offset in part]
    if offsets and max(offsets) + _row_bytes(first) > path.stat().st_size:
        raise _damaged(first, "reaches beyond the file's end")
    places = np.array(offsets, np.int64)
    return InPlace((path,), np.zeros_like(places), places, first.shape[1:], first.dtype)


def _damaged(dataset: h5py.Dataset, why: str) -> DataError:
    path, key = dataset.file.filename, dataset.name[1:]
    return DataError(f"{path}: '{key}' {why}; the file is damaged, copy or record it again")


def _row_bytes(dataset: h5py.Dataset) -> int:
    size: int = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    return size


def _row_offsets(dataset: h5py.Dataset) -> Sequence[int] | None:
    if dataset.external or dataset.dtype.kind not in "uif" or dataset.file.userblock_size:
        return None
    if dataset.chunks is None:
        start, size = dataset.id.get_offset(), _row_bytes(dataset)
        return None if start is None else [start + row * size for row in range(len(dataset))]
    plain = dataset.id.get_create_plist().get_nfilters() == 0 and dataset.chunks == (1, *dataset.shape[1:])
    return _chunk_offsets(dataset) if plain else None


def _chunk_offsets(dataset: h5py.Dataset) -> Sequence[int] | None:
    """Where each row's chunk begins; None where a chunk was never written, for it has no place."""
    if dataset.id.get_num_chunks() != len(dataset):
        return None
    offsets: dict[int, int] = {}

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    if sorted(offsets) != list(range(len(dataset))):
        raise _damaged(dataset, "has rows whose place is not known")
    return [offsets[row] for row in range(len(dataset))]
