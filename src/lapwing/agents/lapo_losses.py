"""The terms of LAPO's update, each by itself. Equation numbers are those of docs/algorithms/lapo.md."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def advantage(reward: Tensor, discount: Tensor, bootstrap: Tensor, value: Tensor) -> Tensor:
    """A of equation (4), [B]: what the step earned and leads to, over what was expected."""
    return reward + discount * bootstrap - value


def advantage_weight(gain: Tensor, expectile: float) -> Tensor:
    """The two-level weight of equation (4), [B]."""
    return torch.where(gain > 0, expectile, 1 - expectile).to(gain.dtype)


def critic_loss(
    q1: Tensor, q2: Tensor, v: Tensor, target_q: Tensor, target_v: Tensor, v_expectile: float = 0.5
) -> Tensor:
    """Equation (3): three mean squared errors with equal weights. Other expectiles weigh V's as IQL does, times two."""
    error = target_v - v
    weight = 2 * torch.where(error > 0, v_expectile, 1 - v_expectile)
    return F.mse_loss(q1, target_q) + F.mse_loss(q2, target_q) + (weight * error.square()).mean()


def reconstruction(predicted: Tensor, action: Tensor) -> Tensor:
    """Squared error summed over the axes, [B]."""
    return (predicted - action).square().sum(-1)


def latent_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of the posterior from the standard normal prior, [B]."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1)


def weighted_vae_loss(
    predicted: Tensor, action: Tensor, mean: Tensor, log_var: Tensor, weight: Tensor, kl_beta: float
) -> Tensor:
    """Equation (5). predicted, action: [B, K * A]; mean, log_var: [B, Z]; weight: [B], no gradient. A scalar."""
    return (weight * (reconstruction(predicted, action) + kl_beta * latent_kl(mean, log_var))).mean()
