"""Choices of the grippers, and their losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lapwing.agents.grasp import (
    GraspCritic,
    grasp_class,
    grasp_imitation_loss,
    grasp_loss,
    grasp_target,
    grasp_values,
)


def test_one_gripper_has_three_choices() -> None:
    action = torch.tensor([[0.3, -1.0], [0.3, 0.0], [0.3, 1.0]])
    assert grasp_class(action, (1,)).tolist() == [0, 1, 2]
    assert grasp_values(torch.arange(3), 1).tolist() == [[-1.0], [0.0], [1.0]]


def test_two_grippers_have_nine_the_left_counting_three_times() -> None:
    action = torch.zeros(9, 14)
    action[:, 6] = torch.tensor([-1.0, -1, -1, 0, 0, 0, 1, 1, 1])
    action[:, 13] = torch.tensor([-1.0, 0, 1]).repeat(3)
    assert grasp_class(action, (6, 13)).tolist() == list(range(9))
    assert grasp_class(action, (13, 6)).tolist() == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert grasp_values(torch.arange(9), 2).tolist() == action[:, [6, 13]].tolist()


def test_without_grippers_there_is_one_choice_that_tells_nothing() -> None:
    assert grasp_class(torch.randn(4, 6), ()).tolist() == [0, 0, 0, 0]
    assert grasp_values(torch.zeros(4, dtype=torch.int64), 0).shape == (4, 0)


def test_what_a_human_pressed_halfway_is_rounded_and_what_is_beyond_is_bounded() -> None:
    action = torch.tensor([[-0.93], [-0.51], [-0.49], [0.2], [0.51], [0.9], [3.0], [-7.0]])
    assert grasp_class(action, (0,)).tolist() == [0, 0, 1, 1, 2, 2, 2, 0]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2), st.lists(st.integers(0, 8), min_size=1, max_size=5))
def test_choices_survive_the_way_there_and_back(grippers: int, numbers: list[int]) -> None:
    choice = torch.tensor(numbers) % 3**grippers
    assert torch.equal(grasp_class(grasp_values(choice, grippers), range(grippers)), choice)


@pytest.mark.parametrize(("grippers", "choices"), [(1, 3), (2, 9)])
def test_critic_values_every_choice(grippers: int, choices: int) -> None:
    critic = GraspCritic(5, grippers, (256, 256))
    assert critic(torch.randn(4, 5)).shape == (4, choices)
    assert [layer.out_features for layer in critic.modules() if isinstance(layer, nn.Linear)] == [256, 256, choices]


def test_target_by_hand() -> None:
    online = torch.tensor([[0.1, 0.9, 0.2], [0.5, 0.0, 0.4]])  # picks choice 1, then choice 0
    slow = torch.tensor([[7.0, 0.5, 9.0], [0.2, 8.0, 0.3]])  # its own best would be 2, then 1
    reward, penalty, discount = torch.tensor([0.0, 1.0]), torch.tensor([-0.02, -0.05]), torch.tensor([0.9, 0.0])
    target = grasp_target(reward, penalty, discount, online, slow)
    assert target.tolist() == pytest.approx([0.0 - 0.02 + 0.9 * 0.5, 1.0 - 0.05])
    assert grasp_target(reward, None, discount, online, slow).tolist() == pytest.approx([0.45, 1.0])


def test_loss_by_hand_concerns_what_was_chosen_alone() -> None:
    q = torch.tensor([[0.1, 0.6, 0.2], [0.5, 0.0, 0.4]], requires_grad=True)
    loss = grasp_loss(q, torch.tensor([1, 2]), torch.tensor([0.43, 1.0]))
    assert loss.item() == pytest.approx((0.17**2 + 0.6**2) / 2)
    loss.backward()
    assert q.grad is not None
    torch.testing.assert_close(q.grad, torch.tensor([[0, 0.17, 0], [0, 0, -0.6]]))


def test_imitation_loss_by_hand() -> None:
    q = torch.tensor([[0.0, math.log(2), 0.0], [0.0, 0.0, 0.0]])
    loss = grasp_imitation_loss(q, torch.tensor([1, 2])).mean()
    assert loss.item() == pytest.approx((math.log(2) + math.log(3)) / 2)
