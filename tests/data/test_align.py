"""Observations and the actions that belong to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lapwing.data.align import align
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError
from lapwing.spec import Axis, Camera, RobotSpec

SPEC = RobotSpec("one", (Camera("front", 1, 1),), (Axis("x"),), (Axis("x"),))


def recording(steps: int = 5, rows: int = 5) -> Recording:
    """Every number says its row."""
    numbers = np.arange(rows, dtype=np.float32)
    episode = Episode(
        images={"front": np.tile(numbers.astype(np.uint8)[:, None, None, None], (1, 1, 1, 3))},
        state=numbers[:, None],
        action=10 + np.arange(steps, dtype=np.float32)[:, None],
        reward=np.eye(1, steps, steps - 1, dtype=np.float32)[0],
        terminated=True,
        time=numbers / 10,
        sensors={"effort": numbers[:, None]},
    )
    return Recording(Path("r"), "test", SPEC, [episode])


@pytest.mark.parametrize("rows", [5, 6])
@pytest.mark.parametrize("shift", [-2, -1, 1, 2])
def test_pairs_are_moved_and_nothing_is_made_up(shift: int, rows: int) -> None:
    (episode,) = align(recording(rows=rows), shift).episodes
    assert episode.num_steps == 5 - abs(shift)
    observed = episode.state[: episode.num_steps, 0]
    assert np.array_equal(episode.action[:, 0] - 10, observed + shift)
    assert episode.time is not None
    assert np.array_equal(episode.time, episode.state[:, 0] / np.float32(10))
    for rows_read in (episode.images["front"][:][:, 0, 0, 0], episode.sensors["effort"][:][:, 0]):
        assert np.array_equal(rows_read, episode.state[:, 0])
    assert episode.images["front"].shape == (episode.num_rows, 1, 1, 3)


@pytest.mark.parametrize("shift", [-2, 1])
def test_the_end_of_an_episode_stays(shift: int) -> None:
    (episode,) = align(recording(), shift).episodes
    assert episode.terminated
    assert episode.reward is not None
    assert np.array_equal(np.flatnonzero(episode.reward), [episode.num_steps - 1])


def test_no_shift_changes_nothing_and_a_shift_is_noted() -> None:
    given = recording()
    assert align(given, 0) is given
    assert align(given, 1).notes == ("actions are paired +1 steps from where they were recorded",)


def test_a_short_episode_is_named() -> None:
    with pytest.raises(DataError, match=r"r: episode 0 has 5 steps, expected more than the alignment of -5"):
        align(recording(), -5)
