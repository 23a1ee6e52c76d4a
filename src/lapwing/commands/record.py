"""`lapwing record`: episodes of a scripted expert or a policy, as ALOHA files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from tqdm import tqdm

from lapwing.commands.flags import parse
from lapwing.data.record import EpisodeWriter
from lapwing.data.spool import next_number
from lapwing.env import ActionSource, Env
from lapwing.envs import Quality, World, make_expert_world
from lapwing.errors import ConfigError, SpecError, WorldError
from lapwing.run import recorder as recording
from lapwing.run.operator import HELP, Operator
from lapwing.run.recorder import PolicySource, RecordOptions, Take, Takeover

DRAWN = 0x2EC  # keeps the worlds that are recorded apart from those of evaluations
ATTEMPTS = 20  # in a row without an episode to keep, after which it is given up
_KEEPING = {
    "failed": "--failures keep keeps them",
    "too slow": "--too-slow mark keeps them, a lower --rate-hz or --slowest asks for less",
}


@dataclass(frozen=True)
class Record:
    """Record episodes of a scripted expert or a policy in a world: a folder of ALOHA files, episode_N.hdf5.

    Keys, where there is a terminal: s stop and keep, d discard, y success, n failure, t take over or hand back,
    q keep and finish.
    """

    world: World
    """The simulated world."""
    out: Path
    """The folder to record into."""
    expert: str = "scripted"
    """Who acts: scripted, or policy=RUN."""
    episodes: int = 1
    """Episodes to keep."""
    quality: Quality = "expert"
    """Of the scripted expert. mixed: mistaken and failing episodes too; noisy: clumsy, but mended; human:
    rests and hesitation (toy)."""
    size: int | None = None
    """Height and width of the images in pixels; None: the world's own, or what the policy was trained on."""
    seed: int = 0
    """The same seed records the same episodes."""
    rate_hz: float | None = None
    """Control steps a second; None: as fast as the world goes, stamped by its own clock."""
    max_steps: int | None = None
    """Longest episode; None: the world's own."""
    append: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on in a folder that has episodes, with the next free number."""
    recover: Literal["keep", "discard"] = "keep"
    """What becomes of an episode that was unfinished when a recorder was killed."""
    failures: Literal["auto", "keep", "drop"] = "auto"
    """Whether episodes without success are kept; auto: those of a policy and of every quality but expert."""
    too_slow: Literal["mark", "discard"] = "mark"
    """What becomes of an episode that ran too slow for --rate-hz."""
    slowest: float = 0.84
    """The share of --rate-hz below which an episode ran too slow (ALOHA: 42 of 50 Hz)."""
    takeover: Literal["scripted"] | None = None
    """Who takes over from a policy, on the key t; these steps are marked."""
    takeover_after: int | None = None
    """Take over after so many steps of each episode, without a key."""
    execute: int | None = None
    """Actions of each of a policy's chunks to play before it is asked again; None: all."""
    ensemble: tyro.conf.FlagCreatePairsOff[bool] = False
    """A policy is asked at every step and acts on the weighted mean of its predictions."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where a policy computes; auto: cuda, then mps, then cpu."""


def record(args: Sequence[str]) -> int:
    """`lapwing record`"""
    command = parse(Record, args, "lapwing record")
    _expect_sense(command)
    options = RecordOptions(
        command.rate_hz, command.max_steps, command.too_slow, command.slowest, _keeps_failures(command)
    )
    env, source = _open(command)
    spec = replace(env.spec, rate_hz=command.rate_hz or env.spec.rate_hz)
    try:
        with EpisodeWriter(
            command.out, spec, dialect="aloha-sim", append=command.append, unfinished=command.recover
        ) as writer:
            for note in writer.notes:
                print(note)
            takes = _record(command, env, source, writer, options)
    except KeyboardInterrupt as interrupt:
        advice = "whole episodes are kept; an unfinished one is recovered by recording again with --append"
        raise KeyboardInterrupt(f"{command.out}: {advice}") from interrupt
    finally:
        env.close()
    print(_summary(command, takes))
    return 0


def _expect_sense(command: Record) -> None:
    for name, value, lowest in (
        ("episodes", command.episodes, 1),
        ("seed", command.seed, 0),
        ("takeover-after", command.takeover_after, 0),
    ):
        if value is not None and value < lowest:
            raise ConfigError(f"--{name} is {value}, expected at least {lowest}")
    policy = command.expert.startswith("policy=")
    if not policy and command.expert != "scripted":
        raise ConfigError(f"--expert is {command.expert!r}, expected scripted or policy=RUN")
    if not policy and (command.takeover or command.ensemble or command.execute is not None):
        raise ConfigError("--takeover, --ensemble and --execute are for --expert policy=RUN; leave them out")
    if command.takeover_after is not None and command.takeover is None:
        raise ConfigError("--takeover-after needs someone to take over; add --takeover scripted")


def _keeps_failures(command: Record) -> bool:
    if command.failures == "auto":
        return command.expert != "scripted" or command.quality != "expert"
    return command.failures == "keep"


def _open(command: Record) -> tuple[Env, ActionSource]:
    """The world, and who acts in it."""
    if command.expert == "scripted":
        return make_expert_world(command.world, quality=command.quality, size=command.size)
    from lapwing.run.device import pick_device
    from lapwing.run.execution import Execution
    from lapwing.run.policy import load_policy

    run = Path(command.expert.removeprefix("policy="))
    execution = Execution(command.execute, command.ensemble)
    policy = load_policy(run, device=pick_device(command.device), execution=execution)
    cameras = policy.spec.cameras
    size = command.size if command.size is not None else cameras[0].height if cameras else 84
    env, operator = make_expert_world(command.world, quality=command.quality, size=size)
    # Does it fit, before there is a folder? And the first answer of a network takes its time.
    action = policy(env.reset(command.seed))
    if action.shape != (env.spec.action_dim,):
        raise SpecError(
            f"{run}: acts on {len(action)} axes, world {command.world!r} has {env.spec.action_dim}; choose the world "
            "that its recording comes from"
        )
    source: ActionSource = PolicySource(policy)
    return env, Takeover(source, operator, command.takeover_after) if command.takeover else source


def _record(
    command: Record, env: Env, source: ActionSource, writer: EpisodeWriter, options: RecordOptions
) -> list[Take]:
    takes: list[Take] = []
    kept = failed = 0
    known = {"world": command.world, "expert": command.expert}
    with Operator() as operator, tqdm(total=command.episodes, desc="record", unit="episode", disable=None) as bar:
        if operator.listens:
            tqdm.write(HELP)
        while kept < command.episodes and not (takes and takes[-1].ending == "finish"):
            seed = _world_seed(command.seed, next_number(command.out), failed)
            take = recording.record(env, source, writer, seed, options, operator, known)
            takes.append(take)
            tqdm.write(describe(take, options, env.spec.rate_hz))
            if take.path:
                kept, failed = kept + 1, 0
                bar.update()
            elif (failed := failed + 1) == ATTEMPTS:
                advice = _KEEPING.get(take.verdict, "record again with --append")
                raise WorldError(f"{command.out}: {failed} attempts in a row were not kept ({take.verdict}); {advice}")
    return takes


def _world_seed(seed: int, number: int, attempt: int) -> int:
    """The seed of a world: another one for every episode of a folder and every attempt at it."""
    return int(np.random.SeedSequence((DRAWN, seed, number, attempt)).generate_state(1, np.uint64)[0]) >> 11


def describe(take: Take, options: RecordOptions, world_rate_hz: float) -> str:
    """One line about an attempt. `world_rate_hz`: of the clock that stamps where no rate was set; 0: there is none."""
    pace = take.pace
    parts = [f"{pace.steps} steps at {pace.mean_hz:.1f} Hz"]
    if options.rate_hz is None and world_rate_hz:
        parts = [f"{pace.steps} steps, {pace.mean_hz:.1f} a second, stamped at {world_rate_hz:g} Hz"]
    if options.rate_hz is not None:
        parts.append(f"{pace.missed} ticks missed, at worst {pace.latest * 1e3:.0f} ms late")
        if options.is_too_slow(pace):
            parts.append(f"TOO SLOW for {options.rate_hz:g} Hz")
    if take.lost:
        parts.append(f"OVERRUN: the disk was too slow, {take.lost} steps lost, cut there")
    if take.intervened:
        parts.append(f"{take.intervened} steps taken over")
    parts.append({True: "success", False: "no success", None: "success unknown"}[take.success])
    name = take.path.name if take.path else f"not kept ({take.verdict})"
    return f"{name}: {', '.join(parts)}"


def _summary(command: Record, takes: Sequence[Take]) -> str:
    kept = [take for take in takes if take.path]
    steps, successes = sum(take.pace.steps - take.lost for take in kept), sum(bool(take.success) for take in kept)
    dropped = f"; {len(takes) - len(kept)} attempts not kept" if len(kept) < len(takes) else ""
    return (
        f"{command.out}: {len(kept)} episodes recorded, {steps} steps, {successes} of them succeed{dropped}\n"
        f"next: lapwing data check {shlex.quote(str(command.out))}"
    )
