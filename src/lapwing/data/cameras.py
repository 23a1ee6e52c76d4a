"""Checks of camera frames, block by block: range, black frames, and pictures that stand still while the robot moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from lapwing.data.formats.hdf5 import read_array
from lapwing.data.problems import Problem, listed
from lapwing.episode import Array, Frames

_BLOCK_BYTES = 32 << 20
_CHUNK_BYTES = 256 << 20
_PROBE = 61  # every 61st value is compared first: prime, so that it meets all channels and columns
BLACK = 16  # of 255: sensor noise behind a covered lens stays below
FROZEN_FRAMES = 15  # half a second at 30 Hz


@dataclass(frozen=True)
class FrameFacts:
    """Of each frame of a camera: lowest and highest value (NaN if one is), and whether it equals the one before."""

    low: Array
    high: Array
    same: Array


@dataclass(frozen=True)
class RowNames:
    """How rows are called: by their number, or by file and number where each episode is a file of its own."""

    labels: Sequence[str] = ()
    starts: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def first(self, row: int) -> str:
        return f"first row {row}" if not self.labels else f"first row {row - self._start(row)} of {self._label(row)}"

    def stretch(self, start: int, stop: int) -> str:
        if not self.labels:
            return f"rows {start} to {stop - 1}"
        return f"rows {start - self._start(start)} to {stop - 1 - self._start(start)} of {self._label(start)}"

    def all_of(self, rows: Sequence[int]) -> str:
        """The files that rows are in, in brackets."""
        names = list(dict.fromkeys(self._label(row) for row in rows)) if self.labels else []
        return f" (in {listed(names)})" if len(names) > 1 else ""

    def _start(self, row: int) -> int:
        return int(self.starts[self._place(row)])

    def _label(self, row: int) -> str:
        return self.labels[self._place(row)]

    def _place(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1


def check_camera(path: Path, key: str, dataset: h5py.Dataset, state: Array | None, progress: bool) -> list[Problem]:
    """All checks of one camera dataset [N, ...]. state [N, S] tells where the robot moved.

    Raises DataError when frames cannot be read.
    """
    name = dataset.name.rpartition("/")[2]
    with tqdm(total=len(dataset), desc=name, unit="frame", delay=1, leave=False, disable=not progress) as bar:
        facts = scan_frames(dataset, bar)
    problems = check_range(path, key, facts, is_float=dataset.dtype.kind == "f")
    if problems:
        return problems
    full = 1.0 if dataset.dtype.kind == "f" and facts.high.max() <= 1.001 else 255.0
    return check_black(path, key, facts, full) or check_frozen(path, key, facts, state)


def scan_frames(frames: h5py.Dataset | Frames, bar: tqdm) -> FrameFacts:
    """Read a camera once: a dataset as it is stored, or uint8 frames. Memory: one block, and 17 bytes a frame."""
    length = frames.shape[0]
    low, high = np.zeros(length), np.zeros(length)
    same = np.zeros(length, bool)
    previous: Array | None = None
    for start, block in _blocks(frames, bar):
        flat = block.reshape(len(block), -1)
        stop = start + len(flat)
        low[start:stop], high[start:stop] = flat.min(1), flat.max(1)
        if previous is not None:
            same[start] = np.array_equal(previous, flat[0])
        same[start + 1 : stop] = _repeats(flat)
        previous = flat[-1].copy()
    return FrameFacts(low, high, same)


def join_facts(parts: Sequence[FrameFacts]) -> FrameFacts:
    """The facts of several episodes in order; the first frame of each follows no other."""
    low, high, same = (np.concatenate([getattr(one, name) for one in parts]) for name in ("low", "high", "same"))
    return FrameFacts(low, high, same)


def _blocks(frames: h5py.Dataset | Frames, bar: tqdm) -> Iterator[tuple[int, Array]]:
    """Runs of whole frames, and whole chunks where a dataset is chunked: no chunk is unpacked twice."""
    stored: h5py.Dataset | None = frames if isinstance(frames, h5py.Dataset) else None
    frame_bytes = (1 if stored is None else stored.dtype.itemsize) * int(np.prod(frames.shape[1:]))
    rows = max(1, _BLOCK_BYTES // frame_bytes)
    if stored is not None and stored.chunks and stored.chunks[0] * frame_bytes <= _CHUNK_BYTES:
        rows = max(1, rows // stored.chunks[0]) * stored.chunks[0]
    for start in range(0, frames.shape[0], rows):
        some = slice(start, min(start + rows, frames.shape[0]))
        block = frames[some] if stored is None else read_array(stored, some)
        yield start, block
        bar.update(len(block))


def _repeats(frames: Array) -> Array:
    """Whether each frame but the first equals the one before it, bool [T - 1]."""
    probe = frames[:, ::_PROBE]
    same: Array = (probe[1:] == probe[:-1]).all(1)
    for row in np.flatnonzero(same):
        same[row] = np.array_equal(frames[row], frames[row + 1])
    return same


def check_range(path: Path, key: str, facts: FrameFacts, is_float: bool) -> list[Problem]:
    """Float images must lie in 0..1 or in 0..255; uint8 cannot do otherwise."""
    bad = np.flatnonzero(~(np.isfinite(facts.low) & np.isfinite(facts.high)))
    if len(bad):
        got = f"NaN or infinite pixels in {len(bad)} of {len(facts.low)} frames, first row {bad[0]}"
        advice = "repair the frames or drop their episodes"
        return [Problem("error", str(path), key, got, "float images in 0..1 or 0..255", advice)]
    low, high = float(facts.low.min()), float(facts.high.max())
    if is_float and (low < -0.001 or 1.001 < high < 2 or high > 255.5):
        got = f"values from {low:.4g} to {high:.4g}"
        advice = "rescale them, or store uint8"
        return [Problem("error", str(path), key, got, "float images in 0..1 or 0..255", advice)]
    return []


def check_black(path: Path, key: str, facts: FrameFacts, full: float, names: RowNames = RowNames()) -> list[Problem]:
    """Frames without light. `full`: the value of white."""
    black = np.flatnonzero(facts.high * (255 / full) <= BLACK)
    if not len(black):
        return []
    if len(black) == len(facts.high):
        advice = "look at the lens, the cable and the recorder, or leave the camera out of the file"
        return [Problem("error", str(path), key, f"all {len(black)} frames are black", "a picture", advice)]
    got = f"{len(black)} of {len(facts.high)} frames are black, {names.first(black[0])}{names.all_of(black.tolist())}"
    return [Problem("warning", str(path), key, got, "a picture in every frame", "drop the episodes they are in")]


def check_frozen(
    path: Path, key: str, facts: FrameFacts, state: Array | None, names: RowNames = RowNames()
) -> list[Problem]:
    """One picture for the whole of every episode file, or for a long stretch in which the state moves."""
    frames = len(facts.same)
    followers = frames - max(1, len(names.labels))  # the first frame of each file follows no other
    if 0 < followers == np.count_nonzero(facts.same):
        advice = "the camera hung or its first frame was copied: record again, or leave the camera out of the file"
        return [Problem("error", str(path), key, f"all {frames} frames are the same", "a picture that moves", advice)]
    stretches = [run for run in _runs(facts.same) if run[1] - run[0] >= FROZEN_FRAMES and _moves(state, *run)]
    if not stretches:
        return []
    start, stop = max(stretches, key=lambda run: run[1] - run[0])
    total = sum(stop - start for start, stop in stretches)
    got = (
        f"the picture stands still while the robot moves: {total} of {frames} frames, "
        f"the longest stretch {names.stretch(start, stop)}{names.all_of([run[0] for run in stretches])}"
    )
    return [Problem("warning", str(path), key, got, "a picture that moves", "drop the episodes they are in")]


def _runs(same: Array) -> list[tuple[int, int]]:
    """Stretches of equal frames as (first row, row after the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    return [(int(start) - 1, int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _moves(state: Array | None, start: int, stop: int) -> bool:
    """Whether some state axis covers a twentieth of its range in these rows; unknown counts as yes."""
    if state is None or len(state) < stop or not np.isfinite(state).all():
        return True
    span = np.ptp(state, axis=0)
    return bool(((np.ptp(state[start:stop], axis=0) > 0.05 * span) & (span > 0)).any())
