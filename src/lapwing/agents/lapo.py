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

With an expectile value, V learns an expectile of min_i Qt_i(f, a) instead of T(f), and V(f') stands for T(f') in (4):
no action but the data's is judged before (6). With `chunk` actions at a time, a is all of them in a row, and r sums the
rewards until the next observation. Images: the encoder learns from (3) and a small auxiliary action head alone; (5) and
(6) see f detached.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.agent import Metrics, RewardFacts, Sampling, Transitions
from lapwing.agents.lapo_config import LapoConfig, value_range
from lapwing.agents.lapo_losses import (
    advantage,
    advantage_weight,
    critic_loss,
    latent_kl,
    reconstruction,
    weighted_vae_loss,
)
from lapwing.agents.latent import BestOf, ConditionalVae, Critic, LatentActor
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.augment import augment, centre, random_shift
from lapwing.nets.mlp import mlp, speed_up
from lapwing.nets.optim import cosine_decay, gradient_step, track
from lapwing.nets.vision import ObsEncoder
from lapwing.spec import RobotSpec

Net = TypeVar("Net", bound=nn.Module)
PROBES = 64  # samples of a batch whose reconstruction is told


class LapoAgent:
    """Learns from transitions; acts with the latent policy ("pi"), the prior's mean ("z0"), the best of many latents
    ("best", where asked for) or the auxiliary action head ("bc", when it exists)."""

    def __init__(self, config: LapoConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        self.encoder = ObsEncoder(spec, config.vision, config.obs_feature_dim)
        latent = config.latent_dim or 2 * spec.action_dim
        self.config = replace(config, vision=self.encoder.vision)
        feature, action, hidden = self.encoder.feature_dim, config.chunk * spec.action_dim, config.hidden
        if spec.cameras and config.critic_frequency:
            raise ConfigError(
                f"lapo: critic_frequency is {config.critic_frequency}, which sharpens what critics see of a state, and "
                "this data has cameras; expected 0 there"
            )
        self.critic = Critic(feature, action, hidden, config.critic_layer_norm, config.critic_frequency)
        self.vae = ConditionalVae(feature, action, latent, hidden, config.clamp_log_var)
        self.actor = LatentActor(feature, latent, hidden, config.max_latent)
        self.bc_head = mlp(feature, hidden[:1], action) if config.bc_coef > 0 else None
        self.target_critic, self.target_vae = _frozen(self.critic), _frozen(self.vae)
        self.target_actor = _frozen(self.actor)
        names = ("encoder", "critic", "vae", "actor", "target_critic", "target_vae", "target_actor")
        self.networks = nn.ModuleDict({name: getattr(self, name) for name in names})
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
        self.reward_scale, self.value_low, self.value_high = value_range(config, facts)
        self.updates = 0
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
        self._rates = {name: [group["lr"] for group in one.param_groups] for name, one in self.optimizers.items()}

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        """Move to `device`. bf16 and compilation serve the image encoder, and the hidden layers of the MLPs where
        there are no images; targets and losses stay as they are."""
        self.networks.to(device)
        self._make_optimizers()
        speed_up(self.encoder, self.networks, bf16, compiled)

    def update(self, batch: Batch) -> Metrics:
        """Equations (1) to (6) on one batch, then the slow copies. Returns the diagnostics of the doc page."""
        assert batch.next_obs is not None  # promised by Transitions
        self._set_rates()
        action = self._in_a_row(batch)
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
        self.updates += 1
        return metrics

    def _set_rates(self) -> None:
        config = self.config
        for name, optimizer in self.optimizers.items():
            steps = config.vae_decay_steps if name == "vae" and config.vae_decay_steps else config.decay_steps
            remains = cosine_decay(self.updates, steps)
            for group, rate in zip(optimizer.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * remains

    def _in_a_row(self, batch: Batch) -> Tensor:
        """The actions that are chosen at once, [B, K * A]; past the end of a task the batch holds the last one."""
        return batch.action[:, : self.config.chunk].flatten(1)

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
        q = self.critic.first_q(feature, self.target_vae.decoder(feature, z))
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
        q = torch.minimum(*self.critic.q(feature, self._in_a_row(batch)))
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
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.updates = state.get("updates", 0)  # a run from before there was `decay_steps` needs none


def _frozen(net: Net) -> Net:
    return copy.deepcopy(net).requires_grad_(False)
