"""What a learned world predicts, where it knows that it does not, and what policies earn in it, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Observation
from lapwing.nets.mlp import EnsembleMlp
from lapwing.run.fitted_q import Evidence, FitOptions
from lapwing.run.imagined import imagine, replay
from lapwing.run.world_model import MATTERS, Step, WorldModel, fit_world

UNIT = np.ones(1, np.float32)
PLAIN = Normalizer(
    0 * UNIT, UNIT, 0 * UNIT, UNIT, 0 * UNIT, UNIT, -10 * UNIT, 10 * UNIT, np.array([-1])
)  # numbers stand for themselves
QUICK = FitOptions(steps=500, batch_size=64, members=3, hidden=(32,), lr=5e-3)


@dataclass
class Line:
    """Actions move along a line; each step earns where it ends, and the task goes on with a probability of a half.

    Member 1 sees everything one further on. Nothing is known beyond 5.
    """

    members: int = 2
    lowest: float = 0.0

    def step(self, state: Tensor, action: Tensor, member: Tensor) -> Step:
        after = state + action
        return Step(after, after[:, 0] + member, torch.full((len(state),), 0.5), after[:, 0] <= 5)


class Walker:
    """Goes on by `pace`, a batch of observations at a time; says what it saw."""

    def __init__(self, pace: float) -> None:
        self.pace, self.seen = pace, list[Array]()

    def reset(self) -> None:
        self.seen.clear()

    def __call__(self, observation: Observation, /) -> Array:
        self.seen.append(observation.state)
        return np.full((len(observation.state), 1), self.pace, np.float32)


def earned(world: Line, *policies: Walker, discount: float = 1.0) -> Array:
    start = np.array([[0.0], [1.0]], np.float32)
    return imagine(world, policies, start, PLAIN, 3, discount).earned  # type: ignore[arg-type]


def test_rewards_are_weighted_with_what_is_left_of_the_task_and_discounted() -> None:
    found = earned(Line(), Walker(1.0), Walker(0.0), discount=0.5)
    assert found.shape == (3, 2, 2, 2)  # steps, policies, members, starts
    assert found[:, 0, 0, 0].tolist() == [1.0, 2 / 4, 3 / 16]
    assert found[:, 0, 1, 1].tolist() == [3.0, 4 / 4, 5 / 16]  # the other member, from 1
    assert found[:, 1, 0, 1].tolist() == [1.0, 1 / 4, 1 / 16]


def test_a_policy_sees_where_its_own_actions_led() -> None:
    slow, fast = Walker(1.0), Walker(2.0)
    earned(Line(members=1), slow, fast)
    assert [seen[:, 0].tolist() for seen in slow.seen] == [[0, 1], [1, 2], [2, 3]]
    assert [seen[:, 0].tolist() for seen in fast.seen] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(("lowest", "after"), [(0.0, 0.0), (0.3, 0.0), (-2.0, -1.0)])
def test_where_the_world_is_unknown_the_lowest_reward_is_earned_and_at_most_nothing(
    lowest: float, after: float
) -> None:
    world = Line(members=1, lowest=lowest)
    found = imagine(world, [Walker(4.0)], np.zeros((1, 1), np.float32), PLAIN, 3, 0.5)  # type: ignore[arg-type]
    assert found.earned[:, 0, 0, 0].tolist() == [4.0, 0.5 * after, 0.25 * after]
    assert found.lost.tolist() == [[[0.5]]]  # the other half of the task had ended before


def test_each_step_is_watched() -> None:
    seen: list[int] = []
    imagine(Line(), [Walker(1.0)], np.zeros((1, 1), np.float32), PLAIN, 3, 1.0, seen.append)  # type: ignore[arg-type]
    assert seen == [1, 2, 3]


def test_recorded_actions_are_played_one_after_the_other() -> None:
    found = replay(Line(), np.zeros(1, np.float32), np.array([[1.0], [3.0]], np.float32), PLAIN)  # type: ignore[arg-type]
    assert found == (1.0 + 4.0 / 2 + 2.0 + 5.0 / 2) / 2  # two members


@pytest.fixture
def transitions() -> Callable[[int, int], Evidence]:
    """transitions(count, seed): x from -1 to 1 moves by a tenth of the action; from 1 on that earns 1 and ends it."""

    def make(count: int, seed: int) -> Evidence:
        random = np.random.default_rng(seed)
        state, action = random.uniform(-1, 1, (count, 1)), random.uniform(-1, 1, (count, 1))
        after = state + 0.1 * action
        ended = after[:, 0] >= 0.5
        return Evidence(
            *(torch.from_numpy(one.astype(np.float32)) for one in (state, action, ended, ~ended, after)),
            episode=torch.arange(count) // 10,
            bounds=(0.0, 1.0),
        )

    return make


def test_the_loss_by_hand() -> None:
    evidence = Evidence(
        feature=torch.zeros(3, 1),
        action=torch.zeros(3, 1),
        reward=torch.tensor([0.0, 0.0, 2.0]),
        discount=torch.tensor([1.0, 1.0, 0.0]),
        next_feature=torch.tensor([[1.0], [3.0], [100.0]]),  # 2 and its standard deviation sqrt(2), what ended aside
        episode=torch.zeros(3, dtype=torch.int64),
        bounds=(0.0, 2.0),
    )
    net = EnsembleMlp(2, 2, (4,), 3)
    torch.nn.init.zeros_(net.weights[-1])
    weight = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]])
    undecided = 2 * math.log(2)  # reward and end, both at a half
    found = WorldModel(net, evidence).loss(evidence, torch.arange(3), weight)
    assert found.item() == pytest.approx((0.5 + 0.5) / 3 + undecided + 2 / 3 * (0.5 + undecided))


def test_a_world_is_learned(transitions: Callable[[int, int], Evidence]) -> None:
    torch.manual_seed(5)
    before, seen = torch.get_rng_state(), list[int]()
    world = fit_world(transitions(2000, 0), transitions(500, 1), QUICK, seen.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == list(range(1, 501))
    after = world.step(torch.tensor([[0.0], [0.8]]), torch.tensor([[1.0], [0.0]]), torch.tensor([0, 2]))
    assert after.state[0].item() == pytest.approx(0.1, abs=0.02)
    assert after.reward.tolist() == pytest.approx([0.0, 1.0], abs=0.05)
    assert after.goes_on.tolist() == pytest.approx([1.0, 0.0], abs=0.05)
    assert after.is_known.all()


@pytest.mark.parametrize(("apart", "limit"), [(2.0, 1.0), (0.2, MATTERS)])
def test_the_known_ends_where_members_differ_more_than_usual_and_than_matters(
    transitions: Callable[[int, int], Evidence], apart: float, limit: float
) -> None:
    world = WorldModel(EnsembleMlp(2, 2, (4,), 3), transitions(50, 0))
    with torch.no_grad():
        world.net.weights[-1].zero_()
        world.net.biases[-1][1, 0, 0] = apart  # the change that the second member predicts, whatever it sees
    world.trust(transitions(50, 1))
    assert world.limit == pytest.approx(limit)
    here = (torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    assert world.step(*here).is_known.item()
    with torch.no_grad():
        world.net.biases[-1][1, 0, 0] = 3 * apart
    assert not world.step(*here).is_known.item()


def test_predictions_stay_near_the_recorded_states(transitions: Callable[[int, int], Evidence]) -> None:
    evidence = transitions(50, 0)
    world = WorldModel(EnsembleMlp(1, 2, (4,), 3), evidence)
    with torch.no_grad():
        world.net.biases[-1].fill_(1e6)
    after = world.step(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    seen = torch.cat([evidence.feature, evidence.next_feature])
    assert after.state.item() == pytest.approx((seen.max() + 0.1 * (seen.max() - seen.min())).item())
