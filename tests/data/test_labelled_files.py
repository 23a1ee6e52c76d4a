"""Labelled frames out of pickles and recordings, and what is said of those that do not fit."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lapwing.data.formats.options import ReadOptions
from lapwing.data.labelled_files import read_labelled_files, success_rows
from lapwing.episode import Episode
from lapwing.errors import DataError


def transition(value: int, size: int = 8, cameras: tuple[str, ...] = ("front", "wrist"), **more) -> dict:
    observation = {name: np.full((size, size, 3), value, np.uint8) for name in cameras}
    return {
        "observations": observation,
        "actions": np.zeros(2, np.float32),
        "next_observations": observation,
        "rewards": 0,
        "masks": 1.0,
        "dones": False,
    } | more


@pytest.fixture
def write(tmp_path: Path):
    """write("success/a.pkl", [values], size=8, cameras=...): transitions of frames of one value each."""

    def make(name: str, values: list[int], **how) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps([transition(value, **how) for value in values]))
        return path

    return make


@pytest.fixture
def both(write, tmp_path):
    """Folders of two files of success and one of failure."""
    write("success/a.pkl", [200, 201])
    write("success/b.pkl", [202])
    write("failure/c.pkl", [1, 2, 3])
    return tmp_path / "success", tmp_path / "failure"


def test_files_of_the_same_name_are_of_one_recording(both, write):
    write("failure/a.pkl", [4])
    files = read_labelled_files([both[0]], [both[1]])
    assert [(part.name, part.recording) for part in files.parts] == [
        ("success/a.pkl", "a.pkl"),
        ("success/b.pkl", "b.pkl"),
        ("failure/a.pkl", "a.pkl"),
        ("failure/c.pkl", "c.pkl"),
    ]


def test_folders_label_their_files(both):
    files = read_labelled_files([both[0]], [both[1]])
    assert [(part.name, part.label.tolist()) for part in files.parts] == [
        ("success/a.pkl", [1, 1]),
        ("success/b.pkl", [1]),
        ("failure/c.pkl", [0, 0, 0]),
    ]
    assert files.parts[0].images["wrist"][1, 0, 0].tolist() == [201] * 3
    assert [(one.name, one.height, one.width) for one in files.cameras] == [("front", 8, 8), ("wrist", 8, 8)]


def test_only_the_cameras_asked_for_are_kept_in_their_order(both):
    files = read_labelled_files([both[0]], [both[1]], options=ReadOptions(image_keys=("wrist",)))
    assert [one.name for one in files.cameras] == ["wrist"]
    assert all(set(part.images) == {"wrist"} for part in files.parts)


def test_frames_are_resized(both, write):
    other = write("failure_large.pkl", [7], size=16)
    files = read_labelled_files([both[0]], [both[1], other], size=12)
    assert {one.images["front"].shape[1:] for one in files.parts} == {(12, 12, 3)}
    assert files.parts[-1].images["front"][0, 5, 5].tolist() == [7] * 3


def test_an_empty_folder_of_successes_is_refused(tmp_path, both):
    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(DataError, match=r"nothing: found a folder with nothing in it, expected \*.pkl or \*.npz"):
        read_labelled_files([empty], [both[1]])


def test_a_file_given_twice_is_refused(both):
    with pytest.raises(DataError, match=r"a.pkl: is given twice, expected each file once"):
        read_labelled_files([both[0], both[0] / ".." / "success" / "a.pkl"], [both[1]])


def test_nothing_given_is_refused():
    with pytest.raises(DataError, match="labelled frames: none, expected files of successes and of failures"):
        read_labelled_files([], [])


def test_cameras_of_different_sizes_are_refused(both, write):
    other = write("failure_large.pkl", [7], size=16)
    with pytest.raises(DataError, match=r"failure_large.pkl: camera 'front' is 16 x 16, in success/a.pkl it is 8 x 8"):
        read_labelled_files([both[0]], [both[1], other])


def test_files_with_other_cameras_are_refused(both, write):
    other = write("failure_top.pkl", [7], cameras=("front", "top"))
    with pytest.raises(DataError, match=r"failure_top.pkl: no camera 'wrist', it has front, top; expected the same"):
        read_labelled_files([both[0]], [both[1], other])


def test_a_recording_shows_success_after_its_rewarded_steps(make_recording):
    episode = make_recording([(4, True, True)]).episodes[0]
    label, lost = success_rows(replace(episode, reward=np.array([0, 1, 0, 1], np.float32)), "here")
    assert (label.tolist(), lost) == ([0, 0, 1, 0, 1], 0)


def test_a_success_that_was_not_observed_is_left_out_and_counted(make_recording):
    episode = make_recording([(3, True, False)]).episodes[0]
    label, lost = success_rows(replace(episode, reward=np.array([0, 0, 1], np.float32)), "here")
    assert (label.tolist(), lost) == ([0, 0, 0], 1)


def rewarded(episode: Episode, *reward: float) -> Episode:
    return replace(episode, reward=np.array(reward, np.float32))


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ([0, 0.25, 1], "rewards from 0.25 to 1, expected one value that marks success"),
        ([0, np.nan, 1], "reward is nan at step 1, expected finite numbers"),
    ],
)
def test_rewards_that_are_no_marks_are_refused(make_recording, reward, message):
    with pytest.raises(DataError, match=message):
        success_rows(rewarded(make_recording([(3, True, True)]).episodes[0], *reward), "here")


def test_a_penalty_is_no_success(make_recording):
    label, _ = success_rows(rewarded(make_recording([(3, True, True)]).episodes[0], -0.1, -0.1, 1), "here")
    assert label.tolist() == [0, 0, 0, 1]


def test_a_recording_without_rewards_is_refused(make_recording):
    episode = replace(make_recording([(3, True, True)]).episodes[0], reward=None)
    with pytest.raises(DataError, match="here has no rewards, expected 1 where it succeeded"):
        success_rows(episode, "here")


@pytest.fixture
def demos(tmp_path) -> Path:
    """Two episodes of three steps that succeed at the last; each frame is of its own brightness."""
    steps = []
    for episode in range(2):
        for step in range(3):
            value, done = 10 * episode + step, step == 2
            after = transition(value + 1)["observations"] | {"state": np.zeros(2, np.float32)}
            before = transition(value)["observations"] | {"state": np.zeros(2, np.float32)}
            steps.append(
                transition(value, rewards=int(done), masks=float(not done), dones=done)
                | {"observations": before, "next_observations": after}
            )
    path = tmp_path / "demos.pkl"
    path.write_bytes(pickle.dumps(steps))
    return path


def test_a_recording_is_read_by_episode(demos):
    files = read_labelled_files([], [], [demos], options=ReadOptions(image_keys=("front",)))
    assert [(part.name, part.label.tolist()) for part in files.parts] == [
        ("demos.pkl, episode 0", [0, 0, 0, 1]),
        ("demos.pkl, episode 1", [0, 0, 0, 1]),
    ]
    frames = files.parts[1].images["front"]
    assert frames.shape == (4, 8, 8, 3)
    assert frames[np.array([3, 0])][:, 0, 0, 0].tolist() == [13, 10]


def test_a_recording_without_the_camera_is_refused(tiny_flat):
    with pytest.raises(DataError, match=r"tiny.hdf5: cameras are left, right, global, expected top"):
        read_labelled_files([], [], [tiny_flat], options=ReadOptions(image_keys=("top",)))


def test_an_unobserved_success_is_said(tiny_flat):
    """The flat layout holds no observation after the last action."""
    with h5py.File(tiny_flat, "r+") as file:
        values = np.zeros(file["rewards"].shape, np.float32)
        values[np.flatnonzero(file["terminals"][:])] = 1
        file["rewards"][:] = values
    files = read_labelled_files([], [], [tiny_flat])
    assert any("end with a reward and without the observation it was given for" in note for note in files.notes)
    assert not any(part.label.any() for part in files.parts)
