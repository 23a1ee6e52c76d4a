"""Batches out of two sources at once, as of demonstrations and of what acting has brought."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from lapwing.agent import Transitions
from lapwing.batch import Batch, Obs
from lapwing.data.normalize import Normalizer
from lapwing.errors import ConfigError, SpecError
from lapwing.spec import RobotSpec

_OTHER_SEED = 1 << 64  # beyond the seeds that people type: two sources never draw by the same numbers


class Source(Protocol):
    """What transitions can be drawn from: a `Dataset`, a `ReplayBuffer`."""

    spec: RobotSpec
    normalizer: Normalizer

    def stream(
        self, sampling: Transitions, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]: ...


def mix(
    first: Source,
    second: Source,
    fraction: float,
    sampling: Transitions,
    batch_size: int,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Endless batches of which round(fraction * batch_size) transitions are of the first source, and come first.

    A grasp penalty that one source alone has is 0 in the other. A source whose share is nothing is not asked. Raises
    SpecError when the two do not fit each other, ConfigError for a fraction or shares that cannot be had.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"fraction: got {fraction}, expected 0 to 1; try 0.5")
    _expect_alike(first, second)
    share = round(fraction * batch_size)
    shares = (share, batch_size - share)
    if any(one % world_size for one in shares):
        raise ConfigError(
            f"batch_size: {batch_size} is mixed of {share} and {batch_size - share}, expected multiples of the "
            f"{world_size} processes; choose another batch size or fraction"
        )
    streams = [
        source.stream(sampling, one, seed + offset, start, rank, world_size)
        for source, one, offset in zip((first, second), shares, (0, _OTHER_SEED), strict=True)
        if one
    ]
    return streams[0] if len(streams) == 1 else map(_join, *streams)


def _expect_alike(first: Source, second: Source) -> None:
    for name, got, expected in zip(("cameras", "state", "action"), _facts(second), _facts(first), strict=True):
        if got != expected:
            raise SpecError(f"mix: the second source's {name} {got}, expected the first's {expected}; use one robot's")
    if first.normalizer.to_dict() != second.normalizer.to_dict():
        raise SpecError(
            "mix: the sources scale states or actions differently, expected alike; give both one normaliser"
        )


def _facts(source: Source) -> tuple[Any, ...]:
    spec = source.spec
    cameras = sorted(f"{camera.name} {camera.height}x{camera.width}" for camera in spec.cameras)
    return cameras, f"of {spec.state_dim} axes", f"of {spec.action_dim} axes"


def _join(first: Batch, second: Batch) -> Batch:
    assert first.next_obs is not None
    assert second.next_obs is not None
    return Batch(
        obs=_join_obs(first.obs, second.obs),
        action=torch.cat([first.action, second.action]),
        is_pad=torch.cat([first.is_pad, second.is_pad]),
        reward=torch.cat([first.reward, second.reward]),
        discount=torch.cat([first.discount, second.discount]),
        mc_return=torch.cat([first.mc_return, second.mc_return]),
        next_obs=_join_obs(first.next_obs, second.next_obs),
        grasp_penalty=_join_penalties(first, second),
        demonstrated=torch.cat([_demonstrated(first), _demonstrated(second)]),
    )


def _demonstrated(batch: Batch) -> Tensor:
    return torch.ones_like(batch.reward, dtype=torch.bool) if batch.demonstrated is None else batch.demonstrated


def _join_obs(first: Obs, second: Obs) -> Obs:
    images = {name: torch.cat([frames, second.images[name]]) for name, frames in first.images.items()}
    return Obs(images, torch.cat([first.state, second.state]))


def _join_penalties(first: Batch, second: Batch) -> Tensor | None:
    if first.grasp_penalty is None and second.grasp_penalty is None:
        return None
    parts = [
        torch.zeros_like(one.reward) if one.grasp_penalty is None else one.grasp_penalty for one in (first, second)
    ]
    return torch.cat(parts)
