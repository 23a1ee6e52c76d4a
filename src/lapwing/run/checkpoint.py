"""Checkpoints: a directory with what acting needs, what training needs, and what both mean.

    RUN/checkpoints/step-00001000/   model.safetensors  train_state.pt  config.json  spec.json  stats.json
    RUN/checkpoints/{best,last}      links, replaced in one move

A checkpoint is written beside its place and renamed, so a killed run leaves a whole one or none. Nothing in it
is a pickle that could run code: weights are safetensors, the training state is read with `weights_only`.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lapwing.agent import Agent, Judge, Learner, RewardFacts, acts
from lapwing.agents import ALGORITHMS, build_agent
from lapwing.data.normalize import Normalizer
from lapwing.errors import CheckpointError, LapwingError, SpecError
from lapwing.spec import RobotSpec

Which = Literal["best", "last"] | int
_NAME = re.compile(r"step-(\d{8,})")


def save_checkpoint(
    path: Path,
    *,
    algorithm: str,
    config: Mapping[str, Any],
    facts: RewardFacts,
    agent: Learner,
    spec: RobotSpec,
    normalizer: Normalizer,
    train_state: Mapping[str, Any],
) -> None:
    """Write a checkpoint directory at `path`. A process killed meanwhile leaves nothing under that name.

    Raises CheckpointError when it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    weights = {name: x.detach().cpu().contiguous().clone() for name, x in agent.acting.state_dict().items()}
    described = {
        "config": {"algorithm": algorithm, "config": dict(config), "reward_facts": asdict(facts)},
        "spec": spec.to_dict(),
        "stats": normalizer.to_dict(),
    }
    try:
        partial.mkdir(parents=True)
        save_file(weights, partial / "model.safetensors")
        torch.save(dict(train_state), partial / "train_state.pt")
        for name, content in described.items():
            (partial / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        for file in partial.iterdir():
            _flush_to_disk(file)
    except (OSError, RuntimeError, SafetensorError) as error:  # of a full disk each library says something else
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{path}: cannot be written ({_one_line(error)}); free some space and try again (training: --resume)"
        ) from error
    os.rename(partial, path)


def load_acting(path: Path, device: str | torch.device = "cpu") -> tuple[Agent, RobotSpec, Normalizer, dict[str, Any]]:
    """The agent as it acts, its robot, its normaliser and config.json; no dataset is needed.

    Raises CheckpointError when a file is missing, damaged or of another program, or when it does not act.
    """
    agent, spec, normalizer, meta = load_learner(path, device)
    if not acts(agent):
        raise CheckpointError(f"{path}: a success classifier, expected a policy; choose another run")
    return agent, spec, normalizer, meta


def load_learner(
    path: Path, device: str | torch.device = "cpu"
) -> tuple[Learner, RobotSpec, Normalizer, dict[str, Any]]:
    """The same of any learner, a success classifier among them."""
    meta = _read_json(path / "config.json")
    try:
        spec = RobotSpec.from_dict(_read_json(path / "spec.json"), "spec.json")
        normalizer = Normalizer.from_dict(_read_json(path / "stats.json"), str(path / "stats.json"))
        config = config_from_json(ALGORITHMS[meta["algorithm"]].config, meta["config"])
        facts = RewardFacts(**{name: (low, high) for name, (low, high) in meta["reward_facts"].items()})
    except (SpecError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: config.json or spec.json is not of this version ({_one_line(error)}); choose another checkpoint"
        ) from error
    if (len(normalizer.state_offset), len(normalizer.action_offset)) != (spec.state_dim, spec.action_dim):
        raise CheckpointError(f"{path}: stats.json and spec.json have different axes; choose another checkpoint")
    try:
        agent = build_agent(meta["algorithm"], config, spec, facts, restore=True)
    except (LapwingError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: config.json describes no agent ({_one_line(error)}); choose another checkpoint"
        ) from error
    try:
        agent.acting.load_state_dict(load_file(path / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}/model.safetensors: missing or damaged: {_one_line(error)}; choose another checkpoint"
        ) from error
    agent.prepare(torch.device(device), bf16=False, compiled=False)
    return agent, spec, normalizer, meta


def with_critics(agent: Agent, path: Path) -> Judge | None:
    """A loaded agent once it has the critics of its checkpoint, which acting does without; None where there are none.

    Raises CheckpointError when what the checkpoint holds of them is damaged.
    """
    if not hasattr(agent, "judge") or not (path / "train_state.pt").exists():
        return None
    try:
        agent.load_state_dict(load_train_state(path)["agent"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}/train_state.pt: does not fit its config.json: {_one_line(error)}; choose another checkpoint"
        ) from error
    return cast(Judge, agent)


def load_train_state(path: Path) -> dict[str, Any]:
    """What continuing the training needs. Raises CheckpointError when missing or damaged."""
    return _train_state(path, {"agent", "rng", "state"})


def _train_state(path: Path, needed: set[str]) -> dict[str, Any]:
    file = path / "train_state.pt"
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{file}: missing or damaged: {_one_line(error)}; choose another checkpoint") from error
    if not isinstance(state, dict) or not needed <= state.keys():
        raise CheckpointError(f"{file}: holds no training state; choose another checkpoint")
    return state


def load_config(path: Path, kind: type[Any]) -> Any:
    """The settings of the algorithm that a checkpoint was trained with, as a `kind`. Raises CheckpointError."""
    meta = _read_json(path / "config.json")
    try:
        if ALGORITHMS[meta["algorithm"]].config is kind:
            return config_from_json(kind, meta["config"])
    except (KeyError, TypeError, ValueError, AttributeError, LapwingError) as error:
        raise CheckpointError(
            f"{path}: config.json is not of this version ({_one_line(error)}); choose another checkpoint"
        ) from error
    raise CheckpointError(f"{path}: is of algorithm {meta['algorithm']!r}; choose a checkpoint of the one you train")


def take_weights(agent: Learner, path: Path) -> None:
    """Set all networks of a fresh `agent` to those of a checkpoint; optimisers begin anew.

    Raises CheckpointError naming the first tensor that does not fit.
    """
    fresh = agent.state_dict()
    own, found = fresh["networks"], _train_state(path, {"agent"})["agent"]["networks"]
    for name in (*own, *found):
        here, there = (list(side[name].shape) if name in side else "nothing" for side in (own, found))
        if here != there:
            raise CheckpointError(
                f"{path}: {name!r} is {there} there and {here} here; the robot and all sizes must be the same"
            )
    agent.load_state_dict({**fresh, "networks": found})


def find_checkpoint(run: Path, which: Which = "best") -> Path:
    """The checkpoint directory meant: `best`, `last` or a step of a run, or `run` itself where it is one.

    Raises CheckpointError naming what there is.
    """
    if (run / "model.safetensors").exists():
        return run
    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"{run}: not a run or checkpoint; expected a directory made by `lapwing train`")
    path = run / "checkpoints" / (step_name(which) if isinstance(which, int) else which)
    if not (path / "model.safetensors").exists():
        steps = ", ".join(str(step) for step in checkpoint_steps(run)) or "none"
        raise CheckpointError(f"{run}: no checkpoint {which!r}; saved steps: {steps}")
    return path.resolve()


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def checkpoint_steps(run: Path) -> list[int]:
    """The steps at which this run was saved, ascending."""
    names = (_NAME.fullmatch(path.name) for path in (run / "checkpoints").glob("step-*"))
    return sorted(int(name[1]) for name in names if name)


def linked_step(run: Path, name: str) -> int | None:
    """The step `best` or `last` points to, None where there is no such link."""
    link = run / "checkpoints" / name
    found = _NAME.fullmatch(os.readlink(link)) if link.is_symlink() else None
    return int(found[1]) if found else None


def link_checkpoint(run: Path, name: str, step: int) -> None:
    """Let `best` or `last` point to the checkpoint of `step`, in one move."""
    link = run / "checkpoints" / name
    fresh = link.with_name(f".{name}.partial")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(step_name(step))
    os.replace(fresh, link)


def prune_checkpoints(run: Path, every: int) -> None:
    """Delete the checkpoints that neither a link nor the period `every` keeps."""
    linked = {linked_step(run, "best"), linked_step(run, "last")}
    for step in checkpoint_steps(run):
        if step not in linked and step % every != 0:
            shutil.rmtree(run / "checkpoints" / step_name(step))


def discard_after(run: Path, step: int) -> None:
    """Delete checkpoints later than `step` and unfinished ones: the run goes on from `step`."""
    for later in (other for other in checkpoint_steps(run) if other > step):
        shutil.rmtree(run / "checkpoints" / step_name(later))
    for partial in (run / "checkpoints").glob(".step-*.partial"):
        shutil.rmtree(partial)


def config_from_json(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A config dataclass from its JSON values; lists become tuples. Raises TypeError for unknown fields."""
    kinds = get_type_hints(kind)
    return kind(**{name: _value(kinds.get(name), value) for name, value in values.items()})


def _value(kind: Any, value: Any) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        return config_from_json(kind, value)
    return tuple(value) if isinstance(value, list) else value


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: missing or damaged: {_one_line(error)}; choose another checkpoint") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected a JSON object; choose another checkpoint")
    return content


def _flush_to_disk(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _one_line(error: BaseException) -> str:
    if isinstance(error, LapwingError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
