"""Implicit Q-learning: values of the data's own actions alone (Kostrikov, Nair and Levine, ICLR 2022).

Equation numbers refer to docs/algorithms/iql.md, which also lists every deviation. With f = encoder(obs), pi a
Gaussian around a bounded mean and a prime for the next observation, one update does, from the networks as they are
when it begins:

    A = min_i Qt_i(f, a) - V(f)                     t: slow copies                (1)
    L_value = |expectile - (A < 0)| A^2                                           (2)
    L_critic = sum_i (Q_i(f, a) - (r + discount V(f')))^2                         (3)
    L_pi = -min(exp(temperature A), 100) log pi(a given f)                        (4)

No action but the data's is ever judged. Images: the encoder learns from (3) alone; (2) and (4) see f detached.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lapwing.agent import Metrics, Normalization, RewardFacts, Sampling, Scaling, Transitions
from lapwing.agents.value_range import value_metrics
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.augment import random_shift
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.critic import TwinCritic
from lapwing.nets.mlp import mlp, speed_up
from lapwing.nets.optim import cosine_decay, gradient_step, track
from lapwing.nets.spatial import SpatialEncoder
from lapwing.spec import RobotSpec

MAX_WEIGHT = 100.0  # of a sample in (4), as the authors have it
LOG_STD_RANGE = (-5.0, 2.0)


@dataclass(frozen=True)
class IqlConfig:
    """Settings of IQL. Defaults are the product's; PRESETS holds the paper's."""

    discount: float = 0.99
    """Gamma of the Bellman targets."""
    n_step: int = 1
    """Steps of reward before bootstrapping."""
    tau: float = 0.005
    """Rate at which the slow critics follow."""
    expectile: float = 0.7
    """Which expectile of Q over the data's actions V is; higher is greedier, 0.5 is the value of the data's policy."""
    temperature: float = 3.0
    """How much more better actions weigh, per unit of value; 0 is behaviour cloning. The paper's beta."""
    layer_norm: bool = False
    """LayerNorm in Q and V."""
    clip_targets: bool = True
    """Clamp the targets of Q to the range of returns in the data."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the MLPs of policy, critics and value."""
    lr: float = 3e-4
    """Learning rate of all networks."""
    actor_decay_steps: int = 0
    """Updates over which the policy's learning rate falls to 0, along a cosine; 0: it stays. Give it --steps."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    state_scaling: Normalization = "mean-std"
    """How states are normalised."""
    vision: BackboneConfig = field(default_factory=lambda: BackboneConfig(backbone="resnet10"))

    def __post_init__(self) -> None:
        for name in ("discount", "tau", "expectile"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"iql: {name} is {getattr(self, name)}, expected a number from 0 to 1")
        for name in ("n_step", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"iql: {name} is {getattr(self, name)}, expected a positive number")
        for name in ("temperature", "actor_decay_steps", "random_shift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"iql: {name} is {getattr(self, name)}, expected 0 or more")
        if min(self.hidden, default=1) < 1:
            raise ConfigError(f"iql: hidden is {list(self.hidden)}, expected positive widths")

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.state_scaling, "limits")


PRESETS: dict[str, IqlConfig] = {
    "product": IqlConfig(),
    "original": IqlConfig(clip_targets=False, actor_decay_steps=1_000_000),
}


class IqlAgent:
    """Learns from transitions which of the recorded actions were good, and acts with the mean of those."""

    modes: tuple[str, ...] = ("pi",)

    def __init__(self, config: IqlConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        self.encoder = SpatialEncoder(spec, config.vision)
        self.config = replace(config, vision=self.encoder.vision)
        feature, action, hidden = self.encoder.feature_dim, spec.action_dim, config.hidden
        self.critic = TwinCritic(feature, action, hidden, config.layer_norm)
        self.value = mlp(feature, hidden, 1, config.layer_norm)
        self.actor = GaussianActor(feature, action, hidden)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.networks = nn.ModuleDict(
            {
                "encoder": self.encoder,
                "critic": self.critic,
                "value": self.value,
                "actor": self.actor,
                "target_critic": self.target_critic,
            }
        )
        self.acting = nn.ModuleDict({"encoder": self.encoder, "actor": self.actor})
        self.returns = facts.returns
        self.updates = 0
        self._make_optimizer()

    @property
    def sampling(self) -> Sampling:
        return Transitions(self.config.n_step, self.config.discount)

    def _make_optimizer(self) -> None:
        """One Adam for all, which for networks that share nothing is as good as one each. The policy comes last."""
        values = [one for net in (self.encoder, self.critic, self.value) for one in net.parameters()]
        groups = [{"params": [one for one in values if one.requires_grad]}, {"params": list(self.actor.parameters())}]
        self.optimizer = torch.optim.Adam(groups, lr=self.config.lr, fused=True)

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        """Move to `device`. bf16 and compilation are as `speed_up` says."""
        self.networks.to(device)
        self._make_optimizer()
        speed_up(self.encoder, self.networks, bf16, compiled)

    def update(self, batch: Batch) -> Metrics:
        """Equations (1) to (4) on one batch in one step, then the slow critics."""
        assert batch.next_obs is not None  # promised by Transitions
        action = batch.action[:, 0]
        taught = self.encoder(random_shift(batch.obs, self.config.random_shift))
        feature = taught.detach()
        q, v = self.critic(taught, action), self.v(feature)
        gain = self._slow_q(feature, action) - v
        weight = advantage_weight(gain.detach(), self.config.temperature)
        policy = self.actor(feature)
        losses = {
            "critic_loss": critic_loss(q, self._target(batch)),
            "value_loss": expectile_loss(gain, self.config.expectile),
            "actor_loss": actor_loss(log_density(action, *policy), weight),
        }
        config = self.config
        self.optimizer.param_groups[-1]["lr"] = config.lr * cosine_decay(self.updates, config.actor_decay_steps)
        gradient_step(self.optimizer, torch.stack(list(losses.values())).sum())
        track(self.target_critic, self.critic, self.config.tau)
        self.updates += 1
        metrics = {name: loss.detach() for name, loss in losses.items()}
        return metrics | value_metrics(q, self.returns) | _policy_metrics(v.detach(), gain.detach(), weight, *policy)

    @torch.no_grad()
    def _target(self, batch: Batch) -> Tensor:
        """What Q is taught by (3), [B]. The next images have a draw of their own, as in DrQ."""
        assert batch.next_obs is not None
        next_feature = self.encoder(random_shift(batch.next_obs, self.config.random_shift))
        target = batch.reward + batch.discount * self.v(next_feature)
        return target.clamp(*self.returns) if self.config.clip_targets else target

    @torch.no_grad()
    def _slow_q(self, feature: Tensor, action: Tensor) -> Tensor:
        return self.target_critic(feature, action).min(0).values  # type: ignore[no-any-return]

    def v(self, feature: Tensor) -> Tensor:
        """V, [B]."""
        return self.value(feature).squeeze(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        """Normalised action [B, 1, A]: the policy's mean."""
        if mode not in (None, *self.modes):
            raise ConfigError(f"iql: mode {mode!r} does not exist here; choose one of {', '.join(self.modes)}")
        return self.actor(self.encoder(obs))[0][:, None]  # type: ignore[no-any-return]

    @torch.no_grad()
    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """Values in the data's own reward units, [B] each: q and q_pi (lower of two), v, and the advantage (1)."""
        feature, action = self.encoder(batch.obs), batch.action[:, 0]
        q = self.critic(feature, action).min(0).values
        q_pi = self.critic(feature, self.actor(feature)[0]).min(0).values
        v = self.v(feature)
        return {"q": q, "q_pi": q_pi, "v": v, "advantage": self._slow_q(feature, action) - v}

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "optimizers": {"all": self.optimizer.state_dict()},
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizers"]["all"])
        self.updates = state["updates"]


def expectile_loss(gain: Tensor, expectile: float) -> Tensor:
    """Equation (2), the mean over the batch. gain: [B], by how much V is too low."""
    weight = (expectile - (gain < 0).to(gain.dtype)).abs()
    return (weight * gain.square()).mean()


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Equation (3): the squared errors of both critics [2, B] to the one target [B]."""
    return (q - target).square().sum(0).mean()


def advantage_weight(gain: Tensor, temperature: float) -> Tensor:
    """The weight in equation (4), [B]."""
    return (temperature * gain).exp().clamp(max=MAX_WEIGHT)


def actor_loss(log_prob: Tensor, weight: Tensor) -> Tensor:
    """Equation (4). log_prob, weight: [B]."""
    return -(weight * log_prob).mean()


def log_density(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Of actions [B, A] under a Gaussian with independent axes, [B]. mean: [B, A]; log_std: [A]."""
    apart = (action - mean) * (-log_std).exp()
    return -0.5 * apart.square().sum(-1) - log_std.sum() - 0.5 * math.log(2 * math.pi) * len(log_std)


def _policy_metrics(v: Tensor, gain: Tensor, weight: Tensor, mean: Tensor, log_std: Tensor) -> Metrics:
    return {
        "v_mean": v.mean(),
        "advantage_mean": gain.mean(),
        "advantage_positive": (gain > 0).to(v.dtype).mean(),
        "weight_mean": weight.mean(),
        "weight_clipped": (weight == MAX_WEIGHT).to(v.dtype).mean(),
        "policy_std": log_std.detach().exp().mean(),
        "policy_saturated": (mean.detach().abs() > 0.99).to(v.dtype).mean(),
    }


class GaussianActor(nn.Module):
    """feature [B, F] -> mean in (-1, 1) [B, A] and log standard deviation [A], which no observation changes."""

    def __init__(self, feature: int, action: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.net = mlp(feature, hidden, action)
        self.log_std = nn.Parameter(torch.zeros(action))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(feature).tanh(), self.log_std.clamp(*LOG_STD_RANGE)
