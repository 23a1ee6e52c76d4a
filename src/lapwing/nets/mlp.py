"""Multi-layer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mlp(nn.Sequential):
    """Layers one after another. With `autocast` all but the last compute in that format; the output is float32."""

    autocast: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.autocast is None:
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        *hidden, last = self
        with torch.autocast(x.device.type, self.autocast):
            for layer in hidden:
                x = layer(x)
        return last(x.float())  # type: ignore[no-any-return]


def speed_up(encoder: nn.Module, networks: nn.Module, bf16: bool, compiled: bool) -> None:
    """bf16 and compilation for the image encoder, or, without cameras, for the MLPs among `networks`.

    `encoder`: one with `cameras` and `autocast`. The last layers of MLPs, losses and optimisers stay float32.
    """
    parts = [encoder] if encoder.cameras else [net for net in networks.modules() if isinstance(net, Mlp)]
    for part in parts:
        part.autocast = torch.bfloat16 if bf16 else None  # type: ignore[assignment]
        if compiled:
            part.compile()


def mlp(inputs: int, hidden: Sequence[int], outputs: int, layer_norm: bool = False) -> Mlp:
    """Linear (LayerNorm) ReLU for each hidden width, then a plain linear output."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        if layer_norm:
            layers.append(nn.LayerNorm(width))
        layers.append(nn.ReLU(inplace=True))
        inputs = width
    layers.append(nn.Linear(inputs, outputs))
    return Mlp(*layers)


def tanh_mlp(inputs: int, hidden: Sequence[int], outputs: int | None = None, dropout: float = 0.0) -> nn.Sequential:
    """Linear (dropout) LayerNorm tanh for each hidden width, as SERL has it; then a plain linear output, if any."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(xavier_linear(inputs, width))
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [nn.LayerNorm(width), nn.Tanh()]
        inputs = width
    if outputs is not None:
        layers.append(xavier_linear(inputs, outputs))
    return nn.Sequential(*layers)


@contextmanager
def left_out(net: nn.Module) -> Iterator[None]:
    """Dropout acts within; before and after, all of `net` speaks."""
    net.train()
    try:
        yield
    finally:
        net.eval()


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts with Xavier-uniform weights and no bias, as flax and SERL have it."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class EnsembleMlp(nn.Module):
    """`members` networks like `tanh_mlp`, all evaluated at once: each layer is one batched matrix product."""

    def __init__(self, members: int, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        widths = [inputs, *hidden, outputs]
        self.members = members
        self.weights = nn.ParameterList(_xavier(members, *sizes) for sizes in pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(members, 1, width) for width in widths[1:])
        self.norm_scales = nn.ParameterList(torch.ones(members, 1, width) for width in hidden)
        self.norm_offsets = nn.ParameterList(torch.zeros(members, 1, width) for width in hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs], the same for all members, or [E, B, inputs] -> [E, B, outputs]."""
        x = x.expand(self.members, *x.shape[-2:])
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for (weight, bias), scale, offset in zip(hidden, self.norm_scales, self.norm_offsets, strict=True):
            x = F.layer_norm(torch.baddbmm(bias, x, weight), weight.shape[-1:])
            x = torch.addcmul(offset, x, scale).tanh()
        return torch.baddbmm(last[1], x, last[0])


def _xavier(members: int, inputs: int, outputs: int) -> Tensor:
    bound = math.sqrt(6 / (inputs + outputs))
    return torch.empty(members, inputs, outputs).uniform_(-bound, bound)
