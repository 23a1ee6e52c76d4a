"""Fitted Q evaluation: what policies would earn, from recorded transitions alone (Le et al. 2019, algorithm 3).

For every policy pi a network Q is fitted to equation (1), where Qt is a slow copy of it:

    Q(s, a) = r + discount * Qt(s', pi(s'))                                      (1)

All policies and members are one ensemble of networks: each batch is drawn once, for all of them. Deviations from the
paper: the slow copy instead of rounds of regression; LayerNorm; the right side is kept within the values that are
possible; and each member weighs the episodes by a bootstrap draw of its own (Hao et al. 2021), so that members differ
by as much as the data leaves open.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from lapwing.episode import Array
from lapwing.errors import ConfigError
from lapwing.nets.mlp import EnsembleMlp
from lapwing.nets.optim import gradient_step, track

LOOKS = 20  # times that the estimates are looked at while they are fitted
SETTLED = 5  # of these, the last so many are averaged


@dataclass(frozen=True)
class FitOptions:
    """How networks are fitted."""

    steps: int = 6000
    """Gradient steps; for the learned world the learning rate falls to 0 over them."""
    batch_size: int = 256
    members: int = 3
    """Learned worlds, or value networks for each policy: each on its own resample of the episodes."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of a network."""
    lr: float = 1e-3
    tau: float = 0.01
    """Fitted Q alone: rate at which the slow copies follow."""
    seed: int = 0
    """Of the split, the networks, the batches and the bootstrap."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "members", "lr", "tau"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"select: {name} is {getattr(self, name)}, expected a positive number")
        if self.tau > 1:
            raise ConfigError(f"select: tau is {self.tau}, expected at most 1; 0.01 is usual")
        if min(self.hidden, default=1) < 1:
            raise ConfigError(f"select: hidden is {list(self.hidden)}, expected positive widths")


@dataclass(frozen=True)
class Evidence:
    """Recorded transitions as the values see them.

    feature: float32 [N, F] of the observation; action: [N, A], of all steps of a chunk; reward, discount: [N], over
    these steps, discount 0 where the task terminated; next_feature: [N, F]; episode: int64 [N], counted from 0;
    bounds: lowest and highest value that is possible.
    """

    feature: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_feature: Tensor
    episode: Tensor
    bounds: tuple[float, float]

    def to(self, device: torch.device) -> Evidence:
        tensors = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "bounds"}
        return Evidence(**{name: tensor.to(device) for name, tensor in tensors.items()}, bounds=self.bounds)


@dataclass(frozen=True)
class Fit:
    """Values of the starts. value: float64 [P, M, S], members apart; course: [LOOKS, P], means while fitting."""

    value: Array
    course: Array
    steps: Array


def fit_values(
    evidence: Evidence,
    next_action: Tensor,
    start_feature: Tensor,
    start_action: Tensor,
    options: FitOptions,
    watch: Callable[[int], None] = lambda step: None,
) -> Fit:
    """Fit the values of P policies and return those of the starts (features [S, F], actions [S, P, A]).

    next_action: what each policy would do after the transitions, [N, P, A]. `watch` is told each step.

    The values are means over the last looks, since single ones waver. The caller's random numbers are left alone.
    """
    policies, members = next_action.shape[1], options.members
    device = evidence.feature.device
    scale = max(abs(bound) for bound in evidence.bounds) or 1.0
    low, high = (bound / scale for bound in evidence.bounds)
    reward = evidence.reward / scale
    with seeded(options.seed, device):
        inputs = evidence.feature.shape[1] + evidence.action.shape[1]
        net = EnsembleMlp(policies * members, inputs, options.hidden, 1).to(device)
        torch.nn.init.zeros_(net.weights[-1])  # values come from rewards alone, not from initial weights
    slow = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.lr, fused=True)
    random = torch.Generator().manual_seed(options.seed)
    weight = resampled(int(evidence.episode.max()) + 1, members, options.seed).to(device).repeat(policies, 1)
    starts = _joined(start_feature, start_action, members)
    looks: list[Array] = []
    moments = np.linspace(options.steps / LOOKS, options.steps, LOOKS).round().clip(1).astype(int)
    for step in range(1, options.steps + 1):
        index = torch.randint(len(reward), (options.batch_size,), generator=random).to(device)
        with torch.no_grad():
            ahead = slow(_joined(evidence.next_feature[index], next_action[index], members)).squeeze(-1)
            target = (reward[index] + evidence.discount[index] * ahead).clamp(low, high)
        q = net(torch.cat([evidence.feature[index], evidence.action[index]], -1)).squeeze(-1)
        gradient_step(optimizer, weighted_loss(q, target, weight[:, evidence.episode[index]]))
        track(slow, net, options.tau)
        for _ in range(int((moments == step).sum())):
            looks.append(_values(slow, starts, members) * scale)
        watch(step)
    return Fit(np.mean(looks[-SETTLED:], 0), np.stack([one.mean((1, 2)) for one in looks]), moments)


def weighted_loss(q: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Squared errors [E, B] weighted [E, B], mean over the batch and sum over the networks: each learns by itself."""
    return (weight * (q - target).square()).mean(1).sum()


def _joined(feature: Tensor, action: Tensor, members: int) -> Tensor:
    """Features [B, F] and actions [B, P, A] of each policy -> what each network is fed, [P * M, B, F + A]."""
    feature = feature.expand(action.shape[1], *feature.shape)
    return torch.cat([feature, action.transpose(0, 1)], -1).repeat_interleave(members, 0)


@torch.no_grad()
def _values(net: EnsembleMlp, starts: Tensor, members: int) -> Array:
    value: Array = net(starts).squeeze(-1).unflatten(0, (-1, members)).double().cpu().numpy()
    return value


def resampled(episodes: int, members: int, seed: int) -> Tensor:
    """How often each episode is drawn with replacement, for each member: float32 [M, episodes]."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(episodes, np.full(episodes, 1 / episodes), members)
    return torch.from_numpy(counts.astype(np.float32))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
