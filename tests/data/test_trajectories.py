"""Pickled lists of episodes: DAPG's demonstrations and expert data of Berkeley's course."""

from __future__ import annotations

import os

import numpy as np
import pytest
from offline_files import REAL, write_pickle

from lapwing.data.check import check
from lapwing.data.formats import read_recording
from lapwing.data.formats.trajectories import is_trajectories
from lapwing.data.scores import normalised_score
from lapwing.errors import DataError


def dapg(steps: int) -> dict:
    state = np.arange(3.0 * steps).reshape(steps, 3)
    start = {"qpos": np.zeros(4)}
    return {"actions": np.sin(state[:, :2]), "rewards": state[:, 0], "observations": state, "init_state_dict": start}


def expert(steps: int) -> dict:
    state = np.arange(3.0 * (steps + 1)).reshape(-1, 3)
    return {
        "observation": state[:-1],
        "action": np.cos(state[:-1, :2]).astype(np.float32),
        "reward": np.ones(steps),
        "next_observation": state[1:],
        "terminal": np.arange(steps) == steps - 1,
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_demonstrations_are_cut_where_their_recording_ends(tmp_path, protocol):
    path = write_pickle(tmp_path / "door.pickle", [dapg(4), dapg(6)], protocol)
    recording = read_recording(path)
    assert (recording.layout, recording.spec.state_dim, recording.spec.action_dim) == ("trajectories", 3, 2)
    assert [(one.num_steps, one.num_rows, one.terminated) for one in recording.episodes] == [
        (4, 4, False),
        (6, 6, False),
    ]
    assert recording.episodes[1].reward.tolist() == [0, 3, 6, 9, 12, 15]
    assert recording.notes == ("not read: init_state_dict",)
    assert check(path, progress=False).trainable


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_the_terminal_of_expert_data_is_a_time_limit(tmp_path, protocol):
    recording = read_recording(write_pickle(tmp_path / "expert.pkl", [expert(4), expert(4)], protocol))
    assert [(one.num_rows, one.terminated) for one in recording.episodes] == [(5, False), (5, False)]
    assert recording.episodes[0].state[-1].tolist() == [12, 13, 14]
    assert recording.notes == ("'terminal' taken as a time limit: every episode counts as cut",)


def test_transition_files_are_not_taken_for_episodes(tmp_path):
    step = {"observations": {"state": np.zeros(3)}, "actions": np.zeros(2), "rewards": 0.0, "dones": False}
    path = write_pickle(tmp_path / "steps.pkl", [step, step | {"dones": True}])
    assert not is_trajectories(path)
    assert read_recording(path).layout == "serl"
    assert not is_trajectories(write_pickle(tmp_path / "numbers.pkl", [1, 2]))
    (tmp_path / "broken.pkl").write_bytes(b"\x80\x04\x95")
    assert not is_trajectories(tmp_path / "broken.pkl")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (dapg(4) | {"rewards": np.zeros(3)}, r"'rewards' of episode 1 has 3 rows, expected 4 as its actions have"),
        (dapg(4) | {"observations": np.zeros((6, 3))}, r"'observations' of episode 1 has 6 rows, expected 4"),
        (dapg(4) | {"observations": np.zeros((4, 2))}, r"'observations' of episode 1 has 2 axes, expected 3 as in"),
        (
            dapg(4) | {"observations": np.zeros(4)},
            r"'observations' of episode 1 has shape \(4,\), expected \[N, axes\]",
        ),
        (dapg(4) | {"actions": "none"}, r"'actions' of episode 1 is str, expected an array of numbers"),
        ({"observations": np.zeros((4, 3))}, r"episode 1 has no 'actions' \(found observations\)"),
        (
            dapg(4) | {"next_observations": np.zeros((4, 3))},
            r"step 0 of episode 1 is not followed by the next one, as its next observation shows",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, stored, message):
    path = write_pickle(tmp_path / "door.pickle", [dapg(4), stored])
    with pytest.raises(DataError, match=message):
        read_recording(path)


class Command:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_pickle_is_run(tmp_path):
    path = write_pickle(tmp_path / "door.pickle", [dapg(4) | {"init_state_dict": Command(str(tmp_path / "made"))}])
    with pytest.raises(DataError, match="expected numbers, text, plain containers and numpy arrays alone"):
        read_recording(path)
    assert not (tmp_path / "made").exists()


def test_the_real_door_demonstrations():
    path = REAL / "adroit_door_human" / "door-v0_demos.pickle"
    if not path.exists():
        pytest.skip(f"{path} does not stand beside the checkout")
    recording = read_recording(path)
    assert (len(recording.episodes), recording.num_steps) == (25, 6729)
    assert (recording.spec.state_dim, recording.spec.action_dim) == (39, 28)
    earned = float(recording.episodes[0].reward.sum(dtype=np.float64))
    assert earned == pytest.approx(504.26, abs=0.01)
    assert normalised_score("door-human-v0", earned) == pytest.approx(19.09, abs=0.01)


@pytest.mark.parametrize(
    ("name", "dims", "returns"),
    [("Hopper", (11, 3), [3717.16, 3717.87]), ("HalfCheetah", (17, 6), [4067.67, 4001.93])],
)
def test_the_real_experts(name, dims, returns):
    path = REAL / "mujoco_expert" / f"expert_data_{name}-v4.pkl"
    if not path.exists():
        pytest.skip(f"{path} does not stand beside the checkout")
    recording = read_recording(path)
    assert (recording.spec.state_dim, recording.spec.action_dim) == dims
    assert [one.num_rows for one in recording.episodes] == [1001, 1001]
    assert [one.reward.sum(dtype=np.float64) for one in recording.episodes] == pytest.approx(returns, abs=0.01)
