"""`lapwing train`: every setting of the run and of the algorithm is a flag."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import tyro

from lapwing.agents import act as act_algorithm
from lapwing.agents import iql as iql_algorithm
from lapwing.agents import lapo_config
from lapwing.agents import sac as sac_algorithm
from lapwing.agents import td3bc as td3bc_algorithm
from lapwing.agents.act import ActConfig
from lapwing.agents.bc import BcConfig
from lapwing.agents.iql import IqlConfig
from lapwing.agents.lapo_config import LapoConfig
from lapwing.agents.sac import SacConfig
from lapwing.agents.td3bc import Td3BcConfig
from lapwing.commands.flags import parse
from lapwing.errors import ConfigError
from lapwing.run.checkpoint import config_from_json, find_checkpoint, linked_step, load_config
from lapwing.run.directory import read_settings
from lapwing.run.options import TrainOptions
from lapwing.run.ranks import read_ranks
from lapwing.run.report import write_report
from lapwing.run.train import train

Config = TypeVar("Config")
Preset = TypeVar("Preset")
NoPreset = tyro.conf.Suppress[None]
PaperPreset = Literal["product", "original"]
LapoPreset = Literal["product", "state", "documents", "original"]
SacPreset = Literal["product", "serl-notes", "hilserl"]
ActPreset = Literal["product", "original", "cobot-magic"]


@dataclass(frozen=True)
class Train(Generic[Config, Preset]):
    """Train on a recording. A resumed run keeps its settings; only --steps may grow."""

    data: tyro.conf.Positional[Path]
    """The recording."""
    out: Path
    """The run directory to make."""
    options: TrainOptions
    config: Config
    preset: Preset
    """Where the algorithm's settings start from; flags go on top."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint."""


def lapo(args: Sequence[str]) -> int:
    """`lapwing train lapo`"""
    return _train("lapo", args, Train[LapoConfig, LapoPreset], LapoConfig, lapo_config.PRESETS)


def iql(args: Sequence[str]) -> int:
    """`lapwing train iql`"""
    return _train("iql", args, Train[IqlConfig, PaperPreset], IqlConfig, iql_algorithm.PRESETS)


def td3bc(args: Sequence[str]) -> int:
    """`lapwing train td3bc`"""
    return _train("td3bc", args, Train[Td3BcConfig, PaperPreset], Td3BcConfig, td3bc_algorithm.PRESETS)


def act(args: Sequence[str]) -> int:
    """`lapwing train act`"""
    return _train("act", args, Train[ActConfig, ActPreset], ActConfig, act_algorithm.PRESETS)


def sac(args: Sequence[str]) -> int:
    """`lapwing train sac`"""
    return _train("sac", args, Train[SacConfig, SacPreset], SacConfig, sac_algorithm.PRESETS)


def bc(args: Sequence[str]) -> int:
    """`lapwing train bc`"""
    return _train("bc", args, Train[BcConfig, NoPreset], BcConfig, {})


def _train(algorithm: str, args: Sequence[str], kind: Any, config_kind: type[Any], presets: Mapping[str, Any]) -> int:
    """`kind`: a `Train` of this algorithm's settings and of the names in `presets`."""
    options, config = resumed(args, config_kind)
    preset = glance(args).preset
    if config is None or preset is not None:
        config = presets.get(preset or "product", config_kind())  # an unknown name is refused below
    default = Train(tyro.MISSING, tyro.MISSING, options, config, "product" if presets else None)
    command = parse(kind, args, f"lapwing train {algorithm}", default)
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
