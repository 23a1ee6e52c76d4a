"""Learning from demonstrations and from acting at once: half of every batch from either."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lapwing.agent import Learner, RewardFacts, Sampling, Transitions
from lapwing.agents import ALGORITHMS
from lapwing.batch import Batch
from lapwing.data.mix import mix
from lapwing.data.normalize import Normalizer
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import ConfigError, SpecError
from lapwing.run.checkpoint import linked_step
from lapwing.run.explorer import ActorPlan, Intervening, MakeWorld
from lapwing.run.intake import Counts
from lapwing.run.online import COUNTS, Collector, OnlineOptions, read_counts
from lapwing.run.options import TrainOptions
from lapwing.run.ranks import read_ranks
from lapwing.run.source import Measured
from lapwing.run.train import BUFFERS, train_on
from lapwing.run.training_data import TrainingData, open_training_data
from lapwing.spec import RobotSpec


@dataclass(frozen=True)
class World:
    """Where to act. make: a fresh copy and whoever may take over, in any process; intervene: when, None: never.

    settings: what it was made of, plain JSON, that a resumed run must share.
    """

    name: str
    spec: RobotSpec
    make: MakeWorld
    intervene: Intervening | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HybridData:
    """Demonstrations and what is collected: the `Source` of hybrid training. Held-out episodes are recorded ones."""

    recorded: TrainingData
    online: ReplayBuffer
    demo: ReplayBuffer
    options: OnlineOptions
    collector: Collector

    @property
    def spec(self) -> RobotSpec:
        return self.recorded.spec

    @property
    def normalizer(self) -> Normalizer:
        return self.recorded.normalizer

    @property
    def notes(self) -> Sequence[str]:
        return self.recorded.recording.notes

    @property
    def epoch(self) -> int:
        return self.recorded.epoch

    def reward_facts(self, discount: float) -> RewardFacts:
        return self.recorded.reward_facts(discount)

    def expect_fit(self, sampling: Sampling) -> None:
        if not isinstance(sampling, Transitions):
            raise ConfigError("hybrid: this algorithm does not learn from transitions, expected one that does: sac")
        self.recorded.expect_fit(sampling)

    def batches(
        self, sampling: Sampling, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        assert isinstance(sampling, Transitions)
        share = self.options.demo_fraction
        return mix(self.demo, self.online, share, sampling, batch_size, seed, start, rank, world_size)

    def judge(self, agent: Learner, device: torch.device, samples: int | None) -> Measured | None:
        return self.recorded.judge(agent, device, samples)

    def known_states(self) -> None:
        """None: it comes to know the states it visits."""

    def parts(self) -> dict[str, Any]:
        return self.recorded.parts()

    def summary(self) -> dict[str, Any]:
        return self.recorded.summary()

    def fingerprint(self) -> str:
        return self.recorded.fingerprint()


def train_hybrid(
    data: Path,
    out: Path,
    world: World,
    config: Any,
    options: TrainOptions,
    online: OnlineOptions,
    algorithm: str = "sac",
    resume: bool = False,
    watch: Callable[[], None] | None = None,
) -> Path:
    """Train on the demonstrations at `data` and in `world` at once; returns the run directory `out`.

    With `resume` networks, optimisers, random numbers, both buffers and all counts are restored; a world amid an
    episode cannot be, so the episode is cut and each actor begins its next one. Raises a LapwingError, before anything
    is written, when the demonstrations, the world or a setting do not fit; later, when actors cannot work.
    """
    ranks = read_ranks()
    if ranks.many:
        raise ConfigError(
            f"hybrid: one process learns, got {ranks.world_size}; start it without torchrun, --actors N may be many"
        )

    def open_source(progress: bool) -> HybridData:
        recorded = open_training_data(data, options, config.scaling, progress)
        saved = out / BUFFERS if resume and _has_saved(out) else None
        return open_hybrid(recorded, world, algorithm, config, options, online, saved)

    further = {"online": online.to_dict(), "world": {"name": world.name, **world.settings}}
    return train_on(open_source, out, algorithm, config, options, resume, watch, further)


def _has_saved(run: Path) -> bool:
    """Whether a run has saved its buffers: `last` points to a checkpoint only when they are there as well."""
    return linked_step(run, "last") is not None or (run / BUFFERS / COUNTS).exists()


def open_hybrid(
    recorded: TrainingData,
    world: World,
    algorithm: str,
    config: Any,
    options: TrainOptions,
    online: OnlineOptions,
    saved: Path | None,
) -> HybridData:
    """Buffers, filled with the demonstrations or with what was `saved`, and actors that wait for their start.

    saved: None for a run that ended before its first save, too; it begins with the demonstrations again.
    """
    expect_world(recorded.spec, world)
    _expect_room(recorded, online.capacity)
    disk = online.disk
    buffers = [
        ReplayBuffer(recorded.spec, recorded.normalizer, online.capacity, None if disk is None else disk / name)
        for name in ("online", "demo")
    ]
    counts = Counts()
    if saved is not None:
        counts = read_counts(saved)
        for buffer, name in zip(buffers, ("online", "demo"), strict=True):
            buffer.load(saved / name)
    else:
        for index in recorded.split.train:
            episode = recorded.recording.episodes[index]
            buffers[1].extend(replace(episode, intervened=episode.demonstrated))
    plan = ActorPlan(
        world.make,
        world.intervene,
        algorithm,
        ALGORITHMS[algorithm].config,
        asdict(config),
        recorded.spec,
        recorded.normalizer,
        math.ceil(online.random_steps / max(1, online.actors)),
        options.seed,
    )
    collector = Collector(plan, online, buffers[0], buffers[1], counts)
    return HybridData(recorded, buffers[0], buffers[1], online, collector)


def expect_world(spec: RobotSpec, world: World) -> None:
    """Raise SpecError unless demonstrations of `spec` are of a robot as in `world`."""
    facts = {
        "cameras": (spec.camera_names, world.spec.camera_names),
        "state axes": (spec.state_dim, world.spec.state_dim),
        "action axes": (spec.action_dim, world.spec.action_dim),
        "kinds of action axes": (_kinds(spec), _kinds(world.spec)),
    }
    for name, (got, expected) in facts.items():
        if got != expected:
            raise SpecError(
                f"world {world.name!r}: its {name} are {expected}, the demonstrations' {got}; record some in this world"
            )


def _expect_room(recorded: TrainingData, capacity: int) -> None:
    rows = sum(recorded.recording.episodes[index].num_steps + 1 for index in recorded.split.train)
    if rows > capacity:
        raise ConfigError(
            f"capacity is {capacity}, expected at least the {rows} observations of the demonstrations; set a larger one"
        )


def _kinds(spec: RobotSpec) -> list[str]:
    return [axis.kind for axis in spec.action]
