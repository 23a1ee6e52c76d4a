"""`lapwing hybrid`: learn from demonstrations and in a world at once, with somebody who takes over."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
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
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run.checkpoint import linked_step
from lapwing.run.directory import read_settings
from lapwing.run.episode_log import in_words, read_episodes
from lapwing.run.hybrid import World, train_hybrid
from lapwing.run.keys import Device, pairs_of
from lapwing.run.learned_reward import rewarded
from lapwing.run.online import OnlineOptions, read_counts
from lapwing.run.options import TrainOptions
from lapwing.run.person import Person, TakenOver, Watched
from lapwing.run.report import write_report
from lapwing.run.train import BUFFERS, EPISODES
from lapwing.run.window import Window, expect_window


@dataclass(frozen=True)
class TakeoverOptions:
    """Where to act, and who takes over."""

    world: envs.World
    """Where to act."""
    size: int | None = None
    """Height and width of the world's camera frames in pixels; None: the world's own."""
    intervene: Literal["none", "scripted", "keyboard", "gamepad"] = "none"
    """Who takes over: nobody; the world's scripted expert, when the policy gets nowhere; or you, at a window that shows
    the world in real time, as often and as long as you like."""
    budget: int = 1000
    """Steps that each actor's scripted expert may take in all."""
    takeover_after: int = 10
    """Steps of the policy without progress after which the scripted expert takes over."""
    takeover_steps: int = 15
    """Steps of the scripted expert's takeover."""

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise ConfigError(f"budget is {self.budget}, expected 0 or more")
        for name in ("takeover_after", "takeover_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")

    def make(self) -> World:
        """The world that an actor works in. Raises WorldError, and ConfigError where a person could not take over."""
        spec, settings = envs.world_spec(self.world, self.size), asdict(self)
        match self.intervene:
            case "none":
                return World(self.world, spec, partial(_alone, self.world, self.size), settings=settings)
            case "scripted":
                make, intervene = partial(_watched, self.world, self.size), partial(_intervened, self)
                return World(self.world, spec, make, intervene, settings)
            case device:
                pairs_of(spec, device)
                expect_window(device)
                make_shown = partial(_shown, self.world, self.size, device, os.getpid())
                return World(self.world, spec, make_shown, _taken_over, settings)


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
    reward: Path | None = None
    """A run of `lapwing train reward`, or one of its checkpoints: its classifier says of the images when the task is
    done, and rewards that; None: the world does. Demonstrations keep their recorded rewards."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run at --out, from its last checkpoint and with what was collected."""


def hybrid(args: Sequence[str]) -> int:
    """`lapwing hybrid`"""
    command = parse(Hybrid, args, "lapwing hybrid", _defaults(args))
    _expect_one_window(command.takeover, command.online)
    world = rewarded(command.takeover.make(), command.reward)
    run = train_hybrid(
        command.data, command.out, world, command.config, command.options, command.online, resume=command.resume
    )
    report = write_report(run)
    print(f"{run}: trained to step {linked_step(run, 'last')}; {_collected(run, command)}see {report}")
    return 0


def _collected(run: Path, command: Hybrid) -> str:
    """What the world was tried for, and whether the scripted operator has anything left for a longer run."""
    episodes = read_episodes(run / EPISODES)
    if not episodes:
        return ""
    takeover, spent = command.takeover, read_counts(run / BUFFERS).intervened
    all_spent = takeover.intervene == "scripted" and spent >= takeover.budget * max(1, command.online.actors)
    return f"{in_words(episodes)}{', all that --budget allows' if all_spent else ''}; "


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
    online, takeover, reward = OnlineOptions(), TakeoverOptions(tyro.MISSING), None
    if isinstance(settings.get("online"), Mapping) and isinstance(settings.get("world"), Mapping):
        begun, own = settings["world"], {one.name for one in fields(TakeoverOptions)}
        try:
            online = OnlineOptions.from_dict(settings["online"])
            takeover = TakeoverOptions(**{name: value for name, value in begun.items() if name in own})
            reward = None if begun.get("reward") is None else Path(begun["reward"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{seen.out / 'config.json'}: 'online' or 'world' is damaged, or of another version ({error}); restore "
                "it, or start another run"
            ) from error
    return Hybrid(tyro.MISSING, tyro.MISSING, takeover, options, online, config, reward=reward)


def _expect_one_window(takeover: TakeoverOptions, online: OnlineOptions) -> None:
    """Raise ConfigError where a person would have to watch several worlds, or one on another machine."""
    if takeover.intervene in ("keyboard", "gamepad") and (online.actors > 1 or online.ray is not None):
        raise ConfigError(
            f"intervene: one person watches one world on this machine, got actors {online.actors} and ray "
            f"{online.ray}; set --actors 1 or 0, without --ray"
        )


def _alone(name: str, size: int | None) -> tuple[Env, ActionSource | None]:
    return Single(envs.make_world(name, 1, size)), None


def _watched(name: str, size: int | None) -> tuple[Env, ActionSource | None]:
    return envs.make_expert_world(name, quality="expert", size=size)


def _intervened(options: TakeoverOptions, policy: ActionSource, expert: ActionSource, spent: int) -> Intervened:
    """`spent`: steps of the expert before this actor was restarted, or the run resumed."""
    left = max(0, options.budget - spent)
    return Intervened(policy, expert, left, patience=options.takeover_after, steps=options.takeover_steps)


def _shown(name: str, size: int | None, device: Device, learner: int) -> tuple[Env, ActionSource | None]:
    """A world in a window and the person at it, who ends the run by a Ctrl-C for the process `learner`."""
    world, draw = envs.make_drawn_world(name, size)
    window = Window(device, partial(os.kill, learner, signal.SIGINT))
    return Watched(world, window, device, draw), Person(window, world.spec, device)


def _taken_over(policy: ActionSource, person: ActionSource, spent: int) -> TakenOver:
    assert isinstance(person, Person)
    return TakenOver(policy, person)
