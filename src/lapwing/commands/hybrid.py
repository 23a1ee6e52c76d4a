"""`lapwing hybrid`: learn from demonstrations and in a world at once, with somebody who takes over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from lapwing import envs
from lapwing.agents import sac as sac_algorithm
from lapwing.agents.sac import SacConfig
from lapwing.commands.flags import parse
from lapwing.commands.train import SacPreset, glance, resumed
from lapwing.env import ActionSource, Env, Single
from lapwing.envs.intervention import Intervened
from lapwing.run.checkpoint import linked_step
from lapwing.run.hybrid import World, train_hybrid
from lapwing.run.online import OnlineOptions
from lapwing.run.options import TrainOptions
from lapwing.run.report import write_report


@dataclass(frozen=True)
class Hybrid:
    """Train SAC on demonstrations and on what it tries in a world, half and half.

    A resumed run keeps its settings; only --steps may grow.
    """

    data: tyro.conf.Positional[Path]
    """The demonstrations."""
    out: Path
    """The run directory to make."""
    world: envs.World
    """Where to act."""
    options: TrainOptions
    online: OnlineOptions
    config: SacConfig
    preset: SacPreset = "product"
    """Where the algorithm's settings start from; flags go on top. Imitation is off here unless asked for."""
    intervene: Literal["none", "scripted"] = "none"
    """Who takes over when the policy gets nowhere: the world's scripted expert, or nobody."""
    budget: int = 1000
    """Steps that each actor's watcher may take in all."""
    takeover_after: int = 10
    """Steps of the policy without progress after which the watcher takes over."""
    takeover_steps: int = 15
    """Steps of a takeover."""
    size: int | None = None
    """Height and width of the world's camera frames in pixels, as in the demonstrations; None: the world's own."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint and with what was collected."""


def hybrid(args: Sequence[str]) -> int:
    """`lapwing hybrid`"""
    options, config = resumed(args, SacConfig)
    preset = glance(args).preset
    if config is None or preset is not None:
        presets = sac_algorithm.PRESETS
        config = replace(presets.get(preset or "product", presets["product"]), imitation=0.0, grasp_imitation=0.0)
    if options is tyro.MISSING_NONPROP:
        options = TrainOptions(steps=10_000, batch_size=256, train_fraction=1.0)
    default = Hybrid(tyro.MISSING, tyro.MISSING, tyro.MISSING, options, OnlineOptions(), config)
    command = parse(Hybrid, args, "lapwing hybrid", default)
    make, intervene = partial(_make, command.world, command.size), None
    if command.intervene == "scripted":
        make = partial(_make_watched, command.world, command.size)
        intervene = partial(
            Intervened, budget=command.budget, patience=command.takeover_after, steps=command.takeover_steps
        )
    world = World(command.world, envs.world_spec(command.world, command.size), make, intervene)
    run = train_hybrid(
        command.data, command.out, world, command.config, command.options, command.online, resume=command.resume
    )
    report = write_report(run)
    print(f"{run}: trained to step {linked_step(run, 'last')}; see {report}")
    return 0


def _make(name: str, size: int | None) -> tuple[Env, ActionSource | None]:
    return Single(envs.make_world(name, 1, size)), None


def _make_watched(name: str, size: int | None) -> tuple[Env, ActionSource | None]:
    return envs.make_expert_world(name, quality="expert", size=size)
