"""Minari data sets on disk, made by hand and by Minari itself."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from offline_files import minari_episode, write_minari

from lapwing.data.check import check
from lapwing.data.formats import read_recording
from lapwing.errors import DataError


@pytest.mark.parametrize("inner", ["", "data", "data/main_data.hdf5"])
def test_episodes_keep_the_observation_after_the_last_action(tmp_path, inner):
    write_minari(tmp_path / "set", [minari_episode(4, True), minari_episode(11, False, 5.0)])
    recording = read_recording(tmp_path / "set" / inner)
    assert (recording.layout, recording.spec.name, recording.spec.state_dim) == ("minari", "toy/test-v0", 3)
    assert [(one.num_steps, one.num_rows, one.terminated) for one in recording.episodes] == [
        (4, 5, True),
        (11, 12, False),
    ]
    assert recording.episodes[1].state[0].tolist() == [5, 6, 7]
    assert recording.episodes[0].reward.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_episodes_come_by_number_and_the_environment_gives_the_name(tmp_path):
    episodes = [minari_episode(2 + number, False, number) for number in range(11)]
    write_minari(tmp_path / "set", episodes, env_spec=json.dumps({"id": "Hopper-v5"}))
    recording = read_recording(tmp_path / "set")
    assert [one.num_steps for one in recording.episodes] == list(range(2, 13))
    assert (recording.spec.name, recording.notes) == ("Hopper-v5", ("data set toy/test-v0",))


def test_check_reads_it_as_any_recording(tmp_path):
    write_minari(tmp_path / "set", [minari_episode(4, True), minari_episode(11, False, 5.0)])
    result = check(tmp_path / "set", progress=False)
    assert result.trainable
    assert result.tree[0] == "  ├─ observations: float32, shape=(17, 3)"
    assert "2 episodes: the task ended 1, the others were cut" in result.notes


def changed(**entries):
    return [minari_episode(4, True), minari_episode(4, True) | entries]


MAZE = {name: np.zeros((5, 2)) for name in ("observation", "desired_goal", "achieved_goal")}


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        (
            changed(observations=MAZE),
            r"'episode_1/observations' are a dict or tuple of achieved_goal, desired_goal, observation, expected "
            r"vectors \[N, axes\]; join the ones you need",
        ),
        (changed(observations=np.zeros((3, 3))), r"'episode_1/observations' has 3 rows for 4 actions, expected 5"),
        (changed(observations=np.zeros((5, 2))), r"'episode_1/observations' has 2 axes, expected 3 as in the first"),
        (changed(actions=np.arange(4)), r"'episode_1/actions' has shape \(4,\), expected two dimensions"),
        (changed(rewards=np.zeros(3)), r"'episode_1/rewards' has 3 rows, expected 4"),
        (changed(terminations=np.ones(4, bool)), r"'episode_1' goes on after its end at step 0, expected one at the"),
        ([], r"no group 'episode_0', expected one an episode"),
        (changed(actions=np.zeros((0, 2)), observations=np.zeros((1, 3))), r"'episode_1/actions' has 0 rows, expected"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path, episodes, message):
    write_minari(tmp_path / "set", episodes)
    with pytest.raises(DataError, match=message):
        read_recording(tmp_path / "set")
    (problem,) = check(tmp_path / "set", progress=False).problems
    assert problem.severity == "error"


def test_missing_episodes_are_noticed(tmp_path):
    write_minari(tmp_path / "set", [minari_episode(4, True)], total_episodes=3)
    with pytest.raises(DataError, match=r"1 episodes, expected 3 as 'total_episodes' of its metadata has it"):
        read_recording(tmp_path / "set")


def test_arrow_files_are_refused_by_name(tmp_path):
    write_minari(tmp_path / "set", [], data_format="arrow")
    (tmp_path / "set" / "data" / "main_data.hdf5").unlink()
    with pytest.raises(DataError, match=r"a Minari data set of format 'arrow', expected 'hdf5'"):
        read_recording(tmp_path / "set")


def test_what_minari_writes(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    last = [False, False, True]
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=[np.full(3, number + step, np.float32) for step in range(4)],
            actions=[np.ones(2, np.float32)] * 3,
            rewards=[1.0, 2.0, 3.0],
            terminations=last if number == 0 else [False] * 3,
            truncations=last if number else [False] * 3,
            infos={},
        )
        for number in range(2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of authors and links
        minari.create_dataset_from_buffers(
            "toy/made-v0", buffer=buffers, observation_space=Box(-9, 9, (3,)), action_space=Box(-1, 1, (2,))
        )
    recording = read_recording(tmp_path / "toy" / "made-v0")
    assert [one.terminated for one in recording.episodes] == [True, False]
    assert recording.episodes[1].state[:, 0].tolist() == [1, 2, 3, 4]
    assert recording.episodes[0].reward.tolist() == [1, 2, 3]
