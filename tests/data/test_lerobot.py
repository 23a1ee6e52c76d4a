"""Reading LeRobot v2.1: what is read, and every way in which a data set or one of its episodes can be damaged."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data.formats.lerobot import describe_damage, is_lerobot, scan_lerobot
from lapwing.errors import DataError


def test_a_sound_data_set_is_read(lerobot):
    recording, damaged = scan_lerobot(lerobot.root)
    spec = recording.spec
    assert not damaged
    assert (recording.layout, spec.name, spec.rate_hz) == ("lerobot", "twig", 20)
    assert [(camera.name, camera.height, camera.width) for camera in spec.cameras] == [
        ("front", 48, 64),
        ("wrist", 48, 64),
    ]
    assert tuple(axis.name for axis in spec.state) == tuple(axis.name for axis in spec.action) == lerobot.names
    assert [axis.kind for axis in spec.state] == ["arm", "gripper", "other"]
    assert [episode.num_steps for episode in recording.episodes] == list(lerobot.lengths)
    for index, episode in enumerate(recording.episodes):
        state, action = lerobot.state_and_action(index)
        np.testing.assert_array_equal(episode.state, state)
        np.testing.assert_array_equal(episode.action, action)
        assert (episode.reward, episode.terminated, episode.success) == (None, False, None)
        assert episode.meta == {"source_episode": index, "task": "pick it up"}


@pytest.mark.parametrize("size", [None, 16])
def test_frames_are_those_of_the_video_in_order(lerobot, size):
    recording, _ = scan_lerobot(lerobot.root, size)
    for index, episode in enumerate(recording.episodes):
        frames = episode.images["wrist"]
        expected = lerobot.frames(index)[:, :: 48 // size, :: 64 // size] if size else lerobot.frames(index)
        assert frames.shape == expected.shape
        error = np.abs(frames[:].astype(int) - expected)
        assert error.mean() < 2
        assert error.max() < 12


@settings(deadline=None, max_examples=20, derandomize=True)
@given(data=st.data())
def test_frames_index_as_an_array_does(lerobot_template, data):
    recording, _ = scan_lerobot(lerobot_template)
    frames = recording.episodes[0].images["front"]
    whole = recording.episodes[0].images["front"][:]
    row = st.integers(-12, 11)
    for _ in range(3):
        rows = data.draw(st.one_of(row, st.lists(row, min_size=1), st.slices(12)))
        np.testing.assert_array_equal(frames[rows], whole[rows])


def test_axes_without_usable_names_are_numbered(lerobot):
    lerobot.edit_feature("observation.state", names=None)
    lerobot.edit_feature("action", names=["same", "same", "other"])
    spec = scan_lerobot(lerobot.root)[0].spec
    assert [axis.name for axis in spec.state] == ["state_0", "state_1", "state_2"]
    assert [axis.name for axis in spec.action] == ["action_0", "action_1", "action_2"]


@pytest.mark.parametrize(
    "names", [["a", "b", "c"], [["a", "b", "c"]], {"a": 0, "b": 1, "c": 2}, {"x": ["a", "b", "c"]}]
)
def test_axis_names_are_found_however_they_are_nested(lerobot, names):
    lerobot.edit_feature("action", names=names)
    assert [axis.name for axis in scan_lerobot(lerobot.root)[0].spec.action] == ["a", "b", "c"]


def test_a_vector_of_one_axis_is_stored_as_numbers(lerobot):
    lerobot.edit_feature("action", shape=[1], names=["lift"])
    for episode, length in enumerate(lerobot.lengths):
        lerobot.write_rows(episode, action=np.arange(length, dtype=np.float32))
    assert scan_lerobot(lerobot.root)[0].episodes[0].action.shape == (12, 1)


def test_depth_and_what_is_not_read_are_told(lerobot):
    lerobot.edit_feature("observation.images.wrist", info={"video.is_depth_map": True})
    lerobot.edit_feature("next.reward", dtype="float32", shape=[1])
    recording, damaged = scan_lerobot(lerobot.root)
    assert not damaged
    assert recording.spec.camera_names == ("front",)
    assert recording.notes == ("not read: next.reward, observation.images.wrist",)


def remove_video(files):
    files.video_file(1).unlink()


def truncate_video(files):
    data = files.video_file(1).read_bytes()
    files.video_file(1).write_bytes(data[: len(data) // 2])


def shorten_video(files):
    files.write_video(1, files.frames(1, 8))


def lengthen_video(files):
    files.write_video(1, files.frames(1, 10))


def video_of_text(files):
    files.video_file(1).write_text("no film tonight")


def remove_rows(files):
    files.rows_file(1).unlink()


def rows_of_text(files):
    files.rows_file(1).write_text("state,action")


def shorten_rows(files):
    state, action = files.state_and_action(1)
    files.write_rows(1, state=state[:-1], action=action[:-1], timestamp=np.arange(8) / 20)


def widen_rows(files):
    files.write_rows(1, action=np.zeros((9, 4), np.float32))


def drop_action(files):
    files.write_rows(1, action=None)


def drop_a_row_in_the_middle(files):
    files.write_rows(1, timestamp=np.delete(np.arange(10), 4) / 20)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove_video, r"front/episode_000001\.mp4: no such file"),
        (truncate_video, r"front/episode_000001\.mp4: not a readable video"),
        (shorten_video, r"front/episode_000001\.mp4: 8 frames, expected 9, one for each row"),
        (lengthen_video, r"front/episode_000001\.mp4: 10 frames, expected 9"),
        (video_of_text, r"front/episode_000001\.mp4: not a readable video"),
        (remove_rows, r"episode_000001\.parquet: no such file"),
        (rows_of_text, r"episode_000001\.parquet: not a readable parquet file"),
        (shorten_rows, r"observation\.state is \(8, 3\), expected \(9, 3\)"),
        (widen_rows, r"action is \(9, 4\), expected \(9, 3\)"),
        (drop_action, r"no column action"),
        (drop_a_row_in_the_middle, r"timestamp of row 4 is 0\.250 s, expected 0\.200 s"),
    ],
)
def test_a_damaged_episode_is_named_and_the_others_are_read(lerobot, damage, reason):
    damage(lerobot)
    recording, damaged = scan_lerobot(lerobot.root)
    assert [episode.meta["source_episode"] for episode in recording.episodes] == [0, 2]
    assert [one.episode for one in damaged] == [1]
    with pytest.raises(DataError, match=rf"1 damaged episode \(1\); the first, episode 1: .*{reason}"):
        raise DataError(describe_damage(damaged))


def test_faults_inside_a_video_show_when_it_is_decoded(lerobot):
    """A fragmented video gives no frame count in its header."""
    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    lerobot.write_video(0, lerobot.frames(0, 11), options=fragmented)
    lerobot.write_video(1, lerobot.frames(1, 10), options=fragmented)
    recording, damaged = scan_lerobot(lerobot.root)
    assert not damaged
    with pytest.raises(DataError, match=r"episode_000000\.mp4: the video ends after 11 frames, expected 12"):
        recording.episodes[0].images["front"][:]
    with pytest.raises(DataError, match=r"episode_000001\.mp4: more frames than 9 rows"):
        recording.episodes[1].images["front"][:]


def test_damaged_pictures_are_not_painted_over(lerobot):
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    lerobot.write_video(0, noise)
    frames = scan_lerobot(lerobot.root)[0].episodes[0].images["front"]
    assert frames[:].shape == noise.shape
    data = lerobot.video_file(0).read_bytes()
    found = []
    for place in range(len(data) // 4, len(data) // 2, 500):
        lerobot.video_file(0).write_bytes(data[:place] + bytes(range(20)) + data[place + 20 :])
        try:
            scan_lerobot(lerobot.root)[0].episodes[0].images["front"][:]
        except DataError as error:
            found.append(str(error))
    # Some damage reads as another valid picture; the decoder notices the rest and goes on.
    assert any(re.search(r"episode_000000\.mp4: frame \d+ is damaged", message) for message in found)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda files: files.edit_info(codebase_version="v3.0"),
            r"info\.json: codebase_version is 'v3\.0', expected v2\.0",
        ),
        (lambda files: files.edit_info(fps=0), r"info\.json: fps is 0, expected a rate above 0"),
        (lambda files: files.edit_info(video_path="{film}"), r"video_path is '\{film\}', expected a template"),
        (lambda files: files.edit_info(features={}), r"features\.observation\.state: shape is None, expected one"),
        (
            lambda files: files.edit_feature("action", shape=[2, 2]),
            r"features\.action: shape is \[2, 2\], expected one",
        ),
        (
            lambda files: files.edit_feature("observation.images.front", names=None),
            r"observation\.images\.front: shape \[48, 64, 3\] with names None, expected height, width",
        ),
        (lambda files: (files.root / "meta/info.json").write_text("{"), r"info\.json: line 1: not JSON"),
        (
            lambda files: (files.root / "meta/info.json").write_text("[]"),
            r"info\.json: line 1: list, expected a JSON object",
        ),
        (lambda files: (files.root / "meta/info.json").write_bytes(b"\xff"), r"info\.json: not UTF-8 text"),
        (lambda files: (files.root / "meta/episodes.jsonl").unlink(), r"episodes\.jsonl: no such file"),
        (
            lambda files: (files.root / "meta/episodes.jsonl").write_text('\n{"episode_index": 0}\n'),
            r"episodes\.jsonl: line 2: .*, expected episode_index, length and tasks",
        ),
    ],
)
def test_a_data_set_that_cannot_be_read_says_why(lerobot, edit, message):
    edit(lerobot)
    with pytest.raises(DataError, match=message) as caught:
        scan_lerobot(lerobot.root)
    assert "\n" not in str(caught.value)


def test_other_folders_are_not_lerobot(lerobot, tmp_path):
    assert is_lerobot(lerobot.root)
    assert not is_lerobot(tmp_path)
    assert not is_lerobot(lerobot.root / "meta/info.json")


def test_without_pyarrow_the_message_says_what_to_install(lerobot, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"needs pyarrow, which is not installed; run `pip install -e '\.\[lerobot\]'` in the clone"
    ):
        scan_lerobot(lerobot.root)


def test_the_real_recording(g1_inspire):
    recording, damaged = scan_lerobot(g1_inspire, 84)
    assert [episode.meta["source_episode"] for episode in recording.episodes] == [10, 28, 29, 30, 31, 59]
    assert len(damaged) == 94
    assert describe_damage(damaged).startswith("94 damaged episodes (0-9, 11-27, 32-58, 60-99); the first, episode 0: ")
    assert recording.spec.camera_names == ("cam_high",)
    assert recording.spec.state_dim == recording.spec.action_dim == 26
    lines = (g1_inspire / "meta/episodes_stats.jsonl").read_text().splitlines()
    stats = json.loads(lines[10])["stats"]
    episode = recording.episodes[0]
    np.testing.assert_allclose(episode.state.mean(0), stats["observation.state"]["mean"], atol=1e-5)
    np.testing.assert_allclose(episode.action.std(0), stats["action"]["std"], atol=1e-5)
    # The publisher's means are of 100 of the 290 frames: colours and brightness must agree, not the last digit.
    colour = episode.images["cam_high"][:].mean((0, 1, 2)) / 255
    np.testing.assert_allclose(colour, np.ravel(stats["observation.images.cam_high"]["mean"]), atol=0.01)
