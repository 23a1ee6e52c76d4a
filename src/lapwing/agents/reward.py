"""A success classifier: from images to whether the task is done (HIL-SERL, section IV; docs/algorithms/reward.md).

    L = mean over a balanced batch of cross-entropy(sigmoid(head(f)), label)                (1)
    p(success | images) = sigmoid(head(f) / T)                                              (2)

f is the feature of the chosen cameras, without the state. T and the threshold are no weights: they are chosen on
held-out frames after training (run/classification.py) and kept beside the weights, so that a checkpoint decides alone.

Differences from HIL-SERL: a trunk that is not pretrained is trained, where LeRobot's port pools untrained features;
batches, steps and epochs are named for what they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapwing.agent import Labelled, Metrics, RewardFacts
from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError
from lapwing.nets.augment import random_shift
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.optim import gradient_step
from lapwing.nets.spatial import SpatialEncoder
from lapwing.spec import RobotSpec


@dataclass(frozen=True)
class RewardConfig:
    """Settings of the success classifier. Defaults are HIL-SERL's but for the backbone."""

    lr: float = 1e-4
    """Learning rate of Adam."""
    hidden: int = 256
    """Width of the head's one hidden layer."""
    dropout: float = 0.1
    """Share of the head's hidden units left out at random in training."""
    random_shift: int = 4
    """Largest shift of the images in pixels, training only."""
    max_false_positive_rate: float = 0.01
    """The threshold is the lowest at which no more failures than this share are taken for success."""
    vision: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        for name in ("lr", "hidden"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"reward: {name} is {getattr(self, name)}, expected a positive number")
        for name in ("dropout", "max_false_positive_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"reward: {name} is {getattr(self, name)}, expected a share from 0 to below 1")
        if self.random_shift < 0:
            raise ConfigError(f"reward: random_shift is {self.random_shift}, expected 0 or more")


class RewardAgent:
    """Learns to tell success from failure by the images. It judges and does not act."""

    def __init__(self, config: RewardConfig, spec: RobotSpec, facts: RewardFacts) -> None:
        del facts  # labels are all it learns from
        if not spec.cameras:
            raise ConfigError("reward: no camera, expected one at least: success is told by images; give --image-keys")
        self.acting = SuccessNet(config, replace(spec, state=()))  # where the arm is must not stand in for success
        self.config = replace(config, vision=self.acting.encoder.vision)
        self._make_optimizer()

    @property
    def sampling(self) -> Labelled:
        return Labelled()

    def _make_optimizer(self) -> None:
        trained = [parameter for parameter in self.acting.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=self.config.lr, fused=True)

    def prepare(self, device: torch.device, bf16: bool, compiled: bool) -> None:
        self.acting.to(device)
        self._make_optimizer()
        self.acting.encoder.autocast = torch.bfloat16 if bf16 else None
        if compiled:
            self.acting.encoder.compile()

    def update(self, batch: Batch) -> Metrics:
        """One step on (1). What was calibrated before is void."""
        assert batch.label is not None  # promised by Labelled
        self.acting.train()
        logit = self.acting(random_shift(batch.obs, self.config.random_shift))
        loss = success_loss(logit, batch.label)
        gradient_step(self.optimizer, loss)
        self.acting.threshold.fill_(math.nan)
        right = ((logit > 0) == (batch.label > 0.5)).float().mean()
        return {"reward_loss": loss.detach(), "reward_accuracy": right}

    @torch.no_grad()
    def logit(self, obs: Obs) -> Tensor:
        """What (2) is the sigmoid of, before T, float32 [B]. In full precision, as thresholds are chosen and used."""
        encoder = self.acting.eval().encoder
        precision, encoder.autocast = encoder.autocast, None
        try:
            return self.acting(obs)  # type: ignore[no-any-return]
        finally:
            encoder.autocast = precision

    def predict(self, obs: Obs) -> Tensor:
        """Equation (2): the probability of success, float32 [B]."""
        return (self.logit(obs) / self.acting.temperature).sigmoid()

    @property
    def calibration(self) -> tuple[float, float]:
        """T, and the logit from which on it is success; the latter is NaN since the last update."""
        return float(self.acting.temperature), float(self.acting.threshold)

    def calibrate(self, temperature: float, threshold: float) -> None:
        """Set T and the logit from which on it is success."""
        self.acting.temperature.fill_(temperature)
        self.acting.threshold.fill_(threshold)

    def state_dict(self) -> dict[str, Any]:
        return {"networks": self.acting.state_dict(), "optimizers": {"all": self.optimizer.state_dict()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.acting.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizers"]["all"])


def success_loss(logit: Tensor, label: Tensor) -> Tensor:
    """Equation (1). logit: [B]; label: [B], 0 or 1."""
    return F.binary_cross_entropy_with_logits(logit, label)


class SuccessNet(nn.Module):
    """Obs -> logit [B]; and the temperature and threshold it is read with."""

    temperature: Tensor
    threshold: Tensor

    def __init__(self, config: RewardConfig, spec: RobotSpec) -> None:
        super().__init__()
        self.encoder = SpatialEncoder(spec, config.vision)
        self.head = nn.Sequential(
            nn.Linear(self.encoder.feature_dim, config.hidden),
            nn.Dropout(config.dropout),
            nn.LayerNorm(config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, 1),
        )
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("threshold", torch.tensor(math.nan))

    def forward(self, obs: Obs) -> Tensor:
        return self.head(self.encoder(obs, dropout=self.training))[:, 0]  # type: ignore[no-any-return]
