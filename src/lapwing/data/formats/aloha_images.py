"""Cameras and depth of ALOHA files: raw frames where they lie, and frames of JPEG bytes, zero-padded or not.

The JPEG bytes of every ALOHA dialect come from OpenCV, which was handed RGB arrays and took them for BGR: red and
blue are swapped in the picture, and `cv2.imdecode` swaps them back. So does this module, in both directions. What
another tool encoded with its colours in place looks just the same, and is read with red and blue swapped.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image, UnidentifiedImageError

from lapwing.data.formats.hdf5 import open_hdf5, read_array
from lapwing.data.formats.in_place import in_place
from lapwing.episode import Array, Frames
from lapwing.errors import DataError

_QUALITY = 50  # what Mobile ALOHA and act-plus-plus encode with
_UNDECODABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def camera_images(dataset: h5py.Dataset, last: h5py.Dataset | None) -> Frames | None:
    """A camera's frames, RGB uint8 [N, H, W, 3], read when indexed; None if the dataset is no camera.

    The dataset alone tells raw from JPEG, whatever the file's attribute `compress` says: [N, H, W, 3] uint8 is raw;
    [N, P] uint8 or N strings of bytes are JPEG. last: the frame after the last action as a dataset of one row.
    Raises DataError when the first or the last frame is no JPEG picture.
    """
    if dataset.ndim == 4 and dataset.dtype == np.uint8 and dataset.shape[3] == 3 and 0 not in dataset.shape[1:]:
        return stored_rows(dataset, last)
    return _jpeg_rows(dataset, last, "RGB") if _holds_bytes(dataset) else None


def depth_images(dataset: h5py.Dataset, last: h5py.Dataset | None) -> Frames | None:
    """A depth camera's frames [N, H, W] in the dataset's own type, or uint8 where they went through JPEG."""
    if dataset.ndim == 3 and dataset.dtype.kind in "uif":
        return stored_rows(dataset, last)
    return _jpeg_rows(dataset, last, "L") if _holds_bytes(dataset) else None


def stored_rows(dataset: h5py.Dataset, last: h5py.Dataset | None) -> Frames:
    """Rows of a dataset, and of `last` behind them, as they are, read when indexed."""
    plain = in_place(dataset) if last is None else in_place(dataset, last)
    if plain is not None:
        return plain
    return _Rows(*_source(dataset, last), (_length(dataset, last), *dataset.shape[1:]), dataset.dtype, None)


def _source(dataset: h5py.Dataset, last: h5py.Dataset | None) -> tuple[Path, str, str | None]:
    return Path(dataset.file.filename).absolute(), dataset.name, None if last is None else last.name


def _length(dataset: h5py.Dataset, last: h5py.Dataset | None) -> int:
    return len(dataset) + (last is not None)


def _holds_bytes(dataset: h5py.Dataset) -> bool:
    if dataset.ndim == 2:
        return bool(dataset.dtype == np.uint8)
    strings = h5py.check_string_dtype(dataset.dtype) is not None
    return dataset.ndim == 1 and (strings or h5py.check_vlen_dtype(dataset.dtype) == np.uint8)


def _jpeg_rows(dataset: h5py.Dataset, last: h5py.Dataset | None, mode: str) -> Frames:
    where = f"{dataset.file.filename}: '{dataset.name[1:]}'"
    sizes = {row: _probe(where, row, read_array(dataset, row)) for row in {0, len(dataset) - 1}}
    height, width = sizes[0]
    channels = (3,) if mode == "RGB" else ()
    shape = (_length(dataset, last), height, width, *channels)
    return _Rows(*_source(dataset, last), shape, np.dtype(np.uint8), mode)


def _probe(where: str, row: int, stored: Array) -> tuple[int, int]:
    """Height and width of a JPEG picture, after a decoding at an eighth of its size, which sees truncation too."""
    try:
        with Image.open(io.BytesIO(bytes(stored.item() if stored.ndim == 0 else stored)), formats=("JPEG",)) as picture:
            width, height = picture.size
            picture.draft("L", (max(1, width // 8), max(1, height // 8)))
            picture.load()
    except _UNDECODABLE as error:
        raise _undecodable(where, row, error) from error
    return height, width


def _undecodable(where: str, row: int, error: Exception) -> DataError:
    # Of bytes that are no picture Pillow tells where they lay in memory.
    reason = "no JPEG picture" if isinstance(error, UnidentifiedImageError) else error
    return DataError(f"{where}: frame {row} does not decode ({reason}), expected JPEG bytes; record or copy it again")


@dataclass(frozen=True)
class _Rows:
    """Rows of a dataset, and of the one-row dataset `last_key` behind them, for what cannot be read as plain bytes.

    mode: None for rows as they are; "RGB" or "L" for JPEG pictures with colours or without.
    """

    path: Path
    key: str
    last_key: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    mode: str | None

    def __getitem__(self, rows: Any, /) -> Array:
        wanted = np.arange(self.shape[0])[rows]
        out = np.empty((wanted.size, *self.shape[1:]), self.dtype)
        numbers = wanted.reshape(-1).tolist()
        with open_hdf5(self.path) as file:
            stored = [self._stored(file, number) for number in numbers]
        if self.mode is None:
            for place, row in enumerate(stored):
                out[place] = row
        else:
            with ThreadPoolExecutor() as pool:  # decoding runs outside Python's lock
                for _ in pool.map(self._decode, numbers, stored, out):
                    pass
        return out.reshape(*wanted.shape, *self.shape[1:])

    def _stored(self, file: h5py.File, row: int) -> Array:
        if self.last_key is not None and row == self.shape[0] - 1:
            return read_array(file[self.last_key], 0)
        return read_array(file[self.key], row)

    def _decode(self, row: int, stored: Array, out: Array) -> None:
        where = f"{self.path}: '{self.key[1:]}'"
        data = bytes(stored.item() if stored.ndim == 0 else stored)
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
                pixels = np.asarray(picture.convert(self.mode))
        except _UNDECODABLE as error:
            raise _undecodable(where, row, error) from error
        if pixels.shape != out.shape:
            raise DataError(f"{where}: frame {row} is {pixels.shape}, expected {out.shape}; record or copy it again")
        _swap_into(out, pixels)


def _swap_into(out: Array, pixels: Array) -> None:
    if pixels.ndim == 2:
        out[:] = pixels
    else:
        for channel in range(3):
            out[..., channel] = pixels[..., 2 - channel]


def encode_jpeg(frame: Array) -> bytes:
    """A frame, RGB uint8 [H, W, 3], as bytes that `cv2.imdecode` turns into an array of the same channel order."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame[..., ::-1])).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
