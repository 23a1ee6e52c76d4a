"""LAPO's losses, values, latent and settings, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lapwing.agent import RewardFacts, Transitions
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import LapoConfig
from lapwing.agents.lapo_losses import (
    advantage,
    advantage_weight,
    critic_loss,
    latent_kl,
    reconstruction,
    weighted_vae_loss,
)
from lapwing.batch import Batch
from lapwing.errors import ConfigError
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


def test_critic_loss_by_hand() -> None:
    q1, q2, v = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]), torch.tensor([3.0, 3.0])
    target_q, target_v = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 5.0])
    # (0 + 4) / 2 + (1 + 0) / 2 + (1 + 4) / 2
    assert critic_loss(q1, q2, v, target_q, target_v).item() == pytest.approx(5.0)


def test_critic_loss_of_an_expectile_by_hand() -> None:
    zero = torch.zeros(2)
    # V is too low by 1 and too high by 2: 2 (0.7 * 1 + 0.3 * 4) / 2
    loss = critic_loss(zero, zero, torch.tensor([3.0, 3.0]), zero, torch.tensor([4.0, 1.0]), v_expectile=0.7)
    assert loss.item() == pytest.approx(1.9)


def test_advantage_by_hand() -> None:
    reward, discount = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5])
    gain = advantage(reward, discount, torch.tensor([4.0, -2.0]), torch.tensor([3.0, 0.25]))
    assert gain.tolist() == [-1.0, -0.25]


def test_advantage_weight_is_for_strictly_positive_advantages() -> None:
    weight = advantage_weight(torch.tensor([-2.0, 0.0, 1e-6, 3.0]), 0.9)
    assert weight.tolist() == pytest.approx([0.1, 0.1, 0.9, 0.9])


def test_reconstruction_sums_over_axes() -> None:
    error = reconstruction(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 3.0]]))
    assert error.tolist() == [5.0, 9.0]


def test_latent_kl_by_hand() -> None:
    mean = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    log_var = torch.tensor([[0.0, 0.0], [0.0, math.log(4.0)]])
    # N(0, 1) itself: 0.  N(1, 1): 1/2, and N(0, 4): (4 - 1 - ln 4) / 2
    assert latent_kl(mean, log_var).tolist() == pytest.approx([0.0, 0.5 + (3 - math.log(4)) / 2])


def test_weighted_vae_loss_by_hand() -> None:
    predicted, action = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.zeros(2, 2)
    mean, log_var = torch.tensor([[2.0], [0.0]]), torch.zeros(2, 1)
    weight = torch.tensor([0.9, 0.1])
    # sample 1: 5 + 0.3 * 2, sample 2: 1 + 0.3 * 0; weighted and averaged over the two
    loss = weighted_vae_loss(predicted, action, mean, log_var, weight, kl_beta=0.3)
    assert loss.item() == pytest.approx((0.9 * 5.6 + 0.1 * 1.0) / 2)


def test_losses_have_the_gradients_of_their_values() -> None:
    torch.manual_seed(0)
    x = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(5)]
    weight = torch.tensor([0.9, 0.1, 0.1, 0.9], dtype=torch.float64)
    assert torch.autograd.gradcheck(critic_loss, [tensor[:, 0] for tensor in x])
    assert torch.autograd.gradcheck(advantage, [tensor[:, 0] for tensor in x[:4]])
    assert torch.autograd.gradcheck(latent_kl, x[:2])
    assert torch.autograd.gradcheck(lambda *args: weighted_vae_loss(*args, weight, 0.7), x[:4])


def test_advantage_on_terminals_is_one_minus_v(eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(eyes, facts)
    make_constant(agent.target_critic.q1, 50.0)
    batch = make_batch(eyes, agent.sampling)
    terminal = replace(batch, reward=torch.ones(8), discount=torch.zeros(8))
    for seed in (1, 2):
        elsewhere = replace(terminal, next_obs=make_batch(eyes, agent.sampling, seed=seed).obs)
        values = agent.judge(elsewhere)
        torch.testing.assert_close(values["advantage"], 1 - values["v"])


@pytest.mark.parametrize(("share", "bootstrap"), [(1.0, 1.0), (0.7, 1.6), (0.0, 3.0)])
def test_bootstrap_mixes_the_lower_and_the_higher_value(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch, share: float, bootstrap: float
) -> None:
    agent = make_agent(blind, facts, doubleq_min=share)
    make_constant(agent.target_critic.q1, 1.0)
    make_constant(agent.target_critic.q2, 3.0)
    make_constant(agent.critic.value, 0.25)
    batch = replace(make_batch(blind, agent.sampling), reward=torch.full((8,), 0.5), discount=torch.full((8,), 0.9))
    torch.testing.assert_close(agent.judge(batch)["advantage"], torch.full((8,), 0.5 + 0.9 * bootstrap - 0.25))


@pytest.mark.parametrize(("clip", "target_q"), [(True, 1.1), (False, 0.5 + 0.99 * 100)])
def test_targets_are_clamped_to_the_range_of_values(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch, clip: bool, target_q: float
) -> None:
    agent = make_agent(blind, facts, clip_targets=clip, bc_coef=0.0)
    for net, value in (
        (agent.critic.q1, 0.0),
        (agent.critic.q2, 2.0),
        (agent.critic.value, 100.0),
        (agent.target_critic.q1, 100.0),
        (agent.target_critic.q2, 100.0),
    ):
        make_constant(net, value)
    batch = replace(make_batch(blind, agent.sampling), reward=torch.full((8,), 0.5), discount=torch.full((8,), 0.99))
    metrics = agent.update(batch)
    expected = target_q**2 + (2 - target_q) ** 2 + (100 - 1.1) ** 2  # returns 0 to 1, a tenth wider: -0.1 to 1.1
    assert metrics["critic_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert metrics["v_target_clipped"] == 1


def test_range_of_values_from_returns_and_from_rewards(blind: RobotSpec) -> None:
    facts = RewardFacts(reward=(-1.0, 4.0), returns=(-2.0, 8.0))
    agent = make_agent(blind, facts)
    assert (agent.reward_scale, agent.value_low, agent.value_high) == pytest.approx((1, -3, 9))
    agent = make_agent(blind, facts, scale_reward=True)
    assert (agent.reward_scale, agent.value_low, agent.value_high) == pytest.approx((0.25, -0.75, 2.25))
    agent = make_agent(blind, facts, value_bounds="geometric", discount=0.9)
    assert (agent.reward_scale, agent.value_low, agent.value_high) == pytest.approx((1, -10, 40))
    agent = make_agent(blind, facts, value_bounds="geometric", discount=0.9, scale_reward=True)
    assert (agent.reward_scale, agent.value_low, agent.value_high) == pytest.approx((0.25, -2.5, 10))


@pytest.mark.parametrize("highest", [0, -1])
def test_rewards_that_cannot_be_scaled_are_refused(blind: RobotSpec, highest: int) -> None:
    facts = RewardFacts(reward=(-3.0, highest), returns=(-3.0, 0.0))
    with pytest.raises(ConfigError, match=f"the largest reward is {highest}, .*expected a positive one: shift"):
        make_agent(blind, facts, scale_reward=True)
    assert make_agent(blind, facts, scale_reward=False).reward_scale == 1


def test_scaled_rewards_teach_what_unscaled_ones_do(blind: RobotSpec, make_batch: MakeBatch) -> None:
    small = make_agent(blind, RewardFacts(reward=(0.0, 1.0), returns=(0.0, 1.0)))
    large = make_agent(blind, RewardFacts(reward=(0.0, 4.0), returns=(0.0, 4.0)), scale_reward=True)
    batch = make_batch(blind, small.sampling)
    torch.manual_seed(1)
    small_metrics = small.update(batch)
    torch.manual_seed(1)
    large_metrics = large.update(replace(batch, reward=4 * batch.reward))
    assert_equal(small.networks, large.networks)
    for name in ("q_mean", "q_min", "q_max", "v_mean", "q_pi", "advantage_mean"):
        torch.testing.assert_close(4 * small_metrics[name], large_metrics[name])
    ours, theirs = small.judge(batch), large.judge(replace(batch, reward=4 * batch.reward))
    for name in ours:
        torch.testing.assert_close(4 * ours[name], theirs[name])


@pytest.mark.parametrize(("value", "outside"), [(0.5, 0.0), (7.0, 1.0), (-0.2, 1.0)])
def test_values_are_reported_against_the_range(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch, value: float, outside: float
) -> None:
    agent = make_agent(blind, facts)
    make_constant(agent.critic.q1, value)
    make_constant(agent.critic.value, 0.25)
    metrics = agent.update(make_batch(blind, agent.sampling))
    assert [metrics[f"q_{name}"].item() for name in ("mean", "min", "max")] == pytest.approx([value] * 3)
    assert metrics["v_mean"].item() == pytest.approx(0.25)
    assert metrics["q_out_of_range"] == outside


def test_advantage_metrics_count_what_was_weighted(blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(blind, facts, critic_lr=1e-9)
    make_constant(agent.critic.value, 0.5)
    batch = replace(
        make_batch(blind, agent.sampling), discount=torch.zeros(8), reward=torch.tensor([1.0] * 6 + [0.0] * 2)
    )
    metrics = agent.update(batch)
    assert metrics["advantage_positive"] == 0.75
    assert metrics["advantage_mean"].item() == pytest.approx(0.25)


def test_judge_takes_the_lower_value(blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(blind, facts)
    make_constant(agent.critic.q1, 3.0)
    make_constant(agent.critic.q2, 2.0)
    values = agent.judge(make_batch(blind, agent.sampling))
    assert list(values) == ["q", "q_pi", "v", "advantage"]
    assert all(value.shape == (8,) and value.dtype == torch.float32 for value in values.values())
    assert values["q"].tolist() == values["q_pi"].tolist() == pytest.approx([2.0] * 8)


def test_judge_rates_the_action_of_the_policy_and_that_of_the_data(
    eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    agent = make_agent(eyes, facts)
    batch = make_batch(eyes, agent.sampling)
    values = agent.judge(batch)
    with torch.no_grad():
        feature = agent.encoder(batch.obs)
        for name, action in (("q", batch.action), ("q_pi", agent.act(batch.obs, "pi"))):
            assert torch.equal(values[name], torch.minimum(*agent.critic.q(feature, action[:, 0])))
        assert torch.equal(values["v"], agent.critic.v(feature))


@pytest.mark.parametrize("clamp", [True, False])
def test_log_variance_is_clamped(blind: RobotSpec, facts: RewardFacts, clamp: bool) -> None:
    agent = make_agent(blind, facts, clamp_log_var=clamp)
    last = agent.vae.posterior[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.linspace(-100, 100, len(last.bias))
    mean, log_var = agent.vae.encode(torch.randn(2, 5), torch.randn(2, 3))
    raw_mean, raw_log_var = last.bias.chunk(2)
    assert torch.equal(mean[0], raw_mean)
    assert torch.equal(log_var[0], raw_log_var.clamp(-8, 4) if clamp else raw_log_var)
    assert raw_log_var.max() == 100


@pytest.mark.parametrize("bound", [1.0, 2.0])
def test_actor_stays_within_the_bound_and_says_when_it_saturates(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch, bound: float
) -> None:
    agent = make_agent(blind, facts, max_latent=bound)
    batch = make_batch(blind, agent.sampling)
    assert agent.update(batch)["latent_saturated"] == 0
    make_constant(agent.actor.net, 50.0)
    assert torch.equal(agent.actor(batch.obs.state), torch.full((8, 6), bound))
    assert agent.update(batch)["latent_saturated"] == 1


def test_actor_loss_is_minus_q_and_a_penalty(blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(blind, facts, latent_penalty=0.5, max_latent=2.0, critic_lr=1e-9)
    make_constant(agent.critic.q1, 3.0)
    make_constant(agent.actor.net, 50.0)
    metrics = agent.update(make_batch(blind, agent.sampling))
    assert metrics["q_pi"].item() == pytest.approx(3.0)
    assert metrics["actor_loss"].item() == pytest.approx(-3.0 + 0.5 * 2.0**2)


def test_latent_is_twice_the_action_unless_said(blind: RobotSpec, facts: RewardFacts) -> None:
    assert make_agent(blind, facts).vae.latent_dim == 6
    assert make_agent(blind, facts, chunk=5).vae.latent_dim == 6
    assert make_agent(blind, facts, latent_dim=4).vae.latent_dim == 4


def test_reconstruction_metrics_compare_the_posterior_mean_with_zero(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    agent = make_agent(blind, facts, kl_beta=0.01, vae_lr=3e-3)
    batch = make_batch(blind, agent.sampling, size=32)
    first = agent.update(batch)
    for _ in range(150):
        last = agent.update(batch)
    assert last["reconstruction_mean"] < 0.5 * first["reconstruction_mean"]
    assert last["reconstruction_mean"] < 0.5 * last["reconstruction_z0"]
    assert last["kl"] > first["kl"]
    assert last["latent_active"] >= 3


def test_modes_are_what_they_say(eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(eyes, facts, tau=0.5)
    batch = make_batch(eyes, agent.sampling)
    agent.update(batch)
    assert agent.modes == ("pi", "z0", "bc")
    assert agent.bc_head is not None
    with torch.no_grad():
        feature = agent.encoder(batch.obs)
        expected = {
            "pi": agent.target_vae.decoder(feature, agent.actor(feature)),
            "z0": agent.target_vae.decoder(feature, torch.zeros(8, 6)),
            "bc": agent.bc_head(feature),
        }
    for mode, action in expected.items():
        assert torch.equal(agent.act(batch.obs, mode)[:, 0], action)
    assert torch.equal(agent.act(batch.obs), agent.act(batch.obs, "pi"))


def test_mode_bc_needs_the_auxiliary_head(blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(blind, facts, bc_coef=0.0)
    assert agent.modes == ("pi", "z0")
    with pytest.raises(ConfigError, match="lapo: mode 'bc' does not exist here; choose one of pi, z0"):
        agent.act(make_batch(blind, agent.sampling).obs, "bc")


def test_sampling_follows_the_settings(blind: RobotSpec, facts: RewardFacts) -> None:
    assert make_agent(blind, facts, n_step=3, discount=0.98).sampling == Transitions(3, 0.98)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discount": 1.1}, "discount is 1.1, expected a number from 0 to 1"),
        ({"tau": -0.1}, "tau is -0.1, expected a number from 0 to 1"),
        ({"expectile": 1.5}, "expectile is 1.5, expected a number from 0 to 1"),
        ({"doubleq_min": 2.0}, "doubleq_min is 2.0, expected a number from 0 to 1"),
        ({"max_latent": 0.0}, "max_latent is 0.0, expected a positive number"),
        ({"critic_lr": 0.0}, "critic_lr is 0.0, expected a positive number"),
        ({"vae_lr": -1.0}, "vae_lr is -1.0, expected a positive number"),
        ({"actor_lr": math.nan}, "actor_lr is nan, expected a positive number"),
        ({"n_step": 0}, "n_step is 0, expected a positive number"),
        ({"obs_feature_dim": 0}, "obs_feature_dim is 0, expected a positive number"),
        ({"encoder_lr": -1e-4}, "encoder_lr is -0.0001, expected 0 or more"),
        ({"kl_beta": -1.0}, "kl_beta is -1.0, expected 0 or more"),
        ({"kl_beta": math.inf}, "kl_beta is inf, expected 0 or more"),
        ({"hidden": (0,)}, r"hidden is \[0\], expected positive widths"),
        ({"latent_dim": -6}, "latent_dim is -6, expected 0 or more"),
        ({"latent_penalty": -0.1}, "latent_penalty is -0.1, expected 0 or more"),
        ({"chunk": 1001}, "chunk is 1001, expected at most 1000"),
        ({"best_of": 10_001}, "best_of is 10001, expected at most 10000"),
        ({"decay_steps": -1}, "decay_steps is -1, expected 0 or more"),
        ({"vae_decay_steps": -1}, "vae_decay_steps is -1, expected 0 or more"),
        ({"critic_frequency": -1.0}, "critic_frequency is -1.0, expected 0 or more"),
        ({"bc_coef": -0.1}, "bc_coef is -0.1, expected 0 or more"),
        ({"random_shift": -4}, "random_shift is -4, expected 0 or more"),
        ({"encoder_grad_clip": -1.0}, "encoder_grad_clip is -1.0, expected 0 or more"),
        ({"value_bounds": "geometric", "discount": 1.0}, "value_bounds 'geometric' needs a discount below 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^lapo: {message}"):
        LapoConfig(**settings)


def test_all_learning_rates_fall_where_asked_and_go_on_where_they_were(
    eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    rates = {"critic_lr": 0.01, "encoder_lr": 0.02, "vae_lr": 0.03, "actor_lr": 0.04}
    agents = [make_agent(eyes, facts, decay_steps=4, **rates) for _ in range(2)]
    batch = make_batch(eyes, agents[0].sampling)
    for share in (1.0, (1 + math.sqrt(0.5)) / 2, 0.5):
        agents[0].update(batch)
        assert rates_of(agents[0]) == pytest.approx([share * rate for rate in rates.values()])
    agents[1].load_state_dict(agents[0].state_dict())
    agents[1].update(batch)
    assert rates_of(agents[1]) == pytest.approx([(1 - math.sqrt(0.5)) / 2 * rate for rate in rates.values()])
    agents[0].update(batch)
    agents[0].update(batch)
    assert rates_of(agents[0]) == [0, 0, 0, 0]


def test_the_learning_rate_of_the_vae_may_fall_alone(
    eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    rates = {"critic_lr": 0.01, "encoder_lr": 0.02, "vae_lr": 0.03, "actor_lr": 0.04}
    agent = make_agent(eyes, facts, vae_decay_steps=2, **rates)
    batch = make_batch(eyes, agent.sampling)
    for share in (1.0, 0.5, 0.0):
        before = [one.clone() for one in agent.vae.parameters()]
        agent.update(batch)
        assert rates_of(agent) == pytest.approx([0.01, 0.02, share * 0.03, 0.04])
        stayed = all(torch.equal(*pair) for pair in zip(before, agent.vae.parameters(), strict=True))
        assert stayed == (share == 0)


def rates_of(agent: LapoAgent) -> list[float]:
    return [group["lr"] for optimizer in agent.optimizers.values() for group in optimizer.param_groups]


def test_settings_at_their_limits_are_accepted() -> None:
    LapoConfig(
        discount=1.0, tau=1.0, expectile=0.5, doubleq_min=0.0, kl_beta=0.0, encoder_grad_clip=0.0, random_shift=0
    )
    LapoConfig(discount=0.0, value_bounds="geometric")


def make_constant(net: nn.Module, value: float) -> None:
    """Let a network's last layer answer `value` whatever it is asked."""
    last = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, value)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_chunks_are_asked_for_learnt_and_acted(blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(blind, facts, chunk=4, n_step=2, best_of=5)
    assert agent.sampling == Transitions(4, 0.99, 4)
    assert agent.config.scaling.horizon == 4
    assert make_agent(blind, facts, chunk=2, n_step=5).sampling == Transitions(5, 0.99, 2)
    batch = make_batch(blind, agent.sampling)
    agent.update(batch)
    for mode in agent.modes:
        assert agent.act(batch.obs, mode).shape == (8, 4, 3)


def test_a_chunk_of_one_is_the_agent_without_chunks(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    batch = make_batch(blind, Transitions())
    longer = replace(batch, action=batch.action.repeat(1, 3, 1), is_pad=torch.tensor([[False, True, True]] * 8))
    after = []
    for given in (batch, longer):
        agent = make_agent(blind, facts, chunk=1)
        torch.manual_seed(1)
        agent.update(given)
        after.append(agent.act(batch.obs))
    assert torch.equal(*after)


def test_the_best_of_many_is_what_the_lower_critic_likes_most(
    blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    agent = make_agent(blind, facts, best_of=6)
    obs = make_batch(blind, agent.sampling).obs
    assert agent.modes == ("pi", "z0", "best", "bc")
    assert agent.best_of.latents.shape == (6, 6)
    assert agent.best_of.latents.abs().max() <= agent.config.max_latent
    feature, values = agent.encoder(obs), []
    actions = [agent.target_vae.decoder(feature, latent.expand(8, -1)) for latent in agent.best_of.latents]
    for action in actions:
        values.append(torch.minimum(*agent.critic.q(feature, action)))
    chosen = torch.stack(actions)[torch.stack(values).argmax(0), torch.arange(8)]
    torch.testing.assert_close(agent.act(obs, "best")[:, 0], chosen)
    with pytest.raises(ConfigError, match="mode 'best' does not exist here; choose one of pi, z0, bc"):
        make_agent(blind, facts).act(obs, "best")


def test_critics_see_fourier_features_where_asked(
    blind: RobotSpec, eyes: RobotSpec, facts: RewardFacts, make_batch: MakeBatch
) -> None:
    agent, plain = make_agent(blind, facts, critic_frequency=4.0), make_agent(blind, facts)
    batch = make_batch(blind, agent.sampling)
    widths = [net[0].in_features for net in (agent.critic.q1, agent.critic.q2, agent.critic.value)]
    assert widths == [net[0].in_features + 64 for net in (plain.critic.q1, plain.critic.q2, plain.critic.value)]
    drawn = agent.critic.sharpen.projection.clone()
    agent.update(batch)
    assert torch.equal(agent.critic.sharpen.projection, drawn)
    assert torch.equal(agent.target_critic.sharpen.projection, drawn)
    feature = agent.encoder(batch.obs)
    first, _ = agent.critic.q(feature, batch.action[:, 0])
    torch.testing.assert_close(agent.critic.first_q(feature, batch.action[:, 0]), first)
    with pytest.raises(ConfigError, match=r"critic_frequency is 4.0, .* this data has cameras; expected 0 there"):
        make_agent(eyes, facts, critic_frequency=4.0)


def test_an_expectile_value_asks_no_policy(blind: RobotSpec, facts: RewardFacts, make_batch: MakeBatch) -> None:
    agent = make_agent(blind, facts, value="expectile", value_expectile=0.9, bc_coef=0.0, clip_targets=False)
    make_constant(agent.actor.net, math.nan)  # whoever asks it is told
    make_constant(agent.target_actor.net, math.nan)
    for net, value in (
        (agent.critic.q1, 0.0),
        (agent.critic.q2, 0.0),
        (agent.critic.value, 1.0),
        (agent.target_critic.q1, 0.5),
        (agent.target_critic.q2, 4.0),
    ):
        make_constant(net, value)
    batch = replace(make_batch(blind, agent.sampling), reward=torch.zeros(8), discount=torch.full((8,), 0.5))
    values = agent.judge(batch)
    torch.testing.assert_close(values["advantage"], torch.full((8,), 0.5 * 1 - 1))
    # both Q are off by 0.5; V is 0.5 above the lower of the slow ones: 2 * 0.1 * 0.25
    assert agent.update(batch)["critic_loss"].item() == pytest.approx(0.25 + 0.25 + 0.05)
