"""The statistics beside published ACT weights, as a normaliser.

The original keeps a pickle of arrays; LeRobot keeps them among the weights, or in a safetensors file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lapwing.agents.act_weights import PublishedSizes
from lapwing.data.normalize import Normalizer
from lapwing.data.pickles import load_restricted
from lapwing.episode import Array
from lapwing.errors import CheckpointError
from lapwing.nets.backbone import IMAGENET_MEAN, IMAGENET_STD

# No value of up to a million steps lies further from their mean (Samuelson's inequality), so nothing that was
# recorded is cut where the range is not known.
RANGE_IN_STD = 1000.0
_LEAST_STD = 1e-8  # what LeRobot adds, so that an axis that never moved divides by something


class _Names(NamedTuple):
    """What a source calls the statistics. image: how names of those of a camera begin, "" for none."""

    state_mean: str
    state_std: str
    action_mean: str
    action_std: str
    action_low: str
    action_high: str
    image: str


def _lerobot(state: str, action: str, image: str) -> _Names:
    mean, std, low, high = (f"{action}.{what}" for what in ("mean", "std", "min", "max"))
    return _Names(f"{state}.mean", f"{state}.std", mean, std, low, high, image)


_PICKLED = _Names("qpos_mean", "qpos_std", "action_mean", "action_std", "action_min", "action_max", "")
_BESIDE = _lerobot("observation.state", "action", "observation.image")
_AMONG_WEIGHTS = _lerobot(
    "normalize_inputs.buffer_observation_state",
    "unnormalize_outputs.buffer_action",
    "normalize_inputs.buffer_observation_image",
)


def published_normalizer(
    stats: Path | None, weights: Path, tensors: Mapping[str, Any], sizes: PublishedSizes
) -> Normalizer:
    """The normaliser in the file `stats`, or, where that is None, among the `tensors` of `weights`.

    Actions are kept within the range that the file tells, else within 1000 standard deviations, which cuts nothing.
    Raises CheckpointError, or DataError for a pickle of more than plain arrays.
    """
    where, values, names = _source(stats, weights, tensors)
    _expect_imagenet(where, values, names)
    state_mean, state_std = (_vector(where, values, name, sizes.state) for name in names[:2])
    mean, std = (_vector(where, values, name, sizes.action) for name in names[2:4])
    low, high = mean - RANGE_IN_STD * std, mean + RANGE_IN_STD * std
    if names.action_low in values and names.action_high in values:
        low, high = (_vector(where, values, name, sizes.action) for name in names[4:6])
    for name, one in ((names.state_std, state_std), (names.action_std, std)):
        if (one < 0).any():
            raise CheckpointError(f"{where}: {name!r} has values below zero, expected standard deviations")
    state_std, std = np.maximum(state_std, _LEAST_STD), np.maximum(std, _LEAST_STD)
    absolute = np.full(sizes.action, -1)
    return Normalizer(state_mean, state_std, mean, std, mean, std, low, high, absolute)


def _source(stats: Path | None, weights: Path, tensors: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], _Names]:
    """Where the statistics come from, for messages, their values, and what they are called there."""
    if stats is None:
        if _AMONG_WEIGHTS.state_mean not in tensors:
            raise CheckpointError(f"{weights}: holds no statistics; give the file beside it with --stats")
        return str(weights), tensors, _AMONG_WEIGHTS
    if stats.suffix == ".safetensors":
        try:
            return str(stats), load_file(stats), _BESIDE
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{stats}: cannot be read ({error}); check the path") from error
    values = load_restricted(stats)
    if not isinstance(values, dict):
        raise CheckpointError(f"{stats}: holds a {type(values).__name__}, expected a mapping with {_PICKLED[0]!r}")
    return str(stats), values, _PICKLED


def _vector(where: str, values: Mapping[str, Any], name: str, size: int) -> Array:
    """float32 [size]"""
    if name not in values:
        raise CheckpointError(f"{where}: no {name!r}, expected one number an axis; choose the file beside the weights")
    try:
        vector = np.asarray(values[name], np.float32)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {name!r} holds no numbers ({error}), expected {size}") from error
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise CheckpointError(
            f"{where}: {name!r} has shape {list(vector.shape)}{'' if np.isfinite(vector).all() else ', not all finite'}"
            f", expected {size} finite numbers as the weights do; choose the file beside the weights"
        )
    return vector


def _expect_imagenet(where: str, values: Mapping[str, Any], names: _Names) -> None:
    """Images are scaled by ImageNet's statistics here; those of another data set have no place in the model."""
    for name, value in values.items():
        kind = name.rpartition(".")[2]
        if not names.image or not name.startswith(names.image) or kind not in ("mean", "std"):
            continue
        found = np.asarray(value, np.float64).ravel()
        expected = IMAGENET_MEAN if kind == "mean" else IMAGENET_STD
        if found.shape != (3,) or not np.allclose(found, expected, atol=1e-4):
            raise CheckpointError(
                f"{where}: {name!r} is {found.round(4).tolist()}, expected ImageNet's {list(expected)}; a policy that "
                "scales images otherwise cannot be represented"
            )
