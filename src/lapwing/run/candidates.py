"""The checkpoints that one could try on the robot: found, loaded, and held against the recording they are judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from lapwing.agent import Agent
from lapwing.data.normalize import Normalizer
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run.checkpoint import checkpoint_steps, find_checkpoint, load_acting, step_name, with_critics
from lapwing.run.options import TrainOptions
from lapwing.run.results import read_json
from lapwing.spec import Axis, RobotSpec

READ_ALIKE = ("base", "alignment", "image_size", "image_layout", "mode", "image_keys", "skip_damaged")
"""Options that decide what a recording means: all candidates must have been trained with the same."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to judge. run: the directory it belongs to; settings: config.json there; label: what to call it."""

    path: Path
    run: Path
    settings: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class Candidate:
    """A checkpoint as it acts, loaded. judges: whether it has its critics."""

    checkpoint: Checkpoint
    algorithm: str
    agent: Agent
    judges: bool
    spec: RobotSpec
    normalizer: Normalizer
    device: torch.device


def find_candidates(paths: Sequence[Path]) -> list[Checkpoint]:
    """Every kept checkpoint of each run, or the one that a path names. Raises CheckpointError where there is none."""
    found = dict.fromkeys(checkpoint for path in paths for checkpoint in _below(path))
    runs = {checkpoint.parent.parent: read_json(checkpoint.parent.parent / "config.json") for checkpoint in found}
    names = _distinct_names(list(runs))
    checkpoints = []
    for path in found:
        run = path.parent.parent
        settings = runs[run]
        if settings is None:
            raise CheckpointError(f"{run}: config.json is missing, expected a run; name a run of `lapwing train`")
        checkpoints.append(Checkpoint(path, run, settings, f"{names[run]} {path.name}"))
    return checkpoints


def _distinct_names(runs: Sequence[Path]) -> dict[Path, str]:
    """The last folders of each path, as many as tell all of them apart."""
    for depth in range(1, max((len(run.resolve().parts) for run in runs), default=1) + 1):
        names = {run: "/".join(run.resolve().parts[-depth:]) for run in runs}
        if len(set(names.values())) == len(runs):
            break
    return names


def run_of(path: Path) -> Path:
    """The run that a path names, itself or one of its checkpoints."""
    path = path.absolute()
    return path.parent.parent if _is_checkpoint(path) else path


def _is_checkpoint(path: Path) -> bool:
    return path.parent.name == "checkpoints" and not (path / "checkpoints").is_dir()


def _below(path: Path) -> list[Path]:
    path = path.absolute()
    if _is_checkpoint(path):
        name = path.name.removeprefix("step-")
        which: Any = int(name) if name.isascii() and name.isdigit() else name
        return [find_checkpoint(path.parent.parent, which)]
    if not (path / "checkpoints").is_dir():
        raise CheckpointError(f"{path}: not a run or checkpoint, expected RUN or RUN/checkpoints/STEP; check the path")
    steps = checkpoint_steps(path)
    if not steps:
        raise CheckpointError(f"{path}: no checkpoints, expected one at least; train it further or leave it out")
    return [(path / "checkpoints" / step_name(step)).resolve() for step in steps]


def reading_options(checkpoints: Sequence[Checkpoint], train_fraction: float, seed: int) -> TrainOptions:
    """How to read the recording, as all candidates did. Raises ConfigError where they differ."""
    first = checkpoints[0]
    options = _reading(first)
    for other in checkpoints[1:]:
        for name, value in _reading(other).items():
            if value != options[name]:
                raise ConfigError(
                    f"{other.run}: trained with {name} {value!r}, {first.run} with {options[name]!r}, expected the "
                    "same; select among runs that read the recording alike"
                )
    return TrainOptions(steps=1, train_fraction=train_fraction, seed=seed, **options)


def _reading(checkpoint: Checkpoint) -> dict[str, Any]:
    """The options of `READ_ALIKE`; those of an imported run are the defaults."""
    given = checkpoint.settings.get("options", {})
    default = {one.name: one.default for one in fields(TrainOptions)}
    values = {name: given.get(name, default[name]) for name in READ_ALIKE}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def open_candidate(checkpoint: Checkpoint, device: torch.device) -> Candidate:
    """Load a checkpoint. Raises CheckpointError where it is damaged or does not act."""
    agent, spec, normalizer, meta = load_acting(checkpoint.path, device)
    judges = with_critics(agent, checkpoint.path) is not None
    return Candidate(checkpoint, str(meta["algorithm"]), agent, judges, spec, normalizer, device)


def expect_robots(checkpoints: Sequence[Checkpoint], spec: RobotSpec, data: Path) -> None:
    """Raise ConfigError naming the first checkpoint whose robot is not that of the recording."""
    for checkpoint in checkpoints:
        file = checkpoint.path / "spec.json"
        record = read_json(file)
        if record is None:
            raise CheckpointError(f"{file}: missing, expected the robot of the policy; choose another checkpoint")
        expect_robot(checkpoint, RobotSpec.from_dict(record, str(file)), spec, data)


def expect_robot(checkpoint: Checkpoint, trained: RobotSpec, spec: RobotSpec, data: Path) -> None:
    """Raise ConfigError naming the first thing in which the robot of a checkpoint is not that of the recording."""
    advice = "choose runs and a recording of one robot"
    ours, theirs = sorted(trained.camera_names), sorted(spec.camera_names)
    if ours != theirs:
        raise ConfigError(
            f"{checkpoint.path}: trained with cameras {', '.join(ours) or 'none'}, {data} has "
            f"{', '.join(theirs) or 'none'}; {advice}"
        )
    for what, mine, its in (("state", trained.state, spec.state), ("action", trained.action, spec.action)):
        if len(mine) != len(its):
            raise ConfigError(f"{checkpoint.path}: trained on {len(mine)} {what} axes, {data} has {len(its)}; {advice}")
        for place, (axis, other) in enumerate(zip(mine, its, strict=True)):
            if axis.name != other.name and not _is_unnamed(what, place, axis, other):
                raise ConfigError(
                    f"{checkpoint.path}: trained on {what} axis {axis.name!r}, {data} has {other.name!r} in its "
                    f"place; {advice}"
                )


def _is_unnamed(what: str, place: int, *axes: Axis) -> bool:
    return any(axis.name == f"{what}_{place}" for axis in axes)
