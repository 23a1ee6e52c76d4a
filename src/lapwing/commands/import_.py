"""`lapwing import`: weights of other projects as runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from lapwing.commands.flags import parse
from lapwing.nets.transformer import Output
from lapwing.run.imported import import_act


@dataclass(frozen=True)
class ImportAct:
    """Make a run of published ACT weights: tonyzhaozh/act, act-plus-plus, cobot_magic or LeRobot.

    It can act, be evaluated, and be trained further with `lapwing train act DATA --init RUN`.
    """

    weights: tyro.conf.Positional[Path]
    """A state dict: policy_best.ckpt of the original, or LeRobot's model.safetensors."""
    out: Path
    """The run directory to make."""
    cameras: tuple[str, ...]
    """Names of the cameras, in the order of training (the original's camera_names)."""
    stats: Path | None = None
    """The statistics beside the weights: dataset_stats.pkl, or the safetensors file of LeRobot's normaliser; None:
    they are among the weights, as older ones of LeRobot have it."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the frames in pixels."""
    rate_hz: float = 50.0
    """Control steps a second: 50 in the original, 30 on a cobot_magic; 0: unknown."""
    heads: int = 8
    """Attention heads; the weights do not tell."""
    decoder_output: Output | None = None
    """Decoder layer that actions are read from; None: the one that was trained, the first of the original's and the
    last of LeRobot's."""


def act(args: Sequence[str]) -> int:
    """`lapwing import act`"""
    command = parse(ImportAct, args, "lapwing import act")
    left_out = import_act(
        command.weights,
        command.out,
        stats=command.stats,
        cameras=command.cameras,
        size=command.size,
        rate_hz=command.rate_hz,
        heads=command.heads,
        decoder_output=command.decoder_output,
    )
    for note in left_out:
        print(f"left out: {note}")
    print(f"{command.out}: imported; act on it with `lapwing eval`, or train on with `lapwing train act --init`")
    return 0
