"""Grippers as discrete choices, judged by a critic of their own (HIL-SERL, Luo et al., 2024).

A gripper is told -1, 0 or 1 in normalised units: choice 0, 1 or 2. Two grippers choose jointly, one of nine:
left * 3 + right. What -1 and 1 do to the gripper is the world's matter and said in the axis's unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.nets.mlp import tanh_mlp

WAYS = 3  # what a gripper can be told


def grasp_class(action: Tensor, axes: Sequence[int]) -> Tensor:
    """The choice, int64 [...], that normalised actions [..., A] made on the gripper `axes`, left first."""
    choice = torch.zeros(action.shape[:-1], dtype=torch.int64, device=action.device)
    for axis in axes:
        choice = choice * WAYS + action[..., axis].round().long().clamp(-1, 1) + 1
    return choice


def grasp_values(choice: Tensor, grippers: int) -> Tensor:
    """What a choice, int64 [...], tells each gripper: float [..., grippers], each -1, 0 or 1, left first."""
    places = WAYS ** torch.arange(grippers - 1, -1, -1, device=choice.device)
    return (choice[..., None] // places % WAYS - 1).to(torch.get_default_dtype())


class GraspCritic(nn.Module):
    """Feature -> the value of each choice of the grippers, [B, 3] of one, [B, 9] of two. One network, no ensemble."""

    def __init__(self, features: int, grippers: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.net = tanh_mlp(features, hidden, WAYS**grippers, dropout)

    def forward(self, feature: Tensor) -> Tensor:
        return self.net(feature)  # type: ignore[no-any-return]


def grasp_target(
    reward: Tensor, penalty: Tensor | None, discount: Tensor, next_online: Tensor, next_slow: Tensor
) -> Tensor:
    """Double DQN's target, [B]: the critic picks the next choice, its slow copy says what that is worth.

    reward, discount: [B]; penalty: [B], 0 or below, None where there is none; next_online, next_slow: values of all
    choices at the next observation [B, choices].
    """
    best = next_online.argmax(-1, keepdim=True)
    earned = reward if penalty is None else reward + penalty
    return earned + discount * next_slow.gather(-1, best).squeeze(-1)


def grasp_loss(q: Tensor, choice: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the value of what was chosen. q: [B, choices]; choice: int64 [B]; target: [B]."""
    return F.mse_loss(q.gather(-1, choice[:, None]).squeeze(-1), target)


def grasp_imitation_loss(q: Tensor, choice: Tensor) -> Tensor:
    """Cross-entropy [B] of the data's choice, int64 [B], with the values q [B, choices] as log odds."""
    return F.cross_entropy(q, choice, reduction="none")
