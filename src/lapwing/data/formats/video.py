"""Frames of a video file, decoded in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from lapwing.episode import Array, Frames
from lapwing.errors import DataError

_FAULTS = (av.error.FFmpegError, OSError, IndexError, ValueError)


def probe_video(path: Path, frames: int) -> None:
    """Raise DataError unless the file is a video whose header promises `frames` frames, or gives no count."""
    if not path.is_file():
        raise DataError("no such file")
    try:
        with av.open(str(path)) as container:
            promised = container.streams.video[0].frames
    except _FAULTS as error:
        raise DataError(f"not a readable video ({error})") from error
    if promised and promised != frames:
        raise DataError(f"{promised} frames, expected {frames}, one for each row")


class VideoFrames:
    """Frames of one video, uint8 RGB [T, H, W, 3], decoded when indexed and resized by area to `shape`.

    Reading forward decodes each frame once; reading backward starts at the first frame again. Raises DataError
    when the video cannot be decoded, ends early or goes on after T frames.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self.path = path
        self.shape = shape
        self._reformatter = VideoReformatter()
        self._decoder: Iterator[av.VideoFrame] = iter(())
        self._current: av.VideoFrame | None = None
        self._row = shape[0]

    def __getitem__(self, rows: Any, /) -> Array:
        wanted = np.arange(self.shape[0])[rows]
        flat = wanted.reshape(-1)
        out = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for place in np.argsort(flat, kind="stable"):
            self._seek(int(flat[place]))
            out[place] = self._pixels()
        return out.reshape(*wanted.shape, *self.shape[1:])

    def _seek(self, row: int) -> None:
        """Decode up to `row`; after the last row, make sure that nothing follows."""
        if row < self._row:
            self._decoder, self._row = _decode(self.path), -1
        try:
            while self._row < row:
                self._current = next(self._decoder)
                self._row += 1
                if self._current.is_corrupt:  # the decoder goes on and paints over the damage
                    raise DataError(f"{self.path}: frame {self._row} is damaged")
                if self._row == self.shape[0] - 1 and next(self._decoder, None) is not None:
                    raise DataError(f"{self.path}: more frames than {self.shape[0]} rows")
        except StopIteration:
            raise DataError(
                f"{self.path}: the video ends after {self._row + 1} frames, expected {self.shape[0]}"
            ) from None
        except _FAULTS as error:
            raise DataError(
                f"{self.path}: the video cannot be decoded after {self._row + 1} of {self.shape[0]} frames ({error})"
            ) from error

    def _pixels(self) -> Array:
        assert self._current is not None
        return _rgb(self._reformatter, self._current, self.shape[1], self.shape[2])


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield from container.decode(stream)


class ResizedFrames:
    """Frames of a recording, resized by area to `size` x `size` when indexed with a slice."""

    def __init__(self, frames: Frames, size: int) -> None:
        self.shape = (frames.shape[0], size, size, 3)
        self._frames = frames
        self._reformatter = VideoReformatter()

    def __getitem__(self, rows: Any, /) -> Array:
        frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(frame)) for frame in self._frames[rows]]
        return np.stack([_rgb(self._reformatter, frame, *self.shape[1:3]) for frame in frames])


def _rgb(reformatter: VideoReformatter, frame: av.VideoFrame, height: int, width: int) -> Array:
    pixels: Array = reformatter.reformat(frame, width, height, "rgb24", interpolation="AREA").to_ndarray()
    return pixels
