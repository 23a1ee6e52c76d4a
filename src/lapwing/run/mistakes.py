"""The frames that a success classifier gets most wrong, as pictures: RUN/mistakes.json and two sheets beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapwing.agents.reward import RewardAgent
from lapwing.data.labelled import LabelledFrames
from lapwing.episode import Array
from lapwing.run.classification import probabilities
from lapwing.run.directory import write_json
from lapwing.run.labelled_source import logits
from lapwing.run.video import GAP, png_bytes, side_by_side

SHOWN = 12  # frames of each kind
COLUMNS = 6
_SHEETS = {"failures": 0, "successes": 1}
_RIGHT, _WRONG = (60, 170, 120), (210, 60, 60)
_HEIGHT = 96  # pixels that small frames are enlarged to, by a whole factor


def write_mistakes(run: Path, agent: RewardAgent, frames: LabelledFrames, device: torch.device) -> None:
    """Rank the frames of each kind by how wrong `agent` is about them, and write down and draw the worst.

    A red frame is a mistake, a green one merely close.
    """
    temperature, threshold = agent.calibration
    logit, label = logits(agent, frames, device)
    listed: dict[str, Any] = {"frames": len(label)}
    for name, kind in _SHEETS.items():
        rows = np.flatnonzero(label == kind)
        worst = rows[np.argsort(logit[rows] if kind else -logit[rows], kind="stable")[:SHOWN]]
        wrong = (logit[worst] >= np.float32(threshold)) != bool(kind)
        probability = probabilities(logit[worst], temperature)
        listed[name] = [
            {"where": frames.where(int(row)), "probability": float(p), "wrong": bool(is_wrong)}
            for row, p, is_wrong in zip(worst, probability, wrong, strict=True)
        ]
        _replace(run / f"mistakes-{name}.png", png_bytes(sheet(frames, worst, wrong)))
    write_json(run / "mistakes.json", listed)


def sheet(frames: LabelledFrames, rows: Array, wrong: Array) -> Array:
    """Frames at `rows`, all cameras side by side, row by row of COLUMNS, uint8 RGBA, each in a border of its colour."""
    images = frames.images(rows)
    pictures = [side_by_side({name: one[index] for name, one in images.items()}) for index in range(len(rows))]
    factor = max(1, _HEIGHT // pictures[0].shape[0])
    height, width = (factor * side + 2 * GAP for side in pictures[0].shape[:2])
    lines = -(-len(rows) // COLUMNS)
    out = np.zeros((lines * (height + GAP) - GAP, COLUMNS * (width + GAP) - GAP, 4), np.uint8)
    for place, (picture, is_wrong) in enumerate(zip(pictures, wrong, strict=True)):
        top, left = place // COLUMNS * (height + GAP), place % COLUMNS * (width + GAP)
        tile = out[top : top + height, left : left + width]
        tile[...] = (*(_WRONG if is_wrong else _RIGHT), 255)
        tile[GAP:-GAP, GAP:-GAP, :3] = picture.repeat(factor, 0).repeat(factor, 1)
    return out


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
