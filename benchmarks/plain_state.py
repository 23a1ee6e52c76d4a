"""LAPO, IQL and BC on states, written plainly from their papers: what `lapwing bench state` times ours against.

An MLP and a Python statement for each term of a loss, PyTorch's own Adam, `zero_grad`, `backward` and `step`, slow
copies parameter by parameter, float32. The arithmetic of an update is that of ours with preset `original`.

This is a yardstick, not a library: nothing imports it but the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DISCOUNT, TAU = 0.99, 0.005
LAPO_RATE, LAPO_EXPECTILE, KL_BETA, MAX_LATENT = 2e-4, 0.9, 1.0, 2.0
IQL_RATE, IQL_EXPECTILE, TEMPERATURE, MAX_WEIGHT, LOG_STD_RANGE = 3e-4, 0.7, 3.0, 100.0, (-5.0, 2.0)
BC_RATE, DECAY_STEPS = 2e-4, 1_000_000


@dataclass(frozen=True)
class PlainBatch:
    """float32: state, next_state [B, S]; action [B, A]; reward, mask [B, 1], mask 0 where it terminated."""

    state: Tensor
    action: Tensor
    reward: Tensor
    mask: Tensor
    next_state: Tensor


class PlainData:
    """Transitions of noise in memory, on the device."""

    def __init__(self, transitions: int, state_dim: int, action_dim: int, device: torch.device) -> None:
        self.all = PlainBatch(
            state=torch.randn(transitions, state_dim, device=device),
            action=torch.rand(transitions, action_dim, device=device) * 2 - 1,
            reward=torch.rand(transitions, 1, device=device),
            mask=torch.ones(transitions, 1, device=device),
            next_state=torch.randn(transitions, state_dim, device=device),
        )

    def sample(self, size: int) -> PlainBatch:
        rows = torch.randint(0, len(self.all.state), (size,), device=self.all.state.device)
        return PlainBatch(**{name: values[rows] for name, values in vars(self.all).items()})


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    layers = [layer for a, b in pairwise((inputs, *hidden)) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))


class LapoCritic(nn.Module):
    """Two action values and a state value, nothing shared between them."""

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.q1, self.q2 = (mlp(state_dim + action_dim, hidden, 1) for _ in range(2))
        self.v = mlp(state_dim, hidden, 1)

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([state, action], 1)
        return self.q1(both), self.q2(both)


class ActorVae(nn.Module):
    """A conditional VAE of actions."""

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim = 2 * action_dim
        self.encoder = mlp(state_dim + action_dim, hidden, 2 * self.latent_dim)
        self.decoder = mlp(state_dim + self.latent_dim, hidden, action_dim)

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encoder(torch.cat([state, action], 1)).chunk(2, 1)
        latent = mean + (log_var / 2).exp() * torch.randn_like(mean)
        return self.decode(state, latent), mean, log_var

    def decode(self, state: Tensor, latent: Tensor) -> Tensor:
        return self.decoder(torch.cat([state, latent], 1))


class PlainLapo:
    """`update` makes one step and returns its losses: critic, VAE, actor. value_range: that of the targets of V."""

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        device: torch.device,
        value_range: tuple[float, float] = (0.0, 100.0),
    ) -> None:
        self.value_range = value_range
        self.critic = LapoCritic(state_dim, action_dim, hidden).to(device)
        self.vae = ActorVae(state_dim, action_dim, hidden).to(device)
        self.actor = mlp(state_dim, hidden, self.vae.latent_dim).to(device)
        self.critic_target, self.vae_target, self.actor_target = map(deepcopy, (self.critic, self.vae, self.actor))
        self.critic_optimizer, self.vae_optimizer, self.actor_optimizer = (
            torch.optim.Adam(net.parameters(), lr=LAPO_RATE) for net in (self.critic, self.vae, self.actor)
        )

    def update(self, batch: PlainBatch) -> tuple[Tensor, Tensor, Tensor]:
        losses = self._update_critic(batch), self._update_vae(batch, self._weight(batch)), self._update_actor(batch)
        track(self.critic_target, self.critic)
        track(self.vae_target, self.vae)
        track(self.actor_target, self.actor)
        return losses

    def _update_critic(self, batch: PlainBatch) -> Tensor:
        with torch.no_grad():
            q_target = batch.reward + DISCOUNT * batch.mask * self.critic.v(batch.next_state)
            v_target = self._policy_value(batch.state, noisy=True).clamp(*self.value_range)
        q1, q2 = self.critic(batch.state, batch.action)
        loss = F.mse_loss(q1, q_target) + F.mse_loss(q2, q_target)
        loss = loss + F.mse_loss(self.critic.v(batch.state), v_target)
        return step(self.critic_optimizer, loss)

    @torch.no_grad()
    def _weight(self, batch: PlainBatch) -> Tensor:
        next_value = self._policy_value(batch.next_state, noisy=False)
        advantage = batch.reward + DISCOUNT * batch.mask * next_value - self.critic.v(batch.state)
        return torch.where(advantage > 0, LAPO_EXPECTILE, 1 - LAPO_EXPECTILE)

    def _update_vae(self, batch: PlainBatch, weight: Tensor) -> Tensor:
        decoded, mean, log_var = self.vae(batch.state, batch.action)
        reconstruction = (decoded - batch.action).square().sum(1, keepdim=True)
        divergence = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1, keepdim=True)
        return step(self.vae_optimizer, (weight * (reconstruction + KL_BETA * divergence)).mean())

    def _update_actor(self, batch: PlainBatch) -> Tensor:
        latent = MAX_LATENT * self.actor(batch.state).tanh()
        action = self.vae_target.decode(batch.state, latent)
        return step(self.actor_optimizer, -self.critic.q1(torch.cat([batch.state, action], 1)).mean())

    def _policy_value(self, state: Tensor, noisy: bool) -> Tensor:
        latent = MAX_LATENT * self.actor_target(state).tanh()
        if noisy:
            latent = latent + (0.1 * torch.randn_like(latent)).clamp(-0.2, 0.2)
        return torch.min(*self.critic_target(state, self.vae_target.decode(state, latent)))


class PlainIql:
    """`update` makes one step and returns its losses: value, critics, actor."""

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int], device: torch.device) -> None:
        self.q1, self.q2 = (mlp(state_dim + action_dim, hidden, 1).to(device) for _ in range(2))
        self.value, self.actor = mlp(state_dim, hidden, 1).to(device), mlp(state_dim, hidden, action_dim).to(device)
        self.log_std = nn.Parameter(torch.zeros(action_dim, device=device))
        self.q1_target, self.q2_target = deepcopy(self.q1), deepcopy(self.q2)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), lr=IQL_RATE)
        self.critic_optimizer = torch.optim.Adam(chain(self.q1.parameters(), self.q2.parameters()), lr=IQL_RATE)
        self.actor_optimizer = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=IQL_RATE)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, DECAY_STEPS)

    def update(self, batch: PlainBatch) -> tuple[Tensor, Tensor, Tensor]:
        both = torch.cat([batch.state, batch.action], 1)
        with torch.no_grad():
            q_slow = torch.min(self.q1_target(both), self.q2_target(both))
            target = batch.reward + DISCOUNT * batch.mask * self.value(batch.next_state)
        advantage = q_slow - self.value(batch.state)
        weight = torch.where(advantage < 0, 1 - IQL_EXPECTILE, IQL_EXPECTILE)
        value_loss = step(self.value_optimizer, (weight * advantage.square()).mean())
        critic_loss = F.mse_loss(self.q1(both), target) + F.mse_loss(self.q2(both), target)
        critic_loss = step(self.critic_optimizer, critic_loss)
        policy = torch.distributions.Normal(
            self.actor(batch.state).tanh(), self.log_std.clamp(*LOG_STD_RANGE).exp(), validate_args=False
        )
        weight = (TEMPERATURE * advantage.detach()).exp().clamp(max=MAX_WEIGHT)
        actor_loss = -(weight * policy.log_prob(batch.action).sum(1, keepdim=True)).mean()
        actor_loss = step(self.actor_optimizer, actor_loss)
        self.schedule.step()
        track(self.q1_target, self.q1)
        track(self.q2_target, self.q2)
        return value_loss, critic_loss, actor_loss


class PlainBc:
    """`update` makes one step and returns its loss."""

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int], device: torch.device) -> None:
        self.actor = mlp(state_dim, hidden, action_dim).to(device)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=BC_RATE)

    def update(self, batch: PlainBatch) -> tuple[Tensor]:
        return (step(self.optimizer, F.mse_loss(self.actor(batch.state), batch.action)),)


@torch.no_grad()
def track(target: nn.Module, source: nn.Module) -> None:
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.copy_((1 - TAU) * slow + TAU * fast)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
