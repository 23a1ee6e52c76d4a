"""`lapwing hybrid`: learn from demonstrations and in a world at once, with somebody who takes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from lapwing.errors import ConfigError
from lapwing.run.checkpoint import linked_step
from lapwing.run.directory import read_settings
from lapwing.run.hybrid import World, train_hybrid
from lapwing.run.online import OnlineOptions
from lapwing.run.options import TrainOptions
from lapwing.run.report import write_report


@dataclass(frozen=True)
class TakeoverOptions:
    """Where to act, and who takes over."""

    world: envs.World
    """Where to act."""
    size: int | None = None
    """Height and width of the world's camera frames in pixels; None: the world's own."""
    intervene: Literal["none", "scripted"] = "none"
    """Who takes over when the policy gets nowhere: the world's scripted expert, or nobody."""
    budget: int = 1000
    """Steps that each actor's watcher may take in all."""
    takeover_after: int = 10
    """Steps of the policy without progress after which the watcher takes over."""
    takeover_steps: int = 15
    """Steps of a takeover."""

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise ConfigError(f"budget is {self.budget}, expected 0 or more")
        for name in ("takeover_after", "takeover_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")

    def make(self) -> World:
        """The world that an actor works in. Raises WorldError."""
        spec, settings = envs.world_spec(self.world, self.size), asdict(self)
        if self.intervene == "none":
            return World(self.world, spec, partial(_alone, self.world, self.size), settings=settings)
        return World(self.world, spec, partial(_watched, self.world, self.size), partial(_intervened, self), settings)


@dataclass(frozen=True)
class Hybrid:
    """Train SAC on demonstrations and on what it tries in a world, half and half.

    A resumed run keeps its settings; only --steps may grow.
    """

    data: tyro.conf.Positional[Path]
    """The demonstrations."""
    out: Path
    """The run directory to make."""
    takeover: TakeoverOptions
    options: TrainOptions
    online: OnlineOptions
    config: SacConfig
    preset: SacPreset = "product"
    """Where the algorithm's settings start from; flags go on top."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint and with what was collected."""


def hybrid(args: Sequence[str]) -> int:
    """`lapwing hybrid`"""
    command = parse(Hybrid, args, "lapwing hybrid", _defaults(args))
    world = command.takeover.make()
    run = train_hybrid(
        command.data, command.out, world, command.config, command.options, command.online, resume=command.resume
    )
    report = write_report(run)
    print(f"{run}: trained to step {linked_step(run, 'last')}; see {report}")
    return 0


def _defaults(args: Sequence[str]) -> Hybrid:
    """The product's, or those of the run to resume."""
    options, config = resumed(args, SacConfig)
    seen = glance(args)
    if config is None or seen.preset is not None:
        presets = sac_algorithm.PRESETS
        config = presets.get(seen.preset or "product", presets["product"])
    if options is tyro.MISSING_NONPROP:
        options = TrainOptions(steps=10_000, batch_size=256, train_fraction=1.0)
    settings = read_settings(seen.out) if seen.resume and seen.out is not None else {}
    online, takeover = OnlineOptions(), TakeoverOptions(tyro.MISSING)
    if isinstance(settings.get("online"), Mapping) and isinstance(settings.get("world"), Mapping):
        online = OnlineOptions.from_dict(settings["online"])
        takeover = TakeoverOptions(**{name: value for name, value in settings["world"].items() if name != "name"})
    return Hybrid(tyro.MISSING, tyro.MISSING, takeover, options, online, config)


def _alone(name: str, size: int | None) -> tuple[Env, ActionSource | None]:
    return Single(envs.make_world(name, 1, size)), None


def _watched(name: str, size: int | None) -> tuple[Env, ActionSource | None]:
    return envs.make_expert_world(name, quality="expert", size=size)


def _intervened(options: TakeoverOptions, policy: ActionSource, expert: ActionSource, spent: int) -> Intervened:
    """`spent`: steps of the expert before this actor was restarted, or the run resumed."""
    left = max(0, options.budget - spent)
    return Intervened(policy, expert, left, patience=options.takeover_after, steps=options.takeover_steps)
