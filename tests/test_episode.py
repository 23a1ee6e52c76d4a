"""What episodes are worth."""

from __future__ import annotations

import numpy as np
import pytest

from lapwing.episode import endless_returns, returns_to_go

REWARD = np.array([0.0, 1.0, 0.0, 2.0])


def test_returns_to_go_by_hand() -> None:
    assert returns_to_go(REWARD, 0.5).tolist() == [0.75, 1.5, 1.0, 2.0]


def test_a_cut_episode_is_worth_its_last_steps_over_and_over() -> None:
    # 0.75 / (1 - 1/16), 1.5 / (1 - 1/8), 1 / (1 - 1/4), 2 / (1 - 1/2)
    assert endless_returns(REWARD, False, 0.5).tolist() == pytest.approx([0.8, 12 / 7, 4 / 3, 4.0])
    repeated = returns_to_go(np.tile(REWARD, 30), 0.5)[0]
    assert endless_returns(REWARD, False, 0.5)[0] == pytest.approx(repeated)


@pytest.mark.parametrize(("terminated", "gamma"), [(True, 0.5), (False, 1.0)])
def test_a_finished_task_and_an_undiscounted_one_go_on_no_further(terminated: bool, gamma: float) -> None:
    assert np.array_equal(endless_returns(REWARD, terminated, gamma), returns_to_go(REWARD, gamma))
