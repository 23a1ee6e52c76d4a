"""The document's MLP: linear, LayerNorm and tanh for each width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lapwing.nets.mlp import tanh_mlp


class MLP(nn.Sequential):
    """[..., input_dim] -> [..., output_dim], or the last hidden layer without one."""

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int] = (256, 256),
        output_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(*tanh_mlp(input_dim, hidden_dims, output_dim, dropout))
