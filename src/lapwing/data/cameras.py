"""Checks of camera frames, block by block: range, black frames, and pictures that stand still while the robot moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from lapwing.data.formats.hdf5 import read_array
from lapwing.data.problems import Problem
from lapwing.episode import Array

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


def check_camera(path: Path, key: str, dataset: h5py.Dataset, state: Array | None, progress: bool) -> list[Problem]:
    """All checks of one camera dataset [N, ...]. state [N, S] tells where the robot moved.

    Raises DataError when frames cannot be read.
    """
    facts = scan_frames(dataset, progress)
    problems = check_range(path, key, facts, is_float=dataset.dtype.kind == "f")
    if problems:
        return problems
    full = 1.0 if dataset.dtype.kind == "f" and facts.high.max() <= 1.001 else 255.0
    return check_black(path, key, facts, full) or check_frozen(path, key, facts, state)


def scan_frames(dataset: h5py.Dataset, progress: bool) -> FrameFacts:
    """Read a camera dataset once. Memory: one block, and 17 bytes a frame."""
    low, high = np.zeros(len(dataset)), np.zeros(len(dataset))
    same = np.zeros(len(dataset), bool)
    previous: Array | None = None
    for start, block in _blocks(dataset, progress):
        frames = block.reshape(len(block), -1)
        stop = start + len(frames)
        low[start:stop], high[start:stop] = frames.min(1), frames.max(1)
        if previous is not None:
            same[start] = np.array_equal(previous, frames[0])
        same[start + 1 : stop] = _repeats(frames)
        previous = frames[-1].copy()
    return FrameFacts(low, high, same)


def _blocks(dataset: h5py.Dataset, progress: bool) -> Iterator[tuple[int, Array]]:
    """Runs of whole frames, and whole chunks where the file is chunked: no chunk is unpacked twice."""
    frame_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    rows = max(1, _BLOCK_BYTES // frame_bytes)
    if dataset.chunks and dataset.chunks[0] * frame_bytes <= _CHUNK_BYTES:
        rows = max(1, rows // dataset.chunks[0]) * dataset.chunks[0]
    name = dataset.name.rpartition("/")[2]
    bar = tqdm(total=len(dataset), desc=name, unit="frame", delay=1, leave=False, disable=not progress)
    with bar:
        for start in range(0, len(dataset), rows):
            block = read_array(dataset, slice(start, start + rows))
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


def check_black(path: Path, key: str, facts: FrameFacts, full: float) -> list[Problem]:
    """Frames without light. `full`: the value of white."""
    black = np.flatnonzero(facts.high * (255 / full) <= BLACK)
    if not len(black):
        return []
    if len(black) == len(facts.high):
        advice = "look at the lens, the cable and the recorder, or leave the camera out of the file"
        return [Problem("error", str(path), key, f"all {len(black)} frames are black", "a picture", advice)]
    got = f"{len(black)} of {len(facts.high)} frames are black, first row {black[0]}"
    return [Problem("warning", str(path), key, got, "a picture in every frame", "drop the episodes they are in")]


def check_frozen(path: Path, key: str, facts: FrameFacts, state: Array | None) -> list[Problem]:
    """One picture for the whole file, or for a long stretch in which the state moves."""
    frames = len(facts.same)
    if frames > 1 and facts.same[1:].all():
        advice = "the camera hung or its first frame was copied: record again, or leave the camera out of the file"
        return [Problem("error", str(path), key, f"all {frames} frames are the same", "a picture that moves", advice)]
    stretches = [run for run in _runs(facts.same) if run[1] - run[0] >= FROZEN_FRAMES and _moves(state, *run)]
    if not stretches:
        return []
    start, stop = max(stretches, key=lambda run: run[1] - run[0])
    total = sum(stop - start for start, stop in stretches)
    got = (
        f"the picture stands still while the robot moves: {total} of {frames} frames, "
        f"the longest stretch rows {start} to {stop - 1}"
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
