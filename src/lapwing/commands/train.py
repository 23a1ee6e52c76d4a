"""`lapwing train`: every setting of the run and of the algorithm is a flag."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from lapwing.agents import act as act_algorithm
from lapwing.agents import lapo as lapo_algorithm
from lapwing.agents import sac as sac_algorithm
from lapwing.agents.act import ActConfig
from lapwing.agents.bc import BcConfig
from lapwing.agents.lapo import LapoConfig
from lapwing.agents.sac import SacConfig
from lapwing.commands.flags import parse
from lapwing.errors import ConfigError
from lapwing.run.checkpoint import config_from_json, find_checkpoint, linked_step, load_config
from lapwing.run.directory import read_settings
from lapwing.run.options import TrainOptions
from lapwing.run.ranks import read_ranks
from lapwing.run.report import write_report
from lapwing.run.train import train

LapoPreset = Literal["product", "documents", "original"]
SacPreset = Literal["product", "serl-notes", "hilserl"]
ActPreset = Literal["product", "original", "cobot-magic"]


@dataclass(frozen=True)
class TrainLapo:
    """Train LAPO on a recording. A resumed run keeps its settings; only --steps may grow."""

    data: tyro.conf.Positional[Path]
    """The recording."""
    out: Path
    """The run directory to make."""
    options: TrainOptions
    config: LapoConfig
    preset: LapoPreset = "product"
    """Where the algorithm's settings start from; flags go on top."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint."""


@dataclass(frozen=True)
class TrainAct:
    """Train ACT on a recording. A resumed run keeps its settings; only --steps may grow."""

    data: tyro.conf.Positional[Path]
    """The recording."""
    out: Path
    """The run directory to make."""
    options: TrainOptions
    config: ActConfig
    preset: ActPreset = "product"
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


@dataclass(frozen=True)
class TrainSac:
    """Train SAC on recorded demonstrations alone. A resumed run keeps its settings; only --steps may grow."""

    data: tyro.conf.Positional[Path]
    """The recording."""
    out: Path
    """The run directory to make."""
    options: TrainOptions
    config: SacConfig
    preset: SacPreset = "product"
    """Where the algorithm's settings start from; flags go on top."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint."""


def lapo(args: Sequence[str]) -> int:
    """`lapwing train lapo`"""
    return _train_preset("lapo", args, TrainLapo, LapoConfig, lapo_algorithm.PRESETS)


def act(args: Sequence[str]) -> int:
    """`lapwing train act`"""
    return _train_preset("act", args, TrainAct, ActConfig, act_algorithm.PRESETS)


def sac(args: Sequence[str]) -> int:
    """`lapwing train sac`"""
    return _train_preset("sac", args, TrainSac, SacConfig, sac_algorithm.PRESETS)


def bc(args: Sequence[str]) -> int:
    """`lapwing train bc`"""
    options, config = resumed(args, BcConfig)
    default = TrainBc(tyro.MISSING, tyro.MISSING, options, config or BcConfig())
    command = parse(TrainBc, args, "lapwing train bc", default)
    return _train("bc", command)


def _train_preset(
    algorithm: str, args: Sequence[str], kind: type[Any], config_kind: type[Any], presets: Mapping[str, Any]
) -> int:
    options, config = resumed(args, config_kind)
    preset = glance(args).preset
    if config is None or preset is not None:
        config = presets.get(preset or "product", presets["product"])
    default = kind(tyro.MISSING, tyro.MISSING, options, config)
    return _train(algorithm, parse(kind, args, f"lapwing train {algorithm}", default))


def _train(algorithm: str, command: TrainLapo | TrainAct | TrainSac | TrainBc) -> int:
    run = train(command.data, command.out, algorithm, command.config, command.options, command.resume)
    if not read_ranks().is_first:
        return 0
    report = write_report(run)
    print(f"{run}: trained to step {linked_step(run, 'last')}, best at step {linked_step(run, 'best')}; see {report}")
    return 0


def glance(args: Sequence[str]) -> argparse.Namespace:
    """The flags that decide what the defaults of the others are. Raises ConfigError for --resume=VALUE."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", nargs="?")
    parser.add_argument("--out", nargs="?", type=Path)
    parser.add_argument("--init", nargs="?", type=Path)
    parser.add_argument("--resume", action="store_true")
    try:
        return parser.parse_known_args(args)[0]
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}, expected --resume alone; leave the value out") from None


def resumed(args: Sequence[str], kind: type[Any]) -> tuple[Any, Any]:
    """Options and config of the run to resume, or the config of the weights to begin with; else nothing."""
    seen = glance(args)
    if not seen.resume or seen.out is None:
        return tyro.MISSING_NONPROP, None if seen.init is None else load_config(find_checkpoint(seen.init), kind)
    settings = read_settings(seen.out)
    try:
        return config_from_json(TrainOptions, settings["options"]), config_from_json(kind, settings["config"])
    except (KeyError, TypeError, AttributeError):  # another algorithm or version: `train` says which setting differs
        return tyro.MISSING_NONPROP, None
