"""SAC with demonstrations, grippers by a critic of their own (HIL-SERL, Luo et al., 2024; RLPD, Ball et al., 2023).

Equation numbers refer to docs/algorithms/sac.md, which also lists every deviation. With f = encoder(obs), pi the
tanh-Gaussian policy of the continuous axes, Q_i the critics, G the grasp critic and a prime for the next
observation, one update does, in this order:

    y = r + discount min_i Qt_i(f', a'),  a' ~ pi(f')          t: slow copies     (1)
    L_critic = mean_i (Q_i(f, a) - y)^2  [+ conservative L_cql]                   (2)
    L_grasp = (G(f)[g] - y_g)^2  [+ grasp_imitation CE(G(f), g)]                  (3)
    L_pi = scale (alpha log pi(a|f) - mean_i Q_i(f, a))  [+ imitation |mode(f) - a_data|^2]   (4)
    L_alpha = alpha (-log pi(a|f) - target_entropy)                               (5)

(4) and (5) once in `cta_ratio` updates. The encoder learns from (2) and (3) alone; (4) sees f detached. With
imitation the actor stays near the data: without it, SAC on recorded demonstrations alone learns nothing of use.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.agent import Metrics, Normalization, RewardFacts, Sampling, Scaling, Transitions
from lapwing.agents.grasp import (
    GraspCritic,
    grasp_class,
    grasp_imitation_loss,
    grasp_loss,
    grasp_target,
    grasp_values,
)
from lapwing.agents.value_range import diverged, value_metrics
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.gripper import grasp_axes
from lapwing.nets.augment import random_shift
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.distributions import SquashedGaussian, TanhGaussian
from lapwing.nets.mlp import EnsembleMlp, left_out, tanh_mlp
from lapwing.nets.optim import gradient_step, track
from lapwing.nets.spatial import SpatialEncoder
from lapwing.spec import RobotSpec


@dataclass(frozen=True)
class SacConfig:
    """Settings of SAC. Defaults are the product's; PRESETS holds the documents' and HIL-SERL's."""

    discount: float = 0.97
    """Gamma of the Bellman targets."""
    n_step: int = 1
    """Steps of reward before bootstrapping."""
    tau: float = 0.005
    """Rate at which the slow copies follow."""
    critics: int = 2
    """Members of the critic ensemble."""
    target_critics: int = 0
    """Members drawn at random for each target, the lowest of which counts; 0: all."""
    cta_ratio: int = 2
    """Critic updates to one of actor and temperature."""
    temperature: float = 0.01
    """Weight of the entropy at the start."""
    target_entropy: float | None = None
    """Entropy that the temperature steers to, in nats; None: minus half the action axes, grippers included."""
    backup_entropy: bool = False
    """Count entropy in the targets, as plain SAC does."""
    clip_targets: bool = True
    """Clamp the targets to the range of returns in the data."""
    stop_when_diverged: bool = True
    """Stop when the mean of Q has been further from that range than it is wide for a whole row of progress.csv."""
    imitation: float = 3.0
    """Weight of staying near demonstrated actions, beside Q scaled to a mean of 1; 0: plain SAC."""
    grasp_imitation: float = 1.0
    """Weight of the cross-entropy of demonstrated grasps."""
    imitation_steps: int = 0
    """Updates over which both weights fall to 0, evenly, for what goes on online; 0: they stay."""
    conservative: float = 0.0
    """Weight of Cal-QL's term, which keeps Q of unseen actions below recorded returns; for what goes online later."""
    conservative_actions: int = 4
    """Actions drawn per state and kind for it."""
    grasp_epsilon: float = 0.0
    """Share of random grasps while exploring."""
    hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Widths of the MLPs of actor and critics."""
    dropout: float = 0.1
    """Share of the units of policy and grasp critic that is left out while they learn."""
    lr: float = 3e-4
    """Learning rate of all networks."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    state_scaling: Normalization = "mean-std"
    """How states are normalised."""
    vision: BackboneConfig = field(default_factory=lambda: BackboneConfig(backbone="resnet10"))

    def __post_init__(self) -> None:
        for name in ("discount", "tau", "grasp_epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"sac: {name} is {getattr(self, name)}, expected a number from 0 to 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"sac: dropout is {self.dropout}, expected 0 or more and below 1")
        for name in ("n_step", "critics", "cta_ratio", "temperature", "conservative_actions", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"sac: {name} is {getattr(self, name)}, expected a positive number")
        for name in ("imitation", "grasp_imitation", "imitation_steps", "conservative", "random_shift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"sac: {name} is {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.target_critics <= self.critics:
            raise ConfigError(f"sac: target_critics is {self.target_critics}, expected 0 to critics ({self.critics})")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"sac: hidden is {list(self.hidden)}, expected positive widths")

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.state_scaling, "limits")


PRESETS: dict[str, SacConfig] = {
    "product": SacConfig(),
    "serl-notes": SacConfig(discount=0.95, imitation=1.0, hidden=(256, 256), dropout=0.0),
    "hilserl": SacConfig(imitation=0.0, grasp_imitation=0.0, clip_targets=False, hidden=(256, 256), dropout=0.0),
}


class SacAgent:
    """Learns from transitions; acts with the mode of the policy and the best grasp, explores by drawing from it."""

    modes: tuple[str, ...] = ("pi",)

    def __init__(self, config: SacConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        self.encoder = SpatialEncoder(spec, config.vision)
        self.config = replace(config, vision=self.encoder.vision)
        self.grasps = list(grasp_axes(spec))
        self.moves = [axis for axis in range(spec.action_dim) if axis not in self.grasps]
        if not self.moves:
            raise ConfigError("sac: every action axis is a gripper, expected some of an arm; check the spec")
        features, width = self.encoder.feature_dim, config.hidden[-1]
        self.critic = EnsembleMlp(config.critics, features + len(self.moves), config.hidden, 1)
        trunk = tanh_mlp(features, config.hidden, dropout=config.dropout)
        self.actor = nn.Sequential(trunk, TanhGaussian(width, len(self.moves)))
        self.temperature = Temperature(config.temperature)
        self.networks = nn.ModuleDict(
            {"encoder": self.encoder, "critic": self.critic, "actor": self.actor, "temperature": self.temperature}
        )
        self.acting = nn.ModuleDict({"encoder": self.encoder, "actor": self.actor})
        if self.grasps:
            grasp = GraspCritic(features, len(self.grasps), config.hidden, config.dropout)
            self.networks["grasp"] = self.acting["grasp"] = grasp
        self.slow = [name for name in ("encoder", "critic", "grasp") if name in self.networks]
        for name in self.slow:
            self.networks[f"target_{name}"] = copy.deepcopy(self.networks[name]).requires_grad_(False)
        self.target_encoder: SpatialEncoder = self.networks["target_encoder"]  # type: ignore[assignment]
        if self.encoder.frozen:  # the same for ever
            self.target_encoder.backbone = self.encoder.backbone
        self.networks.eval()  # everything but what learns with units left out, and while it does
        entropy = config.target_entropy
        self.target_entropy = -spec.action_dim / 2 if entropy is None else entropy
        self.returns = facts.returns
        self.updates = 0
        self._actor_metrics: Metrics = {}

    @property
    def sampling(self) -> Sampling:
        return Transitions(self.config.n_step, self.config.discount)

    @cached_property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Made when first asked for: an actor has no use for them, and PyTorch's take seconds to import."""
        learning = [one for name in self.slow for one in self.networks[name].parameters() if one.requires_grad]
        return {
            "critic": torch.optim.Adam(learning, lr=self.config.lr, fused=True),
            "actor": torch.optim.Adam(self.actor.parameters(), lr=self.config.lr, fused=True),
            "temperature": torch.optim.Adam(self.temperature.parameters(), lr=self.config.lr, fused=True),
        }

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        """Move to `device`. bf16 and compilation serve the image encoder alone."""
        self.networks.to(device)
        for encoder in (self.encoder, self.target_encoder):
            encoder.autocast = torch.bfloat16 if bf16 else None
            if compiled:
                encoder.compile()

    def update(self, batch: Batch) -> Metrics:
        """Equations (1) to (3) on one batch, in turn (4) and (5), then the slow copies."""
        assert batch.next_obs is not None  # promised by Transitions
        obs, next_obs = self._varied(batch.obs), self._varied(batch.next_obs)
        with torch.no_grad():
            next_feature, target_feature = self.encoder(next_obs), self.target_encoder(next_obs)
        feature = self.encoder(obs)
        metrics = self._step_critic(batch, feature, next_feature, target_feature)
        if self.updates % self.config.cta_ratio == 0:
            self._actor_metrics = self._step_actor(batch, feature.detach(), self._policy_feature(obs))
        self.updates += 1
        for name in self.slow:
            track(self.networks[f"target_{name}"], self.networks[name], self.config.tau)
        return metrics | self._actor_metrics

    def _varied(self, obs: Obs) -> Obs:
        """The images as seen in training, each draw its own; of a frozen backbone, the maps it makes of them."""
        obs = random_shift(obs, self.config.random_shift)
        return Obs(self.encoder.maps(obs.images), obs.state) if self.encoder.frozen else obs

    @torch.no_grad()
    def _policy_feature(self, obs: Obs) -> Tensor:
        """What the policy is trained on: with dropout, and with the encoder as it is after its step."""
        return self.encoder(obs, dropout=True)  # type: ignore[no-any-return]

    def _step_critic(self, batch: Batch, feature: Tensor, next_feature: Tensor, target_feature: Tensor) -> Metrics:
        action = batch.action[:, 0]
        moved = action[:, self.moves]
        target = self._target(batch, next_feature, target_feature)
        q = self.q(feature, moved)
        loss = critic_loss(q, target)
        metrics = {"critic_loss": loss.detach(), **self._value_metrics(q)}
        if self.config.conservative > 0:
            gap = self._conservative(batch, feature, next_feature, q)
            loss = loss + self.config.conservative * gap
            metrics["conservative_loss"] = gap.detach()
        if self.grasps:
            grasp, grasp_metrics = self._grasp_loss(batch, feature, next_feature, target_feature)
            loss, metrics = loss + grasp, metrics | grasp_metrics
        gradient_step(self.optimizers["critic"], loss)
        return metrics

    def _value_metrics(self, q: Tensor) -> Metrics:
        """What the critics say [E, B] of the data's actions, and whether that has left the range of returns far."""
        metrics = value_metrics(q, self.returns)
        if self.config.stop_when_diverged:
            metrics["q_diverged"] = diverged(q, self.returns)
        return metrics

    @torch.no_grad()
    def _target(self, batch: Batch, next_feature: Tensor, target_feature: Tensor) -> Tensor:
        """y of equation (1), [B]."""
        action, log_prob = self.policy(next_feature).sample()
        q = self._ensemble("target_critic", target_feature, action)
        if self.config.target_critics:
            q = q[torch.randperm(len(q), device=q.device)[: self.config.target_critics]]
        value = q.min(0).values
        if self.config.backup_entropy:
            value = value - self.temperature().detach() * log_prob
        target = batch.reward + batch.discount * value
        return target.clamp(*self.returns) if self.config.clip_targets else target

    def _grasp_loss(
        self, batch: Batch, feature: Tensor, next_feature: Tensor, target_feature: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Equation (3): double DQN, and the cross-entropy of what was recorded."""
        taken = grasp_class(batch.action[:, 0], self.grasps)
        with left_out(self.networks["grasp"]):
            q = self.networks["grasp"](feature)
        with torch.no_grad():
            online, slow = self.networks["grasp"](next_feature), self.networks["target_grasp"](target_feature)
            target = grasp_target(batch.reward, batch.grasp_penalty, batch.discount, online, slow)
            if self.config.clip_targets:
                target = target.clamp(max=self.returns[1])
        loss = grasp_loss(q, taken, target)
        metrics = {"grasp_loss": loss.detach(), "grasp_accuracy": (q.argmax(-1) == taken).float().mean()}
        if self.config.grasp_imitation > 0:
            imitation = masked_mean(grasp_imitation_loss(q, taken), batch.demonstrated)
            loss = loss + self.config.grasp_imitation * self._imitation_left() * imitation
            metrics["grasp_imitation_loss"] = imitation.detach()
        return loss, metrics

    def _conservative(self, batch: Batch, feature: Tensor, next_feature: Tensor, q: Tensor) -> Tensor:
        """L_cql of equation (2) over random actions and those of the policy here and at the next observation."""
        count = self.config.conservative_actions
        shape = (count, len(feature), len(self.moves))
        values = [self._q_of_many(feature, torch.rand(shape, device=q.device) * 2 - 1) + math.log(2) * shape[-1]]
        for policy_feature in (feature.detach(), next_feature):
            with torch.no_grad():
                action, log_prob = self.policy(policy_feature.expand(count, *feature.shape)).sample()
            bounded = torch.maximum(self._q_of_many(feature, action), batch.mc_return)
            values.append(bounded - log_prob)
        return conservative_loss(torch.cat(values, 1), q)

    def _q_of_many(self, feature: Tensor, action: Tensor) -> Tensor:
        """[E, M, B] for actions [M, B, A] at features [B, F]."""
        many = feature.expand(len(action), *feature.shape)
        return self.q(many.flatten(0, 1), action.flatten(0, 1)).reshape(-1, *action.shape[:2])

    def _step_actor(self, batch: Batch, feature: Tensor, policy_feature: Tensor) -> Metrics:
        """Equations (4) and (5). The critics judge by `feature`, which nothing was dropped from."""
        with left_out(self.actor):
            policy = self.policy(policy_feature)
        action, log_prob = policy.sample()
        self.critic.requires_grad_(False)
        q = self.q(feature, action).mean(0)
        self.critic.requires_grad_(True)
        loss = (self.temperature().detach() * log_prob - q).mean()
        near = masked_mean((policy.mode() - batch.action[:, 0, self.moves]).square().mean(-1), batch.demonstrated)
        if self.config.imitation > 0:
            weight = self.config.imitation * self._imitation_left()
            loss = loss / q.detach().abs().mean().clamp_min(1e-3) + weight * near
        gradient_step(self.optimizers["actor"], loss)
        entropy = -log_prob.detach().mean()
        gradient_step(self.optimizers["temperature"], self.temperature() * (entropy - self.target_entropy))
        return {
            "actor_loss": loss.detach(),
            "q_pi": q.detach().mean(),
            "entropy": entropy,
            "temperature": self.temperature().detach(),
            "action_mse": near.detach(),
        }

    def _imitation_left(self) -> float:
        """The share of the imitation weights that this update still has."""
        steps = self.config.imitation_steps
        return max(0.0, 1 - self.updates / steps) if steps else 1.0

    def policy(self, feature: Tensor) -> SquashedGaussian:
        """The distribution of the continuous axes at features [..., F]."""
        return self.actor(feature)  # type: ignore[no-any-return]

    def q(self, feature: Tensor, action: Tensor) -> Tensor:
        """Values [E, B] of continuous actions [B, A] at features [B, F], by every critic."""
        return self._ensemble("critic", feature, action)

    def _ensemble(self, name: str, feature: Tensor, action: Tensor) -> Tensor:
        return self.networks[name](torch.cat([feature, action], -1)).squeeze(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        """Normalised action [B, 1, A]: the policy's mode and the best grasp, without noise."""
        if mode not in (None, *self.modes):
            raise ConfigError(f"sac: mode {mode!r} does not exist here; choose one of {', '.join(self.modes)}")
        feature = self.encoder(obs)
        return self._assemble(feature, self.policy(feature).mode(), 0.0)

    @torch.no_grad()
    def explore(self, obs: Obs) -> Tensor:
        """Normalised action [B, 1, A], drawn from the policy; a grasp is random with `grasp_epsilon`, else the best."""
        feature = self.encoder(obs)
        return self._assemble(feature, self.policy(feature).sample()[0], self.config.grasp_epsilon)

    def _assemble(self, feature: Tensor, moves: Tensor, epsilon: float) -> Tensor:
        action = moves.new_empty(len(moves), len(self.moves) + len(self.grasps))
        action[:, self.moves] = moves
        if self.grasps:
            q = self.networks["grasp"](feature)
            chosen = q.argmax(-1)
            if epsilon > 0:
                anything = torch.randint_like(chosen, q.shape[-1])
                chosen = torch.where(torch.rand(len(chosen), device=q.device) < epsilon, anything, chosen)
            action[:, self.grasps] = grasp_values(chosen, len(self.grasps))
        return action[:, None]

    @torch.no_grad()
    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """Values of the continuous axes, [B] each: "q" of the data's action, "q_pi" and "v" of the policy's mode."""
        feature = self.encoder(batch.obs)
        q = self.q(feature, batch.action[:, 0, self.moves]).min(0).values
        q_pi = self.q(feature, self.policy(feature).mode()).min(0).values
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
        device = self.temperature.raw.device
        self.updates = state["updates"]
        self._actor_metrics = {name: value.to(device) for name, value in state["actor_metrics"].items()}


class Temperature(nn.Module):
    """The weight of the entropy, positive: softplus of one parameter."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        inverse = initial + math.log(-math.expm1(-initial))  # of softplus, without overflow
        self.raw = nn.Parameter(torch.tensor(inverse))

    def forward(self) -> Tensor:
        return F.softplus(self.raw)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every critic [E, B] to the one target [B]: equation (2)."""
    return (q - target).square().mean()


def masked_mean(values: Tensor, chosen: Tensor | None) -> Tensor:
    """Mean of values [B] where `chosen`, bool [B]; of all where that is None, 0 where none is chosen."""
    if chosen is None:
        return values.mean()
    return (values * chosen).sum() / chosen.sum().clamp_min(1)


def conservative_loss(log_weighted: Tensor, q: Tensor) -> Tensor:
    """Soft maximum of Q over drawn actions, less Q of the data's: Cal-QL (Nakamoto et al., 2023).

    log_weighted: [E, M, B], Q of each drawn action, less the logarithm of its density; q: [E, B].
    """
    count = log_weighted.shape[1]
    return (torch.logsumexp(log_weighted, 1) - math.log(count) - q).mean()
