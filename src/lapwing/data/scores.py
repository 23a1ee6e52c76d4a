"""Normalised scores as D4RL counts them: 0 is a random policy's return, 100 an expert's.

reference_returns.json holds both for D4RL's 87 data sets (d4rl/infos.py of Farama-Foundation/D4RL at 89141a6).
"""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from importlib.resources import files

from lapwing.errors import ConfigError

_VERSION = re.compile(r"(.+)-v(\d+)")


def normalised_score(dataset: str, episode_return: float) -> float:
    """100 (return - random) / (expert - random) for a data set such as "maze2d-umaze-v1". Raises ConfigError."""
    low, high = reference_returns(dataset)
    return 100 * (episode_return - low) / (high - low)


def reference_returns(dataset: str) -> tuple[float, float]:
    """Undiscounted returns of a random policy and of an expert.

    A version that is not in the table has those of the latest one before it: D4RL kept its references when it
    recorded a data set again.
    """
    table = _table()
    if dataset in table:
        return table[dataset]
    if match := _VERSION.fullmatch(dataset):
        for version in range(int(match[2]) - 1, -1, -1):
            if (earlier := f"{match[1]}-v{version}") in table:
                return table[earlier]
    near = ", ".join(difflib.get_close_matches(dataset, table, n=3, cutoff=0.4)) or ", ".join(list(table)[:3])
    raise ConfigError(f"data set {dataset!r} has no reference returns, expected one of D4RL's, such as {near}")


@cache
def _table() -> dict[str, tuple[float, float]]:
    text = files("lapwing.data").joinpath("reference_returns.json").read_text(encoding="utf-8")
    return {name: (low, high) for name, (low, high) in json.loads(text).items()}
