"""Twin critics: two networks that judge the same action, of which the lower is believed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lapwing.nets.mlp import mlp


class TwinCritic(nn.Module):
    """Two Q of (feature, action), apart: at 256 wide and 256 samples batching them in one product gains nothing."""

    def __init__(self, feature: int, action: int, hidden: Sequence[int], layer_norm: bool) -> None:
        super().__init__()
        self.q1 = mlp(feature + action, hidden, 1, layer_norm)
        self.q2 = mlp(feature + action, hidden, 1, layer_norm)

    def forward(self, feature: Tensor, action: Tensor) -> Tensor:
        """feature: [B, F]; action: [B, A] -> [2, B]."""
        both = torch.cat([feature, action], -1)
        return torch.stack([self.q1(both), self.q2(both)]).squeeze(-1)

    def first(self, feature: Tensor, action: Tensor) -> Tensor:
        """What the first of them says, [B]."""
        return self.q1(torch.cat([feature, action], -1)).squeeze(-1)  # type: ignore[no-any-return]
