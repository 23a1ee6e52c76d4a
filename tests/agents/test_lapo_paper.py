"""State mode with the preset `original` equals the paper's iteration, written here from its formulas alone."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lapwing.agent import RewardFacts
from lapwing.agents.lapo import LapoAgent
from lapwing.agents.lapo_config import PRESETS
from lapwing.batch import Batch, Obs
from lapwing.spec import RobotSpec


class Paper:
    """The released code's iteration on plain vectors. It shares nothing with the agent but the weights it starts from.

    Adam and three networks: critics (Q1, Q2, V), a CVAE with two heads, and a tanh actor on its latent; all with slow
    copies. s, a: normalised; r: divided by the largest reward of the data; d: 1 on terminals.
    """

    def __init__(self, agent: LapoAgent, min_v: float, max_v: float, doubleq_min: float, kl_beta: float) -> None:
        self.min_v, self.max_v, self.doubleq_min, self.kl_beta = min_v, max_v, doubleq_min, kl_beta
        self.q1, self.q2 = plain(agent.critic.q1), plain(agent.critic.q2)
        self.v = plain(agent.critic.value)
        self.latent = plain(agent.actor.net)
        body = plain(agent.vae.posterior)
        self.body, self.mean, self.log_var = body[:-1], *split(body[-1])
        self.decoder = plain(agent.vae.decoder.net)
        self.critic = nn.ModuleList([self.q1, self.q2, self.v])
        self.vae = nn.ModuleList([self.body, self.mean, self.log_var, self.decoder])
        self.actor = nn.ModuleList([self.latent])
        self.critic_t, self.vae_t, self.actor_t = (copy.deepcopy(net) for net in (self.critic, self.vae, self.actor))
        self.critic_adam, self.vae_adam, self.actor_adam = (
            torch.optim.Adam(net.parameters(), lr=2e-4) for net in (self.critic, self.vae, self.actor)
        )

    def target(self, s: Tensor, noise: bool) -> Tensor:
        with torch.no_grad():
            z = 2.0 * torch.tanh(self.actor_t[0](s))
            if noise:
                z = z + torch.clip(0.1 * torch.randn_like(z), -0.2, 0.2)
            a = self.vae_t[3](torch.cat([s, z], 1))
            q1, q2 = self.critic_t[0](torch.cat([s, a], 1)), self.critic_t[1](torch.cat([s, a], 1))
            return self.doubleq_min * torch.min(q1, q2) + (1 - self.doubleq_min) * torch.max(q1, q2)

    def iterate(self, s: Tensor, a: Tensor, s_next: Tensor, r: Tensor, d: Tensor) -> None:
        with torch.no_grad():
            y_q = r + 0.99 * (1 - d) * self.v(s_next)
            y_v = torch.clamp(self.target(s, noise=True), self.min_v, self.max_v)
        sa = torch.cat([s, a], 1)
        loss = ((self.q1(sa) - y_q) ** 2).mean() + ((self.q2(sa) - y_q) ** 2).mean() + ((self.v(s) - y_v) ** 2).mean()
        descend(self.critic_adam, loss)

        with torch.no_grad():
            gain = r + 0.99 * (1 - d) * self.target(s_next, noise=False) - self.v(s)
            w = torch.where(gain > 0, torch.tensor(0.9), torch.tensor(1 - 0.9))

        hidden = self.body(sa)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        z = mean + torch.exp(log_var / 2) * torch.randn_like(mean)
        error = ((self.decoder(torch.cat([s, z], 1)) - a) ** 2).sum(1, keepdim=True)
        kl = -0.5 * (1 + log_var - mean**2 - torch.exp(log_var)).sum(1, keepdim=True)
        descend(self.vae_adam, (w * (error + self.kl_beta * kl)).mean())

        best = self.vae_t[3](torch.cat([s, 2.0 * torch.tanh(self.latent(s))], 1))
        descend(self.actor_adam, -self.q1(torch.cat([s, best], 1)).mean())

        for net, slow in ((self.critic, self.critic_t), (self.vae, self.vae_t), (self.actor, self.actor_t)):
            for p, p_slow in zip(net.parameters(), slow.parameters(), strict=True):
                p_slow.data = 0.005 * p.data + 0.995 * p_slow.data


def descend(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()
    adam.step()


def plain(net: nn.Module) -> nn.Sequential:
    """A ReLU network with copies of the weights of the linear layers of `net`, in their order."""
    layers: list[nn.Module] = []
    for linear in (layer for layer in net.modules() if isinstance(layer, nn.Linear)):
        layers += [copy.deepcopy(linear).requires_grad_(True), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def split(linear: nn.Module) -> tuple[nn.Linear, nn.Linear]:
    """The upper and the lower half of the outputs, as two layers."""
    assert isinstance(linear, nn.Linear)
    halves = []
    for weight, bias in zip(linear.weight.data.chunk(2), linear.bias.data.chunk(2), strict=True):
        half = nn.Linear(linear.in_features, len(weight))
        half.weight.data, half.bias.data = weight.clone(), bias.clone()
        halves.append(half)
    return halves[0], halves[1]


def paper_parameters(critic: nn.ModuleList, vae: nn.ModuleList, actor: nn.ModuleList) -> list[Tensor]:
    body, mean, log_var, decoder = vae
    heads = [torch.cat([mean.weight, log_var.weight]), torch.cat([mean.bias, log_var.bias])]
    return [*critic.parameters(), *body.parameters(), *heads, *decoder.parameters(), *actor.parameters()]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("lowest_reward", [-0.5, 0.5], ids=["range-with-zero", "targets-outside-the-range"])
@pytest.mark.parametrize(("doubleq_min", "kl_beta"), [(1.0, 1.0), (0.7, 0.3)], ids=["defaults", "overrides"])
def test_preset_original_equals_the_paper(
    blind: RobotSpec, lowest_reward: float, doubleq_min: float, kl_beta: float
) -> None:
    n, updates = 64, 5
    random = torch.Generator().manual_seed(1)
    s, s_next, a = (torch.randn(n, dim, generator=random) for dim in (5, 5, 3))
    r = lowest_reward + (2.0 - lowest_reward) * torch.rand(n, 1, generator=random)
    d = (torch.rand(n, 1, generator=random) < 0.2).to(r.dtype)
    lowest, highest = r.min().item(), r.max().item()
    torch.manual_seed(2)
    config = replace(PRESETS["original"], doubleq_min=doubleq_min, kl_beta=kl_beta)
    agent = LapoAgent(config, blind, RewardFacts(reward=(lowest, highest), returns=(math.nan, math.nan)))
    agent.prepare(torch.device("cpu"), bf16=False, compiled=False)
    paper = Paper(agent, lowest / highest / (1 - 0.99), 1 / (1 - 0.99), doubleq_min, kl_beta)
    for step in range(updates):
        rows = torch.randint(0, n, (16,), generator=random)
        torch.manual_seed(100 + step)
        agent.update(
            Batch(
                obs=Obs({}, s[rows]),
                action=a[rows, None],
                is_pad=torch.zeros(16, 1, dtype=torch.bool),
                reward=r[rows, 0],
                discount=0.99 * (1 - d[rows, 0]),
                mc_return=torch.zeros(16),
                next_obs=Obs({}, s_next[rows]),
            )
        )
        torch.manual_seed(100 + step)
        paper.iterate(s[rows], a[rows], s_next[rows], r[rows] / highest, d[rows])
        pairs = (
            ((agent.critic, agent.vae, agent.actor), (paper.critic, paper.vae, paper.actor)),
            ((agent.target_critic, agent.target_vae, agent.target_actor), (paper.critic_t, paper.vae_t, paper.actor_t)),
        )
        for ours, theirs in pairs:
            mine = [p for net in ours for p in net.parameters()]
            for one, other in zip(mine, paper_parameters(*theirs), strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
