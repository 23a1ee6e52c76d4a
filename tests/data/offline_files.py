"""Small files in the layouts of others, as their programs write them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

REAL = Path(__file__).parents[3] / "shared" / "data"


def d4rl_arrays(lengths: Sequence[int], state_dim: int = 3, action_dim: int = 2) -> dict[str, np.ndarray]:
    """Episodes of these lengths. State of row t of episode e: (e, t, 0, ...); reward of a step: its number + 1."""
    rng = np.random.default_rng(0)
    rows = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    state = np.zeros((len(rows), state_dim), np.float32)
    state[:, :2] = rows
    following = state.copy()
    following[:, 1] += 1
    return {
        "observations": state,
        "next_observations": following,
        "actions": rng.uniform(-1, 1, (len(rows), action_dim)).astype(np.float32),
        "rewards": np.arange(1, len(rows) + 1, dtype=np.float32),
        "terminals": np.zeros(len(rows), bool),
        "timeouts": np.zeros(len(rows), bool),
    }


def write_d4rl(path: Path, arrays: dict[str, Any], **attributes: str) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if values is not None:
                file[name] = values
        file.attrs.update(attributes)
    return path


def write_minari(folder: Path, episodes: Sequence[dict[str, Any]], **metadata: Any) -> Path:
    """Groups "episode_N" of the given datasets, where a mapping is a group of its own."""
    (folder / "data").mkdir(parents=True)
    facts = {"data_format": "hdf5", "dataset_id": "toy/test-v0", **metadata}
    (folder / "data" / "metadata.json").write_text(json.dumps(facts))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, episode in enumerate(episodes):
            for key, values in episode.items():
                inner = values if isinstance(values, dict) else {None: values}
                for name, array in inner.items():
                    file["/".join(filter(None, (f"episode_{number}", key, name)))] = array
    return folder


def minari_episode(steps: int, terminated: bool, offset: float = 0.0) -> dict[str, Any]:
    last = np.arange(steps) == steps - 1
    return {
        "observations": np.arange(3 * (steps + 1), dtype=np.float64).reshape(-1, 3) + offset,
        "actions": np.linspace(-1, 1, 2 * steps, dtype=np.float32).reshape(-1, 2),
        "rewards": np.linspace(0, 1, steps),
        "terminations": last & terminated,
        "truncations": last & (not terminated),
    }


def write_pickle(path: Path, value: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path
