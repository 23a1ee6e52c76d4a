"""Behaviour cloning: the mean squared error between the action of the data and the network's. The baseline of all.

L = |head(f) - a|^2 over the valid steps of the chunk                         (1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lapwing.agent import Chunks, Metrics, Normalization, RewardFacts, Sampling, Scaling
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.augment import AugmentConfig, augment, centre, random_shift
from lapwing.nets.mlp import mlp, speed_up
from lapwing.nets.optim import gradient_step
from lapwing.nets.vision import ObsEncoder, VisionConfig
from lapwing.spec import RobotSpec


@dataclass(frozen=True)
class BcConfig:
    """Settings of behaviour cloning."""

    chunk: int = 1
    """Actions predicted and executed per observation."""
    lr: float = 2e-4
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the head."""
    obs_feature_dim: int = 256
    """Width of the fused feature of images and state."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    state_scaling: Normalization = "mean-std"
    """How states are normalised: to mean 0 and standard deviation 1, or from their range to [-1, 1]."""
    action_scaling: Normalization = "mean-std"
    """The same for actions."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)

    def __post_init__(self) -> None:
        for name in ("chunk", "lr", "obs_feature_dim"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"bc: {name} is {getattr(self, name)}, expected a positive number")
        if min(self.hidden, default=1) < 1:
            raise ConfigError(f"bc: hidden is {list(self.hidden)}, expected positive widths")
        if self.random_shift < 0:
            raise ConfigError(f"bc: random_shift is {self.random_shift}, expected 0 or more")

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.state_scaling, self.action_scaling, horizon=self.chunk)


class BcAgent:
    """Acts as the data did, on average."""

    modes = ("bc",)

    def __init__(self, config: BcConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        del facts  # imitation does not look at rewards
        self.encoder = ObsEncoder(spec, config.vision, config.obs_feature_dim)
        self.config = replace(config, vision=self.encoder.vision)
        self.head = mlp(self.encoder.feature_dim, config.hidden, config.chunk * spec.action_dim)
        self.acting = nn.ModuleDict({"encoder": self.encoder, "head": self.head})
        self.optimizer = torch.optim.Adam(self.acting.parameters(), lr=config.lr, fused=True)

    @property
    def sampling(self) -> Sampling:
        return Chunks(self.config.chunk)

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        self.acting.to(device)
        self.optimizer = torch.optim.Adam(self.acting.parameters(), lr=self.config.lr, fused=True)
        speed_up(self.encoder, self.acting, bf16, compiled)

    def update(self, batch: Batch) -> Metrics:
        obs = augment(random_shift(batch.obs, self.config.random_shift), self.config.augment)
        predicted = self._predict(obs)
        loss = masked_square_error(predicted, batch.action, batch.is_pad)
        gradient_step(self.optimizer, loss)
        return {"bc_loss": loss.detach()}

    @torch.no_grad()
    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        """Normalised actions [B, K, A]."""
        if mode not in (None, *self.modes):
            raise ConfigError(f"bc: mode {mode!r} does not exist here; the only one is 'bc'")
        return self._predict(centre(obs, self.config.augment))

    def _predict(self, obs: Obs) -> Tensor:
        flat = self.head(self.encoder(obs))
        return flat.view(len(flat), self.config.chunk, -1)  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        return {"networks": self.acting.state_dict(), "optimizers": {"all": self.optimizer.state_dict()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.acting.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizers"]["all"])


def masked_square_error(predicted: Tensor, action: Tensor, is_pad: Tensor) -> Tensor:
    """Equation (1): mean over the axes of the valid steps. predicted, action: [B, K, A]; is_pad: [B, K]."""
    valid = (~is_pad)[..., None].to(predicted.dtype)
    return ((predicted - action).square() * valid).sum() / (valid.sum() * action.shape[-1]).clamp(min=1)
