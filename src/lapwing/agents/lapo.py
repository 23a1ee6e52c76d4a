"""LAPO: policy search in the latent space of an advantage-weighted CVAE (Chen et al., NeurIPS 2022).

Equation numbers refer to docs/algorithms/lapo.md, which also lists every deviation from the paper. With
f = encoder(obs), D the CVAE's decoder, pi the latent policy and a prime for the next observation, one update does,
in this order:

    y_Q = r + discount V(f')                                                      (1)
    T(f) = min_i Qt_i(f, Dt(f, pit(f)))          t: slow copies                   (2)
    L_critic = sum_i (Q_i(f, a) - y_Q)^2 + (V(f) - clamp(T(f)))^2                 (3)
    A = r + discount T(f') - V(f),  w = expectile if A > 0 else 1 - expectile     (4)
    L_vae = w (|a_hat - a|^2 + kl_beta KL)                                        (5)
    L_pi = -Q_1(f, Dt(f, pi(f))) + latent_penalty |pi(f)|^2                       (6)

With `chunk` actions at a time, a is all of them in a row, and r sums the rewards until the next observation. Images:
the encoder learns from (3) and a small auxiliary action head alone; (5) and (6) see f detached.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.agent import Metrics, Normalization, RewardFacts, Sampling, Scaling, Transitions
from lapwing.agents.latent import BestOf, ConditionalVae, Critic, LatentActor
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.augment import AugmentConfig, augment, centre, random_shift
from lapwing.nets.mlp import mlp, speed_up
from lapwing.nets.optim import gradient_step, track
from lapwing.nets.vision import ObsEncoder, VisionConfig
from lapwing.spec import RobotSpec

Net = TypeVar("Net", bound=nn.Module)
PROBES = 64  # samples of a batch whose reconstruction is told


@dataclass(frozen=True)
class LapoConfig:
    """Settings of LAPO. Defaults are the product's; PRESETS holds the documents' and the paper's."""

    discount: float = 0.99
    """Gamma of the Bellman targets."""
    n_step: int = 1
    """Steps of reward before bootstrapping; `chunk` where that is more."""
    chunk: int = 1
    """Actions that are chosen at once, and played before the next look. 1 in the paper."""
    tau: float = 0.005
    """Rate at which the slow copies follow."""
    expectile: float = 0.9
    """Weight of actions with a positive advantage; higher is greedier. 0.5 is plain behaviour cloning."""
    kl_beta: float = 1.0
    """Weight of the KL term of the CVAE."""
    doubleq_min: float = 1.0
    """Share of the lower of the two target values; the rest goes to the higher."""
    latent_dim: int = 0
    """Size of the latent; 0 means twice the action of a single step, whatever the chunk."""
    max_latent: float = 1.0
    """Bound of the latent policy, in standard deviations of the prior. The paper's code has 2."""
    best_of: int = 0
    """Adds the mode "best": decode this many latents of the prior, and do what the critics like most; 0: no such."""
    value: Literal["policy", "expectile"] = "policy"
    """What V learns: the value of the latent policy (2), or an expectile of Q over the data's actions, as in IQL."""
    value_expectile: float = 0.7
    """Which, where `value` is "expectile"; higher is greedier."""
    latent_penalty: float = 0.05
    """Weight of the mean squared latent in the actor's loss; 0 in the paper."""
    bc_coef: float = 0.1
    """Weight of the auxiliary action head that also teaches the image encoder; 0 in the documents."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of every MLP."""
    obs_feature_dim: int = 256
    """Width of the fused feature of images and state."""
    critic_layer_norm: bool = True
    """LayerNorm in Q and V: bounds what they say of unseen actions."""
    clip_targets: bool = True
    """Clamp the targets of Q to the range of values, as those of V always are."""
    value_bounds: Literal["returns", "geometric"] = "returns"
    """Range of values: what the data's returns span (10 % wider), or reward / (1 - discount) as the paper's code."""
    scale_reward: bool = False
    """Divide rewards by the largest one, as the paper's code does."""
    clamp_log_var: bool = True
    """Keep the CVAE's log variance in [-8, 4]."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    critic_lr: float = 2e-4
    encoder_lr: float = 0.0
    """0 means critic_lr."""
    vae_lr: float = 2e-4
    actor_lr: float = 2e-4
    encoder_grad_clip: float = 10.0
    """Largest gradient norm of the encoder; 0 means unbounded."""
    state_scaling: Normalization = "mean-std"
    """How states are normalised: to mean 0 and standard deviation 1, or from their range to [-1, 1]."""
    action_scaling: Normalization = "mean-std"
    """The same for actions. The losses weigh their errors against a KL term: another scale is another balance."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)

    def __post_init__(self) -> None:
        for name in ("discount", "tau", "expectile", "value_expectile", "doubleq_min"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"lapo: {name} is {getattr(self, name)}, expected a number from 0 to 1")
        for name in ("n_step", "chunk", "max_latent", "obs_feature_dim", "critic_lr", "vae_lr", "actor_lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"lapo: {name} is {getattr(self, name)}, expected a positive number")
        for name in (
            "kl_beta", "latent_dim", "best_of", "latent_penalty", "bc_coef", "random_shift", "encoder_lr",
            "encoder_grad_clip",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"lapo: {name} is {getattr(self, name)}, expected 0 or more")
        if min(self.hidden, default=1) < 1:
            raise ConfigError(f"lapo: hidden is {list(self.hidden)}, expected positive widths")
        if self.value_bounds == "geometric" and self.discount == 1:
            raise ConfigError("lapo: value_bounds 'geometric' needs a discount below 1; or use value_bounds 'returns'")

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.state_scaling, self.action_scaling, horizon=self.chunk)


PRESETS: dict[str, LapoConfig] = {
    "product": LapoConfig(),
    "state": LapoConfig(
        chunk=5,
        kl_beta=0.3,
        max_latent=2.0,
        value="expectile",
        value_expectile=0.97,
        latent_penalty=0.0,
        bc_coef=0.0,
    ),
    "documents": LapoConfig(max_latent=2.0, latent_penalty=0.0, bc_coef=0.0),
    "original": LapoConfig(
        max_latent=2.0,
        latent_penalty=0.0,
        bc_coef=0.0,
        critic_layer_norm=False,
        clip_targets=False,
        value_bounds="geometric",
        scale_reward=True,
        clamp_log_var=False,
        random_shift=0,
        encoder_grad_clip=0.0,
    ),
}


class LapoAgent:
    """Learns from transitions; acts with the latent policy ("pi"), the prior's mean ("z0"), the best of many latents
    ("best", where asked for) or the auxiliary action head ("bc", when it exists)."""

    def __init__(self, config: LapoConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        self.encoder = ObsEncoder(spec, config.vision, config.obs_feature_dim)
        self.config = replace(config, vision=self.encoder.vision)
        feature, action, hidden = self.encoder.feature_dim, config.chunk * spec.action_dim, config.hidden
        latent = config.latent_dim or 2 * spec.action_dim
        self.critic = Critic(feature, action, hidden, config.critic_layer_norm)
        self.vae = ConditionalVae(feature, action, latent, hidden, config.clamp_log_var)
        self.actor = LatentActor(feature, latent, hidden, config.max_latent)
        self.bc_head = mlp(feature, hidden[:1], action) if config.bc_coef > 0 else None
        self.target_critic, self.target_vae, self.target_actor = (
            _frozen(self.critic),
            _frozen(self.vae),
            _frozen(self.actor),
        )
        self.networks = nn.ModuleDict(
            {
                "encoder": self.encoder,
                "critic": self.critic,
                "vae": self.vae,
                "actor": self.actor,
                "target_critic": self.target_critic,
                "target_vae": self.target_vae,
                "target_actor": self.target_actor,
            }
        )
        self.acting = nn.ModuleDict({"encoder": self.encoder, "actor": self.actor, "decoder": self.target_vae.decoder})
        self.modes: tuple[str, ...] = ("pi", "z0")
        if config.best_of:
            self.acting["critic"] = self.critic
            self.best_of = self.networks["best_of"] = self.acting["best_of"] = BestOf(
                config.best_of, latent, config.max_latent
            )
            self.modes += ("best",)
        if self.bc_head is not None:
            self.networks["bc_head"] = self.acting["bc_head"] = self.bc_head
            self.modes += ("bc",)
        self.reward_scale, self.value_low, self.value_high = _value_range(config, facts)
        self._make_optimizers()

    @property
    def sampling(self) -> Sampling:
        config = self.config
        return Transitions(max(config.n_step, config.chunk), config.discount, config.chunk)

    def _make_optimizers(self) -> None:
        config = self.config
        groups = [{"params": list(self.critic.parameters()), "lr": config.critic_lr}]
        encoder = list(self.encoder.parameters())
        if self.bc_head is not None:
            encoder += list(self.bc_head.parameters())
        if encoder:
            groups.append({"params": encoder, "lr": config.encoder_lr or config.critic_lr})
        self.optimizers = {
            "critic": torch.optim.Adam(groups, fused=True),
            "vae": torch.optim.Adam(self.vae.parameters(), lr=config.vae_lr, fused=True),
            "actor": torch.optim.Adam(self.actor.parameters(), lr=config.actor_lr, fused=True),
        }

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        """Move to `device`. bf16 and compilation serve the image encoder, and the hidden layers of the MLPs where
        there are no images; targets and losses stay as they are."""
        self.networks.to(device)
        self._make_optimizers()
        speed_up(self.encoder, self.networks, bf16, compiled)

    def update(self, batch: Batch) -> Metrics:
        """Equations (1) to (6) on one batch, then the slow copies. Returns the diagnostics of the doc page."""
        assert batch.next_obs is not None  # promised by Transitions
        action = held_to_the_end(batch, self.config.chunk)
        reward = batch.reward * self.reward_scale
        feature = self.encoder(self._varied(batch.obs))
        with torch.no_grad():
            next_feature = self.encoder(self._varied(batch.next_obs))
        worth, ahead = self._slow_values(feature, action, next_feature)
        metrics = self._step_critic(feature, action, reward, batch.discount, next_feature, worth)
        feature = feature.detach()
        weight, advantage_metrics = self._weigh(feature, reward, batch.discount, next_feature, ahead)
        metrics |= advantage_metrics
        metrics |= self._step_vae(feature, action, weight)
        metrics |= self._step_actor(feature)
        for target, net in (
            (self.target_critic, self.critic),
            (self.target_vae, self.vae),
            (self.target_actor, self.actor),
        ):
            track(target, net, self.config.tau)
        return metrics

    def _varied(self, obs: Obs) -> Obs:
        """The images as seen in training. The next observation has a draw of its own, as in DrQ."""
        return augment(random_shift(obs, self.config.random_shift), self.config.augment)

    def _step_critic(
        self, feature: Tensor, action: Tensor, reward: Tensor, discount: Tensor, next_feature: Tensor, worth: Tensor
    ) -> Metrics:
        """`worth`: what V is to learn, before the clamp."""
        with torch.no_grad():
            target_q = reward + discount * self.critic.v(next_feature)
            if self.config.clip_targets:
                target_q = target_q.clamp(self.value_low, self.value_high)
            target_v = worth.clamp(self.value_low, self.value_high)
        q1, q2 = self.critic.q(feature, action)
        v = self.critic.v(feature)
        loss = critic_loss(q1, q2, v, target_q, target_v, self._v_expectile)
        imitation = torch.zeros((), device=loss.device)
        if self.bc_head is not None:
            imitation = F.mse_loss(self.bc_head(feature), action)
        optimizer = self.optimizers["critic"]
        gradient_step(optimizer, loss + self.config.bc_coef * imitation, self._clip_encoder)
        low, high = self.value_low, self.value_high
        return {
            "critic_loss": loss.detach(),
            "bc_loss": imitation.detach(),
            "q_mean": q1.detach().mean() / self.reward_scale,
            "q_min": q1.detach().min() / self.reward_scale,
            "q_max": q1.detach().max() / self.reward_scale,
            "v_mean": v.detach().mean() / self.reward_scale,
            "q_out_of_range": ((q1.detach() < low) | (q1.detach() > high)).float().mean(),
            "v_target_clipped": (worth != target_v).float().mean(),
            "encoder_grad_norm": self._encoder_grad_norm.to(loss.device),
        }

    def _clip_encoder(self) -> None:
        parameters = list(self.encoder.parameters())
        limit = self.config.encoder_grad_clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit) if parameters else torch.zeros(())
        self._encoder_grad_norm = norm.detach()

    @property
    def _v_expectile(self) -> float:
        """0.5 is the plain mean, of what the latent policy is worth."""
        return self.config.value_expectile if self.config.value == "expectile" else 0.5

    @torch.no_grad()
    def _slow_values(self, feature: Tensor, action: Tensor, next_feature: Tensor) -> tuple[Tensor, Tensor | None]:
        """What V is to learn and, where the policy's value is, T of the next observation, [B] each.

        Both are asked of the slow copies in one pass. The paper's code adds clipped noise for V's target only.
        """
        if self.config.value == "expectile":
            return torch.minimum(*self.target_critic.q(feature, action)), None
        both = torch.cat([feature, next_feature])
        z = self.target_actor(both)
        now, later = z.chunk(2)
        now = now + (0.1 * torch.randn_like(now)).clamp_(-0.2, 0.2)
        worth, ahead = self._target_value(both, torch.cat([now, later])).chunk(2)
        return worth, ahead

    def _target_value(self, feature: Tensor, z: Tensor) -> Tensor:
        """T of equation (2) for these latents, [B]."""
        q1, q2 = self.target_critic.q(feature, self.target_vae.decoder(feature, z))
        share = self.config.doubleq_min
        return share * torch.minimum(q1, q2) + (1 - share) * torch.maximum(q1, q2)

    @torch.no_grad()
    def _weigh(
        self, feature: Tensor, reward: Tensor, discount: Tensor, next_feature: Tensor, ahead: Tensor | None
    ) -> tuple[Tensor, Metrics]:
        """Equation (4), with the critic as it is after its step."""
        bootstrap = self.critic.v(next_feature) if ahead is None else ahead
        gain = advantage(reward, discount, bootstrap, self.critic.v(feature))
        return advantage_weight(gain, self.config.expectile), {
            "advantage_mean": gain.mean() / self.reward_scale,
            "advantage_positive": (gain > 0).float().mean(),
        }

    def _step_vae(self, feature: Tensor, action: Tensor, weight: Tensor) -> Metrics:
        mean, log_var = self.vae.encode(feature, action)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        loss = weighted_vae_loss(self.vae.decoder(feature, z), action, mean, log_var, weight, self.config.kl_beta)
        gradient_step(self.optimizers["vae"], loss)
        with torch.no_grad():
            probe = mean[:PROBES]
            decoded = self.vae.decoder(feature[:PROBES].repeat(2, 1), torch.cat([probe, torch.zeros_like(probe)]))
            at_mean, at_zero = reconstruction(decoded, action[:PROBES].repeat(2, 1)).view(2, -1).mean(1)
        return {
            "vae_loss": loss.detach(),
            "reconstruction_mean": at_mean,
            "reconstruction_z0": at_zero,
            "kl": latent_kl(mean.detach(), log_var.detach()).mean(),
            "latent_active": (mean.detach().var(0, correction=0) > 0.01).sum().float(),
        }

    def _step_actor(self, feature: Tensor) -> Metrics:
        z = self.actor(feature)
        q = self.critic.q1(torch.cat([feature, self.target_vae.decoder(feature, z)], -1)).squeeze(-1)
        loss = -q.mean() + self.config.latent_penalty * z.square().mean()
        gradient_step(self.optimizers["actor"], loss)
        return {
            "actor_loss": loss.detach(),
            "q_pi": q.detach().mean() / self.reward_scale,
            "latent_saturated": (z.detach().abs() > 0.95 * self.config.max_latent).float().mean(),
        }

    @torch.no_grad()
    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        """Normalised actions [B, K, A], without noise."""
        action = self._decide(self._look(obs), mode or self.modes[0])
        return action.view(len(action), self.config.chunk, -1)

    def _look(self, obs: Obs) -> Tensor:
        return self.encoder(centre(obs, self.config.augment))  # type: ignore[no-any-return]

    def _decide(self, feature: Tensor, mode: str) -> Tensor:
        if mode == "bc" and self.bc_head is not None:
            return self.bc_head(feature)  # type: ignore[no-any-return]
        if mode == "pi":
            return self.target_vae.decoder(feature, self.actor(feature))  # type: ignore[no-any-return]
        if mode == "z0":
            return self.target_vae.decoder(feature, feature.new_zeros(len(feature), self.vae.latent_dim))  # type: ignore[no-any-return]
        if mode == "best" and self.config.best_of:
            return self.best_of(feature, self.target_vae.decoder, self.critic)  # type: ignore[no-any-return]
        raise ConfigError(f"lapo: mode {mode!r} does not exist here; choose one of {', '.join(self.modes)}")

    @torch.no_grad()
    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """Values in the data's own reward units, [B] each: q and q_pi (lower of two), v, advantage."""
        assert batch.next_obs is not None
        feature, next_feature = self._look(batch.obs), self._look(batch.next_obs)
        q = torch.minimum(*self.critic.q(feature, held_to_the_end(batch, self.config.chunk)))
        q_pi = torch.minimum(*self.critic.q(feature, self._decide(feature, "pi")))
        v = self.critic.v(feature)
        reward = batch.reward * self.reward_scale
        if self.config.value == "expectile":
            ahead = self.critic.v(next_feature)
        else:
            ahead = self._target_value(next_feature, self.target_actor(next_feature))
        gain = advantage(reward, batch.discount, ahead, v)
        values = {"q": q, "q_pi": q_pi, "v": v, "advantage": gain}
        return {name: value / self.reward_scale for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


def _frozen(net: Net) -> Net:
    return copy.deepcopy(net).requires_grad_(False)


def _value_range(config: LapoConfig, facts: RewardFacts) -> tuple[float, float, float]:
    """(reward scale, lowest value, highest value), the values in scaled reward."""
    scale = 1.0
    low, high = facts.returns
    if config.scale_reward:
        if facts.reward[1] <= 0:
            raise ConfigError(
                f"lapo: the largest reward is {facts.reward[1]:g}, dividing by it would flip or destroy the rewards; "
                "expected a positive one: shift the rewards, or use --no-scale-reward"
            )
        scale = 1 / facts.reward[1]
    if config.value_bounds == "geometric":
        low, high = (bound / (1 - config.discount) for bound in facts.reward)
    else:
        margin = 0.1 * (high - low)
        low, high = low - margin, high + margin
    return scale, low * scale, high * scale


def held_to_the_end(batch: Batch, chunk: int) -> Tensor:
    """The first `chunk` actions in a row, [B, K * A]; past the end of the task the last one is held.

    An arm that goes on has its last target then, and the critics judge what they were taught.
    """
    action = batch.action[:, :chunk]
    if chunk > 1:
        last = (~batch.is_pad[:, :chunk]).sum(1, keepdim=True) - 1
        steps = torch.arange(chunk, device=action.device).minimum(last)
        action = action.gather(1, steps[..., None].expand_as(action))
    return action.flatten(1)


def advantage(reward: Tensor, discount: Tensor, bootstrap: Tensor, value: Tensor) -> Tensor:
    """A of equation (4), [B]: what the step earned and leads to, over what was expected."""
    return reward + discount * bootstrap - value


def advantage_weight(gain: Tensor, expectile: float) -> Tensor:
    """The two-level weight of equation (4), [B]."""
    return torch.where(gain > 0, expectile, 1 - expectile).to(gain.dtype)


def critic_loss(
    q1: Tensor, q2: Tensor, v: Tensor, target_q: Tensor, target_v: Tensor, v_expectile: float = 0.5
) -> Tensor:
    """Equation (3): three mean squared errors with equal weights. Other expectiles weigh V's as IQL does, times two."""
    error = target_v - v
    weight = 2 * torch.where(error > 0, v_expectile, 1 - v_expectile)
    return F.mse_loss(q1, target_q) + F.mse_loss(q2, target_q) + (weight * error.square()).mean()


def reconstruction(predicted: Tensor, action: Tensor) -> Tensor:
    """Squared error summed over the axes, [B]."""
    return (predicted - action).square().sum(-1)


def latent_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of the posterior from the standard normal prior, [B]."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)


def weighted_vae_loss(
    predicted: Tensor, action: Tensor, mean: Tensor, log_var: Tensor, weight: Tensor, kl_beta: float
) -> Tensor:
    """Equation (5). predicted, action: [B, K * A]; mean, log_var: [B, Z]; weight: [B], no gradient. A scalar."""
    return (weight * (reconstruction(predicted, action) + kl_beta * latent_kl(mean, log_var))).mean()
