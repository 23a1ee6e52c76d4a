"""`lapwing eval` and `lapwing report`: how good is the policy?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from lapwing.agent import Agent, Judge
from lapwing.commands.flags import parse
from lapwing.data.normalize import Normalizer
from lapwing.data.scores import normalised_score
from lapwing.env import BatchEnv
from lapwing.envs import D4RL_DATA, WORLDS, World, make_world, world_spec
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run import evaluate as evaluating
from lapwing.run.checkpoint import Which, find_checkpoint, load_acting, with_critics
from lapwing.run.classifier_report import is_classifier, write_classifier_report
from lapwing.run.controls import Blind, Hold
from lapwing.run.device import pick_device
from lapwing.run.evaluate import FIGURES, Actor, Evaluation, figure_text, save_evaluation
from lapwing.run.execution import Execution
from lapwing.run.off_data import Traced, load_known_states, start_value
from lapwing.run.policy import Policy
from lapwing.run.report import write_report
from lapwing.run.video import write_video
from lapwing.spec import RobotSpec

SIDE_BY_SIDE, HEAVY_SIDE_BY_SIDE = 50, 5  # copies stepped together, so that the network sees them in one batch
FILMED = 3  # episodes in the filmstrip and the video
UNDISCOUNTED = 1.0  # for agents that know no discount
FRAMES_PER_SECOND = 25.0  # of the video where the robot's rate is unknown


@dataclass(frozen=True)
class Evaluate:
    """Run a trained policy in fresh episodes of a simulated world, in each way it can act."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    world: World
    """The simulated world."""
    episodes: int = 50
    """Fresh episodes for each mode."""
    seed: int = 0
    """The same seed gives the same episodes."""
    checkpoint: str = "best"
    """best, last, or the number of a saved step."""
    mode: str | None = None
    """One way to act (LAPO: pi, z0, bc); None: all of them, side by side."""
    execute: int | None = None
    """Actions of each chunk to play before the policy is asked again; None: all."""
    ensemble: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also ask at every step and act on the weighted mean of all predictions for it (temporal ensembling)."""
    ensemble_coefficient: float = 0.01
    """Predictions are weighted exp(-coefficient * i); 0 is the plain mean."""
    ensemble_first: Literal["oldest", "newest"] = "oldest"
    """Where i counts from: the oldest prediction, as in the original ACT, or the newest."""
    controls: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also run the deployed mode with black images, and holding still."""
    video: Path | None = None
    """Write the first episodes of the first mode as an MP4 file."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to compute; auto: cuda, then mps, then cpu."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON for programs."""


def evaluate(args: Sequence[str]) -> int:
    """`lapwing eval`"""
    command = parse(Evaluate, args, "lapwing eval")
    if command.episodes < 1 or command.seed < 0:
        raise ConfigError(
            f"eval: --episodes {command.episodes} --seed {command.seed}, expected at least 1 episode and a seed of "
            "0 or more"
        )
    if command.video is not None and command.video.is_dir():
        raise ConfigError(f"--video {command.video}: is a folder, expected a file to write; name one in it")
    if not (command.run / "checkpoints").is_dir():
        raise CheckpointError(f"{command.run}: not a run; expected a directory made by `lapwing train`")
    checkpoint = find_checkpoint(command.run, _which(command.checkpoint))
    results, rate_hz = _evaluate_modes(command, checkpoint)
    saved = save_evaluation(command.run, command.world, command.seed, results, checkpoint.name)
    if command.video is not None:
        film = np.concatenate(next(iter(results.values())).frames)
        write_video(command.video, film, rate_hz or FRAMES_PER_SECOND)
    write_report(command.run)
    if command.json:
        print(saved.read_text(encoding="utf-8"))
    else:
        print(f"{command.world}, {command.episodes} fresh episodes, seed {command.seed}, {checkpoint.name}")
        print(table(results))
    return 0


def _which(name: str) -> Which:
    match name:
        case "best" | "last":
            return name
        case _ if name.isascii() and name.isdigit():
            return int(name)
    raise ConfigError(f"--checkpoint is {name!r}, expected best, last or the number of a saved step")


def _evaluate_modes(command: Evaluate, checkpoint: Path) -> tuple[dict[str, Evaluation], float]:
    """Evaluations by mode, the deployed one first and filmed; and the world's rate in Hz."""
    device = pick_device(command.device)
    agent, spec, normalizer, meta = load_acting(checkpoint, device)
    _expect_robot(command, spec, world_spec(command.world))
    modes = agent.modes if command.mode is None else (command.mode,)
    played = Execution(steps=command.execute)
    policies: dict[str, Actor] = {mode: Policy(agent, spec, normalizer, mode, device, played) for mode in modes}
    if command.ensemble:
        averaged = Execution(None, True, command.ensemble_coefficient, command.ensemble_first)
        policies[f"{modes[0]}, ensemble"] = Policy(agent, spec, normalizer, modes[0], device, averaged)
    if command.controls:
        policies |= {"blind": Blind(policies[modes[0]]), "hold": Hold(spec, normalizer)}
    size = spec.cameras[0].height if spec.cameras else 84
    copies = SIDE_BY_SIDE if command.world.startswith(("toy", "pointmaze")) else HEAVY_SIDE_BY_SIDE
    world = make_world(command.world, min(command.episodes, copies), size)
    judge = None if spec.cameras else with_critics(agent, checkpoint)
    tracing = _Tracing(command, agent, judge, normalizer, meta["config"].get("discount", UNDISCOUNTED), device)
    try:
        results = {
            mode: tracing.evaluate(policy, world, FILMED if mode == modes[0] else 0, mode == agent.modes[0])
            for mode, policy in policies.items()
        }
    finally:
        world.close()
    return results, world.spec.rate_hz


class _Tracing:
    """Evaluations with their figures: what the flags of the world do not say (`FIGURES`)."""

    def __init__(
        self,
        command: Evaluate,
        agent: Agent,
        judge: Judge | None,
        normalizer: Normalizer,
        discount: float,
        device: torch.device,
    ) -> None:
        self._command, self._agent, self._judge, self._normalizer = command, agent, judge, normalizer
        self._device, self._discount, self._known = device, discount, load_known_states(command.run)

    def evaluate(self, policy: Actor, world: BatchEnv, filmed: int, is_deployed: bool) -> Evaluation:
        traced = Traced(world, self._discount)
        result = evaluating.evaluate(policy, traced, self._command.episodes, self._command.seed, filmed)
        return replace(result, figures=dict(self._figures(result, traced, is_deployed)))

    def _figures(self, result: Evaluation, traced: Traced, is_deployed: bool) -> Iterator[tuple[str, float]]:
        if self._command.world in D4RL_DATA:
            yield "score", normalised_score(D4RL_DATA[self._command.world], float(np.mean(result.returns)))
        if self._known is not None:
            yield "off_data", self._known.share_off(self._normalizer.encode_state(np.concatenate(traced.visited)))
        if is_deployed and self._judge is not None:
            starts = np.stack(traced.starts)
            yield "start_value", start_value(self._agent, self._judge, self._normalizer, starts, self._device)
            yield "discounted_return", float(np.mean(traced.discounted))


def _expect_robot(command: Evaluate, trained: RobotSpec, world: RobotSpec) -> None:
    ours, theirs = _robot(trained), _robot(world)
    if ours != theirs:
        raise ConfigError(
            f"{command.run}: trained on robot {trained.name!r} ({ours}), world {command.world!r} has {theirs}; "
            "choose the world that the recording comes from, or judge without one: `lapwing select RUN --data FILE`"
        )
    if trained.name in WORLDS and trained.name != world.name:
        print(f"note: trained for {trained.name}, evaluated in {world.name}", file=sys.stderr)


def _robot(spec: RobotSpec) -> str:
    cameras = ", ".join(sorted(spec.camera_names)) or "none"
    return f"{spec.state_dim} state axes, {spec.action_dim} action axes, cameras {cameras}"


def table(results: Mapping[str, Evaluation]) -> str:
    """One line a mode: every rate with its 95 % Wilson interval, mean return and length, and further figures."""
    flags = sorted({flag for one in results.values() for flag in one.flags}, key=lambda flag: (flag != "success", flag))
    figures = [name for name in FIGURES if any(name in one.figures for one in results.values())]
    lines = [["mode", *(name.replace("_", " ") for name in (*flags, "return", "length", *figures))]]
    for mode, one in results.items():
        rates = [f"{one.rate(flag):.1%} [{_interval(one, flag)}]" for flag in flags]
        further = [figure_text(name, one.figures[name]) if name in one.figures else "" for name in figures]
        lines.append([mode, *rates, f"{np.mean(one.returns):.3f}", f"{np.mean(one.lengths):.1f}", *further])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _interval(evaluation: Evaluation, flag: str) -> str:
    low, high = evaluation.interval(flag)
    return f"{low:.1%}, {high:.1%}"


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html anew from what the run holds."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    compare: tuple[Path, ...] = ()
    """Other runs to set beside it."""


def report(args: Sequence[str]) -> int:
    """`lapwing report`"""
    command = parse(Report, args, "lapwing report")
    if is_classifier(command.run):
        if command.compare:
            raise ConfigError("--compare: a classifier is set beside no other run; leave it out")
        print(write_classifier_report(command.run))
    else:
        print(write_report(command.run, command.compare))
    return 0
