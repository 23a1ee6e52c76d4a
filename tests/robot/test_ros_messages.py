"""ROS messages as arrays. Messages are stand-ins with the fields of the real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lapwing.episode import Array
from lapwing.errors import DataError
from lapwing.robot import ros_messages

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)  # RGB


def image(data: Array, encoding: str, pad: int = 0, big_endian: bool = False) -> SimpleNamespace:
    rows = np.pad(data.view(np.uint8).reshape(data.shape[0], -1), ((0, 0), (0, pad)))
    return SimpleNamespace(
        height=data.shape[0],
        width=data.shape[1],
        encoding=encoding,
        is_bigendian=big_endian,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "channels", "stored"),
    [
        ("rgb8", None, PIXELS),
        ("bgr8", None, PIXELS[..., ::-1]),
        ("bgr8", "rgb", PIXELS[..., ::-1]),  # the message knows better than the map
        ("8UC3", "rgb", PIXELS),
        ("8UC3", "bgr", PIXELS[..., ::-1]),
    ],
)
def test_colours(encoding: str, channels: Any, stored: Array, pad: int) -> None:
    message = image(np.ascontiguousarray(stored), encoding, pad)
    assert ros_messages.image_size(message, channels) == (2, 3)
    np.testing.assert_array_equal(ros_messages.color_image(message, channels), PIXELS)


def test_grey_becomes_three_equal_colours() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(ros_messages.color_image(image(grey, "mono8"), None), np.stack([grey] * 3, -1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoding": "bayer_rggb8"}, "encoding 'bayer_rggb8', expected one of rgb8, bgr8, mono8, 8UC3"),
        ({"encoding": "8UC3"}, "8UC3 does not say the order of colours; add channels"),
        ({"data": np.zeros(17, np.uint8)}, "17 bytes for 2x3 pixels in rows of 9 bytes"),
        ({"step": 8, "data": np.zeros(16, np.uint8)}, "16 bytes for 2x3 pixels in rows of 8 bytes"),
        ({"height": 0, "data": np.zeros(0, np.uint8)}, "0 bytes for 0x3 pixels"),
    ],
)
def test_images_that_cannot_be_used(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ros_messages.color_image(SimpleNamespace(**{**vars(image(PIXELS, "rgb8")), **changes}), None)


def test_depth_in_both_byte_orders() -> None:
    depth = np.array([[1, 256, 65535], [3, 4, 5]], np.uint16)
    for order, stored in ((False, depth.astype("<u2")), (True, depth.astype(">u2"))):
        np.testing.assert_array_equal(ros_messages.depth_image(image(stored, "16UC1", 2, order)), depth)
    with pytest.raises(DataError, match="encoding '32FC1', expected 16UC1"):
        ros_messages.depth_image(image(depth, "32FC1"))


def test_a_compressed_image_of_another_kind() -> None:
    with pytest.raises(DataError, match="format 'webp', expected JPEG or PNG"):
        ros_messages.color_image(SimpleNamespace(format="webp", data=np.zeros(9, np.uint8)), None)


def test_joints_by_place_and_by_name() -> None:
    message = SimpleNamespace(name=["b", "a", "c"], position=np.array([1.0, 2.0, 3.0]), velocity=np.zeros(0))
    np.testing.assert_array_equal(ros_messages.joint_values(message, (), 3, "position"), [1, 2, 3])
    np.testing.assert_array_equal(ros_messages.joint_values(message, ("a", "b"), 2, "position"), [2, 1])
    assert ros_messages.joint_values(message, (), 3, "velocity") is None
    with pytest.raises(DataError, match="3 values of position, expected 2"):
        ros_messages.joint_values(message, (), 2, "position")
    with pytest.raises(DataError, match="no joint 'd' in the message, which has b, a, c"):
        ros_messages.joint_values(message, ("d",), 1, "position")
    message.position = message.position[:2]
    with pytest.raises(DataError, match="2 values of position for 3 joints"):
        ros_messages.joint_values(message, ("c",), 1, "position")


def test_base_velocity_of_every_type() -> None:
    twist = SimpleNamespace(linear=SimpleNamespace(x=1.5, y=9.0), angular=SimpleNamespace(x=9.0, z=-0.5))
    stamped = SimpleNamespace(twist=twist)
    for message in (twist, stamped, SimpleNamespace(twist=stamped)):
        np.testing.assert_array_equal(ros_messages.base_velocity(message), [1.5, -0.5])


def test_stamps() -> None:
    def message(seconds: int, nanoseconds: int) -> SimpleNamespace:
        return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds)))

    assert ros_messages.header_stamp(message(2, 3)) == 2_000_000_003
    assert ros_messages.header_stamp(message(0, 0)) is None  # the driver did not fill it
    assert ros_messages.header_stamp(SimpleNamespace()) is None
