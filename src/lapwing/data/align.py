"""Pairing observations with the actions that belong to them, where a recorder stored them some steps apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lapwing.episode import Array, Episode, Frames, Recording
from lapwing.errors import DataError


def align(recording: Recording, shift: int) -> Recording:
    """The recording with observation t paired with the action recorded at t + `shift`, in every axis alike.

    An episode loses |shift| steps: no action is made up, none repeated. Rewards stay with the later of the two, so
    that what an episode came to is never lost. With a negative shift the first |shift| observations go.
    Raises DataError naming an episode that is too short.
    """
    if shift == 0:
        return recording
    episodes = [_align(recording, index, shift) for index in range(len(recording.episodes))]
    note = f"actions are paired {shift:+d} steps from where they were recorded"
    return replace(recording, episodes=episodes, notes=(*recording.notes, note))


def _align(recording: Recording, index: int, shift: int) -> Episode:
    episode, lost = recording.episodes[index], abs(shift)
    steps = episode.num_steps - lost
    if steps < 1:
        raise DataError(
            f"{recording.path}: episode {index} has {episode.num_steps} steps, expected more than the alignment of "
            f"{shift:+d}; leave it out or choose a smaller alignment"
        )
    rows = range(steps + 1) if shift > 0 else range(lost, episode.num_rows)
    actions = slice(lost, None) if shift > 0 else slice(0, steps)
    return replace(
        episode,
        images={name: _Rows(frames, rows) for name, frames in episode.images.items()},
        sensors={name: _Rows(readings, rows) for name, readings in episode.sensors.items()},
        state=episode.state[rows.start : rows.stop],
        time=None if episode.time is None else episode.time[rows.start : rows.stop],
        action=episode.action[actions],
        intervened=None if episode.intervened is None else episode.intervened[actions],
        grasp_penalty=None if episode.grasp_penalty is None else episode.grasp_penalty[actions],
        reward=None if episode.reward is None else episode.reward[lost:],
    )


@dataclass(frozen=True)
class _Rows:
    """Some consecutive rows of frames, read no sooner than they are indexed."""

    frames: Frames
    rows: range

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.frames.shape[1:])

    def __getitem__(self, rows: Any, /) -> Array:
        return self.frames[np.arange(self.rows.start, self.rows.stop)[rows]]
