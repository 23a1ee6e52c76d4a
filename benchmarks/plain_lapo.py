"""Multimodal LAPO written plainly, as its first documents describe it: what `lapwing bench lapo` times ours against.

Three torchvision ResNet-18 with their own BatchNorm, one per camera, over float32 NCHW images; a layer for the
state; a fusion layer to 256; MLPs of 256-256-256 on the feature. The encoder belongs to the critic's optimiser.
Wherever a loss needs a feature it calls the encoder, as code does that puts `encoder(obs)` where the original had
`state`: seven forward passes a step. `encode_once=True` is the kinder reading: each of the two observations is
encoded once and the feature, one optimiser step old, is used again. No mixed precision, no channels-last memory.

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
from torchvision.models import resnet18

FEATURE, IMAGE_FEATURE, HIDDEN = 256, 128, 256
DISCOUNT, TAU, EXPECTILE, KL_BETA = 0.99, 0.005, 0.9, 1.0
LEARNING_RATE, MAX_LATENT = 2e-4, 2.0


@dataclass(frozen=True)
class PlainBatch:
    """images, next_images: three float32 [B, 3, H, W] in 0..1; the rest float32, rewards and not_done [B, 1]."""

    images: Sequence[Tensor]
    joint: Tensor
    action: Tensor
    next_images: Sequence[Tensor]
    next_joint: Tensor
    reward: Tensor
    not_done: Tensor


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    widths = (inputs, HIDDEN, HIDDEN, HIDDEN)
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, outputs))


class ImageJointEncoder(nn.Module):
    """Three ResNet-18, a layer for the joints, and a fusion layer: feature [B, 256]."""

    def __init__(self, joint_dim: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(resnet18(weights=None) for _ in range(3))
        for trunk in self.trunks:
            trunk.fc = nn.Linear(trunk.fc.in_features, IMAGE_FEATURE)
        self.joint_fc = nn.Sequential(nn.Linear(joint_dim, IMAGE_FEATURE), nn.ReLU())
        self.fusion_fc = nn.Sequential(nn.Linear(4 * IMAGE_FEATURE, FEATURE), nn.ReLU())

    def forward(self, images: Sequence[Tensor], joint: Tensor) -> Tensor:
        seen = [trunk(image) for trunk, image in zip(self.trunks, images, strict=True)]
        return self.fusion_fc(torch.cat([*seen, self.joint_fc(joint)], 1))


class Critic(nn.Module):
    """Two action values and a state value, nothing shared between them."""

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.q1, self.q2 = mlp(FEATURE + action_dim, 1), mlp(FEATURE + action_dim, 1)
        self.v = mlp(FEATURE, 1)

    def forward(self, feature: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([feature, action], 1)
        return self.q1(both), self.q2(both)


class ActorVae(nn.Module):
    """A conditional VAE of actions."""

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.latent_dim = 2 * action_dim
        self.encoder = mlp(FEATURE + action_dim, 2 * self.latent_dim)
        self.decoder = mlp(FEATURE + self.latent_dim, action_dim)

    def forward(self, feature: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encoder(torch.cat([feature, action], 1)).chunk(2, 1)
        latent = mean + (log_var / 2).exp() * torch.randn_like(mean)
        return self.decode(feature, latent), mean, log_var

    def decode(self, feature: Tensor, latent: Tensor) -> Tensor:
        return self.decoder(torch.cat([feature, latent], 1))


class PlainLapo:
    """The learner. `update` makes one step and returns its three losses."""

    def __init__(
        self, joint_dim: int, action_dim: int, value_range: tuple[float, float], encode_once: bool = False
    ) -> None:
        self.value_range, self.encode_once = value_range, encode_once
        self.obs_encoder = ImageJointEncoder(joint_dim)
        self.critic, self.actor_vae = Critic(action_dim), ActorVae(action_dim)
        self.actor = mlp(FEATURE, self.actor_vae.latent_dim)
        self._old: dict[str, Tensor] = {}

    def to(self, device: torch.device) -> PlainLapo:
        for module in (self.obs_encoder, self.critic, self.actor_vae, self.actor):
            module.to(device)
        self.critic_target, self.actor_target, self.actor_vae_target = map(
            deepcopy, (self.critic, self.actor, self.actor_vae)
        )
        critic_parameters = chain(self.critic.parameters(), self.obs_encoder.parameters())
        self.critic_optimizer = torch.optim.Adam(critic_parameters, lr=LEARNING_RATE)
        self.vae_optimizer = torch.optim.Adam(self.actor_vae.parameters(), lr=LEARNING_RATE)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=LEARNING_RATE)
        return self

    def parameters(self) -> list[Tensor]:
        """All that is trained; the target copies are not counted."""
        modules = (self.obs_encoder, self.critic, self.actor_vae, self.actor)
        return [parameter for module in modules for parameter in module.parameters()]

    def update(self, batch: PlainBatch) -> tuple[Tensor, Tensor, Tensor]:
        self._old.clear()
        critic_loss = self._update_critic(batch)
        weight = self._weight(batch)
        vae_loss = self._update_vae(batch, weight)
        actor_loss = self._update_actor(batch)
        self._track_targets()
        return critic_loss, vae_loss, actor_loss

    def _update_critic(self, batch: PlainBatch) -> Tensor:
        feature = self.obs_encoder(batch.images, batch.joint)
        if self.encode_once:
            self._old["now"] = feature.detach()
        with torch.no_grad():
            next_value = self.critic.v(self._look(batch, "next"))
            q_target = batch.reward + DISCOUNT * batch.not_done * next_value
            v_target = self._policy_value(self._look(batch, "now"), noisy=True).clamp(*self.value_range)
        q1, q2 = self.critic(feature, batch.action)
        loss = F.mse_loss(q1, q_target) + F.mse_loss(q2, q_target)
        loss = loss + F.mse_loss(self.critic.v(feature), v_target)
        return step(self.critic_optimizer, loss)

    @torch.no_grad()
    def _weight(self, batch: PlainBatch) -> Tensor:
        next_value = self._policy_value(self._look(batch, "next"), noisy=False)
        value = self.critic.v(self._look(batch, "now"))
        advantage = batch.reward + DISCOUNT * batch.not_done * next_value - value
        return torch.where(advantage > 0, EXPECTILE, 1 - EXPECTILE)

    def _update_vae(self, batch: PlainBatch, weight: Tensor) -> Tensor:
        decoded, mean, log_var = self.actor_vae(self._look(batch, "now"), batch.action)
        reconstruction = (decoded - batch.action).square().sum(1, keepdim=True)
        divergence = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1, keepdim=True)
        return step(self.vae_optimizer, (weight * (reconstruction + KL_BETA * divergence)).mean())

    def _update_actor(self, batch: PlainBatch) -> Tensor:
        feature = self._look(batch, "now")
        latent = MAX_LATENT * self.actor(feature).tanh()
        q1, _ = self.critic(feature, self.actor_vae_target.decode(feature, latent))
        return step(self.actor_optimizer, -q1.mean())

    @torch.no_grad()
    def _look(self, batch: PlainBatch, which: str) -> Tensor:
        """The feature of "now" or "next" without gradient, computed at each use unless `encode_once`."""
        if which in self._old:
            return self._old[which]
        images, joint = (batch.images, batch.joint) if which == "now" else (batch.next_images, batch.next_joint)
        feature = self.obs_encoder(images, joint)
        if self.encode_once:
            self._old[which] = feature
        return feature

    def _policy_value(self, feature: Tensor, noisy: bool) -> Tensor:
        latent = MAX_LATENT * self.actor_target(feature).tanh()
        if noisy:
            latent = latent + (0.1 * torch.randn_like(latent)).clamp(-0.2, 0.2)
        return torch.min(*self.critic_target(feature, self.actor_vae_target.decode(feature, latent)))

    @torch.no_grad()
    def _track_targets(self) -> None:
        pairs = (
            (self.critic_target, self.critic),
            (self.actor_target, self.actor),
            (self.actor_vae_target, self.actor_vae),
        )
        for target, source in pairs:
            for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
                slow.lerp_(fast, TAU)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def random_batch(size: int, pixels: int, joint_dim: int, action_dim: int, device: torch.device) -> PlainBatch:
    """A batch to time with; the values do not matter."""
    images = [torch.rand(size, 3, pixels, pixels, device=device) for _ in range(6)]
    joint, next_joint = torch.randn(2, size, joint_dim, device=device)
    return PlainBatch(
        images=images[:3],
        joint=joint,
        action=torch.randn(size, action_dim, device=device),
        next_images=images[3:],
        next_joint=next_joint,
        reward=torch.rand(size, 1, device=device),
        not_done=torch.ones(size, 1, device=device),
    )
