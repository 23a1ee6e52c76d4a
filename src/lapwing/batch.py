"""What an agent is given: tensors, normalised, on its device.

Letters, everywhere: B batch, K chunk, A action, S state, Z latent, C cameras, H W image, N steps, E ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Obs:
    """images: camera -> uint8 [B, H, W, 3] RGB, in the spec's order; state: normalised float32 [B, S]."""

    images: Mapping[str, Tensor]
    state: Tensor

    def to(self, device: torch.device) -> Obs:
        return Obs({name: _move(x, device) for name, x in self.images.items()}, _move(self.state, device))


@dataclass(frozen=True)
class Batch:
    """One draw from a dataset or replay buffer.

    action: normalised float32 [B, K, A]; is_pad: bool [B, K], True after the episode's end (action repeats there).
    reward: float32 [B], the discounted sum over the n steps; discount: float32 [B], gamma**n, and 0 where the
    task terminated: the only "done" an agent sees. next_obs: the observation n steps later (any frame where
    discount is 0). mc_return: float32 [B], discounted return to the episode's recorded end, for judging values.
    For `Chunks` next_obs is None and reward, discount and mc_return are those of the single step.
    grasp_penalty: float32 [B], a cost (0 or below) of working a gripper, over the same steps as the reward but not
    part of it; None where the data has none. demonstrated: bool [B], True where the action is a demonstrator's, not the
    agent's own; None where all are. label: float32 [B], 1 where the observation shows success; of
    `Labelled` batches alone, whose action is [B, 0, A], with reward, discount and mc_return 0.
    """

    obs: Obs
    action: Tensor
    is_pad: Tensor
    reward: Tensor
    discount: Tensor
    mc_return: Tensor
    next_obs: Obs | None = None
    grasp_penalty: Tensor | None = None
    demonstrated: Tensor | None = None
    label: Tensor | None = None

    @property
    def size(self) -> int:
        return len(self.action)

    def to(self, device: torch.device) -> Batch:
        return Batch(
            obs=self.obs.to(device),
            action=_move(self.action, device),
            is_pad=_move(self.is_pad, device),
            reward=_move(self.reward, device),
            discount=_move(self.discount, device),
            mc_return=_move(self.mc_return, device),
            next_obs=None if self.next_obs is None else self.next_obs.to(device),
            grasp_penalty=None if self.grasp_penalty is None else _move(self.grasp_penalty, device),
            demonstrated=None if self.demonstrated is None else _move(self.demonstrated, device),
            label=None if self.label is None else _move(self.label, device),
        )


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
