"""Transformer layers in DETR's manner (Carion et al. 2020).

Positions join queries and keys at every layer, never values. Sequences are [B, T, D]. Sub-modules are named as in DETR,
so that published weights need no renaming inside a layer.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Output = Literal["last", "first"]
_TEMPERATURE = 10_000.0


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer network, each with a residual and a LayerNorm after it (or before)."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout, self.dropout1, self.dropout2 = (nn.Dropout(dropout) for _ in range(3))

    def forward(self, x: Tensor, position: Tensor, is_pad: Tensor | None = None) -> Tensor:
        """x: [B, T, D]; position: [1 or B, T, D]; is_pad: bool [B, T], tokens nobody may look at."""
        if self.pre_norm:
            x = x + self._attend(self.norm1(x), position, is_pad)
            return x + self._transform(self.norm2(x))
        x = self.norm1(x + self._attend(x, position, is_pad))
        return self.norm2(x + self._transform(x))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, position: Tensor, is_pad: Tensor | None) -> Tensor:
        placed = x + position
        return self.dropout1(attend(self.self_attn, placed, placed, x, is_pad))  # type: ignore[no-any-return]

    def _transform(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(F.relu(self.linear1(x)))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A stack of encoder layers, with a last LayerNorm where the layers put theirs before."""

    def __init__(self, depth: int, width: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feedforward, dropout, pre_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(width) if pre_norm else nn.Identity()

    def forward(self, x: Tensor, position: Tensor, is_pad: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, position, is_pad)
        return self.norm(x)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Self-attention among the queries, attention to the memory, and a two-layer network."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout, self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(4))

    def forward(self, x: Tensor, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """x: content [B, K, D]; query: [1, K, D], what each place asks for; memory, its position: [B, T, D]."""
        if self.pre_norm:
            x = x + self._exchange(self.norm1(x), query)
            x = x + self._look(self.norm2(x), query, memory, position)
            return x + self._transform(self.norm3(x))
        x = self.norm1(x + self._exchange(x, query))
        x = self.norm2(x + self._look(x, query, memory, position))
        return self.norm3(x + self._transform(x))  # type: ignore[no-any-return]

    def _exchange(self, x: Tensor, query: Tensor) -> Tensor:
        placed = x + query
        return self.dropout1(attend(self.self_attn, placed, placed, x))  # type: ignore[no-any-return]

    def _look(self, x: Tensor, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        seen = attend(self.multihead_attn, x + query, memory + position, memory)
        return self.dropout2(seen)  # type: ignore[no-any-return]

    def _transform(self, x: Tensor) -> Tensor:
        return self.dropout3(self.linear2(self.dropout(F.relu(self.linear1(x)))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A stack of decoder layers over learned queries, and one LayerNorm.

    output "first": what the first layer says is the answer, as in the original ACT, whose other layers were computed
    and thrown away; so only that one is built.
    """

    def __init__(
        self, depth: int, width: int, heads: int, feedforward: int, dropout: float, pre_norm: bool, output: Output
    ) -> None:
        super().__init__()
        built = 1 if output == "first" else depth
        self.layers = nn.ModuleList(DecoderLayer(width, heads, feedforward, dropout, pre_norm) for _ in range(built))
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """query: [1, K, D]; memory: [B, T, D]; position: [1 or B, T, D] -> [B, K, D]."""
        x = memory.new_zeros(len(memory), *query.shape[1:])
        for layer in self.layers:
            x = layer(x, query, memory, position)
        return self.norm(x)  # type: ignore[no-any-return]


def attend(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, is_pad: Tensor | None = None
) -> Tensor:
    """What `attention` says to query [B, T, D], key and value [B, S, D]. is_pad: bool [B, S], keys to be left out.

    The same as calling it. But with dropout PyTorch has no fused operation on a CPU, and what it falls back on makes
    an encoder layer take up to 1.5 times as long in bf16, 1.1 times in fp32, as the formula written out.
    """
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    inputs = zip((query, key, value), weights, biases, strict=True)
    queries, keys, values = (_heads(F.linear(*one), attention.num_heads) for one in inputs)
    mask = None if is_pad is None else ~is_pad[:, None, None]
    dropout = attention.dropout if attention.training else 0.0
    if dropout and query.device.type == "cpu":
        said = _attend_by_formula(queries, keys, values, mask, dropout)
    else:
        said = F.scaled_dot_product_attention(queries, keys, values, mask, dropout)
    return attention.out_proj(said.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _heads(x: Tensor, count: int) -> Tensor:
    """[B, T, D] -> [B, heads, T, D / heads]."""
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def _attend_by_formula(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention over [B, heads, T, D]; mask: True for what may be looked at."""
    likeness = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if mask is not None:
        likeness = likeness.masked_fill(~mask, -math.inf)
    return F.dropout(likeness.softmax(-1), dropout) @ value  # in bf16 too the softmax sums in fp32


def sine_positions(length: int, width: int) -> Tensor:
    """Fixed positions of a sequence, [1, length, width]: sines in even places, cosines in odd ones (Vaswani 2017)."""
    place = torch.arange(width)
    rate = _TEMPERATURE ** (-2 * (place // 2) / width)
    angle = torch.arange(length)[:, None] * rate
    return torch.where(place % 2 == 0, angle.sin(), angle.cos())[None]


def sine_image_positions(height: int, width: int, channels: int) -> Tensor:
    """Fixed positions of the cells of a map, [1, height * width, channels]: half the channels for y, half for x.

    Coordinates run over (0, 2 pi], as in DETR; so the code of a cell does not depend on the map's size alone.
    """
    half = channels // 2

    def code(count: int) -> Tensor:
        place = torch.arange(half)
        along = torch.arange(1, count + 1) / (count + 1e-6) * 2 * math.pi
        angle = along[:, None] / _TEMPERATURE ** (2 * (place // 2) / half)
        return torch.where(place % 2 == 0, angle.sin(), angle.cos())

    y = code(height)[:, None].expand(height, width, half)
    x = code(width)[None].expand(height, width, half)
    return torch.cat([y, x], -1).reshape(1, height * width, 2 * half)
