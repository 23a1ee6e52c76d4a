"""What a stochastic policy says: a Gaussian squashed into (-1, 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.nets.mlp import xavier_linear

STD_RANGE = (1e-5, 5.0)  # as HIL-SERL clips it
_EDGE = 1e-6  # how far inside -1 and 1 given actions are taken to be; in float32 less would round to the edge
_LOG_TWO = math.log(2)


@dataclass(frozen=True)
class SquashedGaussian:
    """tanh of a Gaussian with independent axes. mean, std: [..., A], before the tanh."""

    mean: Tensor
    std: Tensor

    def mode(self) -> Tensor:
        """tanh of the mean, [..., A]: what the policy does without noise. The density's peak is elsewhere."""
        return self.mean.tanh()

    def sample(self) -> tuple[Tensor, Tensor]:
        """An action [..., A] in [-1, 1] through which gradients flow back, and its log density [...]."""
        noise = torch.randn_like(self.mean)
        raw = torch.addcmul(self.mean, self.std, noise)
        return raw.tanh(), self._log_density(raw, noise)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density [...] of actions [..., A]; what lies at or beyond -1 and 1 counts as a hair inside."""
        raw = action.clamp(-1 + _EDGE, 1 - _EDGE).atanh()
        return self._log_density(raw, (raw - self.mean) / self.std)

    def _log_density(self, raw: Tensor, noise: Tensor) -> Tensor:
        """Of tanh(raw), where raw = mean + std noise.

        log(1 - tanh(x)^2) is written as 2 (log 2 - x - softplus(-2x)), which is exact where tanh(x) rounds to 1.
        """
        gaussian = -0.5 * noise.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        stretch = 2 * (_LOG_TWO - raw - F.softplus(-2 * raw))
        return (gaussian - stretch).sum(-1)


class TanhGaussian(nn.Module):
    """Policy head: features -> a squashed Gaussian whose mean is unbounded and whose std depends on the state."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.mean = xavier_linear(inputs, actions)
        self.log_std = xavier_linear(inputs, actions)

    def forward(self, feature: Tensor) -> SquashedGaussian:
        """feature: [..., inputs] -> a distribution of actions [..., actions]."""
        # clipped before exp, which is the same but cannot overflow into gradients that are no numbers
        low, high = (math.log(bound) for bound in STD_RANGE)
        return SquashedGaussian(self.mean(feature), self.log_std(feature).clamp(low, high).exp())
