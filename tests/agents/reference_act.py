"""ACT restated from its description, with the module names of the published code: what imported weights must equal.

Sequences are [T, B, D] throughout, as in DETR. `layout` tells the four projects apart: "act" shares one backbone,
"act-plus-plus" and "cobot-magic" have one a camera, the latter with its own order of the memory, and "lerobot" names
everything anew.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d

Layout = Literal["act", "act-plus-plus", "cobot-magic", "lerobot"]


class Layer(nn.Module):
    """An encoder layer, or with `crossed` a decoder layer; both after-norm or before-norm."""

    def __init__(self, width: int, heads: int, feedforward: int, crossed: bool, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = nn.MultiheadAttention(width, heads)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        if crossed:
            self.multihead_attn = nn.MultiheadAttention(width, heads)
            self.norm3 = nn.LayerNorm(width)

    def feed(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x)))

    def encode(self, x: Tensor, pos: Tensor, padded: Tensor | None) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            return self.self_attn(y + pos, y + pos, y, key_padding_mask=padded)[0]

        if self.pre_norm:
            x = x + attend(self.norm1(x))
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + attend(x))
        return self.norm2(x + self.feed(x))

    def decode(self, x: Tensor, query: Tensor, memory: Tensor, pos: Tensor) -> Tensor:
        def exchange(y: Tensor) -> Tensor:
            return self.self_attn(y + query, y + query, y)[0]

        def look(y: Tensor) -> Tensor:
            return self.multihead_attn(y + query, memory + pos, memory)[0]

        if self.pre_norm:
            x = x + exchange(self.norm1(x))
            x = x + look(self.norm2(x))
            return x + self.feed(self.norm3(x))
        x = self.norm1(x + exchange(x))
        x = self.norm2(x + look(x))
        return self.norm3(x + self.feed(x))


class Encoder(nn.Module):
    def __init__(self, depth: int, width: int, heads: int, feedforward: int, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, feedforward, False, pre_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(width) if pre_norm else None

    def forward(self, x: Tensor, pos: Tensor, padded: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer.encode(x, pos, padded)
        return x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    """Returns what every layer says, normed: [layers, K, B, D]."""

    def __init__(self, depth: int, width: int, heads: int, feedforward: int, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, heads, feedforward, True, pre_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor, memory: Tensor, pos: Tensor) -> Tensor:
        x, said = torch.zeros_like(query), []
        for layer in self.layers:
            x = layer.decode(x, query, memory, pos)
            said.append(self.norm(x))
        return torch.stack(said)


def body() -> nn.Module:
    """ResNet-18 up to its last map, every BatchNorm frozen."""
    net = ResNet(BasicBlock, [2, 2, 2, 2], norm_layer=FrozenBatchNorm2d)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    wrapped = nn.Sequential()
    for name in names:
        wrapped.add_module(name, getattr(net, name))
    for name, buffer in wrapped.named_buffers():
        if name.endswith(("weight", "running_var")):
            buffer.uniform_(0.5, 1.0)
        else:
            buffer.normal_(0, 0.1)
    return wrapped


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


def image_positions(width: int, rows: int, columns: int) -> Tensor:
    """[D, rows, columns]: the first half of the channels tells the row, the second the column."""
    out = torch.zeros(width, rows, columns)
    half = width // 2
    for start, axis, count in ((0, 0, rows), (half, 1, columns)):
        for place in range(count):
            angle = (place + 1) / (count + 1e-6) * 2 * math.pi
            for channel in range(half):
                value = angle / 10000 ** (2 * (channel // 2) / half)
                code = math.cos(value) if channel % 2 else math.sin(value)
                out[start + channel].select(axis, place)[:] = code
    return out


def sequence_positions(length: int, width: int) -> Tensor:
    """[1, length, D]"""
    angles = [[place / 10000 ** (2 * (j // 2) / width) for j in range(width)] for place in range(length)]
    table = [[math.cos(angle) if j % 2 else math.sin(angle) for j, angle in enumerate(row)] for row in angles]
    return torch.tensor(table)[None]


class Detr(nn.Module):
    """The encoder and decoder that the original keeps in one module."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class DetrVae(nn.Module):
    """The networks of tonyzhaozh/act, act-plus-plus or cobot_magic. `cvae` False: cobot_magic's with KL weight 0."""

    def __init__(
        self,
        layout: Layout,
        cameras: int = 2,
        state: int = 5,
        action: int = 3,
        chunk: int = 4,
        width: int = 32,
        heads: int = 2,
        feedforward: int = 24,
        encoder_layers: int = 2,
        decoder_layers: int = 3,
        latent: int = 6,
        pre_norm: bool = False,
        cvae: bool = True,
    ) -> None:
        super().__init__()
        self.layout, self.width, self.latent_dim = layout, width, latent
        sizes = (width, heads, feedforward, pre_norm)
        self.transformer = Detr(Encoder(encoder_layers, *sizes), Decoder(decoder_layers, *sizes))
        for parameter in self.transformer.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        count = 1 if layout == "act" else cameras
        self.backbones = nn.ModuleList(nn.Sequential(Backbone()) for _ in range(count))
        self.input_proj = nn.Conv2d(512, width, 1)
        self.input_proj_robot_state = nn.Linear(state, width)
        self.action_head = nn.Linear(width, action)
        self.query_embed = nn.Embedding(chunk, width)
        self.latent_out_proj = nn.Linear(latent, width)
        self.cls_embed = nn.Embedding(1, width)
        if layout == "cobot-magic":
            self.latent_pos, self.robot_state_pos = nn.Embedding(1, width), nn.Embedding(1, width)
        else:
            self.additional_pos_embed = nn.Embedding(2, width)
            self.is_pad_head = nn.Linear(width, 1)
        if cvae:
            self.encoder = Encoder(encoder_layers, *sizes)
            self.encoder_action_proj = nn.Linear(action, width)
            self.encoder_joint_proj = nn.Linear(state, width)
            self.latent_proj = nn.Linear(width, 2 * latent)
            self.register_buffer("pos_table", sequence_positions(chunk + 2, width))

    def posterior(self, qpos: Tensor, actions: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, [B, L] each."""
        tokens = [self.cls_embed.weight.repeat(len(qpos), 1), self.encoder_joint_proj(qpos)]
        tokens = torch.stack([*tokens, *self.encoder_action_proj(actions).unbind(1)])
        padded = torch.cat([torch.zeros(len(qpos), 2, dtype=torch.bool), is_pad], 1)
        summary = self.encoder(tokens, self.pos_table.transpose(0, 1), padded)[0]
        numbers = self.latent_proj(summary)
        return numbers[:, : self.latent_dim], numbers[:, self.latent_dim :]

    def said(self, qpos: Tensor, images: Tensor, z: Tensor | None = None) -> Tensor:
        """Actions by every decoder layer [layers, B, K, A]. images: float [B, N, 3, H, W], already normalised."""
        z = torch.zeros(len(qpos), self.latent_dim) if z is None else z
        maps = [self.input_proj(self.backbones[i % len(self.backbones)](images[:, i])) for i in range(images.shape[1])]
        position = image_positions(self.width, *maps[0].shape[2:])
        cells = torch.cat(maps, 3).flatten(2).permute(2, 0, 1)  # cameras side by side, then row by row
        cell_positions = torch.cat([position] * len(maps), 2).flatten(1).T[:, None]
        latent, state = self.latent_out_proj(z)[None], self.input_proj_robot_state(qpos)[None]
        if self.layout == "cobot-magic":
            memory = torch.cat([latent, cells, state])
            pos = torch.cat([self.latent_pos.weight[None], cell_positions, self.robot_state_pos.weight[None]])
        else:
            memory = torch.cat([latent, state, cells])
            pos = torch.cat([self.additional_pos_embed.weight[:, None], cell_positions])
        query = self.query_embed.weight[:, None].expand(-1, len(qpos), -1)
        memory = self.transformer.encoder(memory, pos)
        return self.action_head(self.transformer.decoder(query, memory, pos).transpose(1, 2))


class Policy(nn.Module):
    """What the projects store: the networks as `model`, behind the normalisation of images."""

    def __init__(self, model: DetrVae) -> None:
        super().__init__()
        self.model = model

    def forward(self, qpos: Tensor, images: Tensor) -> Tensor:
        """Actions by every decoder layer, with z = 0. images: uint8 [B, N, H, W, 3]."""
        return self.model.said(qpos, normalised(images))

    def losses(
        self, qpos: Tensor, images: Tensor, actions: Tensor, is_pad: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean of absolute errors over padding and all, read from the first decoder layer, and the KL."""
        mean, log_var = self.model.posterior(qpos, actions, is_pad)
        predicted = self.model.said(qpos, normalised(images), mean + (log_var / 2).exp() * noise)[0]
        kl = -0.5 * (1 + log_var - mean**2 - log_var.exp())
        return ((actions - predicted).abs() * ~is_pad[..., None]).mean(), kl.sum(1).mean()


def normalised(images: Tensor) -> Tensor:
    """uint8 [B, N, H, W, 3] -> float [B, N, 3, H, W] by ImageNet's statistics."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((images / 255 - mean) / std).permute(0, 1, 4, 2, 3)


def lerobot_names(policy: Policy) -> dict[str, Tensor]:
    """The tensors of a one-backbone policy by LeRobot's names, which are in no simple relation to the original's."""
    renamed = {
        "transformer.encoder": "encoder",
        "transformer.decoder": "decoder",
        "encoder": "vae_encoder",
        "backbones.0.0.body": "backbone",
        "input_proj": "encoder_img_feat_input_proj",
        "input_proj_robot_state": "encoder_robot_state_input_proj",
        "action_head": "action_head",
        "query_embed": "decoder_pos_embed",
        "latent_out_proj": "encoder_latent_input_proj",
        "additional_pos_embed": "encoder_1d_feature_pos_embed",
        "cls_embed": "vae_encoder_cls_embed",
        "encoder_action_proj": "vae_encoder_action_input_proj",
        "encoder_joint_proj": "vae_encoder_robot_state_input_proj",
        "latent_proj": "vae_encoder_latent_output_proj",
        "pos_table": "vae_encoder_pos_enc",
    }
    out = {}
    for name, tensor in policy.model.state_dict().items():
        found = [their for their in renamed if name == their or name.startswith(f"{their}.")]
        if found:  # the head that predicts padding is not there
            out[f"model.{renamed[found[0]]}{name.removeprefix(found[0])}"] = tensor
    return out
