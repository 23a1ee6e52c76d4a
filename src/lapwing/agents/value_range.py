"""How values lie to the returns in the data, the only ones known to be possible."""

from __future__ import annotations

from torch import Tensor

from lapwing.agent import Metrics


def value_metrics(q: Tensor, returns: tuple[float, float]) -> Metrics:
    """What critics say [E, B] of the data's actions, and the share of it outside the range of returns.

    Sound values of returns at its edge lie a little outside: only beyond a tenth of its width do they count.
    """
    q = q.detach()
    low, high = returns
    middle, half = (high + low) / 2, (high - low) / 2
    return {
        "q_mean": q.mean(),
        "q_min": q.min(),
        "q_max": q.max(),
        "q_out_of_range": ((q - middle).abs() > 1.2 * half).to(q.dtype).mean(),
    }


def diverged(q: Tensor, returns: tuple[float, float]) -> Tensor:
    """1 where the mean of values [E, B] is further from the range of returns than it is wide, else 0."""
    low, high = returns
    middle, half = (high + low) / 2, (high - low) / 2
    return ((q.detach().mean() - middle).abs() > 3 * half).to(q.dtype)
