"""D4RL's layout as it is written: every row a whole transition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lapwing.data.formats import read_recording
from lapwing.data.formats.d4rl_writer import write_d4rl
from lapwing.episode import Episode
from lapwing.errors import DataError
from lapwing.spec import Camera, RobotSpec, unnamed_axes

SPEC = RobotSpec("point", (), unnamed_axes("state", 2), unnamed_axes("action", 1))


def episode(begin: int, steps: int, terminated: bool) -> Episode:
    state = np.arange(begin, begin + 2 * (steps + 1), dtype=np.float32).reshape(-1, 2)
    return Episode(
        images={},
        state=state,
        action=np.full((steps, 1), begin, np.float32),
        reward=np.arange(steps, dtype=np.float32),
        terminated=terminated,
        sensors={"goal": state + 0.5},
    )


@pytest.fixture
def episodes() -> list[Episode]:
    return [episode(0, 3, False), episode(100, 2, True), episode(200, 1, False)]


def test_every_row_is_a_transition(episodes: list[Episode], tmp_path: Path) -> None:
    path = tmp_path / "point.hdf5"
    write_d4rl(path, iter(episodes), SPEC)
    with h5py.File(path) as file:
        kept = {name: file[name][:] for name in file if name != "infos"} | {"goal": file["infos/goal"][:]}
    assert kept["observations"].tolist() == [[0, 1], [2, 3], [4, 5], [100, 101], [102, 103], [200, 201]]
    assert kept["next_observations"].tolist() == [[2, 3], [4, 5], [6, 7], [102, 103], [104, 105], [202, 203]]
    assert kept["actions"][:, 0].tolist() == [0, 0, 0, 100, 100, 200]
    assert kept["rewards"].tolist() == [0, 1, 2, 0, 1, 0]
    assert kept["terminals"].tolist() == [False, False, False, False, True, False]
    assert kept["timeouts"].tolist() == [False, False, True, False, False, True]
    assert np.array_equal(kept["goal"], kept["observations"] + 0.5)
    assert [file.name for file in tmp_path.iterdir()] == ["point.hdf5"]


def test_the_reader_finds_the_episodes_again(episodes: list[Episode], tmp_path: Path) -> None:
    write_d4rl(tmp_path / "point.hdf5", episodes, SPEC)
    again = read_recording(tmp_path / "point.hdf5").episodes
    assert [one.terminated for one in again] == [False, True, False]
    for one, was in zip(again, episodes, strict=True):
        assert np.array_equal(one.state, was.state)
        assert np.array_equal(one.action, was.action)
        assert np.array_equal(one.reward, was.reward)


def test_the_same_episodes_give_the_same_bytes(episodes: list[Episode], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_d4rl(tmp_path / name, episodes, SPEC)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": None}, "episode 1 has no rewards, which D4RL's layout needs"),
        ({"state": np.zeros((2, 2), np.float32), "sensors": {}}, "episode 1 has no observation after its last action"),
    ],
)
def test_episodes_that_do_not_fit(
    episodes: list[Episode], tmp_path: Path, change: dict[str, object], message: str
) -> None:
    episodes[1] = replace(episodes[1], **change)
    with pytest.raises(DataError, match=message):
        write_d4rl(tmp_path / "point.hdf5", episodes, SPEC)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_written(episodes: list[Episode], tmp_path: Path) -> None:
    (tmp_path / "there.hdf5").touch()
    with pytest.raises(DataError, match=r"there.hdf5: already exists; choose another name"):
        write_d4rl(tmp_path / "there.hdf5", episodes, SPEC)
    with pytest.raises(DataError, match=r"no room for images, got the cameras front; write a flat file"):
        write_d4rl(tmp_path / "a.hdf5", episodes, replace(SPEC, cameras=(Camera("front", 8, 8),)))
    with pytest.raises(DataError, match=r"missing is no folder; create or choose one"):
        write_d4rl(tmp_path / "missing" / "a.hdf5", episodes, SPEC)
    with pytest.raises(DataError, match=r"no episode to write; expected at least one"):
        write_d4rl(tmp_path / "a.hdf5", [], SPEC)
