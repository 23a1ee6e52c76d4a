"""Bags that are written here, ROS 1 and ROS 2, and what is read of them."""

from __future__ import annotations

import io
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lapwing.cli import main
from lapwing.data.formats import read_recording
from lapwing.episode import Array
from lapwing.errors import DataError
from lapwing.robot import ros_messages
from lapwing.robot.bag_scan import is_bag
from lapwing.robot.ros_bag import read_bags
from lapwing.robot.topics import TopicMap, read_topics

pytest.importorskip("rosbags", reason='needs the rosbags package: pip install -e ".[ros]"')

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

MAP = """
name = "small"
rate_hz = 10
[sync]
max_skew_ms = 60
[cameras.front]
topic = "/front"
[cameras.wrist]
topic = "/wrist"
[depth.front]
topic = "/front_depth"
optional = true
[state.arm]
topic = "/follower"
axes = ["shoulder", "gripper"]
grippers = ["gripper"]
[action.arm]
topic = "/leader"
axes = ["shoulder", "gripper"]
choice = "interpolated"
[base]
topic = "/odom"
optional = true
"""
START = 1_700_000_000 * 10**9
MS = 10**6
SIZE = (6, 8)
KINDS = ("ros1", "sqlite3", "mcap")


@dataclass
class Script:
    """Messages of a bag to be: topic -> (received, type, fields), times in nanoseconds."""

    kind: str = "ros1"
    topics: dict[str, list[tuple[int, str, dict[str, Any]]]] = field(default_factory=dict)

    def say(self, topic: str, kind: str, stamp_ms: float, received_ms: float | None = None, **fields: Any) -> None:
        """One message; its header, where the type has one, holds the stamp."""
        stamp = START + round(stamp_ms * MS)
        received = stamp + 3 * MS if received_ms is None else START + round(received_ms * MS)
        if kind != "std_msgs/msg/Bool":
            fields["header"] = stamp
        self.topics.setdefault(topic, []).append((received, kind, fields))

    def image(self, topic: str, stamp_ms: float, pixels: Array, encoding: str = "rgb8", pad: int = 0) -> None:
        rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
        data = np.pad(rows, ((0, 0), (0, pad)), constant_values=99)
        height, width = pixels.shape[:2]
        fields = {"height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": data.shape[1]}
        self.say(topic, "sensor_msgs/msg/Image", stamp_ms, data=data.reshape(-1), frame_id="", **fields)

    def joints(self, topic: str, stamp_ms: float, values: list[float], received_ms: float | None = None) -> None:
        fields = {"name": ["a", "b"], "position": values, "velocity": [v + 1 for v in values], "effort": []}
        fields = {key: np.array(one, float) if key != "name" else one for key, one in fields.items()}
        self.say(topic, "sensor_msgs/msg/JointState", stamp_ms, received_ms, **fields)

    def write(self, path: Path) -> Path:
        store = get_typestore(Stores.ROS1_NOETIC if self.kind == "ros1" else Stores.ROS2_HUMBLE)
        every = sorted(
            ((received, topic, kind, fields) for topic, said in self.topics.items() for received, kind, fields in said),
            key=lambda message: message[0],
        )
        with self._writer(path) as writer:
            connections = {
                topic: writer.add_connection(topic, said[0][1], typestore=store) for topic, said in self.topics.items()
            }
            for received, topic, kind, fields in every:
                message = self._message(store, kind, fields)
                to_bytes = store.serialize_ros1 if self.kind == "ros1" else store.serialize_cdr
                writer.write(connections[topic], received, to_bytes(message, kind))
        return path

    def _writer(self, path: Path) -> Any:
        if self.kind == "ros1":
            return Writer1(path)
        return Writer2(path, version=9, storage_plugin=StoragePlugin[self.kind.upper()])

    def _message(self, store: Any, kind: str, fields: Mapping[str, Any]) -> Any:
        fields = {key: value for key, value in fields.items() if key != "frame_id"}
        if "header" in fields:
            seconds, nanoseconds = divmod(fields["header"], 10**9)
            stamp = store.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
            number = {"seq": 0} if self.kind == "ros1" else {}
            fields["header"] = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="", **number)
        if kind == "nav_msgs/msg/Odometry":
            return _odometry(store, fields)
        return store.types[kind](**fields)


def _odometry(store: Any, fields: Mapping[str, Any]) -> Any:
    def make(name: str, **parts: Any) -> Any:
        return store.types[f"geometry_msgs/msg/{name}"](**parts)

    zero = make("Vector3", x=0.0, y=0.0, z=0.0)
    pose = make(
        "Pose", position=make("Point", x=0.0, y=0.0, z=0.0), orientation=make("Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    )
    linear, angular = (
        make("Vector3", **{**vars(zero), axis: fields[name]}) for axis, name in (("x", "speed"), ("z", "turn"))
    )
    return store.types["nav_msgs/msg/Odometry"](
        header=fields["header"],
        child_frame_id="base",
        pose=make("PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
        twist=make("TwistWithCovariance", twist=make("Twist", linear=linear, angular=angular), covariance=np.zeros(36)),
    )


def picture(number: int, camera: int) -> Array:
    """Red tells the message, green the camera, blue is 7."""
    return np.full((*SIZE, 3), (10 * number, camera, 7), np.uint8)


def script(kind: str = "ros1", rows: int = 6, depth: bool = False, base: bool = False) -> Script:
    """Cameras at 10 Hz, the wrist 5 ms later; arms at 50 Hz whose shoulder is the time in seconds."""
    said = Script(kind)
    for number in range(rows):
        said.image("/front", 100 * number, picture(number, 1))
        said.image("/wrist", 100 * number + 5, picture(number, 2)[..., ::-1], "bgr8", pad=3)
        if depth:
            said.image("/front_depth", 100 * number + 1, np.full(SIZE, 1000 + number, np.uint16), "16UC1")
    for tick in range(-1, 5 * rows + 1):
        said.joints("/follower", 20 * tick + 4, [0.02 * tick + 0.004, 1.0])
        said.joints("/leader", 20 * tick + 7, [0.02 * tick + 0.007, 0.5])
        if base:
            said.say("/odom", "nav_msgs/msg/Odometry", 20 * tick, speed=0.1 * tick, turn=-0.5)
    return said


@pytest.fixture
def topics(tmp_path: Path) -> Callable[..., TopicMap]:
    """The map above, or with a part of its text replaced."""

    def make(*changes: tuple[str, str]) -> TopicMap:
        return read_topics(str(map_file(tmp_path, *changes)))

    return make


def map_file(folder: Path, *changes: tuple[str, str]) -> Path:
    text = MAP
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "map.toml"
    path.write_text(text)
    return path


def bag_path(folder: Path, kind: str) -> Path:
    return folder / ("take.bag" if kind == "ros1" else "take")


@pytest.mark.parametrize("kind", KINDS)
def test_reads_what_was_said(kind: str, tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = script(kind, depth=True, base=True).write(bag_path(tmp_path, kind))
    assert is_bag(path)
    assert is_bag(tmp_path)
    recording = read_bags(path, topics(), progress=False)
    (episode,) = recording.episodes
    assert episode.num_steps == 5
    assert episode.num_rows == 6
    np.testing.assert_allclose(np.diff(episode.time), 0.1, atol=1e-6)
    for number, camera in enumerate(("front", "wrist"), 1):
        np.testing.assert_array_equal(episode.images[camera][:], [picture(row, number) for row in range(6)])
    np.testing.assert_array_equal(episode.sensors["depth_front"][2:4][:, 0, 0], [1002, 1003])
    # The nearest follower message is 4 ms after the row; the leader's are interpolated to the row itself.
    np.testing.assert_allclose(episode.state[:, 0], 0.1 * np.arange(6) + 0.004, atol=1e-6)
    np.testing.assert_allclose(episode.action[:, 0], 0.1 * np.arange(5), atol=1e-6)
    np.testing.assert_allclose(episode.sensors["velocity"], np.asarray(episode.state) + 1, atol=1e-6)
    assert "effort" not in episode.sensors  # the messages leave it empty
    np.testing.assert_allclose(episode.sensors["base_velocity"][:, 0], 0.5 * np.arange(6), atol=1e-6)
    np.testing.assert_allclose(episode.action[:, 2:], episode.sensors["base_velocity"][:-1])
    assert [axis.kind for axis in recording.spec.action] == ["arm", "arm", "base", "base"]
    np.testing.assert_allclose(episode.sensors["stamp_wrist"] - episode.time, 0.005, atol=1e-6)
    assert episode.meta["wrist_skew_max_ms"] == pytest.approx(5, abs=0.01)
    assert episode.meta["start_time"] == pytest.approx(START / 1e9, abs=0.1)
    assert recording.spec.rate_hz == 10


def test_a_bag_from_before_messages_described_themselves(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = script("sqlite3").write(tmp_path / "take")
    with closing(sqlite3.connect(path / "take.db3")) as database:
        database.executescript("DROP TABLE message_definitions; UPDATE schema SET schema_version = 3")
    assert read_bags(path, topics(), progress=False).num_steps == 5


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
def test_a_file_of_a_bag_alone(kind: str, tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = script(kind).write(tmp_path / "take")
    (path / "metadata.yaml").unlink()
    assert read_bags(path, topics(), progress=False).num_steps == 5


def test_optional_topics_may_be_absent(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    recording = read_bags(script().write(tmp_path / "take.bag"), topics(), progress=False)
    assert recording.spec.action_dim == 2
    assert not {"base_velocity", "depth_front"} & set(recording.episodes[0].sensors)


def test_a_base_that_is_a_sensor_alone(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = script(base=True).write(tmp_path / "take.bag")
    recording = read_bags(path, topics(("/odom", '/odom"\nuse = "sensor')), progress=False)
    assert recording.spec.action_dim == 2
    assert recording.episodes[0].sensors["base_velocity"].shape == (6, 2)


def test_a_lost_frame_is_bridged_or_its_row_dropped(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    del said.topics["/wrist"][2]
    path = said.write(tmp_path / "take.bag")
    strict = read_bags(path, topics(), progress=False)
    assert strict.episodes[0].num_rows == 5
    assert strict.episodes[0].meta["dropped_rows"] == strict.episodes[0].meta["wrist_missed"] == 1
    assert "5 rows kept, 1 dropped" in strict.notes[0]
    lenient = read_bags(path, topics(("= 60", "= 110")), progress=False).episodes[0]
    assert lenient.num_rows == 6
    assert lenient.meta["wrist_duplicated"] == 1
    np.testing.assert_array_equal(lenient.images["wrist"][1:4][:, 0, 0, 0], [10, 10, 30])


def test_frames_in_any_order(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    (episode,) = read_bags(script().write(tmp_path / "take.bag"), topics(), progress=False).episodes
    frames = episode.images["front"]
    for rows in ([5, 0, 3, 3], [1], slice(4, 1, -1), slice(0, 0)):
        np.testing.assert_array_equal(frames[rows][:, 0, 0, 0], 10 * np.arange(6)[rows])
    assert frames[-1].shape == (*SIZE, 3)


def test_messages_received_at_one_time_are_told_apart(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script("sqlite3")
    said.topics["/front"] = [(START, *rest) for _, *rest in said.topics["/front"]]
    (episode,) = read_bags(said.write(tmp_path / "take"), topics(), progress=False).episodes
    np.testing.assert_array_equal(episode.images["front"][[4, 1, 5]][:, 0, 0, 0], [40, 10, 50])


def test_images_are_not_held(tmp_path: Path, topics: Callable[..., TopicMap], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    decode = ros_messages.color_image
    monkeypatch.setattr(ros_messages, "color_image", lambda *given: decoded.append(1) or decode(*given))
    (episode,) = read_bags(script().write(tmp_path / "take.bag"), topics(), progress=False).episodes
    assert not decoded
    for row in range(6):
        assert episode.images["front"][row][0, 0, 0] == 10 * row
    assert len(decoded) == 6


def test_rows_on_a_grid(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = script().write(tmp_path / "take.bag")
    recording = read_bags(path, topics(("[sync]", '[sync]\nreference = "grid"'), ("= 10", "= 20")), progress=False)
    assert recording.num_steps == 10  # of 11 rows, from 0 to 500 ms
    np.testing.assert_allclose(np.diff(recording.episodes[0].time), 0.05, atol=1e-9)


def test_marks_cut_a_bag_into_episodes(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script(rows=12)
    for stamp_ms, on in ((150, True), (180, True), (450, False), (500, False), (750, True)):
        said.say("/recording", "std_msgs/msg/Bool", stamp_ms, stamp_ms, data=on)
    path = said.write(tmp_path / "take.bag")
    recording = read_bags(path, topics(("[base]", '[episodes]\ntopic = "/recording"\n[base]')), progress=False)
    first, second = recording.episodes
    np.testing.assert_array_equal(first.images["front"][:][:, 0, 0, 0], [20, 30, 40])
    np.testing.assert_array_equal(second.images["front"][:][:, 0, 0, 0], [80, 90, 100, 110])


def test_a_stream_without_header_stamps_goes_by_the_bag(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    said.topics["/follower"] = [
        (received, kind, {**fields, "header": 0}) for received, kind, fields in said.topics["/follower"]
    ]
    (episode,) = read_bags(said.write(tmp_path / "take.bag"), topics(), progress=False).episodes
    np.testing.assert_allclose(episode.sensors["stamp_state_arm"] - episode.time, 0.007, atol=1e-6)


@pytest.mark.parametrize("clock", ["header", "receive"])
def test_stamps_that_go_back(clock: str, tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    said.joints("/follower", 30, [0.0, 0.0], received_ms=450)
    path = said.write(tmp_path / "take.bag")
    if clock == "receive":
        by_receiving = topics(('"/follower"', '"/follower"\nclock = "receive"'))
        assert read_bags(path, by_receiving, progress=False).num_steps == 5
        return
    with pytest.raises(DataError, match=r"take\.bag: /follower: stamps go back by 0\.414 s at 1700000000\.030 s"):
        read_bags(path, topics(), progress=False)
    read_bags(path, topics(("[sync]", "[sync]\nmax_disorder_ms = 420")), progress=False)


def test_streams_that_never_meet(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    said.topics["/leader"] = [
        (received, kind, {**fields, "header": fields["header"] + 3600 * 10**9})
        for received, kind, fields in said.topics["/leader"]
    ]
    with pytest.raises(DataError, match=r'0 rows in step.*action_arm 36.*clock = "receive"'):
        read_bags(said.write(tmp_path / "take.bag"), topics(), progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_topic(kind: str, tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script(kind)
    del said.topics["/wrist"]
    with pytest.raises(DataError, match=r"no topic /wrist \(stream wrist\); it has /follower, /front, /leader"):
        read_bags(said.write(bag_path(tmp_path, kind)), topics(), progress=False)


def test_a_topic_of_another_type(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    with pytest.raises(DataError, match=r"/leader is sensor_msgs/msg/JointState, expected sensor_msgs/msg/Image or"):
        read_bags(script().write(tmp_path / "take.bag"), topics(('"/wrist"', '"/leader"')), progress=False)


def test_a_topic_of_two_types(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = tmp_path / "take.bag"
    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(path) as writer:
        for topic in ("/front", "/wrist"):
            writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
        for topic, kind in (("/follower", "JointState"), ("/leader", "Imu"), ("/leader", "JointState")):
            connection = writer.add_connection(topic, f"sensor_msgs/msg/{kind}", typestore=store)
            writer.write(connection, START, b"")
    with pytest.raises(DataError, match="/leader is sensor_msgs/msg/Imu, expected sensor_msgs/msg/JointState"):
        read_bags(path, topics(), progress=False)


def test_an_empty_topic(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    kind = said.topics["/wrist"][0][1]
    path = tmp_path / "take"
    said.kind = "sqlite3"
    said.topics["/wrist"] = [(START, kind, said.topics["/wrist"][0][2])]
    said.write(path)
    with closing(sqlite3.connect(path / "take.db3")) as database, database:
        database.execute("DELETE FROM messages WHERE topic_id = (SELECT id FROM topics WHERE name = '/wrist')")
    with pytest.raises(DataError, match=r"/wrist \(wrist\) has no message"):
        read_bags(path, topics(), progress=False)


def test_without_the_package(tmp_path: Path, topics: Callable[..., TopicMap], monkeypatch: pytest.MonkeyPatch) -> None:
    path = script().write(tmp_path / "take.bag")
    monkeypatch.setitem(sys.modules, "rosbags.highlevel", None)
    with pytest.raises(DataError, match="need the rosbags package; run `pip install"):
        read_bags(path, topics(), progress=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_bag_that_was_cut_off(kind: str, keep: float, tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = script(kind, rows=30).write(bag_path(tmp_path, kind))
    file = path if path.is_file() else next(one for one in path.iterdir() if one.suffix in (".db3", ".mcap"))
    content = file.read_bytes()
    file.write_bytes(content[: round(keep * len(content))])
    with pytest.raises(DataError, match=r"take.*: not a readable ROS bag"):
        read_bags(path, topics(), progress=False)


def test_a_bag_cut_off_after_it_was_scanned(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path = script().write(tmp_path / "take.bag")
    (episode,) = read_bags(path, topics(), progress=False).episodes
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="not a readable ROS bag"):
        episode.images["front"][:]


def test_an_unknown_encoding(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    said.image("/wrist", 700, picture(0, 0), "yuv422")
    with pytest.raises(DataError, match=r"/wrist, message received at 1700000000\.703 s: encoding 'yuv422', expected"):
        read_bags(said.write(tmp_path / "take.bag"), topics(), progress=False)


def test_an_image_of_another_size(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    said.image("/front", 700, picture(0, 0)[:4])
    with pytest.raises(DataError, match=r"image of \(4, 8\) pixels, expected \(6, 8\)"):
        read_bags(said.write(tmp_path / "take.bag"), topics(), progress=False)


@pytest.mark.parametrize(("name", "largest"), [("PNG", 0), ("JPEG", 4)])
def test_compressed_images(name: str, largest: int, tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    for number, (received, _, fields) in enumerate(said.topics["/front"]):
        data = compressed(picture(number, 1), name)
        kept = {"header": fields["header"], "format": f"rgb8; {name.lower()} compressed bgr8", "data": data}
        said.topics["/front"][number] = (received, "sensor_msgs/msg/CompressedImage", kept)
    (episode,) = read_bags(said.write(tmp_path / "take.bag"), topics(), progress=False).episodes
    expected = np.stack([picture(row, 1) for row in range(6)])
    assert np.abs(episode.images["front"][:].astype(int) - expected).max() <= largest


def test_a_compressed_image_that_does_not_decode(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    said = script()
    for number, (received, _, fields) in enumerate(said.topics["/front"]):
        data = compressed(picture(number, 1), "JPEG")
        kept = {"header": fields["header"], "format": "jpeg", "data": data if number != 3 else data[:100]}
        said.topics["/front"][number] = (received, "sensor_msgs/msg/CompressedImage", kept)
    (episode,) = read_bags(said.write(tmp_path / "take.bag"), topics(), progress=False).episodes
    assert episode.images["front"][:3].shape == (3, *SIZE, 3)
    with pytest.raises(DataError, match=r"/front, message received at 1700000000\.303 s: .* does not decode"):
        episode.images["front"][3:]
    for _ in range(2):
        with pytest.raises(DataError, match="does not decode"):
            episode.images["front"][3]
    assert abs(int(episode.images["front"][4][0, 0, 0]) - 40) <= 4


def compressed(pixels: Array, name: str) -> Array:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name)
    return np.frombuffer(file.getvalue(), np.uint8)


def test_a_folder_of_bags(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    for number, rows in ((10, 4), (9, 3)):
        script(rows=rows).write(tmp_path / f"take_{number}.bag")
    recording = read_bags(tmp_path, topics(), progress=False)
    assert [episode.num_rows for episode in recording.episodes] == [3, 4]  # 9 before 10
    assert recording.notes[0] == "2 bags in step: 7 rows kept, 0 dropped"
    (tmp_path / "take_8.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(DataError, match=r"take_8\.bag: not a readable ROS bag"):
        read_bags(tmp_path, topics(), progress=False)
    lenient = read_bags(tmp_path, topics(), skip_damaged=True, progress=False)
    assert len(lenient.episodes) == 2
    assert "take_8.bag" in lenient.notes[-1]


def test_bags_of_different_robots(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    script().write(tmp_path / "a.bag")
    script(depth=True).write(tmp_path / "b.bag")
    with pytest.raises(DataError, match=r"b\.bag: sensors: depth_front, stamp_depth_front not as in the bags before"):
        read_bags(tmp_path, topics(), progress=False)


def test_no_bag(tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    assert not is_bag(tmp_path)
    with pytest.raises(DataError, match="no ROS bag"):
        read_bags(tmp_path, topics(), progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_map(kind: str, tmp_path: Path) -> None:
    said = Script(kind)
    for row in range(5):
        for camera in "flr":
            said.image(f"/camera_{camera}/color/image_raw", 33 * row, picture(row, 1))
    for tick in range(30):
        for arm in ("/puppet/joint_left", "/puppet/joint_right", "/master/joint_left", "/master/joint_right"):
            fields: dict[str, Any] = {"name": [], "velocity": np.zeros(0), "effort": np.zeros(0)}
            position = np.full(7, 0.01 * tick)
            said.say(arm, "sensor_msgs/msg/JointState", 5 * tick, position=position, **fields)
        said.say("/odom", "nav_msgs/msg/Odometry", 5 * tick, speed=0.2, turn=0.1)
    recording = read_bags(said.write(bag_path(tmp_path, kind)), read_topics("cobot_magic"), progress=False)
    assert (recording.spec.state_dim, recording.spec.action_dim) == (14, 16)
    assert recording.spec.camera_names == ("cam_high", "cam_left_wrist", "cam_right_wrist")
    assert recording.episodes[0].num_steps == 4


def test_converts_to_a_flat_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script().write(tmp_path / "take_1.bag")
    script(rows=4).write(tmp_path / "take_2.bag")
    out, topics = tmp_path / "flat.hdf5", str(map_file(tmp_path))
    assert main(["data", "convert", str(tmp_path), str(out), "--topics", topics]) == 0
    said = capsys.readouterr().out
    assert "2 bags in step: 10 rows kept, 0 dropped" in said
    assert "wrist: 10 messages, 10 used, 0 of them again" in said
    recording = read_recording(out)
    assert [episode.num_steps for episode in recording.episodes] == [5, 3]
    np.testing.assert_array_equal(recording.episodes[1].images["wrist"][:], [picture(row, 2) for row in range(3)])
    np.testing.assert_allclose(recording.episodes[0].action[:, 0], 0.1 * np.arange(5), atol=1e-6)
    assert recording.episodes[1].meta["bag"] == "take_2.bag"
    assert [axis.name for axis in recording.spec.state] == ["shoulder", "gripper"]


@pytest.mark.parametrize("dialect", ["aloha", "cobot-magic"])
def test_round_trip_through_an_aloha_folder(dialect: str, tmp_path: Path, topics: Callable[..., TopicMap]) -> None:
    path, folder = script("mcap", depth=True, base=True).write(tmp_path / "take"), tmp_path / "eps"
    flags = ["--to", "aloha", "--dialect", dialect, "--topics", str(map_file(tmp_path))]
    assert main(["data", "convert", str(path), str(folder), *flags]) == 0
    (read,), (episode,) = read_recording(folder).episodes, read_bags(path, topics(), progress=False).episodes
    for name in ("state", "action", "time"):
        np.testing.assert_array_equal(getattr(read, name), getattr(episode, name))
    for name, frames in episode.images.items():
        np.testing.assert_array_equal(read.images[name][:], frames[:])
    assert set(read.sensors) == set(episode.sensors)
    for name, readings in episode.sensors.items():
        np.testing.assert_array_equal(read.sensors[name][:], readings[:])
    assert read.meta["start_time"] == episode.meta["start_time"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "a ROS bag; say which topics are what: --topics"),
        (["--topics", "cobot_magic"], "no topic /camera_f/color/image_raw (stream cam_high); it has /follower, /front"),
        (["--topics", "absent.toml"], "absent.toml: no such map of topics"),
        (["--topics", "cobot_magic", "--base", "off"], "--mode and --image-keys say nothing of a ROS bag"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = script().write(tmp_path / "take.bag")
    assert main(["data", "convert", str(path), str(tmp_path / "flat.hdf5"), *flags]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lapwing: error")]
    assert len(lines) == 1
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == [path]
