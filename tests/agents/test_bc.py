"""Behaviour cloning's loss, chunks and settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.agent import Chunks, RewardFacts
from lapwing.agents.bc import BcAgent, BcConfig, masked_square_error
from lapwing.batch import Batch
from lapwing.errors import ConfigError
from lapwing.nets.vision import VisionConfig
from lapwing.spec import RobotSpec

MakeBatch = Callable[..., Batch]


def make_agent(spec: RobotSpec, facts: RewardFacts, **settings: Any) -> BcAgent:
    torch.manual_seed(0)
    vision = VisionConfig(backbone="small", weights="none", image_feature_dim=32)
    return BcAgent(BcConfig(**{"vision": vision, "hidden": (32,), "obs_feature_dim": 32} | settings), spec, facts)


def test_masked_square_error_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [9.0, 9.0]], [[0.0, 0.0], [3.0, 0.0]]])
    is_pad = torch.tensor([[False, True], [False, False]])
    # (1 + 4) + 0 + 9 over three valid steps of two axes
    assert masked_square_error(predicted, torch.zeros(2, 2, 2), is_pad).item() == pytest.approx(14 / 6)


def test_masked_square_error_of_padding_alone_is_zero() -> None:
    assert masked_square_error(torch.ones(2, 3, 4), torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)) == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 2**31))
def test_masked_square_error_is_the_mean_over_valid_steps(
    batch: int, chunk: int, axes: int, padding: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    predicted, action = (torch.randn(batch, chunk, axes, generator=random) for _ in range(2))
    is_pad = torch.rand(batch, chunk, generator=random) < 0.4
    is_pad[0, 0] = False
    expected = (predicted - action)[~is_pad].square().mean()
    torch.testing.assert_close(masked_square_error(predicted, action, is_pad), expected)
    more = torch.full((batch, padding, axes), 100.0)
    padded = masked_square_error(
        torch.cat([predicted, more], 1),
        torch.cat([action, -more], 1),
        torch.cat([is_pad, torch.ones(batch, padding, dtype=torch.bool)], 1),
    )
    torch.testing.assert_close(padded, expected)


def test_masked_square_error_has_the_gradient_of_its_value() -> None:
    torch.manual_seed(0)
    predicted = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    is_pad = torch.tensor([[False, False], [False, True], [True, True]])
    target = torch.randn(3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: masked_square_error(x, target, is_pad), [predicted])
    masked_square_error(predicted, target, is_pad).backward()
    assert predicted.grad is not None
    assert torch.equal(predicted.grad.abs().sum(-1) == 0, is_pad)


def test_loss_is_what_act_would_have_missed(eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(eyes, facts, chunk=3, random_shift=0)
    batch = make_batch(eyes, agent.sampling)
    expected = (agent.act(batch.obs) - batch.action)[~batch.is_pad].square().mean()
    torch.testing.assert_close(agent.update(batch)["bc_loss"], expected)


def test_images_are_shifted_in_training_alone(eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    losses = []
    for shift in (0, 8):
        agent = make_agent(eyes, facts, random_shift=shift)
        batch = make_batch(eyes, agent.sampling)
        assert torch.equal(agent.act(batch.obs), agent.act(batch.obs))
        losses.append(agent.update(batch)["bc_loss"])
    assert losses[0] != losses[1]


def test_rewards_are_not_looked_at(blind: RobotSpec, make_batch: MakeBatch) -> None:
    states = []
    for reward in (0.0, 5.0):
        agent = make_agent(blind, RewardFacts(reward=(-reward, reward), returns=(-reward, reward)))
        batch = make_batch(blind, agent.sampling)
        agent.update(replace(batch, reward=batch.reward + reward))
        states.append(agent.acting.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_are_as_long_as_asked(blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch, chunk: int) -> None:
    agent = make_agent(blind, facts, chunk=chunk)
    assert agent.sampling == Chunks(chunk)
    assert agent.act(make_batch(blind, agent.sampling).obs).shape == (8, chunk, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk": 0}, "chunk is 0, expected a positive number"),
        ({"lr": 0.0}, "lr is 0.0, expected a positive number"),
        ({"lr": math.nan}, "lr is nan, expected a positive number"),
        ({"lr": math.inf}, "lr is inf, expected a positive number"),
        ({"hidden": (16, -1)}, r"hidden is \[16, -1\], expected positive widths"),
        ({"obs_feature_dim": -1}, "obs_feature_dim is -1, expected a positive number"),
        ({"random_shift": -1}, "random_shift is -1, expected 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^bc: {message}"):
        BcConfig(**settings)
