"""Episodes that stop early, in motion, or are there twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lapwing.data.endings import check_cut, check_early, check_twins
from lapwing.episode import Episode
from lapwing.spec import Axis, RobotSpec

SPEC = RobotSpec("robot", (), (Axis("waist"), Axis("fixed"), Axis("base", kind="base")), (Axis("waist"),))
PATH = Path("eps")
LABELS = [f"episode_{number}.hdf5" for number in range(6)]


def episode(steps: int = 60, at_rest: int = 20, seed: int = 0) -> Episode:
    """Some way, and then `at_rest` steps without moving; the base's velocity changes to the end."""
    rng = np.random.default_rng(seed)
    way = np.abs(rng.normal(1, 0.1, steps))
    way[steps - at_rest :] = 0
    state = np.stack([way.cumsum(), np.full(steps, 3.0), rng.normal(size=steps)], 1).astype(np.float32)
    return Episode({}, state, state[:, :1], None, terminated=False)


@pytest.fixture
def six() -> list[Episode]:
    return [episode(seed=seed) for seed in range(6)]


def test_a_short_episode_is_named_with_its_length(six):
    six[3] = episode(12, 4)
    (problem,) = check_early(PATH, "episodes", six, LABELS)
    assert str(problem).startswith(
        "warning: eps: episodes: 1 of 6 episodes stop early, steps: episode_3.hdf5 (12), expected about 60 steps"
    )


def test_what_the_task_ended_or_is_one_of_few_is_not_early(six):
    assert check_early(PATH, "episodes", six, LABELS) == []
    six[3] = episode(25, 4)
    assert check_early(PATH, "episodes", six, LABELS) == []
    for done in ({"terminated": True}, {"success": True}):
        six[3] = replace(episode(12, 4), **done)
        assert check_early(PATH, "episodes", six, LABELS) == []
    assert check_early(PATH, "episodes", [episode(12, 4), *six[:2]], LABELS[:3]) == []


def test_an_end_in_motion_is_named_where_the_others_rest(six):
    six[1] = episode(at_rest=0, seed=1)
    (problem,) = check_cut(PATH, "episodes", six, LABELS, SPEC)
    assert "1 of 6 episodes end in the middle of motion: episode_1.hdf5, expected an end at rest" in str(problem)
    six[1] = replace(six[1], success=True)
    assert check_cut(PATH, "episodes", six, LABELS, SPEC) == []


def test_an_end_in_motion_is_no_news_where_all_end_so(six):
    moving = [episode(at_rest=0, seed=seed) for seed in range(6)]
    assert check_cut(PATH, "episodes", six, LABELS, SPEC) == []
    assert check_cut(PATH, "episodes", moving, LABELS, SPEC) == []
    still = [replace(one, state=one.state * 0) for one in six]
    assert check_cut(PATH, "episodes", still, LABELS, SPEC) == []


def test_twins_are_named_together(six):
    six[4], six[5] = six[1], replace(six[1], images={}, success=True)
    (problem,) = check_twins(PATH, "episodes", six, LABELS)
    assert "stored twice: episode_1.hdf5 = episode_4.hdf5 = episode_5.hdf5, expected different" in str(problem)


def test_episodes_that_differ_in_one_number_are_no_twins(six):
    state = six[1].state.copy()
    state[7, 0] += 1e-6
    six[4] = replace(six[1], state=state)
    six[5] = replace(six[1], action=six[1].action + 1)
    assert check_twins(PATH, "episodes", six, LABELS) == []
