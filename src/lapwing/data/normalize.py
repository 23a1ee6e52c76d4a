"""The one gate between physical units and what networks see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lapwing.agent import Normalization, Scaling
from lapwing.data.axes import corresponding_axes
from lapwing.episode import Array, Episode
from lapwing.errors import CheckpointError, ConfigError, DataError
from lapwing.spec import Axis, RobotSpec

DEFAULT_SCALING = Scaling()
MEASURED_AHEAD = 16  # places of a chunk that relative actions are measured at, evenly spaced
RANGE_MARGIN = 1e-4  # of min-max, on either side, as in act-plus-plus
_BEFORE_OFFSETS = {
    "state_offset": "state_mean",
    "state_scale": "state_std",
    "action_offset": "action_mean",
    "action_scale": "action_std",
}


@dataclass(frozen=True)
class Normalizer:
    """An offset and a scale per axis, and other statistics of the training split alone (or limits of the spec).

    state_offset, state_scale: float32 [S]; action_offset, action_scale: float32 [A], of the actions after the state
    was subtracted where they are relative, and so are action_mean, action_std: float32 [A], the measure of errors
    whatever the scale; action_low, action_high: float32 [A], the physical range of what can be decoded: that in
    training, or the axes' limits; relative_to: int64 [A], the state axis each action axis is relative to, -1 where it
    is absolute.
    """

    state_offset: Array
    state_scale: Array
    action_offset: Array
    action_scale: Array
    action_mean: Array
    action_std: Array
    action_low: Array
    action_high: Array
    relative_to: Array

    @staticmethod
    def fit(
        episodes: Sequence[Episode], spec: RobotSpec, relative: bool = False, scaling: Scaling = DEFAULT_SCALING
    ) -> Normalizer:
        """Statistics of `episodes`, and the scale that `scaling` asks for.

        Raises DataError on a value that is not finite, ConfigError when `relative` matches no axis.
        """
        relative_to = np.full(spec.action_dim, -1)
        if relative:
            relative_to = corresponding_axes(spec)
            if (relative_to < 0).all():
                raise ConfigError(
                    "relative actions: no action axis has a state axis of its name; expected at least one, "
                    "name the axes in the spec or train on absolute actions"
                )
        state = np.concatenate([episode.state[: episode.num_steps] for episode in episodes])
        action = np.concatenate([episode.action for episode in episodes])
        _expect_finite("state", spec.state, state)
        _expect_finite("action", spec.action, action)
        offset = _offsets(episodes, relative_to, scaling.horizon) if relative else action
        return Normalizer(
            *_offset_and_scale(state, scaling.state, scaling.std_floor, spec.state),
            *_offset_and_scale(offset, scaling.action, scaling.std_floor, () if relative else spec.action),
            *_offset_and_scale(offset, "mean-std", DEFAULT_SCALING.std_floor),
            *_range(action, spec.action if scaling.action == "limits" else ()),
            relative_to,
        )

    def encode_state(self, state: Array) -> Array:
        """Physical [..., S] -> normalised float32 [..., S]."""
        encoded: Array = ((state - self.state_offset) / self.state_scale).astype(np.float32)
        return encoded

    def encode_action(self, action: Array, state: Array) -> Array:
        """Physical action [..., K, A] at physical state [..., S] -> normalised float32 [..., K, A]."""
        offset = action - _reference(state, self.relative_to)[..., None, :]
        encoded: Array = ((offset - self.action_offset) / self.action_scale).astype(np.float32)
        return encoded

    def decode_action(self, encoded: Array, state: Array) -> Array:
        """Normalised [..., K, A] at physical state [..., S] -> physical float32, from `action_low` to `action_high`."""
        offset = encoded * self.action_scale + self.action_offset
        action = offset + _reference(state, self.relative_to)[..., None, :]
        clamped: Array = np.clip(action, self.action_low, self.action_high).astype(np.float32)
        return clamped

    @property
    def encoded_mean(self) -> Array:
        """The mean action in training, normalised, float32 [A]."""
        mean: Array = (self.action_mean - self.action_offset) / self.action_scale
        return mean

    @property
    def error_unit(self) -> Array:
        """What turns differences of normalised actions into standard deviations in training, float32 [A]."""
        unit: Array = self.action_scale / self.action_std
        return unit

    def to_dict(self) -> dict[str, list[float]]:
        """The statistics as plain lists; `from_dict` is the inverse."""
        return {one.name: getattr(self, one.name).tolist() for one in fields(self)}

    @staticmethod
    def from_dict(data: Mapping[str, Any], where: str = "statistics") -> Normalizer:
        """Read statistics from plain lists. Raises CheckpointError naming what does not fit.

        Files without offsets and scales are from when these were always the mean and the standard deviation.
        """
        try:
            data = {name: data[was] for name, was in _BEFORE_OFFSETS.items() if was in data} | dict(data)
            arrays = {
                one.name: np.asarray(data[one.name], np.int64 if one.name == "relative_to" else np.float32)
                for one in fields(Normalizer)
            }
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: not a normaliser ({error}); restore the checkpoint") from error
        sides = {arrays[name].shape for name in arrays if name.startswith("action")} | {arrays["relative_to"].shape}
        if len(sides) > 1 or arrays["state_offset"].shape != arrays["state_scale"].shape:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise CheckpointError(f"{where}: lengths do not agree ({shapes}); restore the checkpoint")
        return Normalizer(**arrays)


def _reference(state: Array, relative_to: Array) -> Array:
    """What is subtracted from the actions: [..., S] -> [..., A], 0 where an axis is absolute."""
    is_relative = relative_to >= 0
    reference: Array = np.zeros((*state.shape[:-1], len(relative_to)), state.dtype)
    reference[..., is_relative] = state[..., relative_to[is_relative]]
    return reference


def _offset_and_scale(
    values: Array, kind: Normalization, floor: float, axes: Sequence[Axis] = ()
) -> tuple[Array, Array]:
    """float32 [D] each, of values [N, D]: what is subtracted, and by what the rest is divided."""
    if kind == "min-max":
        low, high = (bound.astype(np.float64) for bound in _range(values))
        offset, scale = (high + low) / 2, (high - low) / 2 + RANGE_MARGIN
    elif kind == "limits":
        low, high = (bound.astype(np.float64) for bound in _range(values, axes))
        offset, scale = (high + low) / 2, (high - low) / 2
    else:
        offset, scale = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    return offset.astype(np.float32), np.maximum(scale, floor).astype(np.float32)


def _range(values: Array, axes: Sequence[Axis] = ()) -> tuple[Array, Array]:
    """Lowest and highest of values [N, D], float32 [D] each; of an axis with both limits, these."""
    low, high = values.min(0).astype(np.float32), values.max(0).astype(np.float32)
    for place, axis in enumerate(axes):
        if axis.low is not None and axis.high is not None:
            low[place], high[place] = axis.low, axis.high
    return low, high


def _offsets(episodes: Sequence[Episode], relative_to: Array, horizon: int) -> Array:
    """What a chunk's actions are relative to the state it was predicted from, which grows along the chunk: [M, A]."""
    places = np.unique(np.linspace(0, horizon - 1, min(horizon, MEASURED_AHEAD)).astype(int))
    return np.concatenate(
        [
            episode.action[ahead:] - _reference(episode.state[: episode.num_steps - ahead], relative_to)
            for episode in episodes
            for ahead in places[places < episode.num_steps]
        ]
    )


def _expect_finite(what: str, axes: Sequence[Axis], values: Array) -> None:
    broken = ~np.isfinite(values)
    if broken.any():
        row, axis = np.argwhere(broken)[0]
        raise DataError(
            f"recording: {what} axis {axes[axis].name!r} is {values[row, axis]} at training step {row} "
            f"({int(broken.sum())} such values); expected finite numbers, run `lapwing data check`"
        )
