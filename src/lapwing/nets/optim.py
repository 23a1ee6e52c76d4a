"""One optimiser step, the same on one process or many, and slow copies of networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size, is_initialized


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor, clip: Callable[[], None] | None = None) -> None:
    """Backpropagate `loss` into the optimiser's parameters alone, average the gradients over all processes, and step.

    `clip` is called on the averaged gradients, before the step.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    average_gradients(parameters)
    if clip is not None:
        clip()
    optimizer.step()


def cosine_decay(done: int, steps: int) -> float:
    """What remains of a learning rate after `done` updates, if it falls to 0 along a cosine over `steps`; 0: it stays.

    SGDR (Loshchilov & Hutter 2017), equation (5) without restarts.
    """
    share = min(done / steps, 1.0) if steps else 0.0
    return (1 + math.cos(math.pi * share)) / 2


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the processes of a `torchrun` job; nothing to do in a single one.

    Three optimisers share networks here, which DistributedDataParallel's hooks do not expect
    (docs/decisions/0008).
    """
    if not is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    all_reduce(flat)
    flat /= get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def track(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Polyak averaging: target <- (1 - tau) target + tau source for parameters; buffers are copied."""
    pairs = list(zip(target.parameters(), source.parameters(), strict=True))
    if pairs:
        slow, fast = zip(*pairs, strict=True)
        torch._foreach_lerp_(slow, fast, tau)
    for kept, new in zip(target.buffers(), source.buffers(), strict=True):
        kept.copy_(new)
