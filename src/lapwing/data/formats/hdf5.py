"""HDF5 at the border: opening a file with a clear error, and camera datasets as frames."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from lapwing.episode import Array, Frames
from lapwing.errors import DataError

ImageLayout = Literal["auto", "nhwc", "nchw"]

_PROBED_FRAMES = 32


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading. Raises DataError when it is missing, empty, truncated or something else."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise DataError(f"{path}: found {found}, expected an HDF5 file; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes), expected HDF5; record or copy it again")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: {_explanation(path, str(error))}") from error


def _explanation(path: Path, reason: str) -> str:
    if not os.access(path, os.R_OK):
        return "no permission to read it; change the file's permissions"
    if "truncated" in reason:
        return f"the HDF5 file is truncated ({path.stat().st_size} bytes are there); copy or record it again"
    if "signature" in reason:
        return "not an HDF5 file, whatever its name says; expected an HDF5 recording"
    return f"the HDF5 file is damaged ({reason}); copy or record it again"


def open_sound_hdf5(path: Path) -> h5py.File:
    """`open_hdf5`, and every group and dataset header in the file can be read. Raises DataError."""
    file = open_hdf5(path)
    try:
        file.visititems(_look_at)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        file.close()
        raise DataError(f"{path}: the HDF5 file is damaged ({error}); copy or record it again") from error
    return file


def _look_at(name: str | bytes, child: h5py.Group | h5py.Dataset) -> None:
    if not isinstance(name, str):
        raise ValueError(f"the name {name!r} is not text")
    if isinstance(child, h5py.Dataset):
        _ = child.shape, child.dtype


def child_of(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """An entry of a group; None where it is missing, a broken link, unreadable or neither group nor dataset."""
    try:
        child = group[name]
    except (KeyError, OSError, RuntimeError):
        return None
    return child if isinstance(child, h5py.Group | h5py.Dataset) else None


def read_array(dataset: h5py.Dataset, rows: Any = ()) -> Array:
    """Read a dataset, or rows of it. Raises DataError when its bytes cannot be read."""
    try:
        return np.asarray(dataset[rows])
    except OSError as error:
        raise DataError(f"{_where(dataset)} cannot be read ({error}); the file is damaged, copy it again") from error


def float32(values: Array) -> Array:
    """Numbers as they are trained on; what float32 cannot hold becomes infinite, for the checks to find."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def camera_frames(dataset: h5py.Dataset, image_layout: ImageLayout = "auto") -> Frames:
    """One camera's 4-d dataset as uint8 [N, H, W, 3] frames, in place.

    Contiguous uint8 becomes a memory map (a transposed view of it where channels come first); anything else
    is read, and float images converted, when indexed. Raises DataError when it cannot be images.
    """
    if 0 in dataset.shape[1:]:
        raise DataError(f"{_where(dataset)} has shape {dataset.shape}, expected frames with pixels; record it again")
    channels_first = _channels_first(dataset, image_layout)
    if dataset.dtype != np.uint8 and dataset.dtype.kind != "f":
        raise DataError(f"{_where(dataset)} is {dataset.dtype}, expected uint8 or float images; convert it")
    mapped = _memory_map(dataset)
    if mapped is not None:
        return mapped.transpose(0, 2, 3, 1) if channels_first else mapped
    scale = None if dataset.dtype == np.uint8 else _float_scale(dataset)
    return StoredFrames(_Handle(dataset), 0, len(dataset), channels_first, scale)


def _where(dataset: h5py.Dataset) -> str:
    return f"{dataset.file.filename}: '{dataset.name.lstrip('/')}'"


def _channels_first(dataset: h5py.Dataset, image_layout: ImageLayout) -> bool:
    shape = dataset.shape
    last, first = shape[3] == 3, shape[1] == 3
    if image_layout == "auto" and last and first:
        raise DataError(f"{_where(dataset)} {shape} may be NHWC or NCHW; say which with --image-layout nhwc or nchw")
    if image_layout == "nchw" and not first:
        raise DataError(f"{_where(dataset)} has shape {shape}, expected [N, 3, H, W]; try --image-layout auto")
    if image_layout == "nhwc" and not last:
        raise DataError(f"{_where(dataset)} has shape {shape}, expected [N, H, W, 3]; try --image-layout auto")
    if not (last or first):
        raise DataError(f"{_where(dataset)} has shape {shape}, expected [N, H, W, 3] or [N, 3, H, W]; store RGB")
    return first if image_layout == "auto" else image_layout == "nchw"


def _memory_map(dataset: h5py.Dataset) -> Array | None:
    offset = dataset.id.get_offset()  # None unless the data lie in the file in one piece
    if dataset.dtype != np.uint8 or offset is None or dataset.external:
        return None
    if offset + dataset.nbytes > Path(dataset.file.filename).stat().st_size:
        raise DataError(f"{_where(dataset)} reaches beyond the file's end; the file is damaged, copy it again")
    return np.memmap(dataset.file.filename, np.uint8, "r", offset, dataset.shape)


def _float_scale(dataset: h5py.Dataset) -> float:
    """The factor that brings float images to 0..255, decided once from frames spread evenly over the dataset."""
    count = min(_PROBED_FRAMES, len(dataset))
    rows = np.unique(np.linspace(0, len(dataset) - 1, count).astype(np.int64))
    probe = np.stack([read_array(dataset, int(row)) for row in rows])
    _expect_finite(dataset, probe)
    low, high = float(probe.min()), float(probe.max())
    if low < -1e-3 or high > 255.5:
        raise DataError(f"{_where(dataset)} ranges over {low:.4g}..{high:.4g}, expected 0..1 or 0..255; rescale it")
    return 255.0 if high <= 1.0 + 1e-3 else 1.0


def _expect_finite(dataset: h5py.Dataset, frames: Array) -> None:
    if not np.isfinite(frames).all():
        raise DataError(f"{_where(dataset)} has pixels that are NaN or infinite, expected numbers; repair the frames")


class _Handle:
    """A dataset opened once per process, when first read: an HDF5 handle must not cross a fork."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._path, self._key = Path(dataset.file.filename).absolute(), dataset.name
        self._process = -1
        self._dataset: h5py.Dataset | None = None
        self.shape: tuple[int, ...] = dataset.shape

    def open(self) -> h5py.Dataset:
        if self._process != os.getpid():
            self._dataset, self._process = open_hdf5(self._path)[self._key], os.getpid()
        return self._dataset


@dataclass(frozen=True)
class StoredFrames:
    """Rows `start` to `stop` of a camera dataset that cannot be memory-mapped, read when indexed.

    `scale` brings float images to 0..255 and is None where they are uint8 already.
    """

    handle: _Handle = field(repr=False)
    start: int
    stop: int
    channels_first: bool
    scale: float | None

    @property
    def shape(self) -> tuple[int, ...]:
        _, *size = self.handle.shape
        height, width = size[1:] if self.channels_first else size[:2]
        return (self.stop - self.start, height, width, 3)

    def part(self, start: int, stop: int) -> StoredFrames:
        """The frames of one episode."""
        return StoredFrames(self.handle, self.start + start, self.start + stop, self.channels_first, self.scale)

    def __getitem__(self, rows: Any, /) -> Array:
        wanted = np.arange(self.start, self.stop)[rows]
        # HDF5 reads increasing, unique rows only; a plain slice is its fast path.
        unique, inverse = np.unique(wanted, return_inverse=True)
        if len(unique) == 0:
            return np.zeros((0, *self.shape[1:]), np.uint8)
        dense = unique[-1] - unique[0] + 1 == len(unique)
        frames = self._read(slice(unique[0], unique[-1] + 1) if dense else unique)
        return frames[inverse.reshape(wanted.shape)]

    def _read(self, rows: Any) -> Array:
        dataset = self.handle.open()
        frames = read_array(dataset, rows)
        if self.scale is not None:
            _expect_finite(dataset, frames)
            frames = np.clip(np.rint(frames * self.scale), 0, 255).astype(np.uint8)
        return frames.transpose(0, 2, 3, 1) if self.channels_first else frames
