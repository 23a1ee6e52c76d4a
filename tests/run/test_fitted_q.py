"""Values of a chain that are known by hand, the bootstrap over episodes and networks, and what values may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapwing.episode import Array, Episode, Recording
from lapwing.errors import ConfigError
from lapwing.run.evidence import return_range, start_returns, value_bounds
from lapwing.run.fitted_q import LOOKS, Evidence, Fit, FitOptions, fit_values, weighted_loss
from lapwing.run.ranking import mean_interval, rank

GO, STAY = 1.0, -1.0
DISCOUNT = 0.8
QUICK = FitOptions(steps=600, batch_size=64, members=2, hidden=(32,), lr=3e-3, tau=0.05)


def one_hot(place: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(place, 3).float()


@pytest.fixture(scope="module")
def chain() -> Evidence:
    """Places 0, 1, 2: going on from 2 earns 1 and ends the task, staying earns nothing; both were tried everywhere."""
    place = torch.arange(3).repeat(2)
    action = torch.tensor([GO] * 3 + [STAY] * 3)
    goes = action == GO
    after = torch.where(goes, place + 1, place).clamp(max=2)
    ends = goes & (place == 2)
    return Evidence(
        feature=one_hot(place),
        action=action[:, None],
        reward=ends.float(),
        discount=torch.where(ends, 0.0, DISCOUNT),
        next_feature=one_hot(after),
        episode=torch.zeros(6, dtype=torch.int64),
        bounds=(0.0, 1.0),
    )


def fit(chain: Evidence, options: FitOptions = QUICK, watch: Callable[[int], None] = lambda step: None) -> Fit:
    """Values at place 0 of the policies that always go and always stay."""
    next_action = torch.tensor([GO, STAY])[None, :, None].expand(6, 2, 1)
    start = one_hot(torch.tensor([0]))
    return fit_values(chain, next_action, start, next_action[:1], options, watch)


def test_values_of_a_chain_are_those_known_by_hand(chain: Evidence) -> None:
    going, staying = fit(chain).value.mean((1, 2))
    assert going == pytest.approx(DISCOUNT**2, abs=0.04)
    assert staying == pytest.approx(0.0, abs=0.04)


def test_values_scale_with_rewards(chain: Evidence) -> None:
    large = replace(chain, reward=100 * chain.reward, bounds=(0.0, 100.0))
    assert np.allclose(fit(large).value, 100 * fit(chain).value, rtol=1e-3, atol=0.1)


def test_values_stay_within_their_bounds(chain: Evidence) -> None:
    assert fit(replace(chain, bounds=(0.0, 0.3))).value.max() < 0.35


def test_a_fit_repeats_itself_watches_each_step_and_leaves_random_numbers_alone(chain: Evidence) -> None:
    options, seen = replace(QUICK, steps=30), list[int]()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit(chain, options, seen.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == list(range(1, 31))
    assert np.array_equal(first.value, fit(chain, options).value)
    assert not np.array_equal(first.value, fit(chain, replace(options, seed=1)).value)
    assert (first.value.shape, first.course.shape, first.steps[-1]) == ((2, 2, 1), (LOOKS, 2), 30)


def test_a_fit_of_fewer_steps_than_looks(chain: Evidence) -> None:
    assert fit(chain, replace(QUICK, steps=1)).course.shape == (LOOKS, 2)


def test_the_loss_of_two_networks_by_hand() -> None:
    q = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    weight = torch.tensor([[1.0, 0.5], [2.0, 0.0]])
    assert weighted_loss(q, target, weight).item() == (1 + 2) / 2 + (18 + 0) / 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps is 0, expected a positive number"),
        ({"tau": float("inf")}, "tau is inf"),
        ({"hidden": (4, 0)}, r"hidden is \[4, 0\], expected positive widths"),
    ],
)
def test_settings_out_of_range(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FitOptions(**setting)  # type: ignore[arg-type]


def test_a_clear_order_is_certain() -> None:
    value = np.array([1.0, 3.0, 2.0])[:, None, None] + np.random.default_rng(0).normal(0, 0.01, (3, 2, 40))
    found = rank(value)
    assert found.order.tolist() == [1, 2, 0]
    assert found.best.tolist() == [0.0, 1.0, 0.0]
    assert found.behind[1] == (0.0, 0.0)
    assert found.behind[2] == pytest.approx((1.0, 1.0), abs=0.02)


def test_what_makes_episodes_easy_for_all_does_not_blur_the_order() -> None:
    easy = np.random.default_rng(0).normal(0, 10, 50)
    found = rank(np.stack([easy, easy + 0.1])[:, None])
    assert found.best.tolist() == [0.0, 1.0]
    assert found.interval[0][1] > found.interval[1][0]


def test_networks_that_disagree_make_the_order_unsure() -> None:
    value = np.array([[[0.0], [1.0]], [[1.0], [0.0]]]).repeat(20, 2)
    assert rank(value).best.tolist() == pytest.approx([0.5, 0.5], abs=0.05)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.integers(1, 3), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_rankings_hold_together(means: list[float], members: int, starts: int) -> None:
    value = np.array(means)[:, None, None] * np.ones((len(means), members, starts))
    found = rank(value, draws=20)
    assert len(set(found.best[value[:, 0, 0] == value.max()])) == 1  # those that are alike share
    assert found.best.sum() == pytest.approx(1)
    assert (np.diff(found.value[found.order]) <= 0).all()
    assert all(low <= high for low, high in (*found.interval, *found.behind))


def test_an_interval_over_episodes_takes_their_samples_together() -> None:
    value = np.array([0.0] * 10 + [1.0] * 10)
    apart, together = mean_interval(value, np.arange(20)), mean_interval(value, np.repeat([3, 7], 10))
    assert together == (0.0, 1.0)
    assert 0.2 < apart[0] < 0.5 < apart[1] < 0.8


@pytest.fixture
def with_rewards(make_recording: Callable[..., Recording]) -> Callable[..., Episode]:
    """with_rewards(0, 1): an episode that earns that."""

    def make(*reward: float) -> Episode:
        (episode,) = make_recording([(len(reward), True, True)]).episodes
        return replace(episode, reward=np.array(reward, np.float32))

    return make


def test_rewards_at_the_end_bound_values_by_the_returns(with_rewards: Callable[..., Episode]) -> None:
    episodes = [with_rewards(0, 0, 2), with_rewards(0, 0)]
    assert value_bounds(episodes, 0.5) == pytest.approx((0.0, 2.2))
    assert value_bounds([with_rewards(0, -1), with_rewards(0, 1)], 0.5) == pytest.approx((-1.2, 1.2))
    assert return_range(episodes, 0.5) == (0.0, 2.0)


def test_rewards_on_the_way_bound_values_by_what_can_go_on(with_rewards: Callable[..., Episode]) -> None:
    episodes = [with_rewards(1, 0, 0), with_rewards(-0.5, 0)]
    assert value_bounds(episodes, 0.9) == pytest.approx((-5.0, 10.0))
    assert value_bounds(episodes, 1.0) == pytest.approx((-1.5, 3.0))


def test_returns_of_starts(with_rewards: Callable[..., Episode]) -> None:
    found: Array = start_returns([with_rewards(0, 0, 2), with_rewards(1, 1)], 0.5)
    assert found.tolist() == [0.5, 1.5]
