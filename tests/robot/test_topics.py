"""Maps of topics: what they say, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.errors import ConfigError
from lapwing.robot.topics import GRID, SHIPPED, TopicMap, read_topics
from lapwing.spec import Axis

SMALL = """
name = "small"
rate_hz = 20
[cameras.front]
topic = "/front"
[state.arm]
topic = "/follower"
axes = ["shoulder", "gripper"]
grippers = ["gripper"]
gripper_unit = "m"
[action.arm]
topic = "/leader"
axes = ["shoulder", "gripper"]
joints = ["j1", "j7"]
choice = "interpolated"
"""


def read(folder: Path, text: str) -> TopicMap:
    path = folder / "map.toml"
    path.write_text(text)
    return read_topics(str(path))


def test_reads_a_map(tmp_path: Path) -> None:
    topics = read(tmp_path, SMALL)
    assert topics.reference == "front"
    assert topics.max_skew == pytest.approx(0.05)  # one period
    assert topics.max_disorder == 0
    assert [source.name for source in topics.sources] == ["front", "state_arm", "action_arm"]
    assert topics.state[0].axes == (Axis("shoulder", "rad", "arm"), Axis("gripper", "m", "gripper"))
    assert topics.action[0].joints == ("j1", "j7")
    assert topics.action[0].choice == "interpolated"
    assert topics.base is None
    assert topics.marks is None
    assert topics.digest == read(tmp_path, SMALL).digest
    assert topics.digest != read(tmp_path, SMALL.replace("/front", "/back")).digest


def test_without_cameras_rows_lie_on_a_grid(tmp_path: Path) -> None:
    assert read(tmp_path, SMALL.replace('[cameras.front]\ntopic = "/front"', "")).reference == GRID


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_maps_are_found_by_name(name: str) -> None:
    topics = read_topics(name)
    assert topics.name == name
    assert topics.base is not None
    absent = {source.name for source in topics.sources if source.optional}
    assert not {source.name for source in topics.without(absent).sources} & absent
    assert len(topics.without(absent).sources) == len(topics.sources) - len(absent)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'topic = "/front"',
            'topc = "/front"',
            r"map\.toml: \[cameras\.front\]: topc: unknown; known are topic, clock",
        ),
        ('topic = "/front"', "", r"\[cameras\.front\]: topic: missing"),
        ('topic = "/front"', "topic = 3", r"\[cameras\.front\]: topic: 3, expected text"),
        (
            'topic = "/front"',
            'topic = "/f"\nchoice = "interpolated"',
            "choice: 'interpolated', expected one of nearest",
        ),
        ('topic = "/front"', 'topic = "/f"\nclock = "wall"', "clock: 'wall', expected one of header, receive"),
        ('topic = "/front"', 'topic = "/f"\nchannels = "grb"', "channels: 'grb', expected one of rgb, bgr"),
        ('name = "small"', "", "name: missing"),
        ("rate_hz = 20", "rate_hz = 0", "rate_hz: 0"),
        (
            "rate_hz = 20",
            "rate_hz = 1e300",
            r"rate_hz: 1e\+300, expected the control rate in Hz, above 0 and at most 1000",
        ),
        ("rate_hz = 20", "rate_hz = true", "rate_hz: True, expected a number"),
        ("rate_hz = 20", "rate_hz = 20\nspeed = 3", "speed: unknown; known are name, rate_hz, sync, cameras"),
        ('axes = ["shoulder", "gripper"]\ngrippers', "axes = []\ngrippers", r"axes: \[\], expected a list of names"),
        (
            'axes = ["shoulder", "gripper"]\njoints',
            'axes = ["a", "a"]\njoints',
            r"\[action\]: axes are .* each name once",
        ),
        ('grippers = ["gripper"]', 'grippers = ["hand"]', "grippers: 'hand' is not one of the axes shoulder, gripper"),
        ('joints = ["j1", "j7"]', 'joints = ["j1"]', "joints: 1 names for 2 axes"),
        ('joints = ["j1", "j7"]', 'joints = ["j7", "j7"]', "joints: j7, j7; expected each name once"),
        ("[state.arm]", '[sync]\nreference = "back"\n[state.arm]', "reference: 'back', expected grid or one of front"),
        ("[state.arm]", "[sync]\nmax_skew_ms = -1\n[state.arm]", r"\[sync\]: max_skew_ms: -1, expected a number, 0"),
        ("[cameras.front]", "[cameras.state_arm]", "two streams share a name"),
        ("[cameras.front]", '[episodes]\ntopic = "/on"\n[cameras.episodes]', "two streams share a name"),
        ("[state.arm]", '[state]\nnothing = "here"\n[other.arm]', "unknown"),
        ("[state.arm]", "[state", "cannot read the map of topics"),
    ],
)
def test_says_what_is_wrong(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert SMALL.count(old) == 1
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, SMALL.replace(old, new))


def test_an_optional_reference(tmp_path: Path) -> None:
    text = SMALL + '[sync]\nreference = "base"\n[base]\ntopic = "/odom"\noptional = true\n'
    with pytest.raises(ConfigError, match="reference: 'base', expected grid or one of front, state_arm, action_arm"):
        read(tmp_path, text)


def test_no_such_map(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such map of topics; give a TOML file or one of cobot_magic"):
        read_topics(str(tmp_path / "absent.toml"))


def test_the_map_in_the_documents(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "ros-bags.md"
    text = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    topics = read(tmp_path, text)
    assert [source.name for source in topics.sources] == [
        *("high", "wrist", "depth_high", "state_left", "action_left", "base")
    ]
    assert topics.marks is not None
