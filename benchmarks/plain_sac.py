"""SAC from images written plainly: what `lapwing bench sac` times ours against.

A ring buffer of float32 NCHW images that holds each transition whole, so every frame but an episode's first and last
twice. An encoder for the actor and one for the critics, nothing shared: each a torchvision ResNet-10 with GroupNorm,
the same for all cameras, and SERL's spatial embeddings. The networks, their widths, the random shift and the
arithmetic of an update are those of ours with preset `hilserl`. The kinder reading throughout: both critics read one
encoder, and the actor's loss gets the critics' feature without a graph. No mixed precision, no channels-last memory.

This is a yardstick, not a library: nothing imports it but the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

DISCOUNT, TAU, LEARNING_RATE, TEMPERATURE = 0.97, 0.005, 3e-4, 0.01
CRITICS, ACTOR_EVERY, SHIFT, DROPOUT = 2, 2, 4, 0.1
HIDDEN, IMAGE_FEATURE, STATE_FEATURE, EMBEDDINGS = 256, 256, 64, 8
STD_RANGE = (1e-5, 5.0)


@dataclass(frozen=True)
class PlainBatch:
    """images, next_images: float32 [B, C, 3, H, W] in 0..1; reward, mask: float32 [B], mask 0 where it terminated."""

    images: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    mask: Tensor
    next_images: Tensor
    next_state: Tensor

    def to(self, device: torch.device) -> PlainBatch:
        return PlainBatch(**{name: value.to(device) for name, value in vars(self).items()})


class PlainBuffer:
    """A ring of whole transitions, all float32."""

    def __init__(self, capacity: int, image_shape: tuple[int, ...], state_dim: int, action_dim: int) -> None:
        """image_shape: (C, 3, H, W)."""
        self.capacity, self.added = capacity, 0
        shapes = {"images": image_shape, "state": (state_dim,), "action": (action_dim,), "reward": (), "mask": ()}
        shapes |= {"next_images": image_shape, "next_state": (state_dim,)}
        self.arrays = {name: np.empty((capacity, *shape), np.float32) for name, shape in shapes.items()}

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def add(self, **transition: NDArray[np.float32] | float) -> None:
        for name, array in self.arrays.items():
            array[self.added % self.capacity] = transition[name]
        self.added += 1

    def sample(self, size: int) -> PlainBatch:
        rows = np.random.randint(0, len(self), size)
        return PlainBatch(**{name: torch.from_numpy(array[rows]) for name, array in self.arrays.items()})


class Encoder(nn.Module):
    """One ResNet-10 for all cameras, spatial embeddings and a layer for each, a layer for the state: [B, F]."""

    def __init__(self, cameras: int, size: int, state_dim: int) -> None:
        super().__init__()
        net = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels))
        self.body = nn.Sequential(*list(net.children())[:-2])
        side, channels = math.ceil(size / 32), 512
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1))
        std = math.sqrt(1 / (side * side * channels))
        self.kernels = nn.ParameterList(
            torch.empty(side * side, channels, EMBEDDINGS).normal_(0, std) for _ in range(cameras)
        )
        self.image_fc = nn.ModuleList(_layer(channels * EMBEDDINGS, IMAGE_FEATURE) for _ in range(cameras))
        self.state_fc = _layer(state_dim, STATE_FEATURE)
        self.feature_dim = cameras * IMAGE_FEATURE + STATE_FEATURE

    def forward(self, images: Tensor, state: Tensor, dropout: bool = False) -> Tensor:
        batch, cameras = images.shape[:2]
        maps = self.body((images.flatten(0, 1) - self.mean) / self.std).flatten(2).unflatten(0, (batch, cameras))
        features = []
        for camera, (kernel, layer) in enumerate(zip(self.kernels, self.image_fc, strict=True)):
            embedded = torch.einsum("bcn,ncf->bcf", maps[:, camera], kernel).flatten(1)
            features.append(layer(F.dropout(embedded, DROPOUT, dropout)))
        return torch.cat([*features, self.state_fc(state)], 1)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.Tanh())


def mlp(inputs: int) -> nn.Sequential:
    return nn.Sequential(*_layer(inputs, HIDDEN), *_layer(HIDDEN, HIDDEN))


class Actor(nn.Module):
    """A tanh-Gaussian policy with an encoder of its own."""

    def __init__(self, encoder: Encoder, action_dim: int) -> None:
        super().__init__()
        self.encoder, self.mlp = encoder, mlp(encoder.feature_dim)
        self.mean, self.log_std = nn.Linear(HIDDEN, action_dim), nn.Linear(HIDDEN, action_dim)

    def forward(self, images: Tensor, state: Tensor, dropout: bool = False) -> tuple[Tensor, Tensor]:
        hidden = self.mlp(self.encoder(images, state, dropout))
        return self.mean(hidden), self.log_std(hidden).clamp(*map(math.log, STD_RANGE)).exp()

    def sample(self, images: Tensor, state: Tensor, dropout: bool = False) -> tuple[Tensor, Tensor]:
        """An action [B, A] and its log density [B]."""
        policy = torch.distributions.Normal(*self(images, state, dropout))
        raw = policy.rsample()
        log_prob = policy.log_prob(raw) - 2 * (math.log(2) - raw - F.softplus(-2 * raw))
        return raw.tanh(), log_prob.sum(1)


class Critic(nn.Module):
    """Two action values behind one encoder."""

    def __init__(self, encoder: Encoder, action_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        inputs = encoder.feature_dim + action_dim
        self.members = nn.ModuleList(nn.Sequential(*mlp(inputs), nn.Linear(HIDDEN, 1)) for _ in range(CRITICS))

    def forward(self, feature: Tensor, action: Tensor) -> Tensor:
        """[2, B]."""
        both = torch.cat([feature, action], 1)
        return torch.stack([member(both).squeeze(1) for member in self.members])


class PlainSac:
    """The learner. `update` makes one step and returns the critics' loss."""

    def __init__(self, cameras: int, size: int, state_dim: int, action_dim: int, device: torch.device) -> None:
        encoder = partial(Encoder, cameras, size, state_dim)
        self.actor = Actor(encoder(), action_dim).to(device)
        self.critic = Critic(encoder(), action_dim).to(device)
        self.critic_target = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(TEMPERATURE), device=device, requires_grad=True)
        self.target_entropy = -action_dim / 2
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=LEARNING_RATE)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=LEARNING_RATE)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=LEARNING_RATE)
        self.updates = 0

    def parameters(self) -> list[Tensor]:
        """All that is trained; the target is not counted."""
        return [*self.actor.parameters(), *self.critic.parameters(), self.log_alpha]

    def update(self, batch: PlainBatch) -> Tensor:
        images, next_images = shifted(batch.images), shifted(batch.next_images)
        critic_loss = self._update_critic(batch, images, next_images)
        if self.updates % ACTOR_EVERY == 0:
            self._update_actor(batch, images)
        self.updates += 1
        with torch.no_grad():
            for slow, fast in zip(self.critic_target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, TAU)
        return critic_loss

    def _update_critic(self, batch: PlainBatch, images: Tensor, next_images: Tensor) -> Tensor:
        with torch.no_grad():
            next_action, _ = self.actor.sample(next_images, batch.next_state)
            next_feature = self.critic_target.encoder(next_images, batch.next_state)
            next_value = self.critic_target(next_feature, next_action).min(0).values
            target = batch.reward + DISCOUNT * batch.mask * next_value
        q = self.critic(self.critic.encoder(images, batch.state), batch.action)
        return step(self.critic_optimizer, (q - target).square().mean())

    def _update_actor(self, batch: PlainBatch, images: Tensor) -> None:
        action, log_prob = self.actor.sample(images, batch.state, dropout=True)
        with torch.no_grad():
            feature = self.critic.encoder(images, batch.state)
        q = self.critic(feature, action).mean(0)
        step(self.actor_optimizer, (self.log_alpha.exp().detach() * log_prob - q).mean())
        step(self.alpha_optimizer, self.log_alpha.exp() * (-log_prob.detach().mean() - self.target_entropy))


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def shifted(images: Tensor) -> Tensor:
    """Each image [B, C, 3, H, W] moved by up to SHIFT pixels on its own; edges repeat."""
    flat = images.flatten(0, 1)
    height, width = flat.shape[2:]
    padded = F.pad(flat, (SHIFT,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * SHIFT + 1, (len(flat), 2)).tolist()
    crops = [padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(offsets)]
    return torch.stack(crops).view_as(images)


def fill(
    buffer: PlainBuffer, frames: Sequence[NDArray[np.uint8]], state: NDArray[np.float32], action: NDArray[np.float32]
) -> None:
    """Add an episode that ends with reward 1. frames: uint8 [N + 1, H, W, 3] of each camera; action: [N, A]."""
    images = np.stack(frames, 1).transpose(0, 1, 4, 2, 3)
    for row in range(len(action)):
        last = row + 1 == len(action)
        buffer.add(
            images=images[row] / np.float32(255),
            state=state[row],
            action=action[row],
            reward=float(last),
            mask=float(not last),
            next_images=images[row + 1] / np.float32(255),
            next_state=state[row + 1],
        )
