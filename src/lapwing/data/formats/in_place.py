"""Rows of a dataset that lie in its file as plain bytes: where each begins, and reading it there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lapwing.episode import Array
from lapwing.errors import DataError


@dataclass(frozen=True)
class InPlace:
    """Frames or large readings [T, *item] in a file, read when indexed, without a handle kept open in between.

    offsets: the byte of the file at which each begins, int64 [T].
    """

    path: Path
    offsets: Array = field(repr=False)
    item: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.offsets), *self.item)

    def __getitem__(self, rows: Any, /) -> Array:
        offsets = np.asarray(self.offsets[rows])
        out = np.empty((*offsets.shape, *self.item), self.dtype)
        size = self.dtype.itemsize * math.prod(self.item)
        pieces = out.reshape(-1).view(np.uint8).reshape(-1, size)
        try:
            with self.path.open("rb", buffering=0) as file:
                for piece, offset in zip(pieces, offsets.reshape(-1).tolist(), strict=True):
                    file.seek(offset)
                    if file.readinto(piece.data) != size:
                        raise OSError("it ends early")
        except OSError as error:
            raise DataError(f"{self.path}: frames cannot be read ({error}); copy or record the file again") from error
        return out


def in_place(*datasets: h5py.Dataset) -> InPlace | None:
    """The rows of datasets of one file, one dataset after the other; None if some cannot be read as plain bytes.

    Raises DataError when rows lie beyond the file's end.
    """
    parts = [_row_offsets(dataset) for dataset in datasets]
    known = [offsets for offsets in parts if offsets is not None]
    first = datasets[0]
    if len(known) < len(parts) or {(one.shape[1:], one.dtype) for one in datasets} != {(first.shape[1:], first.dtype)}:
        return None
    path, offsets = Path(first.file.filename), np.concatenate(known)
    if offsets.size and offsets.max() + _row_bytes(first) > path.stat().st_size:
        raise DataError(f"{path}: '{first.name[1:]}' reaches beyond the file's end; the file is damaged, copy it again")
    return InPlace(path, offsets, first.shape[1:], first.dtype)


def _row_bytes(dataset: h5py.Dataset) -> int:
    size: int = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    return size


def _row_offsets(dataset: h5py.Dataset) -> Array | None:
    if dataset.external or dataset.dtype.kind not in "uif" or dataset.file.userblock_size:
        return None
    rows = len(dataset)
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return None if start is None else start + _row_bytes(dataset) * np.arange(rows, dtype=np.int64)
    plain = dataset.id.get_create_plist().get_nfilters() == 0 and dataset.chunks == (1, *dataset.shape[1:])
    if not plain or dataset.id.get_num_chunks() != rows:  # a chunk never written has no place
        return None
    offsets = np.zeros(rows, np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return offsets
