"""Pictures of what happened: rollouts as MP4 and as filmstrips."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from matplotlib.image import imsave

from lapwing.episode import Array
from lapwing.errors import ConfigError

GAP = 4  # pixels between the frames of a filmstrip


def side_by_side(images: Mapping[str, Array]) -> Array:
    """One frame of every camera, uint8 [H, W, 3] each -> one picture [H', C * W', 3].

    Every camera gets a tile of the largest height and width; smaller frames stand on black.
    """
    height = max(frame.shape[0] for frame in images.values())
    width = max(frame.shape[1] for frame in images.values())
    picture = np.zeros((height, len(images) * width, 3), np.uint8)
    for index, frame in enumerate(images.values()):
        picture[: frame.shape[0], index * width : index * width + frame.shape[1]] = frame
    return picture


def filmstrip(frames: Array, cameras: int = 1, columns: int = 12) -> Array:
    """Frames of one episode [T, H, C * W, 3] -> one picture: time to the right, one row per camera.

    At most `columns` frames, evenly spaced, the first and the last among them; gaps are transparent.
    Returns uint8 RGBA [C * (H + GAP) - GAP, columns * (W + GAP) - GAP, 4], so that strips can be stacked.
    """
    _, height, total, _ = frames.shape
    width = total // cameras
    picks = np.unique(np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int))
    strip = np.zeros((cameras * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for column, pick in enumerate(picks):
        for camera in range(cameras):
            top, left = camera * (height + GAP), column * (width + GAP)
            tile = strip[top : top + height, left : left + width]
            tile[..., :3] = frames[pick, :, camera * width : (camera + 1) * width]
            tile[..., 3] = 255
    return strip


def stack_strips(strips: Sequence[Array]) -> Array:
    """Filmstrips of equal width, one below the other, RGBA."""
    gap = np.zeros((4 * GAP, strips[0].shape[1], 4), np.uint8)
    return np.concatenate([part for strip in strips for part in (strip, gap)][:-1])


def png_bytes(picture: Array) -> bytes:
    """uint8 [H, W, 3 or 4] -> a PNG file."""
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(picture), format="png")
    return buffer.getvalue()


def write_video(path: Path, frames: Array, fps: float, min_height: int = 336) -> None:
    """Write uint8 RGB frames [T, H, W, 3] as an H.264 MP4 that any player shows.

    Small frames are enlarged by a whole factor to at least `min_height`; odd sizes lose nothing, they are padded
    by a pixel. The file appears at `path` when it is complete. Raises ConfigError where it cannot be written.
    """
    factor = max(1, -(-min_height // frames.shape[1]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the video: {error.strerror}; choose another place") from error
    beside = Path(name)
    try:
        _encode(beside, frames, factor, fps)
        beside.chmod(0o644)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _encode(path: Path, frames: Array, factor: int, fps: float) -> None:
    height, width = (frames.shape[1] * factor, frames.shape[2] * factor)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(1, round(fps)))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for frame in frames:
            picture = np.zeros((stream.height, stream.width, 3), np.uint8)
            picture[:height, :width] = frame.repeat(factor, 0).repeat(factor, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
