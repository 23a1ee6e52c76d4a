"""Rows handed from one process to another through shared memory, in order, without either waiting for the other."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.episode import Array
from lapwing.errors import DataError

_SHARED = Path("/dev/shm")  # memory where there is such a folder; elsewhere a file of the temporary folder
_LARGEST = 512 << 20  # bytes: near four seconds of three 480x640 cameras at 50 Hz
_MOST_SLOTS, _FEWEST_SLOTS = 256, 8
_COUNTER_BYTES = 64


class Ring:
    """A ring of `slots` rows. One process fills it (`free`, `fill`), one other empties it (`oldest`, `release`).

    It is handed to the other process as an argument when that starts. That a row is ready is told by other means,
    in order. The only number both look at counts the rows released; it is written by one of them alone. The memory
    has no name, so it goes with the processes however they end.
    """

    def __init__(self, row: np.dtype[Any], slots: int, descriptor: int) -> None:
        self.slots = slots
        self._row, self._descriptor = row, descriptor
        memory = mmap.mmap(descriptor, _COUNTER_BYTES + slots * row.itemsize)
        self._released = np.ndarray((1,), np.uint64, memory)
        self._bytes = np.ndarray((slots, row.itemsize), np.uint8, memory, _COUNTER_BYTES)
        self._filled = self._taken = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (self._row, self.slots, reduction.DupFd(self._descriptor))

    @property
    def free(self) -> int:
        """Slots that can be filled now."""
        return self.slots - (self._filled - int(self._released[0]))

    def fill(self) -> Array:
        """The next slot, a structured array of one row, to be filled; there must be a free one."""
        raw = self._bytes[self._filled % self.slots]
        self._filled += 1
        row: Array = raw.view(self._row)
        return row

    def oldest(self) -> Array:
        """The bytes of the row that has waited longest."""
        raw: Array = self._bytes[self._taken % self.slots]
        return raw

    def release(self) -> None:
        """Give the oldest row's slot back."""
        self._taken += 1
        self._released[0] = self._taken

    def close(self) -> None:
        """Let go of the memory; a second time does nothing."""
        if not self._bytes.size:
            return
        os.close(self._descriptor)
        self._released = self._bytes = np.empty(0, np.uint8)


def _attach(row: np.dtype[Any], slots: int, descriptor: Any) -> Ring:
    return Ring(row, slots, descriptor.detach())


def make_ring(row: np.dtype[Any]) -> Ring:
    """A ring for rows of this kind, as large as is useful. Raises DataError when there is no memory for the fewest.

    The memory is claimed at once: memory that is promised but not there kills a process at the first touch.
    """
    slots = max(_FEWEST_SLOTS, min(_MOST_SLOTS, _LARGEST // row.itemsize))
    with tempfile.TemporaryFile(dir=_SHARED if _SHARED.is_dir() else None) as file:
        while slots >= _FEWEST_SLOTS:
            try:
                _claim(file.fileno(), _COUNTER_BYTES + slots * row.itemsize)
                return Ring(row, slots, os.dup(file.fileno()))
            except OSError:  # a container may have little
                os.ftruncate(file.fileno(), 0)
                slots //= 2
    raise DataError(
        f"{_SHARED}: too little shared memory, expected room for {_FEWEST_SLOTS} rows of {row.itemsize / 1e6:.1f} MB; "
        "enlarge it (docker: --shm-size=1g)"
    )


def _claim(descriptor: int, size: int) -> None:
    if sys.platform == "darwin":  # no call for it
        os.ftruncate(descriptor, size)
    else:
        os.posix_fallocate(descriptor, 0, size)
