"""What a recording holds, in figures: episodes, steps, lengths, returns, success, cameras, axes, size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.formats import read_recording
from lapwing.data.formats.lerobot import describe_damage, is_lerobot, scan_lerobot
from lapwing.data.formats.options import ReadOptions
from lapwing.data.problems import listed
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError
from lapwing.stats import wilson_interval


def info(path: Path) -> dict[str, Any]:
    """Figures of a recording as plain JSON values; what it does not know is None. Raises DataError."""
    recording, notes = _open(path)
    spec, episodes = recording.spec, recording.episodes
    returns = _returns(episodes)
    if returns is not None and not np.isfinite(list(returns.values())).all():
        returns, notes = None, [*notes, "'rewards' hold NaN or infinity: no returns"]
    return {
        "path": str(path),
        "layout": recording.layout,
        "robot": spec.name,
        "rate_hz": spec.rate_hz or None,
        "episodes": len(episodes),
        "steps": recording.num_steps,
        "terminated": sum(episode.terminated for episode in episodes),
        "lengths": _spread([episode.num_steps for episode in episodes]),
        "returns": returns,
        "success": success(episodes),
        "cameras": [{"name": camera.name, "height": camera.height, "width": camera.width} for camera in spec.cameras],
        "state": [axis.name for axis in spec.state],
        "action": [axis.name for axis in spec.action],
        "sensors": [sensor.name for sensor in spec.sensors],
        "size_bytes": _size(path),
        "notes": list(notes),
    }


def format_info(figures: dict[str, Any]) -> str:
    """The figures as text, one subject a line."""
    rate_hz = figures["rate_hz"]
    seconds = f", {figures['steps'] / rate_hz:.0f} s at {rate_hz:g} Hz" if rate_hz else ""
    cut = figures["episodes"] - figures["terminated"]
    cameras = [f"{camera['name']} {camera['width']}x{camera['height']}" for camera in figures["cameras"]]
    lines = {
        "path": f"{figures['path']} ({figures['layout']}, {figures['size_bytes'] / 1e6:.1f} MB)",
        "robot": figures["robot"],
        "episodes": f"{figures['episodes']} ({figures['terminated']} terminated, {cut} cut), "
        f"{figures['steps']} steps{seconds}",
        "lengths": _spread_text(figures["lengths"]),
        "returns": _spread_text(figures["returns"]) if figures["returns"] else "no rewards",
        "success": _success_text(figures["success"]),
        "cameras": listed(cameras) or "none",
        "state": _axes_text(figures["state"]),
        "action": "as the state" if figures["action"] == figures["state"] else _axes_text(figures["action"]),
    }
    if figures["sensors"]:
        lines["sensors"] = listed(figures["sensors"])
    return "\n".join([f"{name:9} {text}" for name, text in lines.items()] + [f"note: {n}" for n in figures["notes"]])


def _axes_text(names: Sequence[str]) -> str:
    return f"{len(names)} axes: {listed(names, limit=40)}" if names else "none"


def _spread_text(spread: dict[str, float]) -> str:
    return f"min {spread['min']:g}, median {spread['median']:g}, max {spread['max']:g}"


def _success_text(counted: dict[str, Any] | None) -> str:
    if counted is None:
        return "unknown (no labels, and no rewards that come with success alone)"
    how = "labelled" if counted["source"] == "labels" else "by rewards: ended by the task with a reward above 0"
    low, high = wilson_interval(counted["successes"], counted["episodes"])
    return (
        f"{counted['rate']:.0%} ({counted['successes']} of {counted['episodes']}, {how}; "
        f"95 % interval {low:.0%} to {high:.0%})"
    )


def _open(path: Path) -> tuple[Recording, Sequence[str]]:
    if not is_lerobot(path):
        recording = read_recording(path, ReadOptions(skip_damaged=True))
        return recording, recording.notes
    recording, damaged = scan_lerobot(path)
    if not recording.episodes:
        raise DataError(f"{path}: {describe_damage(damaged) if damaged else 'no episode'}; restore the files")
    left_out = [f"left out {describe_damage(damaged)}"] if damaged else []
    return recording, [*recording.notes, *left_out]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _returns(episodes: Sequence[Episode]) -> dict[str, float] | None:
    """Undiscounted sums of the rewards."""
    returns = [float(np.sum(episode.reward)) for episode in episodes if episode.reward is not None]
    return _spread(returns) if returns else None


def success(episodes: Sequence[Episode]) -> dict[str, Any] | None:
    """Successes among the episodes that tell, and how they tell.

    By their label where any has one; otherwise a success is a task that ended with a reward above 0. Rewards above 0
    on the way (for staying alive, for being at a goal) are no sign of success: then nobody knows.
    """
    labels = [episode.success for episode in episodes if episode.success is not None]
    source = "labels"
    if not labels:
        source = "rewards"
        rewarded = [(episode.terminated, episode.reward) for episode in episodes if episode.reward is not None]
        if any((reward[:-1] > 0).any() for _, reward in rewarded):
            return None
        labels = [terminated and bool(reward[-1] > 0) for terminated, reward in rewarded]
    if not labels:
        return None
    return {"successes": sum(labels), "episodes": len(labels), "rate": sum(labels) / len(labels), "source": source}


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
