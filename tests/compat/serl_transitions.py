"""Transitions of the toy worlds in the format of the document on PyTorch SERL."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lapwing import envs
from lapwing.episode import Episode

SIZE = 32


def transitions(world: str, episodes: int, state: bool = True, key: str = "image") -> list[dict[str, Any]]:
    """What the document calls demonstrations: one list of dicts."""
    drawn = envs.sample_world(world, quality="expert", size=SIZE, seed=0)
    return [one for episode in islice(drawn, episodes) for one in _of_episode(episode, state, key)]


def _of_episode(episode: Episode, state: bool, key: str) -> list[dict[str, Any]]:
    seen = [
        {key: episode.images["global"][row], **({"state": episode.state[row]} if state else {})}
        for row in range(episode.num_rows)
    ]
    made = []
    for step in range(episode.num_steps):
        done = episode.terminated and step + 1 == episode.num_steps
        transition = {
            "observations": seen[step],
            "actions": episode.action[step],
            "next_observations": seen[step + 1],
            "rewards": float(episode.reward[step]),
            "dones": done,
            "masks": 1.0 - done,
        }
        if episode.grasp_penalty is not None:
            transition["grasp_penalty"] = float(episode.grasp_penalty[step])
        made.append(transition)
    return made


def labelled(made: Sequence[dict[str, Any]], success: bool) -> list[dict[str, Any]]:
    """What the document calls classifier data: last observations are successes, all earlier ones failures."""
    if success:
        return [{"observations": {"image": one["next_observations"]["image"]}, "labels": 1} for one in made
                if one["dones"]]  # fmt: skip
    return [{"observations": {"image": one["observations"]["image"]}, "labels": 0} for one in made]


def write(path: Path, made: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(made))
    return path
