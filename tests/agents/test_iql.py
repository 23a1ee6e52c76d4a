"""IQL's losses, schedule and settings, against numbers worked out by hand and a plain transcription of the paper."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from lapwing.agent import RewardFacts, Transitions
from lapwing.agents.iql import (
    PRESETS,
    IqlAgent,
    IqlConfig,
    actor_loss,
    advantage_weight,
    critic_loss,
    expectile_loss,
    log_density,
)
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.backbone import BackboneConfig
from lapwing.spec import RobotSpec, unnamed_axes

MakeBatch = Callable[..., Batch]
FACTS = RewardFacts((0.0, 1.0), (0.0, 1.0))
ARM = RobotSpec("arm", (), unnamed_axes("state", 3), unnamed_axes("action", 2))


def make_agent(spec: RobotSpec = ARM, facts: RewardFacts = FACTS, **changes: Any) -> IqlAgent:
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden": (16, 16), "random_shift": 2, "vision": BackboneConfig("small", "none")}
    agent = IqlAgent(IqlConfig(**small | changes), spec, facts)
    agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
    return agent


@torch.no_grad()
def by_hand(agent: IqlAgent, q: tuple[float, float], slow_q: tuple[float, float], v: float) -> IqlAgent:
    """Critics that say `q`, slow ones that say `slow_q` and a value of `v`, whatever they are asked."""
    said = zip(
        (agent.critic.q1, agent.critic.q2, agent.target_critic.q1, agent.target_critic.q2, agent.value),
        (*q, *slow_q, v),
        strict=True,
    )
    for net, number in said:
        net[-1].weight.zero_()
        net[-1].bias.fill_(number)
    return agent


@pytest.fixture
def pair() -> Batch:
    """Two transitions of ARM: nothing earned and on it goes; 1 earned and the end."""
    obs = Obs({}, torch.tensor([[0.1, -0.2, 0.3], [0.5, 0.4, -0.6]]))
    return Batch(
        obs=obs,
        action=torch.tensor([[[0.2, -0.4]], [[0.6, 0.0]]]),
        is_pad=torch.zeros(2, 1, dtype=torch.bool),
        reward=torch.tensor([0.0, 1.0]),
        discount=torch.tensor([0.9, 0.0]),
        mc_return=torch.tensor([0.9, 1.0]),
        next_obs=Obs({}, obs.state.flip(0)),
    )


def test_expectile_loss_by_hand_weighs_what_v_is_below_more() -> None:
    # 0.7 * 2^2 and 0.3 * 1^2 over two
    assert expectile_loss(torch.tensor([2.0, -1.0]), 0.7).item() == pytest.approx((2.8 + 0.3) / 2)
    assert expectile_loss(torch.tensor([-2.0, 1.0]), 0.7).item() == pytest.approx((1.2 + 0.7) / 2)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.05, 0.95), st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_the_best_v_is_an_expectile(expectile: float, values: list[float]) -> None:
    """Where the loss is least, its slope is 0: what is above, times expectile, is as much as what is below."""
    q = torch.tensor(values, dtype=torch.float64)
    low, high = q.min(), q.max()
    for _ in range(80):  # the slope grows with v
        v = ((low + high) / 2).requires_grad_()
        [slope] = torch.autograd.grad(expectile_loss(q - v, expectile), v)
        low, high = (v.detach(), high) if slope < 0 else (low, v.detach())
    v = v.detach()
    above, below = (q - v).clamp(min=0).sum(), (v - q).clamp(min=0).sum()
    assert expectile * above.item() == pytest.approx((1 - expectile) * below.item(), abs=1e-9)
    assert expectile != 0.5 or v.item() == pytest.approx(q.mean().item())


def test_critic_loss_by_hand() -> None:
    q = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    # (1 - 1)^2 + (0 - 1)^2 and (2 - 3)^2 + (4 - 3)^2 over two
    assert critic_loss(q, torch.tensor([1.0, 3.0])).item() == pytest.approx(3 / 2)


def test_advantages_weigh_up_to_a_hundred() -> None:
    weight = advantage_weight(torch.tensor([-1.0, 0.0, 1.0, 1.6, 1e4]), 3.0)
    assert weight.tolist() == pytest.approx([math.exp(-3), 1.0, math.exp(3), 100.0, 100.0])
    assert advantage_weight(torch.tensor([-7.0, 7.0]), 0.0).tolist() == [1.0, 1.0]


def test_actor_loss_by_hand() -> None:
    assert actor_loss(torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 0.5])).item() == pytest.approx((3 - 1) / 2)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(0, 2**31))
def test_log_density_is_that_of_a_gaussian(axes: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    action, mean = (torch.randn(5, axes, generator=random, dtype=torch.float64) for _ in range(2))
    log_std = torch.randn(axes, generator=random, dtype=torch.float64)
    expected = Independent(Normal(mean, log_std.exp().expand(5, -1)), 1).log_prob(action)
    torch.testing.assert_close(log_density(action, mean, log_std), expected)


def test_losses_of_an_update_by_hand(pair: Batch) -> None:
    agent = by_hand(make_agent(), q=(0.1, 0.2), slow_q=(0.9, 0.6), v=0.5)
    metrics = {name: value.item() for name, value in agent.update(pair).items()}
    targets = (0.9 * 0.5, 1.0)
    assert metrics["critic_loss"] == pytest.approx(sum((q - y) ** 2 for q in (0.1, 0.2) for y in targets) / 2)
    assert metrics["value_loss"] == pytest.approx(0.7 * 0.1**2)  # of the lower slow critic
    assert metrics["weight_mean"] == pytest.approx(math.exp(0.3))
    assert metrics["advantage_mean"] == pytest.approx(0.1)
    assert (metrics["advantage_positive"], metrics["weight_clipped"]) == (1.0, 0.0)
    assert (metrics["v_mean"], metrics["policy_std"]) == (pytest.approx(0.5), 1.0)
    assert [metrics[name] for name in ("q_mean", "q_min", "q_max")] == pytest.approx([0.15, 0.1, 0.2])
    mean = make_agent().act(pair.obs)[:, 0]  # the policy before the update
    squares = (pair.action[:, 0] - mean).square().sum(-1)
    density = -squares / 2 - math.log(2 * math.pi)
    assert metrics["actor_loss"] == pytest.approx(-(math.exp(0.3) * density).mean().item())


@pytest.mark.parametrize(("v", "clipped"), [(7.0, 1.0), (-2.0, 0.0)])
def test_targets_are_clipped_to_the_returns_where_asked(pair: Batch, v: float, clipped: float) -> None:
    assert by_hand(make_agent(), (0, 0), (0, 0), v)._target(pair).tolist() == [clipped, 1.0]
    free = by_hand(make_agent(clip_targets=False), (0, 0), (0, 0), v)
    assert free._target(pair).tolist() == pytest.approx([0.9 * v, 1.0])


@pytest.mark.parametrize(("q", "outside"), [((0.0, 1.0), 0.0), ((-0.05, 1.05), 0.0), ((-0.2, 0.5), 0.5), ((2, 2), 1)])
def test_values_outside_the_returns_are_counted(pair: Batch, q: tuple[float, float], outside: float) -> None:
    assert by_hand(make_agent(), q, (0, 0), 0).update(pair)["q_out_of_range"] == outside


class Plain:
    """The paper's losses with an optimiser and a backward pass each, in the order in which they stand there."""

    def __init__(self, agent: IqlAgent) -> None:
        self.value, self.q1, self.q2, self.actor = copy.deepcopy(
            [agent.value, agent.critic.q1, agent.critic.q2, agent.actor]
        )
        self.slow = [copy.deepcopy(one) for one in (self.q1, self.q2)]
        config = agent.config
        self.config = config
        self.value_adam = torch.optim.Adam(self.value.parameters(), lr=config.lr)
        self.critic_adam = torch.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], lr=config.lr)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=config.lr)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_adam, config.actor_decay_steps)

    def update(self, batch: Batch) -> None:
        assert batch.next_obs is not None
        s, a, s2 = batch.obs.state, batch.action[:, 0], batch.next_obs.state
        sa = torch.cat([s, a], 1)
        q = torch.min(self.slow[0](sa), self.slow[1](sa))[:, 0].detach()
        next_v = self.value(s2)[:, 0].detach()
        v = self.value(s)[:, 0]
        difference = q - v
        value_loss = ((self.config.expectile - (difference < 0).double()).abs() * difference**2).mean()
        self.step(self.value_adam, value_loss)
        y = batch.reward + batch.discount * next_v
        critic_loss = ((self.q1(sa)[:, 0] - y) ** 2 + (self.q2(sa)[:, 0] - y) ** 2).mean()
        self.step(self.critic_adam, critic_loss)
        weight = torch.exp(self.config.temperature * (q - v.detach())).clamp(max=100)
        mean, log_std = self.actor.net(s).tanh(), self.actor.log_std.clamp(-5, 2)
        log_prob = Normal(mean, log_std.exp()).log_prob(a).sum(1)
        self.step(self.actor_adam, -(weight * log_prob).mean())
        self.schedule.step()
        with torch.no_grad():
            for slow, fast in zip(self.slow, (self.q1, self.q2), strict=True):
                for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
                    one.copy_((1 - self.config.tau) * one + self.config.tau * other)

    def step(self, adam: torch.optim.Adam, loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        adam.step()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layer_norm", [False, True])
def test_five_updates_are_those_of_a_plain_transcription(make_batch: MakeBatch, layer_norm: bool) -> None:
    original = {"clip_targets": False, "actor_decay_steps": 8, "lr": 3e-3, "tau": 0.1}
    agent = make_agent(facts=RewardFacts((0.0, 1.0), (0.0, 1.0)), layer_norm=layer_norm, **original)
    plain = Plain(agent)
    for step in range(5):
        batch = make_batch(ARM, agent.sampling, size=32, seed=step)
        agent.update(batch)
        plain.update(batch)
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (agent.value, plain.value),
        (agent.critic.q1, plain.q1),
        (agent.critic.q2, plain.q2),
        (agent.target_critic.q1, plain.slow[0]),
        (agent.target_critic.q2, plain.slow[1]),
        (agent.actor, plain.actor),
    ]
    for ours, theirs in pairs:
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_the_policy_slows_down_along_a_cosine_where_asked(pair: Batch) -> None:
    agent = make_agent(actor_decay_steps=4, lr=0.01)
    rates = []
    for _ in range(6):
        agent.update(pair)
        values, policy = (group["lr"] for group in agent.optimizer.param_groups)
        assert values == 0.01
        rates.append(policy)
    assert rates == pytest.approx([0.01, 0.01 * (1 + math.sqrt(0.5)) / 2, 0.005, 0.01 * (1 - math.sqrt(0.5)) / 2, 0, 0])


def test_the_schedule_goes_on_where_it_was_saved(pair: Batch) -> None:
    saved, loaded = make_agent(actor_decay_steps=4), make_agent(actor_decay_steps=4)
    for _ in range(2):
        saved.update(pair)
    loaded.load_state_dict(copy.deepcopy(saved.state_dict()))
    for agent in (saved, loaded):
        agent.update(pair)
    assert all(
        torch.equal(one, loaded.networks.state_dict()[name]) for name, one in saved.networks.state_dict().items()
    )


def test_the_encoder_learns_from_the_critics_alone(eyes: RobotSpec, make_batch: MakeBatch) -> None:
    """Neither the value's loss nor the policy's reaches it: their settings leave it as it is."""
    agents = [make_agent(eyes), make_agent(eyes, expectile=0.95, temperature=10.0)]
    for agent in agents:
        torch.manual_seed(1)
        agent.update(make_batch(eyes, agent.sampling))
    one, other = agents
    assert same(one.encoder, other.encoder)
    assert same(one.critic, other.critic)
    assert not same(one.value, other.value)
    assert not same(one.actor, other.actor)
    assert not same(one.encoder, make_agent(eyes).encoder)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_slow_critics_follow_at_their_rate(pair: Batch) -> None:
    agent = make_agent(tau=0.25)
    before = agent.target_critic.q1[0].weight.clone()
    agent.update(pair)
    torch.testing.assert_close(agent.target_critic.q1[0].weight, 0.75 * before + 0.25 * agent.critic.q1[0].weight)


def test_values_by_hand(pair: Batch) -> None:
    judged = by_hand(make_agent(), q=(0.7, 0.4), slow_q=(0.8, 0.9), v=0.5).judge(pair)
    assert {name: value.tolist() for name, value in judged.items()} == {
        "q": pytest.approx([0.4, 0.4]),
        "q_pi": pytest.approx([0.4, 0.4]),
        "v": pytest.approx([0.5, 0.5]),
        "advantage": pytest.approx([0.3, 0.3]),
    }


def test_values_are_of_the_actions_they_are_named_after(pair: Batch) -> None:
    agent = make_agent()
    at_policy = replace(pair, action=agent.act(pair.obs))
    assert torch.equal(agent.judge(pair)["q_pi"], agent.judge(at_policy)["q"])
    assert not torch.equal(agent.judge(pair)["q_pi"], agent.judge(pair)["q"])


def test_actions_stay_within_their_limits(pair: Batch) -> None:
    agent = make_agent()
    with torch.no_grad():
        agent.actor.net[-1].bias += 50.0
    assert (agent.act(pair.obs) == 1).all()


@pytest.mark.parametrize(("temperature", "found"), [(10.0, (0.4, -0.3)), (0.0, (0.0, 0.0))])
def test_it_imitates_what_paid(temperature: float, found: tuple[float, float]) -> None:
    """One step; anything is done, but what pays is to move to (0.4, -0.3). Without temperature it does the average."""
    agent = make_agent(temperature=temperature, lr=5e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(250):
        action = torch.rand(64, 1, 2, generator=random) * 2 - 1
        pays = 1 - 0.8 * (action[:, 0] - torch.tensor([0.4, -0.3])).square().sum(-1)
        zeros, obs = torch.zeros(64), Obs({}, torch.randn(64, 3, generator=random))
        agent.update(Batch(obs, action, torch.zeros(64, 1, dtype=torch.bool), pays, zeros, pays, obs))
    mean = agent.act(Obs({}, torch.randn(100, 3, generator=random)))[:, 0].mean(0)
    torch.testing.assert_close(mean, torch.tensor(found), atol=0.15, rtol=0)


def test_presets() -> None:
    assert PRESETS["product"] == IqlConfig()
    original = PRESETS["original"]
    paper = {"discount": 0.99, "tau": 0.005, "expectile": 0.7, "temperature": 3.0, "hidden": (256, 256), "lr": 3e-4}
    paper |= {"layer_norm": False, "clip_targets": False, "actor_decay_steps": 1_000_000, "n_step": 1}
    assert {name: getattr(original, name) for name in paper} == paper


def test_it_asks_for_transitions_scaled_to_the_limits() -> None:
    agent = make_agent(n_step=3, discount=0.9, state_scaling="min-max")
    assert agent.sampling == Transitions(3, 0.9)
    assert (agent.config.scaling.state, agent.config.scaling.action) == ("min-max", "limits")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expectile": 1.5}, "iql: expectile is 1.5, expected a number from 0 to 1"),
        ({"discount": math.nan}, "iql: discount is nan, expected a number from 0 to 1"),
        ({"n_step": 0}, "iql: n_step is 0, expected a positive number"),
        ({"lr": math.inf}, "iql: lr is inf, expected a positive number"),
        ({"temperature": -1.0}, "iql: temperature is -1.0, expected 0 or more"),
        ({"actor_decay_steps": -1}, "iql: actor_decay_steps is -1, expected 0 or more"),
        ({"hidden": (8, 0)}, r"iql: hidden is \[8, 0\], expected positive widths"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        IqlConfig(**changes)
