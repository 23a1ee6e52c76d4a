"""Random Fourier features: what makes a function sharp that a plain network would smooth over."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """x [B, F] -> [B, F + 2 N]: x itself, then the sine and the cosine of N random phases, drawn once.

    frequency: standard deviation of the phases in radians, for inputs of variance 1.

    Random features are Rahimi & Recht's (2007). Networks learn slow changes of a value first, and what lies behind a
    wall shines through it; that these features mend it is Yang et al. 2022 ("Overcoming the spectral bias of neural
    value approximation"), who learn the projections. Here they stay, and x is kept beside them.
    """

    projection: Tensor

    def __init__(self, inputs: int, frequency: float, phases: int = 32) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(inputs, phases) * frequency / math.sqrt(inputs))
        self.outputs = inputs + 2 * phases

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.projection
        return torch.cat([x, phase.sin(), phase.cos()], -1)
