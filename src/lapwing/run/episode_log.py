"""RUN/episodes.jsonl: a line for each episode that an actor brought to its end."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from lapwing.errors import CheckpointError
from lapwing.run.intake import Collected

_RECENT = 20  # episodes that rates of success are of


class EpisodeLog:
    """The episodes so far, those after environment step `env_steps` forgotten: a resumed run does not have them."""

    def __init__(self, path: Path, env_steps: int) -> None:
        self._path = path
        kept = [one for one in read_episodes(path) if one.env_step <= env_steps]
        if path.exists():
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(_lines(kept), encoding="utf-8")
            os.replace(partial, path)
        self._recent = deque(kept, maxlen=_RECENT)

    def add(self, episodes: Iterable[Collected]) -> None:
        ended = list(episodes)
        if ended:
            self._recent.extend(ended)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_lines(ended))

    def columns(self) -> dict[str, float]:
        """Means over the last episodes, NaN before the first."""
        told = [float(one.success) for one in self._recent if one.success is not None]
        return {
            "online/success_recent": _mean(told),
            "online/return_recent": _mean([one.reward for one in self._recent]),
            "online/length_recent": _mean([float(one.length) for one in self._recent]),
        }


def read_episodes(path: Path) -> list[Collected]:
    """What is written at `path`, nothing where there is no file; a last line cut short does not count.

    Raises CheckpointError where it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [Collected(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it, it only serves the report") from error


def in_words(episodes: Sequence[Collected]) -> str:
    """What was collected, how it went lately, and how much of it others did. `episodes`: at least one."""
    told = [one.success for one in episodes[-_RECENT:] if one.success is not None]
    lately = f", {sum(told)} of the last {len(told)} succeeded" if told else ""
    taken_over = sum(one.intervened for one in episodes)
    ended = f"{len(episodes)} episode{'s' if len(episodes) > 1 else ''}"
    return f"{ended} in {episodes[-1].env_step:,} steps{lately}, {taken_over:,} steps were taken over"


def _lines(episodes: Iterable[Collected]) -> str:
    return "".join(json.dumps(asdict(one)) + "\n" for one in episodes)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
