"""`lapwing train`: every setting of the run and of the algorithm is a flag."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from lapwing.agents.bc import BcConfig
from lapwing.agents.lapo import PRESETS, LapoConfig
from lapwing.commands.flags import parse
from lapwing.run.checkpoint import config_from_json, linked_step
from lapwing.run.directory import read_settings
from lapwing.run.options import TrainOptions
from lapwing.run.ranks import read_ranks
from lapwing.run.report import write_report
from lapwing.run.train import train

Preset = Literal["product", "documents", "original"]


@dataclass(frozen=True)
class TrainLapo:
    """Train LAPO on a recording. A resumed run keeps its settings; only --steps may grow."""

    data: tyro.conf.Positional[Path]
    """The recording."""
    out: Path
    """The run directory to make."""
    options: TrainOptions
    config: LapoConfig
    preset: Preset = "product"
    """Where the algorithm's settings start from; flags go on top."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint."""


@dataclass(frozen=True)
class TrainBc:
    """Train by behaviour cloning on a recording. A resumed run keeps its settings; only --steps may grow."""

    data: tyro.conf.Positional[Path]
    """The recording."""
    out: Path
    """The run directory to make."""
    options: TrainOptions
    config: BcConfig
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint."""


def lapo(args: Sequence[str]) -> int:
    """`lapwing train lapo`"""
    options, config = _resumed(args, LapoConfig)
    preset = _glance(args).preset
    if config is None or preset is not None:
        config = PRESETS.get(preset or "product", PRESETS["product"])
    default = TrainLapo(tyro.MISSING, tyro.MISSING, options, config)
    command = parse(TrainLapo, args, "lapwing train lapo", default)
    return _train("lapo", command)


def bc(args: Sequence[str]) -> int:
    """`lapwing train bc`"""
    options, config = _resumed(args, BcConfig)
    default = TrainBc(tyro.MISSING, tyro.MISSING, options, config or BcConfig())
    command = parse(TrainBc, args, "lapwing train bc", default)
    return _train("bc", command)


def _train(algorithm: str, command: TrainLapo | TrainBc) -> int:
    run = train(command.data, command.out, algorithm, command.config, command.options, command.resume)
    if not read_ranks().is_first:
        return 0
    report = write_report(run)
    print(f"{run}: trained to step {linked_step(run, 'last')}, best at step {linked_step(run, 'best')}; see {report}")
    return 0


def _glance(args: Sequence[str]) -> argparse.Namespace:
    """The flags that decide what the defaults of the others are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", nargs="?")
    parser.add_argument("--out", nargs="?", type=Path)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(args)[0]


def _resumed(args: Sequence[str], kind: type[Any]) -> tuple[Any, Any]:
    """Options and config of the run to resume; without one, nothing to start from."""
    glance = _glance(args)
    if not glance.resume or glance.out is None:
        return tyro.MISSING_NONPROP, None
    settings = read_settings(glance.out)
    try:
        return config_from_json(TrainOptions, settings["options"]), config_from_json(kind, settings["config"])
    except (KeyError, TypeError):  # another algorithm or version: `train` says which setting differs
        return tyro.MISSING_NONPROP, None
