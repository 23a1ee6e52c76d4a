"""What one training run is made of, and how it is begun or taken up again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lapwing.agent import Learner, RewardFacts
from lapwing.agents import build_agent
from lapwing.batch import Batch
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run.checkpoint import (
    checkpoint_steps,
    config_from_json,
    discard_after,
    find_checkpoint,
    link_checkpoint,
    linked_step,
    load_train_state,
    step_name,
    take_weights,
)
from lapwing.run.device import pick_precision
from lapwing.run.directory import create_run, expect_same, read_settings, write_json
from lapwing.run.off_data import STATES
from lapwing.run.options import LAST, TrainOptions
from lapwing.run.ranks import Ranks, copy_from_first, restore_rng
from lapwing.run.source import Measured, Source

BEST_METRIC = {"lapo": "valid/action_error_positive", "reward": "valid/loss"}  # "valid/action_error" for the others
OpenSource = Callable[[bool], Source]  # given whether to show progress
_RANK_SEED = 1_000_003  # further apart than seeds that people type


@dataclass
class State:
    """How far a run is. `best_step` is None until a checkpoint was judged on held-out episodes."""

    step: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_value: float = math.inf


@dataclass(frozen=True)
class Session:
    """One training run. `config`: the algorithm's settings as resolved, plain values."""

    out: Path
    algorithm: str
    config: Mapping[str, Any]
    options: TrainOptions
    best_metric: str
    ranks: Ranks
    device: torch.device
    source: Source
    facts: RewardFacts
    agent: Learner
    state: State

    def batches(self) -> Iterator[Batch]:
        """This process's share of the batches, from the next step on."""
        return self.source.batches(
            self.agent.sampling,
            self.options.batch_size,
            self.options.seed,
            start=self.state.step,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
        )

    def judge(self, samples: int | None = None) -> Measured | None:
        """The agent on what is held out, None where nothing is. Random numbers are left as they were."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            return self.source.judge(self.agent, self.device, samples)


def open_session(
    open_source: OpenSource,
    out: Path,
    algorithm: str,
    config: Any,
    options: TrainOptions,
    resume: bool,
    ranks: Ranks,
    device: torch.device,
    further: Mapping[str, Any],
) -> Session:
    """Everything up to the first step. Rank 0 makes the run directory last, when nothing can fail any more."""
    source = open_source(ranks.is_first)
    options = options.in_steps(source.epoch)
    best_metric = _best_metric(algorithm, config, options)
    settings = {
        "algorithm": algorithm,
        "config": asdict(config),
        "options": asdict(options),
        "best_metric": best_metric,
        "device": device.type,
        "precision": pick_precision(options.precision, device, images=bool(source.spec.cameras)),
        "processes": ranks.world_size,
        "data": source.fingerprint(),
        **further,
    }
    begun = read_settings(out) if resume else None
    saved = None
    if begun is not None:
        expect_same(out, begun, settings)
        config = config_from_json(type(config), begun["config"])
        saved = _last_state(out)
    facts = source.reward_facts(getattr(config, "discount", 1.0))
    agent = _build(
        algorithm, config, options, settings["precision"] == "bf16", source, facts, device, saved is not None
    )
    resolved = asdict(agent.config) if saved is None else asdict(config)
    state = State() if saved is None else _restore(agent, saved, out)
    session = Session(out, algorithm, resolved, options, best_metric, ranks, device, source, facts, agent, state)
    session.batches()  # raises when the data does not make a batch
    copy_from_first(agent, ranks, device)
    torch.manual_seed(options.seed + _RANK_SEED * ranks.rank)
    if saved is not None:
        restore_rng(saved["rng"][ranks.rank], device)
    if ranks.is_first:
        _begin(session, settings) if begun is None else _take_up(session, begun)
    return session


def _last_state(run: Path) -> dict[str, Any] | None:
    """What the last checkpoint of a run says; None where it ended before its first. Raises CheckpointError."""
    steps = checkpoint_steps(run)
    for link in (run / "checkpoints" / name for name in ("best", "last")):
        if link.exists() and not link.is_symlink():
            target = step_name(steps[-1]) if steps else "STEP"
            raise CheckpointError(
                f"{link}: is no link, expected one to a checkpoint, for the run was copied without its links; move it "
                f"away, then `ln -s {target} {link}`"
            )
    if linked_step(run, "last") is None and steps:  # killed before it was linked, or the link was not copied
        return load_train_state(run / "checkpoints" / step_name(steps[-1]))
    return None if linked_step(run, "last") is None else load_train_state(find_checkpoint(run, "last"))


def _restore(agent: Learner, saved: Mapping[str, Any], run: Path) -> State:
    """Give `agent` the saved networks and optimisers. Raises CheckpointError when they are not this agent's."""
    try:
        agent.load_state_dict(saved["agent"])
        return State(**saved["state"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(
            f"{run}: train_state.pt of its last checkpoint does not fit its config.json ({reason}): damaged, or of "
            "another version; resume it with the version that began it, or start another run"
        ) from error


def _build(
    algorithm: str,
    config: Any,
    options: TrainOptions,
    bf16: bool,
    source: Source,
    facts: RewardFacts,
    device: torch.device,
    resumed: bool,
) -> Learner:
    """A fresh agent from the seed, or from the weights of another run; a resumed one is to be restored."""
    torch.manual_seed(options.seed)
    agent = build_agent(algorithm, config, source.spec, facts, restore=resumed or options.init is not None)
    agent.prepare(device, bf16, options.compile)
    if options.init is not None and not resumed:
        take_weights(agent, find_checkpoint(Path(options.init)))
    source.expect_fit(agent.sampling)
    return agent


def _best_metric(algorithm: str, config: Any, options: TrainOptions) -> str:
    """What makes a checkpoint `best`. Raises ConfigError where steps would be wasted, or patience knows nothing."""
    decay = int(getattr(config, "decay_steps", 0))
    if 0 < decay < options.steps:
        raise ConfigError(
            f"{algorithm}: decay_steps is {decay} and --steps {options.steps}: the learning rates are 0 from step "
            f"{decay} on, expected as many; change one, or go on from a finished run in a new one with --init"
        )
    metric = options.best_metric or (LAST if decay else BEST_METRIC.get(algorithm, "valid/action_error"))
    if metric == LAST and options.patience is not None:
        raise ConfigError(
            f"patience is {options.patience}, and `best` is the last checkpoint, expected one that is measured; leave "
            "it out, or give --best-metric"
        )
    return metric


def _begin(session: Session, settings: Mapping[str, Any]) -> None:
    """Try the held-out measurement once, on few samples, then make the run directory."""
    trial = session.judge(session.options.batch_size)
    columns = {} if trial is None else trial.row
    if trial is not None and session.best_metric not in (LAST, *columns):
        choices = ", ".join((LAST, *columns))
        raise ConfigError(f"best_metric {session.best_metric!r} is not measured; choose one of {choices}")
    described = {
        **settings,
        "config": session.config,
        "resolved_from": _differences(settings["config"], session.config),
        "reward_facts": asdict(session.facts),
    }
    known = session.source.known_states()
    create_run(
        session.out,
        {
            "config.json": described,
            "split.json": session.source.parts(),
            "data.json": session.source.summary(),
            **({} if known is None else {STATES: known.arrays()}),
        },
    )


def _differences(asked: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were asked for otherwise than they were resolved ("auto")."""
    return {
        name: _differences(value, resolved[name]) if isinstance(value, Mapping) else value
        for name, value in asked.items()
        if value != resolved[name]
    }


def _take_up(session: Session, begun: Mapping[str, Any]) -> None:
    """Forget what came after the checkpoint, and note how many steps are wanted now."""
    discard_after(session.out, session.state.step)
    if session.state.step:
        link_checkpoint(session.out, "last", session.state.step)
    if session.state.best_step is not None:
        link_checkpoint(session.out, "best", session.state.best_step)
    write_json(session.out / "config.json", {**begun, "options": asdict(session.options)})
