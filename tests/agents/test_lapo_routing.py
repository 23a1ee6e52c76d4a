"""Which loss moves which network of LAPO, and how the slow copies follow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lapwing.agent import Agent, RewardFacts
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import LapoConfig
from lapwing.batch import Batch
from lapwing.nets.vision import VisionConfig
from lapwing.spec import RobotSpec

MakeBatch = Callable[..., Batch]
SMALL: dict[str, Any] = {
    "vision": VisionConfig(backbone="small", weights="none", image_feature_dim=32),
    "hidden": (32, 32),
    "obs_feature_dim": 32,
    "random_shift": 2,
}


def make_agent(spec: RobotSpec, facts: RewardFacts, **settings: Any) -> LapoAgent:
    torch.manual_seed(0)
    return LapoAgent(LapoConfig(**SMALL | settings), spec, facts)


@pytest.mark.parametrize("encoder", ["stacked", "shared", "separate"])
@pytest.mark.parametrize("bc_coef", [0.1, 0.0])
def test_each_step_moves_its_own_networks(
    eyes: RobotSpec,
    facts: RewardFacts,
    make_batch: MakeBatch,
    update_watched: Callable[[Agent, Batch], list[set[str]]],
    encoder: Any,
    bc_coef: float,
) -> None:
    agent = make_agent(eyes, facts, bc_coef=bc_coef, vision=replace(SMALL["vision"], encoder=encoder))
    written = [
        {"critic", "encoder", "bc_head"} if bc_coef else {"critic", "encoder"},
        {"vae"},
        {"actor"},
        {"target_critic", "target_vae", "target_actor"},
    ]
    expected = [{name for name in agent.networks.state_dict() if name.split(".")[0] in nets} for nets in written]
    for seed in range(2):
        assert update_watched(agent, make_batch(eyes, agent.sampling, seed=seed)) == expected


def test_encoder_does_not_feel_the_losses_of_vae_and_actor(
    eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    usual = make_agent(eyes, facts)
    other = make_agent(eyes, facts, vae_lr=0.1, actor_lr=0.1, kl_beta=100.0, latent_penalty=7.0, expectile=0.5)
    untaught = make_agent(eyes, facts, bc_coef=5.0)
    for agent in (usual, other, untaught):
        torch.manual_seed(1)
        agent.update(make_batch(eyes, agent.sampling))
    assert_equal(usual.encoder, other.encoder)
    assert_equal(usual.critic, other.critic)
    assert any(not torch.equal(a, b) for a, b in zip(usual.vae.parameters(), other.vae.parameters(), strict=True))
    differing = zip(usual.encoder.parameters(), untaught.encoder.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in differing)


def test_encoder_learns_without_the_auxiliary_head(eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(eyes, facts, bc_coef=0.0)
    assert agent.bc_head is None
    assert "bc_head" not in agent.acting
    metrics = agent.update(make_batch(eyes, agent.sampling))
    assert metrics["encoder_grad_norm"] > 0
    assert metrics["bc_loss"] == 0


def test_encoder_gradient_is_clipped(eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    norms = []
    for limit in (0.0, 1e-3):
        agent = make_agent(eyes, facts, encoder_grad_clip=limit)
        metrics = agent.update(make_batch(eyes, agent.sampling))
        gradients = [p.grad.flatten() for p in agent.encoder.parameters() if p.grad is not None]
        norms.append((metrics["encoder_grad_norm"], torch.cat(gradients).norm()))
    (free, unclipped), (reported, clipped) = norms
    assert free.item() == pytest.approx(unclipped.item(), rel=1e-4)
    assert reported.item() == pytest.approx(free.item(), rel=1e-4)
    assert clipped.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("tau", [0.005, 0.3, 1.0])
def test_slow_copies_follow_at_rate_tau(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch, tau: float
) -> None:
    agent = make_agent(blind, facts, tau=tau, critic_lr=0.01, vae_lr=0.01, actor_lr=0.01)
    for seed in range(2):
        old = copy.deepcopy(agent.networks)
        agent.update(make_batch(blind, agent.sampling, seed=seed))
        for name in ("critic", "vae", "actor"):
            slow, fast = agent.networks[f"target_{name}"], agent.networks[name]
            for new, before, online in zip(
                slow.parameters(), old[f"target_{name}"].parameters(), fast.parameters(), strict=True
            ):
                torch.testing.assert_close(new, (1 - tau) * before + tau * online)
                assert not new.requires_grad
                if tau < 1:
                    assert not torch.equal(new, online)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
