"""The document's success classifier, over `lapwing.run.classifier`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lapwing.agent import RewardFacts
from lapwing.agents import build_agent
from lapwing.agents.reward import RewardConfig
from lapwing.errors import CheckpointError
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.classifier import SuccessClassifier
from pytorch_serl.translation import array, robot_of
from pytorch_serl.utils.device import DEVICE


class RewardClassifier:
    """Says whether observations show success.

    `load` takes over what train_classifier.py wrote. Before that the networks are made, untrained, when the first
    observation tells the size of the images, and a warning says that their answers mean nothing. threshold: the
    probability from which on it decides for success; None: the one chosen in training, 0.5 for untrained networks.
    """

    def __init__(
        self,
        image_keys: Sequence[str] = ("image",),
        threshold: float | None = None,
        device: str | torch.device = DEVICE,
        vision: BackboneConfig | None = None,
    ) -> None:
        self.image_keys, self.threshold, self.device = tuple(image_keys), threshold, torch.device(device)
        self.config = RewardConfig(vision=vision or BackboneConfig(backbone="resnet10"))
        self.classifier: SuccessClassifier | None = None

    def load(self, directory: str | Path) -> None:
        """Take over a trained classifier. Raises CheckpointError, also where it looks at other images."""
        loaded = SuccessClassifier.load(directory, device=self.device, threshold=self.threshold)
        if loaded.spec.camera_names != self.image_keys:
            got, expected = ", ".join(loaded.spec.camera_names), ", ".join(self.image_keys)
            raise CheckpointError(f"{directory}: looks at images {got}, expected {expected}; set image_keys")
        self.classifier = loaded

    def predict_success(self, obs: Mapping[str, Any]) -> tuple[Any, Any]:
        """(probability, decision) of one observation; arrays of both, [B], for images [B, H, W, 3].

        A leading axis of length 1 is HIL-SERL's time axis. Raises SpecError for what does not fit.
        """
        frames = {key: array(obs[key]) for key in self.image_keys if key in obs}
        single = {key: one[0] if one.ndim == 4 and len(one) == 1 else one for key, one in frames.items()}
        if self.classifier is None:
            self.classifier = self._untrained(single)
        return self.classifier.predict_success({"images": single})

    def _untrained(self, frames: Mapping[str, Any]) -> SuccessClassifier:
        print("lapwing: warning: RewardClassifier is untrained; load(DIRECTORY) a trained one", file=sys.stderr)
        batched = any(one.ndim == 4 for one in frames.values())
        spec = robot_of(frames, self.image_keys, (), batched)
        agent = build_agent("reward", self.config, spec, RewardFacts((0.0, 1.0), (0.0, 1.0)))
        agent.prepare(self.device, bf16=False, compiled=False)
        return SuccessClassifier(agent, spec, self.device, 0.5 if self.threshold is None else self.threshold)
