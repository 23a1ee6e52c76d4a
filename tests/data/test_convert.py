"""Conversion to the flat layout: what arrives, what is refused, and that nothing is left half-written."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lapwing.data.check import check
from lapwing.data.convert import ConvertOptions, convert
from lapwing.data.formats import read_recording
from lapwing.data.formats.flat import FlatWriter
from lapwing.episode import Episode
from lapwing.errors import ConfigError, DataError

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}  # gives no frame count


@pytest.fixture
def out(tmp_path):
    """Where to write, in a folder of its own, so that leftovers show."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out/flat.hdf5"


def leftovers(out):
    return sorted(path.name for path in out.parent.iterdir())


def test_a_data_set_arrives_whole(lerobot, out):
    done = convert(lerobot.root, out, ConvertOptions(size=16), progress=False)
    assert (done.episodes, done.steps, done.skipped) == (3, 36, ())
    assert str(done).splitlines() == [
        f"{out}: wrote 3 episodes, 36 steps",
        "note: no rewards, which offline RL (LAPO) needs: --reward last-step or LABELS.json gives them",
    ]
    assert leftovers(out) == ["flat.hdf5"]
    recording = read_recording(out)
    assert recording.spec.camera_names == ("front", "wrist")
    assert {(camera.height, camera.width) for camera in recording.spec.cameras} == {(16, 16)}
    assert tuple(axis.name for axis in recording.spec.action) == lerobot.names
    assert recording.spec.rate_hz == 20
    for index, episode in enumerate(recording.episodes):
        state, action = lerobot.state_and_action(index)
        np.testing.assert_array_equal(episode.state, state)
        np.testing.assert_array_equal(episode.action, action)
        expected = lerobot.frames(index)[:, ::3, ::4].astype(int)
        for camera in ("front", "wrist"):
            assert np.abs(episode.images[camera][:] - expected).mean() < 2
        assert episode.meta == {"source_episode": index, "task": "pick it up"}


def test_without_a_size_frames_keep_theirs(lerobot, out):
    convert(lerobot.root, out, progress=False)
    assert read_recording(out).episodes[0].images["front"].shape == (12, 48, 64, 3)


def test_reward_none_makes_nothing_up(lerobot, out):
    convert(lerobot.root, out, ConvertOptions(reward="none"), progress=False)
    assert all(episode.reward is None and episode.truncated for episode in read_recording(out).episodes)


def test_reward_last_step_ends_each_episode_in_success(lerobot, out):
    convert(lerobot.root, out, ConvertOptions(size=16, reward="last-step"), progress=False)
    for episode, length in zip(read_recording(out).episodes, lerobot.lengths, strict=True):
        assert episode.terminated
        assert episode.reward.tolist() == [0] * (length - 1) + [1]
    assert check(out).trainable


def test_a_damaged_episode_is_refused_by_name(lerobot, out):
    lerobot.video_file(1, "wrist").unlink()
    lead = r"twig: 1 damaged episode \(1\); the first, episode 1: "
    with pytest.raises(DataError, match=lead + r".*wrist/episode_000001\.mp4: no such file; .*--skip-damaged"):
        convert(lerobot.root, out, progress=False)
    assert leftovers(out) == []


def test_a_fault_found_while_decoding_is_refused_by_name(lerobot, out):
    lerobot.write_video(2, lerobot.frames(2, 14), "wrist", FRAGMENTED)
    with pytest.raises(
        DataError, match=r"1 damaged episode \(2\); the first, episode 2: .* ends after 14 frames.*skip"
    ):
        convert(lerobot.root, out, progress=False)
    assert leftovers(out) == []


def test_skip_damaged_goes_on_and_says_so(lerobot, out):
    lerobot.rows_file(0).unlink()
    lerobot.write_video(2, lerobot.frames(2, 14), "wrist", FRAGMENTED)
    done = convert(lerobot.root, out, ConvertOptions(skip_damaged=True), progress=False)
    assert [damage.episode for damage in done.skipped] == [0, 2]
    assert f"{out}: wrote 1 episode, 9 steps; left out 2 damaged episodes (0, 2); the first, episode 0: " in str(done)
    (episode,) = read_recording(out).episodes
    assert episode.meta["source_episode"] == 1
    assert np.abs(episode.images["wrist"][:] - lerobot.frames(1).astype(int)).mean() < 2


def test_nothing_sound_is_an_error_even_when_skipping(lerobot, out):
    for episode in range(3):
        lerobot.rows_file(episode).unlink()
    with pytest.raises(DataError, match=r"twig: no sound episode; 3 damaged episodes \(0-2\)"):
        convert(lerobot.root, out, ConvertOptions(skip_damaged=True), progress=False)
    assert leftovers(out) == []


def test_an_existing_file_is_kept(lerobot, out):
    out.write_text("mine")
    with pytest.raises(DataError, match=r"flat\.hdf5: already exists"):
        convert(lerobot.root, out, progress=False)
    assert out.read_text() == "mine"


def test_a_folder_is_no_name_for_a_file(lerobot, out):
    out.mkdir()
    with pytest.raises(DataError, match=r"flat\.hdf5: is a folder, expected the name of a file"):
        convert(lerobot.root, out, progress=False)
    assert leftovers(out) == ["flat.hdf5"]


@pytest.mark.parametrize("to", ["flat", "aloha"])
@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_place_without_a_name_is_refused(lerobot, tmp_path, monkeypatch, name, to):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^[./]: has no name of its own, expected that of a file or folder to write"):
        convert(lerobot.root, Path(name), ConvertOptions(to=to), progress=False)


def test_a_folder_that_is_not_there_is_refused(lerobot, tmp_path):
    with pytest.raises(DataError, match=r"gone/flat\.hdf5: cannot be written"):
        convert(lerobot.root, tmp_path / "gone/flat.hdf5", progress=False)


def test_a_full_disk_is_seen_before_anything_is_decoded(lerobot, out, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        DataError, match=r"flat\.hdf5: cannot be written: it takes 0\.00133 GB, 1e-06 GB are free; free"
    ):
        convert(lerobot.root, out, progress=False)
    assert leftovers(out) == []


def test_a_disk_that_fills_up_loses_nothing_that_is_done(lerobot, out, monkeypatch):
    spool = FlatWriter._spool

    def full(writer, camera, frames, steps):
        if steps == 15:
            raise OSError(28, os.strerror(28))
        spool(writer, camera, frames, steps)

    monkeypatch.setattr(FlatWriter, "_spool", full)
    message = (
        r"flat\.hdf5: cannot be written \(No space left on device\); free some space; 2 episodes are done, and the"
    )
    with pytest.raises(DataError, match=message):
        convert(lerobot.root, out, ConvertOptions(skip_damaged=True), progress=False)
    assert leftovers(out) == [".flat.hdf5.partial"]
    monkeypatch.setattr(FlatWriter, "_spool", spool)
    assert convert(lerobot.root, out, progress=False).resumed == 2
    assert leftovers(out) == ["flat.hdf5"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size: 0, expected 1 to 4096 pixels"),
        ({"reward": "all"}, "reward: 'all', expected keep, none, last-step or a file of labels"),
    ],
)
def test_settings_out_of_range_are_refused(lerobot, out, settings, message):
    with pytest.raises(ConfigError, match=message):
        convert(lerobot.root, out, ConvertOptions(**settings), progress=False)


def test_a_flat_file_is_resized_and_keeps_its_rewards(tiny_flat, tiny_recording, out):
    convert(tiny_flat, out, ConvertOptions(size=4), progress=False)
    recording = read_recording(out)
    assert recording.spec.state == tiny_recording.spec.state
    for episode, source in zip(recording.episodes, tiny_recording.episodes, strict=True):
        np.testing.assert_array_equal(episode.reward, source.reward)
        assert episode.terminated == source.terminated
        assert episode.images["left"].shape == (source.num_steps, 4, 4, 3)
        # An area average keeps the mean of a frame, up to rounding and uneven cells.
        gap = episode.images["left"][:].mean((1, 2)) - source.images["left"][: source.num_steps].mean((1, 2))
        assert np.abs(gap).max() < 12


def test_last_step_respects_recorded_failures(tiny_spec, tmp_path, out):
    def episode(success):
        images = {camera.name: np.zeros((5, camera.height, camera.width, 3), np.uint8) for camera in tiny_spec.cameras}
        state, action = np.zeros((5, tiny_spec.state_dim)), np.zeros((5, tiny_spec.action_dim))
        return Episode(images, state, action, None, terminated=False, success=success)

    source = tmp_path / "labelled.hdf5"
    with FlatWriter(source, tiny_spec) as writer:
        for success in (True, False, None):
            writer.add(episode(success))
    convert(source, out, ConvertOptions(reward="last-step"), progress=False)
    episodes = read_recording(out).episodes
    assert [episode.reward.tolist() for episode in episodes] == [[0, 0, 0, 0, 1], [0] * 5, [0, 0, 0, 0, 1]]
    assert [episode.terminated for episode in episodes] == [True, False, True]


def test_the_real_recording(g1_inspire, out):
    with pytest.raises(DataError, match=r"94 damaged episodes \(0-9, 11-27, 32-58, 60-99\)"):
        convert(g1_inspire, out, ConvertOptions(size=84), progress=False)
    done = convert(g1_inspire, out, ConvertOptions(size=84, reward="last-step", skip_damaged=True), progress=False)
    assert (done.episodes, done.steps, len(done.skipped)) == (6, 1613, 94)
    result = check(out, progress=False)
    assert result.trainable
    assert result.problems == ()
