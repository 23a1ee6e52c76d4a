"""A trained success classifier as a robot or a world uses it: an observation in, a probability and a decision out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapwing.agents.reward import RewardAgent
from lapwing.batch import Obs
from lapwing.episode import Array, Observation
from lapwing.errors import CheckpointError, ConfigError, SpecError
from lapwing.run.checkpoint import Which, find_checkpoint, load_learner
from lapwing.run.classification import probabilities
from lapwing.run.device import open_device
from lapwing.run.policy import fitted
from lapwing.spec import RobotSpec


class SuccessClassifier:
    """Says of observations whether they show success. `spec.cameras` are those it looks at, and their sizes.

    threshold: the probability from which on it decides for success, None for the one chosen in training.
    """

    def __init__(
        self, agent: RewardAgent, spec: RobotSpec, device: str | torch.device = "cpu", threshold: float | None = None
    ) -> None:
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"threshold: got {threshold}, expected a probability between 0 and 1")
        self.spec = spec
        self._agent, self._device = agent, torch.device(device)
        self._temperature, chosen = agent.calibration
        self._threshold = chosen if threshold is None else self._temperature * math.log(threshold / (1 - threshold))
        if math.isnan(self._threshold):
            raise CheckpointError(
                "classifier: no threshold was chosen at this step, for nothing was measured there; choose the "
                "checkpoint 'best', or give a threshold"
            )

    @staticmethod
    def load(
        run: str | Path, which: Which = "best", device: str | torch.device = "cpu", threshold: float | None = None
    ) -> SuccessClassifier:
        """The classifier of a run of `lapwing train reward`, or of a checkpoint directory. Raises CheckpointError."""
        device = open_device(device)
        agent, spec, _, meta = load_learner(find_checkpoint(Path(run), which), device)
        if not isinstance(agent, RewardAgent):
            raise CheckpointError(
                f"{run}: holds a policy ({meta['algorithm']}), expected a success classifier; make one with "
                "`lapwing train reward`"
            )
        return SuccessClassifier(agent, spec, device, threshold)

    @property
    def threshold(self) -> float:
        """The probability from which on it decides for success."""
        return float(probabilities(np.array(self._threshold), self._temperature))

    def fingerprint(self) -> str:
        """Of weights, temperature, threshold and cameras, not of the place: a moved run is the same classifier."""
        digest = hashlib.sha256(repr((self.spec.cameras, self._threshold)).encode())
        for name, tensor in sorted(self._agent.acting.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def predict_success(self, observation: Observation | Mapping[str, Any]) -> tuple[Any, Any]:
        """(probability, decision): a float and a bool, or float64 [B] and bool [B] for a batch of observations.

        A mapping has "images": camera -> uint8 [H, W, 3], or [B, H, W, 3]. Other cameras are not looked at; frames
        of another size are resized. Raises SpecError for a camera that is missing or does not fit.
        """
        images = observation.images if isinstance(observation, Observation) else observation.get("images")
        if not isinstance(images, Mapping):
            raise SpecError(f"images: a {type(images).__name__}, expected a mapping of camera names to uint8 [H, W, 3]")
        frames, single = self._checked(images)
        probability, decision = self._decide(frames)
        return (float(probability[0]), bool(decision[0])) if single else (probability, decision)

    def _checked(self, images: Mapping[str, Any]) -> tuple[dict[str, Array], bool]:
        """Frames [B, H, W, 3] in the spec's order, and whether they were of one observation."""
        missing = [name for name in self.spec.camera_names if name not in images]
        if missing:
            got = ", ".join(sorted(map(str, images))) or "none"
            raise SpecError(f"images: cameras {got}, expected {missing[0]!r} too, which the classifier looks at")
        arrays = {camera: np.asarray(images[camera.name]) for camera in self.spec.cameras}
        first = next(iter(arrays.values()))
        single = first.ndim == 3
        count = 1 if single or not first.ndim else len(first)
        frames = {
            camera.name: fitted(camera, one[None] if single else one, count, single) for camera, one in arrays.items()
        }
        return frames, single

    @torch.inference_mode()
    def _decide(self, frames: Mapping[str, Array]) -> tuple[Array, Array]:
        """Probability float64 [B] and decision bool [B]."""
        count = len(next(iter(frames.values())))
        obs = Obs({name: torch.from_numpy(one) for name, one in frames.items()}, torch.zeros(count, 0))
        logit = self._agent.logit(obs.to(self._device)).float().cpu().numpy()
        if not np.isfinite(logit).all():
            raise SpecError("classifier: its output is no finite number; choose another checkpoint")
        return probabilities(logit, self._temperature), logit >= np.float32(self._threshold)
