"""Transitions and observations as the document has them -> those of the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Observation
from lapwing.errors import DataError, SpecError
from lapwing.run.policy import fitted
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

STATE = "state"


def robot_of(
    observation: Mapping[str, Any], image_keys: Sequence[str], action: Sequence[Axis], batched: bool = False
) -> RobotSpec:
    """The robot that an observation shows, or a batch of them. Raises SpecError."""
    batch = int(batched)
    cameras = tuple(Camera(key, *_image(observation, key, batch).shape[-3:-1]) for key in image_keys)
    state = vector(observation[STATE], 1 + batch) if STATE in observation else np.zeros(0)
    return RobotSpec("documents", cameras, unnamed_axes(STATE, state.shape[-1]), tuple(action))


def observation_of(observation: Mapping[str, Any], spec: RobotSpec) -> Observation:
    """One observation, frames [H, W, 3] or HIL-SERL's [1, H, W, 3], at the sizes of `spec`. Raises SpecError."""
    whole = batch_of({key: array(value)[None] for key, value in _mapping(observation).items()}, spec)
    return Observation({name: frames[0] for name, frames in whole.images.items()}, whole.state[0])


def batch_of(observations: Mapping[str, Any], spec: RobotSpec) -> Observation:
    """A batch of observations: frames [B, H, W, 3] or [B, 1, H, W, 3], state [B, S] or [B, 1, S]. Raises SpecError."""
    images = {}
    for camera in spec.cameras:
        frames = _image(observations, camera.name, 1)
        images[camera.name] = fitted(camera, frames, len(frames), single=False)
    if spec.state_dim and STATE not in observations:
        raise SpecError(f"observation: no 'state', expected {spec.state_dim} values as in the first observation")
    count = len(next(iter(images.values()))) if images else len(array(observations[STATE]))
    state = vector(observations[STATE], 2) if STATE in observations else np.zeros((count, 0), np.float32)
    if state.shape != (count, spec.state_dim):
        raise SpecError(f"observation: 'state' has shape {list(state.shape)}, expected {[count, spec.state_dim]}")
    return Observation(images, state)


def as_documented(images: Mapping[str, Tensor], state: Tensor) -> dict[str, Tensor]:
    """Observations under the document's keys."""
    return {**images, **({STATE: state} if state.shape[-1] else {})}


def masks_of(transition: Mapping[str, Any]) -> Array:
    """0 where the task ended, else 1, float32: `masks`, or else 1 - `dones`. Raises DataError without either."""
    for key in ("masks", "dones"):
        if key in transition:
            marks = array(transition[key]).astype(np.float32)
            return marks if key == "masks" else 1 - marks
    raise DataError("transition: neither 'masks' nor 'dones', expected one of them to tell whether the task ended")


def unscaled(spec: RobotSpec) -> Normalizer:
    """States as they are; actions from -1 to 1 as they are."""
    state, action = np.zeros(spec.state_dim, np.float32), np.zeros(spec.action_dim, np.float32)
    one = action + 1
    return Normalizer(state, state + 1, action, one, action, one, -one, one, np.full(spec.action_dim, -1))


def vector(values: Any, ndim: int) -> Array:
    """float32 with `ndim` axes, without HIL-SERL's time axis of length 1. Raises SpecError."""
    found = array(values)
    if found.ndim == ndim + 1 and found.shape[-2] == 1:
        found = found.squeeze(-2)
    if found.ndim != ndim:
        raise SpecError(f"transition: a vector of shape {list(found.shape)}, expected {['[D]', '[B, D]'][ndim - 1]}")
    return found.astype(np.float32)


def array(values: Any) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _image(observation: Any, key: str, batch: int) -> Array:
    found = _mapping(observation).get(key)
    if found is None:
        there = ", ".join(sorted(observation)) or "nothing"
        raise SpecError(f"observation: no image {key!r}, it has {there}; name its images with image_keys")
    frames = array(found)
    if frames.ndim == 4 + batch and frames.shape[batch] == 1:
        frames = frames.squeeze(batch)
    if frames.ndim != 3 + batch:
        raise SpecError(f"observation: {key!r} has shape {list(frames.shape)}, expected {'B, ' * batch}H, W, 3")
    return frames


def _mapping(observation: Any) -> Mapping[str, Any]:
    if not isinstance(observation, Mapping):
        raise SpecError(f"observation: a {type(observation).__name__}, expected a mapping with an image for each key")
    return observation
