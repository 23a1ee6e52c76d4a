"""Frames by row number, uint8, out of the recording's own bytes, mapped or read, or out of a packed cache of them."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch.nn.functional import interpolate
from tqdm import tqdm

from lapwing.data.formats.in_place import InPlace, join
from lapwing.episode import Array, Recording
from lapwing.errors import DataError
from lapwing.spec import Camera

_BLOCK_BYTES = 32 << 20
_FINGERPRINT_BLOCKS = 16


class FrameStore:
    """All frames of a recording. Row r is the r-th observation, counted over the episodes in order.

    cameras: the names and the sizes of the frames that `gather` returns; row_of_episode: int64 [episodes], the
    first row of each. Resident memory does not grow with the recording: the pages belong to the file cache,
    and processes share them.
    """

    def __init__(
        self, cameras: tuple[Camera, ...], arrays: Mapping[str, Array | InPlace], row_of_episode: Array
    ) -> None:
        self.cameras = cameras
        self.row_of_episode = row_of_episode
        self._arrays = arrays

    @staticmethod
    def open(
        recording: Recording, size: int | None = None, cache_dir: Path | None = None, progress: bool = True
    ) -> FrameStore:
        """Use the frames where they lie if they are uint8, plain bytes and size x size; else build a cache once.

        size: pixels, None for the recorded size. cache_dir: by default lapwing/frames in the user's cache folder.
        Raises DataError when the cache cannot be written.
        """
        cameras = tuple(
            camera if size is None else Camera(camera.name, size, size) for camera in recording.spec.cameras
        )
        lengths = np.array([episode.num_rows for episode in recording.episodes], np.int64)
        arrays = {camera: _where_they_lie(recording, camera) for camera in cameras}
        missing = [camera for camera in cameras if arrays[camera] is None]
        if missing:
            arrays.update(_cached(recording, missing, cache_dir or _default_cache(), progress))
        ready = {camera.name: array for camera, array in arrays.items() if array is not None}
        return FrameStore(cameras, ready, lengths.cumsum() - lengths)

    def begin_at(self, row: int) -> FrameStore:
        """The same frames, of which each episode begins `row` rows later."""
        return FrameStore(self.cameras, self._arrays, self.row_of_episode + row)

    def gather(self, camera: str, rows: Array) -> Array:
        """Copy rows (int64 [B]) of one camera: uint8 [B, H, W, 3], contiguous."""
        frames = self._arrays[camera]
        if isinstance(frames, InPlace):
            return frames[rows]
        if frames.flags.c_contiguous:
            return frames.take(rows, axis=0)
        pixels = np.empty((len(rows), *frames.shape[1:]), np.uint8)
        for place, row in enumerate(rows):
            for channel in range(3):  # three times as fast as pixel by pixel, in a piece that fits the cache
                pixels[place, ..., channel] = frames[row, ..., channel]
        return pixels


def _where_they_lie(recording: Recording, camera: Camera) -> Array | InPlace | None:
    mapped = _mapped(recording, camera)
    return _in_files(recording, camera) if mapped is None else mapped


def _mapped(recording: Recording, camera: Camera) -> Array | None:
    """One camera's frames as one array where they lie, or None if they are not that.

    They are when they are uint8, of the size asked for, and follow each other in memory, as the slices of one
    memory map do.
    """
    parts = [episode.images[camera.name] for episode in recording.episodes]
    arrays = [part for part in parts if isinstance(part, np.ndarray) and part.dtype == np.uint8]
    first = arrays[0] if len(arrays) == len(parts) else None
    if first is None or first.shape[1:] != (camera.height, camera.width, 3):
        return None
    address = first.ctypes.data
    for array in arrays:
        if array.base is not first.base or array.ctypes.data != address or array.strides != first.strides:
            return None
        address += len(array) * first.strides[0]
    return as_strided(first, (sum(map(len, arrays)), *first.shape[1:]), writeable=False)


def _in_files(recording: Recording, camera: Camera) -> InPlace | None:
    """One camera's frames as plain bytes of one file or many, or None if some are not that."""
    parts = [episode.images[camera.name] for episode in recording.episodes]
    plain = [part for part in parts if isinstance(part, InPlace) and part.dtype == np.uint8]
    item = (camera.height, camera.width, 3)
    return join(plain) if len(plain) == len(parts) and all(part.item == item for part in plain) else None


def resize(frames: Array, height: int, width: int) -> Array:
    """Frames uint8 [B, H, W, 3] at another size: antialiased bilinear, each side scaled by itself."""
    if frames.shape[1:3] == (height, width):
        return frames
    planes = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)
    scaled = interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lapwing" / "frames"


def _cached(recording: Recording, cameras: Sequence[Camera], cache_dir: Path, progress: bool) -> dict[Camera, Array]:
    try:
        folder = cache_dir / _fingerprint(recording, cameras)
        cache_dir.mkdir(parents=True, exist_ok=True)
        # Of several processes one builds and the others wait; the lock goes with its process.
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _build(recording, cameras, folder, progress)
        return {camera: np.load(folder / _file_name(camera), mmap_mode="r") for camera in cameras}
    except OSError as error:
        raise DataError(
            f"{cache_dir}: the frame cache cannot be built ({error}); free some space, or set XDG_CACHE_HOME to a "
            "folder with room"
        ) from error


def _build(recording: Recording, cameras: Sequence[Camera], folder: Path, progress: bool) -> None:
    draft = folder.with_suffix(".partial")
    shutil.rmtree(draft, ignore_errors=True)  # what a killed build left
    rows = sum(episode.num_rows for episode in recording.episodes)
    needed, free = rows * sum(3 * one.height * one.width for one in cameras), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise OSError(f"it takes {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free")
    draft.mkdir()
    total = len(cameras) * rows
    try:
        with tqdm(total=total, desc="frame cache", unit="frame", disable=not progress) as bar:
            for camera in cameras:
                _pack(recording, camera, draft / _file_name(camera), bar)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _pack(recording: Recording, camera: Camera, path: Path, bar: tqdm) -> None:
    parts = [episode.images[camera.name] for episode in recording.episodes]
    shape = (sum(part.shape[0] for part in parts), camera.height, camera.width, 3)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            block = max(1, _BLOCK_BYTES // math.prod(part.shape[1:]))
            for start in range(0, part.shape[0], block):
                frames = resize(part[start : start + block], camera.height, camera.width)
                file.write(np.ascontiguousarray(frames).data)
                bar.update(len(frames))


def _file_name(camera: Camera) -> str:
    return f"{quote(camera.name, safe='')}.npy"


def _fingerprint(recording: Recording, cameras: Sequence[Camera]) -> str:
    """A name for these frames that follows the recording's content, not its place."""
    digest = hashlib.sha256(repr((recording.layout, cameras)).encode())
    for episode in recording.episodes:
        digest.update(repr([(name, part.shape) for name, part in episode.images.items()]).encode())
    path = recording.path
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            _digest_file(file, digest)
    return digest.hexdigest()[:24]


def _digest_file(path: Path, digest: hashlib._Hash) -> None:
    """Size, time of change and a few blocks spread over the file: enough to notice that it was rewritten."""
    status = path.stat()
    digest.update(repr((status.st_size, status.st_mtime_ns)).encode())
    with path.open("rb") as file:
        for offset in np.linspace(0, max(0, status.st_size - 4096), _FINGERPRINT_BLOCKS).astype(int):
            file.seek(int(offset))
            digest.update(file.read(4096))
