"""TD3+BC: TD3 whose policy also imitates the data (Fujimoto and Gu, NeurIPS 2021).

Equation numbers refer to docs/algorithms/td3bc.md, which also lists every deviation. With f = encoder(obs), pi a
policy without noise and a prime for the next observation, one update does, in this order:

    y = r + discount min_i Qt_i(f', clamp(pit(f') + noise))        t: slow copies (1)
    L_critic = sum_i (Q_i(f, a) - y)^2                                            (2)
    L_pi = -alpha Q_1(f, pi(f)) / mean |Q_1| + |pi(f) - a|^2                      (3)

(3) and the slow copies once in `policy_freq` updates. Images: the encoder learns from (2) alone; (3) sees f detached.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.agent import Metrics, Normalization, RewardFacts, Sampling, Scaling, Transitions
from lapwing.agents.value_range import value_metrics
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.augment import random_shift
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.critic import TwinCritic
from lapwing.nets.mlp import mlp, speed_up
from lapwing.nets.optim import gradient_step, track
from lapwing.nets.spatial import SpatialEncoder
from lapwing.spec import RobotSpec


@dataclass(frozen=True)
class Td3BcConfig:
    """Settings of TD3+BC. Defaults are the product's; PRESETS holds the paper's."""

    discount: float = 0.99
    """Gamma of the Bellman targets."""
    n_step: int = 1
    """Steps of reward before bootstrapping."""
    tau: float = 0.005
    """Rate at which the slow copies follow."""
    alpha: float = 2.5
    """Weight of Q, scaled to a mean of 1, beside imitation; 0 is behaviour cloning."""
    policy_noise: float = 0.2
    """Standard deviation of the noise on the next action in the targets; an axis goes from -1 to 1."""
    noise_clip: float = 0.5
    """Largest such noise."""
    policy_freq: int = 2
    """Critic updates to one of the policy and the slow copies."""
    layer_norm: bool = True
    """LayerNorm in the critics: bounds what they say of unseen actions."""
    clip_targets: bool = True
    """Clamp the targets of Q to the range of returns in the data."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the MLPs of policy and critics."""
    lr: float = 3e-4
    """Learning rate of all networks."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    state_scaling: Normalization = "mean-std"
    """How states are normalised."""
    vision: BackboneConfig = field(default_factory=lambda: BackboneConfig(backbone="resnet10"))

    def __post_init__(self) -> None:
        for name in ("discount", "tau"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"td3bc: {name} is {getattr(self, name)}, expected a number from 0 to 1")
        for name in ("n_step", "policy_freq", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"td3bc: {name} is {getattr(self, name)}, expected a positive number")
        for name in ("alpha", "policy_noise", "noise_clip", "random_shift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"td3bc: {name} is {getattr(self, name)}, expected 0 or more")
        if min(self.hidden, default=1) < 1:
            raise ConfigError(f"td3bc: hidden is {list(self.hidden)}, expected positive widths")

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.state_scaling, "limits")


PRESETS: dict[str, Td3BcConfig] = {
    "product": Td3BcConfig(),
    "original": Td3BcConfig(layer_norm=False, clip_targets=False),
}


class Td3BcAgent:
    """Learns from transitions; acts as the data did where its critics see nothing better near by."""

    modes: tuple[str, ...] = ("pi",)

    def __init__(self, config: Td3BcConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        self.encoder = SpatialEncoder(spec, config.vision)
        self.config = replace(config, vision=self.encoder.vision)
        feature, action, hidden = self.encoder.feature_dim, spec.action_dim, config.hidden
        self.critic = TwinCritic(feature, action, hidden, config.layer_norm)
        self.actor = nn.Sequential(mlp(feature, hidden, action), nn.Tanh())
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.networks = nn.ModuleDict(
            {
                "encoder": self.encoder,
                "critic": self.critic,
                "actor": self.actor,
                "target_critic": self.target_critic,
                "target_actor": self.target_actor,
            }
        )
        self.acting = nn.ModuleDict({"encoder": self.encoder, "actor": self.actor})
        self.returns = facts.returns
        self.updates = 0
        self._actor_metrics: Metrics = {}
        self._make_optimizers()

    @property
    def sampling(self) -> Sampling:
        return Transitions(self.config.n_step, self.config.discount)

    def _make_optimizers(self) -> None:
        learning = [one for net in (self.encoder, self.critic) for one in net.parameters() if one.requires_grad]
        self.optimizers = {
            "critic": torch.optim.Adam(learning, lr=self.config.lr, fused=True),
            "actor": torch.optim.Adam(self.actor.parameters(), lr=self.config.lr, fused=True),
        }

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        """Move to `device`. bf16 and compilation are as `speed_up` says."""
        self.networks.to(device)
        self._make_optimizers()
        speed_up(self.encoder, self.networks, bf16, compiled)

    def update(self, batch: Batch) -> Metrics:
        """Equations (1) and (2) on one batch, in turn (3) and the slow copies."""
        action = batch.action[:, 0]
        feature = self.encoder(random_shift(batch.obs, self.config.random_shift))
        metrics = self._step_critic(feature, action, self._target(batch))
        if self.updates % self.config.policy_freq == 0:
            self._actor_metrics = self._step_actor(feature.detach(), action)
            track(self.target_critic, self.critic, self.config.tau)
            track(self.target_actor, self.actor, self.config.tau)
        self.updates += 1
        return metrics | self._actor_metrics

    @torch.no_grad()
    def _target(self, batch: Batch) -> Tensor:
        """y of equation (1), [B]. The next images have a draw of their own, as in DrQ."""
        assert batch.next_obs is not None  # promised by Transitions
        feature = self.encoder(random_shift(batch.next_obs, self.config.random_shift))
        action = self.target_actor(feature)
        limit = self.config.noise_clip
        noise = (self.config.policy_noise * torch.randn_like(action)).clamp_(-limit, limit)
        value = self.target_critic(feature, (action + noise).clamp_(-1, 1)).min(0).values
        target: Tensor = batch.reward + batch.discount * value
        return target.clamp(*self.returns) if self.config.clip_targets else target

    def _step_critic(self, feature: Tensor, action: Tensor, target: Tensor) -> Metrics:
        q = self.critic(feature, action)
        loss = critic_loss(q, target)
        gradient_step(self.optimizers["critic"], loss)
        return {"critic_loss": loss.detach(), **value_metrics(q, self.returns)}

    def _step_actor(self, feature: Tensor, action: Tensor) -> Metrics:
        chosen = self.actor(feature)
        q = self.critic.first(feature, chosen)
        loss = actor_loss(q, chosen, action, self.config.alpha)
        gradient_step(self.optimizers["actor"], loss)
        return {
            "actor_loss": loss.detach(),
            "q_pi": q.detach().mean(),
            "action_mse": F.mse_loss(chosen.detach(), action),
            "policy_saturated": (chosen.detach().abs() > 0.99).to(q.dtype).mean(),
        }

    @torch.no_grad()
    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        """Normalised action [B, 1, A], without noise."""
        if mode not in (None, *self.modes):
            raise ConfigError(f"td3bc: mode {mode!r} does not exist here; choose one of {', '.join(self.modes)}")
        return self.actor(self.encoder(obs))[:, None]  # type: ignore[no-any-return]

    @torch.no_grad()
    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """Values in the data's own reward units, [B] each, of the lower critic: "v" is that of the policy's action."""
        feature = self.encoder(batch.obs)
        q = self.critic(feature, batch.action[:, 0]).min(0).values
        q_pi = self.critic(feature, self.actor(feature)).min(0).values
        return {"q": q, "q_pi": q_pi, "v": q_pi, "advantage": q - q_pi}

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "updates": self.updates,
            "actor_metrics": dict(self._actor_metrics),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        device = next(self.actor.parameters()).device
        self.updates = state["updates"]
        self._actor_metrics = {name: value.to(device) for name, value in state["actor_metrics"].items()}


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Equation (2): the squared errors of both critics [2, B] to the one target [B]."""
    return (q - target).square().sum(0).mean()


def actor_loss(q: Tensor, chosen: Tensor, action: Tensor, alpha: float) -> Tensor:
    """Equation (3). q: [B], of the `chosen` actions [B, A]; action: [B, A], the data's."""
    scale = alpha / q.detach().abs().mean().clamp_min(1e-8)  # where all Q are 0 they have no say
    return F.mse_loss(chosen, action) - scale * q.mean()
