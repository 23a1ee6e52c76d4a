"""Frames for a classifier, divided into folders of successes and of failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lapwing.data.formats.serl_labels import read_labelled
from lapwing.data.labelled import divide
from lapwing.data.labelled_files import read_labelled_files
from lapwing.data.labelled_writer import write_labelled
from lapwing.episode import Episode
from lapwing.errors import DataError
from lapwing.spec import Camera, RobotSpec, unnamed_axes

SPEC = RobotSpec("tiny", (Camera("front", 4, 5),), unnamed_axes("state", 2), unnamed_axes("action", 3))


def episode(reward: list[float], first: int = 0) -> Episode:
    """Row r is all `first` + r, so that a frame tells where it is from."""
    values = np.arange(first, first + len(reward) + 1)
    return Episode(
        images={"front": np.broadcast_to(values[:, None, None, None], (len(values), 4, 5, 3)).astype(np.uint8)},
        state=np.repeat(values[:, None], 2, axis=1).astype(np.float32),
        action=np.ones((len(reward), 3), np.float32),
        reward=np.array(reward, np.float32),
        terminated=bool(reward[-1]),
    )


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_each_frame_is_in_the_folder_of_what_it_shows(tmp_path: Path, suffix: str) -> None:
    episodes = [episode([0, 0, 1, 1]), episode([0, 0], first=10), episode([0, 1, 0, 1], first=20)]
    assert write_labelled(tmp_path / "clf", episodes, SPEC, suffix) == (4, 9)
    read = {
        kind: {
            one.path.name: one.frames["front"][:, 0, 0, 0].tolist()
            for one in read_labelled(tmp_path / "clf" / kind)  # the label comes from the folder's name
            if (one.label == (kind == "success")).all()
        }
        for kind in ("success", "failure")
    }
    assert read["success"] == {f"episode_000000{suffix}": [3, 4], f"episode_000002{suffix}": [22, 24]}
    assert read["failure"] == {
        f"episode_000000{suffix}": [0, 1, 2],
        f"episode_000001{suffix}": [10, 11, 12],
        f"episode_000002{suffix}": [20, 21, 23],
    }


def test_no_episode_is_on_two_sides_of_a_division(tmp_path: Path) -> None:
    write_labelled(tmp_path / "clf", [episode([0, 0, 1, 1], first=10 * number) for number in range(12)], SPEC)
    files = read_labelled_files([tmp_path / "clf" / "success"], [tmp_path / "clf" / "failure"])
    division = divide(files.parts, 0.7, seed=0)
    sides = [
        {int(one.part.images["front"][0, 0, 0, 0]) // 10 for one in side}
        for side in (division.train, division.calibration, division.test)
    ]
    assert list(map(len, sides)) == [8, 2, 2]
    assert set.union(*sides) == set(range(12))


def test_one_kind_alone_is_refused_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 frames show success, 3 do not, expected both; draw more"):
        write_labelled(tmp_path / "clf", [episode([0, 0])], SPEC)
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "clf").mkdir()
    with pytest.raises(DataError, match="clf: already exists; choose another name or delete it first"):
        write_labelled(tmp_path / "clf", [episode([0, 1])], SPEC)
    assert list((tmp_path / "clf").iterdir()) == []


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="clf: cannot be written"):
        write_labelled(tmp_path / "file" / "clf", [episode([0, 1])], SPEC)
