"""TD3+BC's losses, turns and settings, against numbers worked out by hand and a plain transcription of the paper."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lapwing.agent import RewardFacts, Transitions
from lapwing.agents.td3bc import PRESETS, Td3BcAgent, Td3BcConfig, actor_loss, critic_loss
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.backbone import BackboneConfig
from lapwing.spec import RobotSpec, unnamed_axes

MakeBatch = Callable[..., Batch]
FACTS = RewardFacts((0.0, 1.0), (0.0, 1.0))
ARM = RobotSpec("arm", (), unnamed_axes("state", 3), unnamed_axes("action", 2))


def make_agent(spec: RobotSpec = ARM, facts: RewardFacts = FACTS, **changes: Any) -> Td3BcAgent:
    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden": (16, 16), "random_shift": 2, "vision": BackboneConfig("small", "none")}
    agent = Td3BcAgent(Td3BcConfig(**small | changes), spec, facts)
    agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
    return agent


@torch.no_grad()
def by_hand(agent: Td3BcAgent, q: tuple[float, float], slow_q: tuple[float, float]) -> Td3BcAgent:
    """Critics that say `q` and slow ones that say `slow_q` of everything; a policy that does 0."""
    critics = (agent.critic.q1, agent.critic.q2, agent.target_critic.q1, agent.target_critic.q2)
    for net, said in zip(critics, (*q, *slow_q), strict=True):
        net[-1].weight.zero_()
        net[-1].bias.fill_(said)
    for policy in (agent.actor, agent.target_actor):
        policy[0][-1].weight.zero_()
        policy[0][-1].bias.zero_()
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


def test_critic_loss_by_hand() -> None:
    q = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    # (1 - 1)^2 + (0 - 1)^2 and (2 - 3)^2 + (4 - 3)^2 over two
    assert critic_loss(q, torch.tensor([1.0, 3.0])).item() == pytest.approx(3 / 2)


def test_actor_loss_by_hand_weighs_q_by_its_size() -> None:
    chosen, action = torch.tensor([[0.5, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    near = (0.25 + 1.0) / 4
    for size in (1.0, 40.0):
        q = size * torch.tensor([-1.0, 5.0])  # mean 2, mean size 3
        assert actor_loss(q, chosen, action, 2.5).item() == pytest.approx(near - 2.5 * 2 / 3)
    assert actor_loss(torch.zeros(2), chosen, action, 2.5).item() == pytest.approx(near)


def test_losses_of_an_update_by_hand(pair: Batch) -> None:
    metrics = by_hand(make_agent(), q=(0.1, 0.2), slow_q=(0.8, 0.5)).update(pair)
    targets = (0.9 * 0.5, 1.0)
    expected = sum((q - y) ** 2 for q in (0.1, 0.2) for y in targets) / 2
    assert metrics["critic_loss"].item() == pytest.approx(expected)
    assert metrics["action_mse"].item() == pytest.approx((0.2**2 + 0.4**2 + 0.6**2) / 4)
    assert metrics["actor_loss"].item() == pytest.approx(metrics["action_mse"].item() - 2.5)
    assert metrics["q_pi"].item() == pytest.approx(0.1, abs=0.01)  # of the first critic, after its step
    assert [metrics[name].item() for name in ("q_mean", "q_min", "q_max")] == pytest.approx([0.15, 0.1, 0.2])
    assert (metrics["q_out_of_range"], metrics["policy_saturated"]) == (0.0, 0.0)


@pytest.mark.parametrize(("slow_q", "clipped"), [((7.0, 8.0), 1.0), ((-2.0, 3.0), 0.0)])
def test_targets_are_clipped_to_the_returns_where_asked(
    pair: Batch, slow_q: tuple[float, float], clipped: float
) -> None:
    assert by_hand(make_agent(), (0, 0), slow_q)._target(pair).tolist() == [clipped, 1.0]
    free = by_hand(make_agent(clip_targets=False), (0, 0), slow_q)
    assert free._target(pair).tolist() == pytest.approx([0.9 * min(slow_q), 1.0])


@pytest.mark.parametrize(
    ("noise", "limit", "drawn", "expected"),
    [(0.2, 0.5, 1.0, 0.3), (0.2, 0.5, -9.0, -0.4), (0.0, 0.5, 3.0, 0.1), (2.0, 5.0, 1.0, 1.0)],
    ids=["scaled", "clipped", "none", "within the limits of an action"],
)
def test_targets_ask_for_the_policys_action_and_noise(
    pair: Batch, monkeypatch: pytest.MonkeyPatch, noise: float, limit: float, drawn: float, expected: float
) -> None:
    agent = by_hand(make_agent(policy_noise=noise, noise_clip=limit), (0, 0), (0, 0))
    with torch.no_grad():
        agent.target_actor[0][-1].bias.fill_(math.atanh(0.1))
    asked: list[Tensor] = []
    agent.target_critic.register_forward_pre_hook(lambda _, given: asked.append(given[1]))
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, drawn))
    agent._target(pair)
    torch.testing.assert_close(asked[0], torch.full((2, 2), expected))


class Plain:
    """The paper's update, written down as it stands there; its turns begin with the first update, as ours do."""

    def __init__(self, agent: Td3BcAgent) -> None:
        self.config = agent.config
        self.q1, self.q2, self.actor = copy.deepcopy([agent.critic.q1, agent.critic.q2, agent.actor])
        self.slow_q1, self.slow_q2, self.slow_actor = copy.deepcopy([self.q1, self.q2, self.actor])
        self.critic_adam = torch.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], lr=agent.config.lr)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=agent.config.lr)
        self.done = 0

    def update(self, batch: Batch) -> None:
        assert batch.next_obs is not None
        s, a, s2 = batch.obs.state, batch.action[:, 0], batch.next_obs.state
        with torch.no_grad():
            noise = (torch.randn_like(a) * self.config.policy_noise).clamp(-0.5, 0.5)
            s2a2 = torch.cat([s2, (self.slow_actor(s2) + noise).clamp(-1, 1)], 1)
            y = batch.reward + batch.discount * torch.min(self.slow_q1(s2a2), self.slow_q2(s2a2))[:, 0]
        sa = torch.cat([s, a], 1)
        mse = nn.functional.mse_loss
        self.step(self.critic_adam, mse(self.q1(sa)[:, 0], y) + mse(self.q2(sa)[:, 0], y))
        if self.done % self.config.policy_freq == 0:
            pi = self.actor(s)
            q = self.q1(torch.cat([s, pi], 1))
            self.step(self.actor_adam, -self.config.alpha / q.abs().mean().detach() * q.mean() + mse(pi, a))
            with torch.no_grad():
                for slow, fast in ((self.slow_q1, self.q1), (self.slow_q2, self.q2), (self.slow_actor, self.actor)):
                    for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
                        one.copy_((1 - self.config.tau) * one + self.config.tau * other)
        self.done += 1

    def step(self, adam: torch.optim.Adam, loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        adam.step()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layer_norm", [False, True])
def test_five_updates_are_those_of_a_plain_transcription(make_batch: MakeBatch, layer_norm: bool) -> None:
    agent = make_agent(layer_norm=layer_norm, clip_targets=False, lr=3e-3, tau=0.1)
    plain = Plain(agent)
    for learner in (agent, plain):
        torch.manual_seed(3)
        for step in range(5):
            learner.update(make_batch(ARM, agent.sampling, size=32, seed=step))
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (agent.critic.q1, plain.q1),
        (agent.critic.q2, plain.q2),
        (agent.actor, plain.actor),
        (agent.target_critic.q1, plain.slow_q1),
        (agent.target_critic.q2, plain.slow_q2),
        (agent.target_actor, plain.slow_actor),
    ]
    for ours, theirs in pairs:
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


@pytest.mark.parametrize("every", [1, 3])
def test_policy_and_slow_copies_move_once_in_so_many_updates(every: int, make_batch: MakeBatch) -> None:
    agent = make_agent(policy_freq=every)
    for step in range(7):
        before = copy.deepcopy(agent.networks.state_dict())
        metrics = agent.update(make_batch(ARM, agent.sampling, seed=step))
        assert "actor_loss" in metrics
        moved = {
            name.split(".")[0] for name, x in agent.networks.state_dict().items() if not torch.equal(x, before[name])
        }
        rest = {"actor", "target_critic", "target_actor"} if step % every == 0 else set()
        assert moved == {"critic"} | rest


def test_a_run_goes_on_bit_by_bit_from_between_two_turns(make_batch: MakeBatch) -> None:
    saved, loaded = make_agent(policy_freq=3), make_agent(policy_freq=3)
    for step in range(2):
        saved.update(make_batch(ARM, saved.sampling, seed=step))
    loaded.load_state_dict(copy.deepcopy(saved.state_dict()))
    said = []
    for agent in (saved, loaded):
        torch.manual_seed(5)
        said.append([agent.update(make_batch(ARM, agent.sampling, seed=step)) for step in range(2, 5)])
    assert said[0] == said[1]
    assert same(saved.networks, loaded.networks)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_encoder_learns_from_the_critics_alone(eyes: RobotSpec, make_batch: MakeBatch) -> None:
    agents = [make_agent(eyes), make_agent(eyes, alpha=50.0)]
    for agent in agents:
        torch.manual_seed(1)
        agent.update(make_batch(eyes, agent.sampling))
    one, other = agents
    assert same(one.encoder, other.encoder)
    assert not same(one.actor, other.actor)
    assert not same(one.encoder, make_agent(eyes).encoder)


def test_values_are_of_the_lower_critic_and_of_the_actions_they_are_named_after(pair: Batch) -> None:
    judged = by_hand(make_agent(), q=(0.7, 0.4), slow_q=(0, 0)).judge(pair)
    assert {name: value.tolist() for name, value in judged.items()} == {
        "q": pytest.approx([0.4, 0.4]),
        "q_pi": pytest.approx([0.4, 0.4]),
        "v": pytest.approx([0.4, 0.4]),
        "advantage": [0.0, 0.0],
    }
    agent = make_agent()
    at_policy = replace(pair, action=agent.act(pair.obs))
    assert torch.equal(agent.judge(pair)["q_pi"], agent.judge(at_policy)["q"])
    assert not torch.equal(agent.judge(pair)["q_pi"], agent.judge(pair)["q"])


@pytest.mark.parametrize(("alpha", "found"), [(2.5, (0.5, -0.4)), (0.0, (0.0, 0.0))])
def test_it_goes_from_what_was_done_to_what_pays(alpha: float, found: tuple[float, float]) -> None:
    """One step; anything is done, but what pays is to move to (0.5, -0.4). Without Q it does the average."""
    agent = make_agent(alpha=alpha, lr=5e-3, policy_freq=1)
    random = torch.Generator().manual_seed(0)
    for _ in range(250):
        action = torch.rand(64, 1, 2, generator=random) * 2 - 1
        pays = 1 - (action[:, 0] - torch.tensor([0.5, -0.4])).square().sum(-1)
        zeros, obs = torch.zeros(64), Obs({}, torch.randn(64, 3, generator=random))
        agent.update(Batch(obs, action, torch.zeros(64, 1, dtype=torch.bool), pays, zeros, pays, obs))
    mean = agent.act(Obs({}, torch.randn(100, 3, generator=random)))[:, 0].mean(0)
    torch.testing.assert_close(mean, torch.tensor(found), atol=0.2, rtol=0)


def test_presets() -> None:
    assert PRESETS["product"] == Td3BcConfig()
    original = PRESETS["original"]
    paper = {"discount": 0.99, "tau": 0.005, "alpha": 2.5, "policy_noise": 0.2, "noise_clip": 0.5, "policy_freq": 2}
    paper |= {"hidden": (256, 256), "lr": 3e-4, "layer_norm": False, "clip_targets": False, "state_scaling": "mean-std"}
    assert {name: getattr(original, name) for name in paper} == paper


def test_it_asks_for_transitions_scaled_to_the_limits() -> None:
    agent = make_agent(n_step=3, discount=0.9, state_scaling="min-max")
    assert agent.sampling == Transitions(3, 0.9)
    assert (agent.config.scaling.state, agent.config.scaling.action) == ("min-max", "limits")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"discount": 1.5}, "td3bc: discount is 1.5, expected a number from 0 to 1"),
        ({"tau": math.nan}, "td3bc: tau is nan, expected a number from 0 to 1"),
        ({"policy_freq": 0}, "td3bc: policy_freq is 0, expected a positive number"),
        ({"lr": math.inf}, "td3bc: lr is inf, expected a positive number"),
        ({"alpha": -1.0}, "td3bc: alpha is -1.0, expected 0 or more"),
        ({"noise_clip": -0.1}, "td3bc: noise_clip is -0.1, expected 0 or more"),
        ({"hidden": (8, 0)}, r"td3bc: hidden is \[8, 0\], expected positive widths"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Td3BcConfig(**changes)
