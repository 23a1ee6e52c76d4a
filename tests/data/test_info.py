"""Figures of a recording."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from lapwing.data.formats.flat import FlatWriter
from lapwing.data.info import format_info, info, success
from lapwing.errors import DataError


def test_figures_of_a_flat_file(tiny_flat, tiny_recording):
    figures = info(tiny_flat)
    episodes = tiny_recording.episodes
    assert json.loads(json.dumps(figures)) == figures
    assert (figures["layout"], figures["robot"], figures["rate_hz"]) == ("flat", "tiny", 10)
    assert (figures["episodes"], figures["steps"], figures["terminated"]) == (6, 39, 4)
    assert figures["lengths"] == {"min": 4, "median": 6.5, "max": 9}
    assert figures["returns"]["max"] == pytest.approx(max(float(episode.reward.sum()) for episode in episodes))
    assert figures["cameras"][0] == {"name": "left", "height": 8, "width": 6}
    assert figures["action"] == ["shoulder", "elbow", "grip"]
    assert len(figures["state"]) == 5
    assert figures["size_bytes"] == tiny_flat.stat().st_size


def test_figures_of_a_lerobot_folder(lerobot):
    lerobot.video_file(1).unlink()
    figures = info(lerobot.root)
    assert (figures["layout"], figures["episodes"], figures["steps"]) == ("lerobot", 2, 27)
    assert (figures["returns"], figures["success"]) == (None, None)
    assert figures["notes"][0].startswith("left out 1 damaged episode (1); the first, episode 1: ")
    assert figures["size_bytes"] > lerobot.rows_file(0).stat().st_size


def test_a_lerobot_folder_without_a_sound_episode_is_an_error(lerobot):
    for episode in range(3):
        lerobot.rows_file(episode).unlink()
    with pytest.raises(DataError, match=r"twig: 3 damaged episodes \(0-2\)"):
        info(lerobot.root)


def test_success_is_taken_from_labels_first(tiny_episodes):
    labelled = [replace(episode, success=index == 0) for index, episode in enumerate(tiny_episodes[:4])]
    unknown = [replace(episode, success=None) for episode in tiny_episodes[4:]]
    assert success([*labelled, *unknown]) == {"successes": 1, "episodes": 4, "rate": 0.25, "source": "labels"}


def test_success_by_rewards_needs_a_termination_and_a_reward(tiny_episodes):
    def ended(episode, reward, terminated):
        rewards = episode.reward * 0
        rewards[-1] = reward
        return replace(episode, success=None, reward=rewards, terminated=terminated)

    kinds = [(1, True), (1, False), (0, True), (-1, True)]
    episodes = [ended(episode, *kind) for episode, kind in zip(tiny_episodes, kinds, strict=False)]
    assert success(episodes) == {"successes": 1, "episodes": 4, "rate": 0.25, "source": "rewards"}


@pytest.mark.parametrize("terminated", [True, False])
def test_rewards_on_the_way_tell_nothing_of_success(tiny_episodes, terminated):
    """A hopper is rewarded until it falls, a ball for staying at its goal."""
    alive = np.ones_like(tiny_episodes[0].reward)
    assert success([replace(tiny_episodes[0], success=None, reward=alive, terminated=terminated)]) is None


def test_the_text_says_where_success_comes_from(tiny_flat, tiny_spec, tiny_episodes, tmp_path, lerobot):
    def text(episodes):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.hdf5"
        with FlatWriter(path, tiny_spec) as writer:
            for episode in episodes:
                writer.add(episode)
        return format_info(info(path))

    labelled = text([replace(episode, success=True) for episode in tiny_episodes])
    assert "success   100% (6 of 6, labelled; 95 % interval 61% to 100%)" in labelled
    late = [np.where(np.arange(episode.num_steps) < episode.num_steps - 1, 0, 1) for episode in tiny_episodes]
    plain = text([replace(one, success=None, reward=reward) for one, reward in zip(tiny_episodes, late, strict=True)])
    assert "of 6, by rewards: ended by the task with a reward above 0; " in plain
    bare = text([replace(episode, success=None, reward=None) for episode in tiny_episodes])
    assert "success   unknown (no labels, and no rewards that come with success alone)" in bare
    assert "returns   no rewards" in bare
    assert "episodes  6 (4 terminated, 2 cut), 39 steps, 4 s at 10 Hz" in bare
    assert "cameras   left 6x8, right 6x8, global 6x8" in bare
    assert "action    as the state" in format_info(info(lerobot.root))


def test_an_unreadable_file_is_an_error(tmp_path):
    path = tmp_path / "notes.hdf5"
    path.write_text("not a recording")
    with pytest.raises(DataError, match=r"notes\.hdf5: not an HDF5 file"):
        info(path)


def test_rewards_that_are_no_numbers_leave_json_that_can_be_read(tiny_flat):
    with h5py.File(tiny_flat, "a") as file:
        file["rewards"][3] = np.nan
    figures = info(tiny_flat)
    assert figures["returns"] is None
    assert any("NaN or infinity" in note for note in figures["notes"])
    json.dumps(figures, allow_nan=False)
