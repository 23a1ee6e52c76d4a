"""ROS messages as arrays: images, depth, joints, base velocity. Each function checks what it decodes."""

from __future__ import annotations

from typing import Any, Literal, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from lapwing.episode import Array
from lapwing.errors import DataError

Channels = Literal["rgb", "bgr"]
Kind = Literal["image", "depth", "joints", "base", "mark"]

NANOSECONDS = 1_000_000_000
TYPES: dict[Kind, tuple[str, ...]] = {
    "image": ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"),
    "depth": ("sensor_msgs/msg/Image",),
    "joints": ("sensor_msgs/msg/JointState",),
    "base": ("nav_msgs/msg/Odometry", "geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/Twist"),
    "mark": ("std_msgs/msg/Bool",),
}
_ORDERS: dict[str, Channels | None] = {"rgb8": "rgb", "bgr8": "bgr", "8UC3": None}
_ENCODINGS = "rgb8, bgr8, mono8, 8UC3 (with channels in the map)"
_CODECS = {b"\xff\xd8": "mjpeg", b"\x89P": "png"}


def header_stamp(message: Any) -> int | None:
    """When the sender says that the message was made, in nanoseconds; None where it does not say."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    stamp = int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)
    return stamp or None  # drivers that fill no header leave it at zero


def image_size(message: Any, channels: Channels | None) -> tuple[int, int]:
    """Height and width of a colour image, after the checks that need no decoding of a raw one."""
    if hasattr(message, "encoding"):
        _raw_pixels(message, channels)
        return int(message.height), int(message.width)
    height, width, _ = _uncompressed(message).shape
    return height, width


def color_image(message: Any, channels: Channels | None) -> Array:
    """An Image or CompressedImage as uint8 [H, W, 3] RGB. `channels`: what 8UC3 means, which does not say it."""
    if not hasattr(message, "encoding"):
        return _uncompressed(message)
    pixels = _raw_pixels(message, channels)
    if message.encoding == "mono8":
        return np.repeat(pixels, 3, axis=2)
    order = _ORDERS[message.encoding] or channels
    return np.ascontiguousarray(pixels if order == "rgb" else pixels[..., ::-1])


def depth_size(message: Any) -> tuple[int, int]:
    """Height and width of a depth image, after all checks."""
    height, width = depth_image(message).shape
    return height, width


def depth_image(message: Any) -> Array:
    """An Image of encoding 16UC1 (or mono16, the same) as uint16 [H, W], in the camera's unit."""
    if message.encoding not in ("16UC1", "mono16"):
        raise DataError(
            f"encoding {message.encoding!r}, expected 16UC1; record depth as 16UC1 or take it out of the map"
        )
    values = _rows(message, 2).view(">u2" if message.is_bigendian else "<u2")
    return np.ascontiguousarray(values, np.uint16)


def _raw_pixels(message: Any, channels: Channels | None) -> Array:
    """Pixels in the order of the message, uint8 [H, W, 1 or 3]."""
    encoding = message.encoding
    if encoding != "mono8" and encoding not in _ORDERS:
        raise DataError(f"encoding {encoding!r}, expected one of {_ENCODINGS}; record it in one of these")
    if encoding == "8UC3" and channels is None:
        raise DataError('encoding 8UC3 does not say the order of colours; add channels = "rgb" or "bgr" to the map')
    depth = 1 if encoding == "mono8" else 3
    return _rows(message, depth).reshape(message.height, message.width, depth)


def _rows(message: Any, pixel_bytes: int) -> Array:
    """Bytes of the pixels, uint8 [H, W * pixel_bytes], without what pads each row."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    if not height or not width or step < width * pixel_bytes or len(message.data) != height * step:
        raise DataError(
            f"{len(message.data)} bytes for {height}x{width} pixels in rows of {step} bytes; the message is damaged"
        )
    return np.ascontiguousarray(message.data.reshape(height, step)[:, : width * pixel_bytes])


def _uncompressed(message: Any) -> Array:
    """The pixels of a JPEG or PNG, told by its first bytes: what senders write into `format` varies."""
    data = message.data.tobytes()
    codec = _CODECS.get(data[:2])
    if codec is None:
        raise DataError(
            f"compressed image of format {message.format!r}, expected JPEG or PNG; record it in one of these"
        )
    try:
        decoder = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
        decoder.options = {"err_detect": "explode"}
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
        if len(frames) != 1:
            raise ValueError(f"{len(frames)} frames")
        pixels: Array = frames[0].to_ndarray(format="rgb24")
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(f"compressed image does not decode ({error}); leave this bag out or cut it") from error
    return pixels


def joint_values(message: Any, joints: tuple[str, ...], count: int, field: str) -> Array | None:
    """`field` (position, velocity or effort) of `count` joints of a JointState; None where it was left empty.

    joints: their names in the message, in our order; empty takes the first ones as they come, which must be all.
    """
    values = np.asarray(getattr(message, field), np.float64)
    if not len(values):
        return None
    if joints:
        missing = [name for name in joints if name not in message.name]
        if missing:
            raise DataError(
                f"no joint {missing[0]!r} in the message, which has {', '.join(message.name) or 'no names'}"
            )
        rows = [message.name.index(name) for name in joints]
        if max(rows) >= len(values):
            raise DataError(f"{len(values)} values of {field} for {len(message.name)} joints; the message is damaged")
        return values[rows]
    if len(values) != count:
        raise DataError(
            f"{len(values)} values of {field}, expected {count} as the map has axes; mend axes or set joints"
        )
    return values


def base_velocity(message: Any) -> Array:
    """Forward speed and turning rate of an Odometry, Twist or TwistStamped, float64 [2] in m/s and rad/s."""
    twist = message
    while hasattr(twist, "twist"):  # Odometry: twist.twist, for it has a covariance too
        twist = twist.twist
    return np.array([twist.linear.x, twist.angular.z], np.float64)
