"""The rows of a replay buffer: a ring of observations, each stored once beside the step that led to it.

Rows are numbered from the first that was ever written; row r lies in slot r % capacity, and the newest `capacity` are
held. A row never changes once it is there, so that saving is appending; all that changes is which row follows it.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.episode import Array
from lapwing.errors import DataError
from lapwing.spec import RobotSpec

_FEWEST_TRIES = 4096
IMAGES = "images/"  # begins the name of a camera's column


def row_fields(spec: RobotSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of each column of a row.

    previous: the row that the step began at, -1 where an episode begins; action, reward, grasp_penalty, terminated
    and intervened are of that step. observed: False for the stand-in after a last step whose outcome was not recorded.
    """
    return {
        "previous": ("i8", ()),
        "action": ("f4", (spec.action_dim,)),
        "reward": ("f4", ()),
        "grasp_penalty": ("f4", ()),
        "terminated": ("?", ()),
        "intervened": ("?", ()),
        "observed": ("?", ()),
        "state": ("f4", (spec.state_dim,)),
        **{IMAGES + camera.name: ("u1", (camera.height, camera.width, 3)) for camera in spec.cameras},
    }


class Rows:
    """The ring. oldest, head: the rows held, from the first to before the last; transitions: how many are valid.

    A transition is known by the row it leads to. It is valid while the row it began at is held, and if one can learn
    from its end: that was observed, or the task terminated there.
    """

    def __init__(self, spec: RobotSpec, capacity: int, folder: Path | None) -> None:
        self.capacity = capacity
        self.columns = _allocate(spec, capacity, folder)
        self.next_row = np.full(capacity, -1)
        self.oldest = self.head = self.transitions = 0

    @property
    def nbytes(self) -> int:
        return self.next_row.nbytes + sum(column.nbytes for column in self.columns.values())

    def get(self, name: str, rows: Array) -> Array:
        """Copy one column at `rows` (int64 [b]): [b, ...]."""
        return self.columns[name].take(rows % self.capacity, axis=0)

    def append(self, values: Mapping[str, Any]) -> int:
        """Write a row, over the oldest where the ring is full, and return its number.

        The transition from the overwritten row goes with it. Nothing leads to that row any more: whatever comes
        before a row is older and went first.
        """
        row, slot = self.head, self.head % self.capacity
        if row - self.oldest == self.capacity:
            following = self.next_row[slot]
            self.transitions -= int(following >= 0 and self._teaches(following))
            self.oldest += 1
        for name, column in self.columns.items():
            column[slot] = values[name]
        self.next_row[slot] = -1
        self.head += 1
        if values["previous"] >= self.oldest:
            self.next_row[values["previous"] % self.capacity] = row
            self.transitions += int(self._teaches(row))
        return row

    def restore(self, oldest: int, head: int, blocks: Iterator[tuple[int, Mapping[str, Array]]]) -> None:
        """Hold rows from `oldest` to `head` instead; `blocks` are (first row, columns) that cover them in order."""
        self.oldest = self.head = self.transitions = 0
        self.next_row[:] = -1
        oldest = max(oldest, head - self.capacity)
        for first, block in blocks:
            rows = np.arange(first, first + len(block["previous"]))
            wanted = (rows >= oldest) & (rows < head)
            for name, column in self.columns.items():
                column[rows[wanted] % self.capacity] = block[name][wanted]
        self.oldest, self.head = oldest, head
        rows = np.arange(oldest, head)
        previous = self.get("previous", rows)
        self.next_row[previous[previous >= oldest] % self.capacity] = rows[previous >= oldest]
        self.transitions = int(self.valid(rows).sum())

    def valid(self, rows: Array) -> Array:
        """Whether valid transitions lead to these held rows, bool [b]."""
        return (self.get("previous", rows) >= self.oldest) & self._teaches(rows)

    def draw(self, random: np.random.Generator, count: int) -> Array:
        """Valid transitions, int64 [count], each with the same chance every time."""
        held, found = self.head - self.oldest, np.empty(0, np.int64)
        while len(found) < count:
            tries = (count - len(found)) * held // self.transitions + 1
            rows = random.integers(self.oldest, self.head, min(tries, max(held, _FEWEST_TRIES)))
            found = np.concatenate([found, rows[self.valid(rows)]])
        return found[:count]

    def window(self, rows: Array, n_step: int, gamma: float) -> tuple[Array, Array, Array, Array]:
        """The n steps from transitions `rows` on, fewer where the episode ends or is not further yet.

        Returns where they lead to, int64 [b], and the discounted sums of rewards and grasp penalties and the discount
        of what follows, float64 [b].
        """
        last, steps = rows, np.ones(len(rows), np.int64)
        reward, penalty = (
            self.get("reward", rows).astype(np.float64),
            self.get("grasp_penalty", rows).astype(np.float64),
        )
        for ahead in range(1, n_step):
            following = self.next_row[last % self.capacity]
            goes_on = (following >= 0) & self._teaches(following)
            if not goes_on.any():
                break
            last = np.where(goes_on, following, last)
            steps += goes_on
            reward += np.where(goes_on, gamma**ahead * self.get("reward", last), 0)
            penalty += np.where(goes_on, gamma**ahead * self.get("grasp_penalty", last), 0)
        discount = np.where(self.get("terminated", last), 0.0, gamma**steps)
        return last, reward, penalty, discount

    def chains(self) -> list[list[int]]:
        """The rows held of each episode, in order."""
        rows = np.arange(self.oldest, self.head)
        following = self.next_row[rows % self.capacity].tolist()
        found = []
        for row in rows[self.get("previous", rows) < self.oldest].tolist():
            chain = [row]
            while (row := following[row - self.oldest]) >= 0:
                chain.append(row)
            found.append(chain)
        return found

    def _teaches(self, rows: Array | int) -> Array:
        slots = np.asarray(rows) % self.capacity
        teaches: Array = self.columns["observed"][slots] | self.columns["terminated"][slots]
        return teaches


def _allocate(spec: RobotSpec, capacity: int, folder: Path | None) -> dict[str, Array]:
    """Columns [capacity, ...]. Memory that nobody has written to yet costs nothing. Raises DataError."""
    fields = {name: (np.dtype(kind), (capacity, *shape)) for name, (kind, shape) in row_fields(spec).items()}
    frames = [shape for name, (_, shape) in fields.items() if name.startswith(IMAGES)]
    needed = sum(int(np.prod(shape)) for shape in frames)
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise OSError(f"{free / 1e9:.3g} GB are free")
        return {
            name: _on_disk(folder, shape) if folder is not None and name.startswith(IMAGES) else np.empty(shape, kind)
            for name, (kind, shape) in fields.items()
        }
    except MemoryError as error:
        raise DataError(
            f"replay buffer: {capacity} observations take {needed / 1e9:.3g} GB, more than this machine lends; set a "
            "smaller capacity, or a folder to keep the frames in"
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder}: cannot hold {capacity} observations, which take {needed / 1e9:.3g} GB "
            f"({error.strerror or error}); free some space, or set a smaller capacity"
        ) from error


def _on_disk(folder: Path, shape: tuple[int, ...]) -> Array:
    """Zeros, uint8, in a file without a name, which goes with this process however it ends."""
    size = int(np.prod(shape))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up later kills the process
            os.posix_fallocate(file.fileno(), 0, size)
        return np.ndarray(shape, np.uint8, mmap.mmap(file.fileno(), size))
