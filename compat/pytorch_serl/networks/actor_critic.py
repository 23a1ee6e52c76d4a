"""The document's policy, critics and grasp critic, over features [B, feature_dim]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lapwing.agents import grasp
from lapwing.errors import ConfigError
from lapwing.nets.distributions import SquashedGaussian, TanhGaussian
from lapwing.nets.mlp import EnsembleMlp, tanh_mlp


class Policy(nn.Module):
    """Feature -> a tanh-Gaussian of the continuous actions, with `mode()`, `sample()` and `log_prob(action)`."""

    def __init__(self, feature_dim: int, action_dim: int, hidden_dims: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.net = nn.Sequential(tanh_mlp(feature_dim, hidden_dims), TanhGaussian(hidden_dims[-1], action_dim))

    def forward(self, feature: Tensor) -> SquashedGaussian:
        return self.net(feature)


class Critic(nn.Module):
    """Feature and continuous action -> the value by every member, [E, B]."""

    def __init__(
        self, feature_dim: int, action_dim: int, hidden_dims: Sequence[int] = (256, 256), ensemble_size: int = 2
    ) -> None:
        super().__init__()
        self.net = EnsembleMlp(ensemble_size, feature_dim + action_dim, hidden_dims, 1)

    def forward(self, feature: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([feature, action], -1)).squeeze(-1)


class GraspCritic(grasp.GraspCritic):
    """Feature -> the value of each grasp, [B, 3] of one gripper, [B, 9] of two, who choose jointly."""

    def __init__(self, feature_dim: int, grasp_action_dim: int = 3, hidden_dims: Sequence[int] = (256, 256)) -> None:
        super().__init__(feature_dim, grippers(grasp_action_dim), hidden_dims)


def grippers(grasp_action_dim: int) -> int:
    """How many grippers choose among so many grasps: 3 are one's, 9 two's. Raises ConfigError for other numbers."""
    if grasp_action_dim not in (grasp.WAYS, grasp.WAYS**2):
        raise ConfigError(
            f"grasp_action_dim is {grasp_action_dim}, expected 3 for one gripper (close, hold, open), or 9 for two"
        )
    return round(math.log(grasp_action_dim, grasp.WAYS))
