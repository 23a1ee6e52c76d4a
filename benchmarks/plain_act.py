"""ACT written plainly, as the original code has it: what `lapwing bench act` times ours against.

One ResNet-18 with frozen BatchNorm, called camera by camera on float32 NCHW images; DETR's transformer over
sequences [T, B, D], of whose seven decoder layers all are computed and the first alone is read; attention that also
averages its weights, which nobody reads; a CVAE encoder; AdamW; no mixed precision, no channels-last memory. Acting
keeps every chunk it ever predicted in one table. Reading opens the episode's file for each sample and turns its frames
into floats, in one worker process that prepares one batch ahead and starts anew with each epoch.

This is a yardstick, not a library: nothing imports it but the benchmark. Modules are named as in the published
weights, so that they can be loaded into ours to compare what both say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

HEADS, FEEDFORWARD, DROPOUT, LATENT = 8, 3200, 0.1, 32
ENCODER_LAYERS, DECODER_LAYERS = 4, 7
LEARNING_RATE, WEIGHT_DECAY, KL_WEIGHT, ENSEMBLE = 1e-5, 1e-4, 10, 0.01
SAMPLES_IN_EPOCH = 40  # 80 % of 50 episodes, one random start of each


@dataclass(frozen=True)
class PlainBatch:
    """images: float32 [B, C, 3, H, W] in 0..1; state: [B, S]; action: [B, K, A]; is_pad: bool [B, K]."""

    images: Tensor
    state: Tensor
    action: Tensor
    is_pad: Tensor

    def to(self, device: torch.device) -> PlainBatch:
        return PlainBatch(*(value.to(device) for value in vars(self).values()))


class EncoderLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, HEADS, DROPOUT)
        self.linear1, self.linear2 = nn.Linear(width, FEEDFORWARD), nn.Linear(FEEDFORWARD, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, position: Tensor, is_pad: Tensor | None) -> Tensor:
        placed = x + position
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, key_padding_mask=is_pad)[0]))
        return self.norm2(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class DecoderLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, HEADS, DROPOUT)
        self.multihead_attn = nn.MultiheadAttention(width, HEADS, DROPOUT)
        self.linear1, self.linear2 = nn.Linear(width, FEEDFORWARD), nn.Linear(FEEDFORWARD, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        placed = x + query
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x)[0]))
        x = self.norm2(x + self.dropout(self.multihead_attn(x + query, memory + position, memory)[0]))
        return self.norm3(x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x))))))


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width) for _ in range(ENCODER_LAYERS))

    def forward(self, x: Tensor, position: Tensor, is_pad: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, position, is_pad)
        return x


class Decoder(nn.Module):
    """Says what every layer says: [layers, K, B, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width) for _ in range(DECODER_LAYERS))
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        x, said = torch.zeros_like(query), []
        for layer in self.layers:
            x = layer(x, query, memory, position)
            said.append(self.norm(x))
        return torch.stack(said)


class Transformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(width), Decoder(width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential()
        net = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.body.add_module(name, getattr(net, name))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


class DetrVae(nn.Module):
    """Images, state and, in training, actions -> chunk [B, K, A], mean and log variance of the latent [B, LATENT]."""

    def __init__(self, state_dim: int, action_dim: int, chunk: int, width: int) -> None:
        super().__init__()
        self.transformer, self.encoder = Transformer(width), Encoder(width)
        self.backbones = nn.ModuleList([nn.Sequential(Backbone())])
        self.input_proj = nn.Conv2d(512, width, 1)
        self.input_proj_robot_state = nn.Linear(state_dim, width)
        self.latent_out_proj = nn.Linear(LATENT, width)
        self.additional_pos_embed, self.query_embed = nn.Embedding(2, width), nn.Embedding(chunk, width)
        self.action_head, self.is_pad_head = nn.Linear(width, action_dim), nn.Linear(width, 1)
        self.cls_embed = nn.Embedding(1, width)
        self.encoder_action_proj = nn.Linear(action_dim, width)
        self.encoder_joint_proj = nn.Linear(state_dim, width)
        self.latent_proj = nn.Linear(width, 2 * LATENT)
        self.register_buffer("pos_table", sequence_positions(chunk + 2, width)[None])

    def forward(
        self, images: Tensor, state: Tensor, action: Tensor | None = None, is_pad: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        mean = log_var = None
        z = state.new_zeros(len(state), LATENT)
        if action is not None:
            mean, log_var = self.posterior(state, action, is_pad)
            z = mean + (log_var / 2).exp() * torch.randn_like(mean)
        maps, positions = [], []
        for camera in range(images.shape[1]):
            seen = self.input_proj(self.backbones[0](images[:, camera]))
            maps.append(seen)
            positions.append(image_positions(*seen.shape[1:], seen.device))
        cells, cell_position = torch.cat(maps, 3), torch.cat(positions, 2)
        memory = torch.cat(
            [self.latent_out_proj(z)[None], self.input_proj_robot_state(state)[None], cells.flatten(2).permute(2, 0, 1)]
        )
        position = torch.cat([self.additional_pos_embed.weight, cell_position.flatten(1).T])[:, None]
        position = position.repeat(1, len(state), 1)
        memory = self.transformer.encoder(memory, position)
        query = self.query_embed.weight[:, None].repeat(1, len(state), 1)
        said = self.transformer.decoder(query, memory, position)[0].transpose(0, 1)
        self.is_pad_head(said)  # no loss reads it
        return self.action_head(said), mean, log_var

    def posterior(self, state: Tensor, action: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        summary = self.cls_embed.weight[None].repeat(len(state), 1, 1)
        tokens = torch.cat([summary, self.encoder_joint_proj(state)[:, None], self.encoder_action_proj(action)], 1)
        hidden = torch.cat([is_pad.new_zeros(len(state), 2), is_pad], 1)
        said = self.encoder(tokens.permute(1, 0, 2), self.pos_table.permute(1, 0, 2), hidden)[0]
        mean, log_var = self.latent_proj(said).chunk(2, 1)
        return mean, log_var


class PlainAct(nn.Module):
    """The learner and the actor. `update` makes one step and returns its loss."""

    def __init__(self, state_dim: int, action_dim: int, chunk: int, width: int = 512) -> None:
        super().__init__()
        self.model = DetrVae(state_dim, action_dim, chunk, width)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def start(self, device: torch.device) -> PlainAct:
        self.to(device)
        backbone = [p for name, p in self.named_parameters() if "backbones" in name]
        others = [p for name, p in self.named_parameters() if "backbones" not in name]
        self.optimizer = torch.optim.AdamW(
            [{"params": others}, {"params": backbone, "lr": LEARNING_RATE}], LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        return self

    def losses(self, batch: PlainBatch) -> tuple[Tensor, Tensor]:
        """L1 over all steps, padding included, and the KL."""
        images = (batch.images - self.mean) / self.std
        predicted, mean, log_var = self.model(images, batch.state, batch.action, batch.is_pad)
        l1 = (F.l1_loss(batch.action, predicted, reduction="none") * ~batch.is_pad[..., None]).mean()
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp())
        return l1, kl.sum(1).mean()

    def update(self, batch: PlainBatch) -> Tensor:
        self.train()
        l1, kl = self.losses(batch)
        loss = l1 + KL_WEIGHT * kl
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.inference_mode()
    def act(self, images: Tensor, state: Tensor) -> Tensor:
        """Chunk [B, K, A]. images: float32 [B, C, 3, H, W] in 0..1."""
        self.eval()
        return self.model((images - self.mean) / self.std, state)[0]


class PlainEnsemble:
    """Predicts at every step and averages what was ever predicted for it, the oldest with the largest weight."""

    def __init__(self, policy: PlainAct, steps: int, chunk: int, action_dim: int, device: torch.device) -> None:
        self.policy, self.chunk, self.steps, self.time = policy, chunk, steps, 0
        self.all_time_actions = torch.zeros(steps, steps + chunk, action_dim, device=device)

    def act(self, images: Tensor, state: Tensor) -> Tensor:
        """The action of this step [A]."""
        step = self.time % self.steps
        self.time += 1
        self.all_time_actions[[step], step : step + self.chunk] = self.policy.act(images, state)
        predicted = self.all_time_actions[:, step]
        predicted = predicted[(predicted != 0).all(1)]
        weights = np.exp(-ENSEMBLE * np.arange(len(predicted)))
        share = torch.from_numpy(weights / weights.sum()).to(predicted.device)[:, None]
        return (predicted * share).sum(0)


class PlainEpisodes(Dataset):
    """A random start of an episode at each look: what one epoch visits."""

    def __init__(self, paths: Sequence[Path], cameras: Sequence[str], chunk: int) -> None:
        self.paths, self.cameras, self.chunk = paths, cameras, chunk
        states, actions = [], []
        for path in paths:
            with h5py.File(path) as file:
                states.append(file["observations/qpos"][()])
                actions.append(file["action"][()])
        self.state_mean, self.state_std = _statistics(np.concatenate(states))
        self.action_mean, self.action_std = _statistics(np.concatenate(actions))

    def __len__(self) -> int:
        return SAMPLES_IN_EPOCH

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with h5py.File(self.paths[index % len(self.paths)]) as file:
            steps = len(file["action"])
            start = np.random.choice(steps)
            state = file["observations/qpos"][start]
            images = [file[f"observations/images/{name}"][start] for name in self.cameras]
            ahead = file["action"][start:]
        length = max(steps, self.chunk)
        action = np.zeros((length, ahead.shape[1]), np.float32)
        action[: len(ahead)] = ahead
        is_pad = np.arange(length) >= len(ahead)
        pixels = torch.einsum("k h w c -> k c h w", torch.from_numpy(np.stack(images))) / 255.0
        return (
            pixels,
            torch.from_numpy((state - self.state_mean) / self.state_std).float(),
            torch.from_numpy((action - self.action_mean) / self.action_std).float()[: self.chunk],
            torch.from_numpy(is_pad)[: self.chunk],
        )


def _statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0), values.std(0).clip(1e-2)


def loader(episodes: PlainEpisodes, batch: int, pin: bool, workers: int = 1) -> DataLoader:
    """One epoch each time it is iterated."""
    apart = {"num_workers": workers, "prefetch_factor": 1, "multiprocessing_context": "fork"} if workers else {}
    return DataLoader(episodes, batch, shuffle=True, pin_memory=pin, **apart)


def observed(frames: Sequence[np.ndarray], state: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Frames uint8 [H, W, 3] and state [S] as `PlainAct.act` takes them."""
    planes = np.stack([np.transpose(frame, (2, 0, 1)) for frame in frames])
    return torch.from_numpy(planes / 255.0).float().to(device)[None], torch.from_numpy(state).to(device)[None]


def sequence_positions(length: int, width: int) -> Tensor:
    """[length, width]"""
    place, channel = torch.arange(length)[:, None], torch.arange(width)
    angle = place / 10_000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


def image_positions(width: int, height: int, columns: int, device: torch.device) -> Tensor:
    """[width, height, columns], computed anew at each call."""
    half = width // 2
    rate = 10_000 ** (2 * (torch.arange(half, device=device) // 2) / half)
    codes = []
    for count in (height, columns):
        angle = torch.arange(1, count + 1, device=device)[:, None] / (count + 1e-6) * 2 * math.pi / rate
        codes.append(torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1).T)
    y = codes[0][:, :, None].expand(half, height, columns)
    x = codes[1][:, None].expand(half, height, columns)
    return torch.cat([y, x])


def random_batch(
    size: int, shape: tuple[int, int], cameras: int, dims: tuple[int, int], chunk: int, device: torch.device
) -> PlainBatch:
    """A batch to time with; the values do not matter. dims: of state and action."""
    return PlainBatch(
        images=torch.rand(size, cameras, 3, *shape, device=device),
        state=torch.randn(size, dims[0], device=device),
        action=torch.randn(size, chunk, dims[1], device=device),
        is_pad=torch.zeros(size, chunk, dtype=torch.bool, device=device),
    )
