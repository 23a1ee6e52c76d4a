"""Collecting while learning: actors on one side, the learner's steps on the other, and what keeps them in step."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lapwing.agent import Agent
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run.actors import Actors, SharedWeights
from lapwing.run.collect import collect, collection_seeds
from lapwing.run.directory import write_json
from lapwing.run.explorer import ActorPlan
from lapwing.run.intake import Collected, Counts, Intake

_RECENT = 20  # episodes that rates of success are of
_POLL_S = 0.1


@dataclass(frozen=True)
class OnlineOptions:
    """How experience is collected beside the learning."""

    actors: int = 1
    """Processes that act, each in its own world. 0: act in this process, in step with the updates, which repeats."""
    training_starts: int = 1000
    """Environment steps before the first update."""
    random_steps: int = 1000
    """Environment steps of random actions at the start, all actors together."""
    capacity: int = 200_000
    """Observations that each buffer, online and demonstrations, holds."""
    demo_fraction: float = 0.5
    """Share of every batch that is drawn from the demonstrations and interventions."""
    publish_every: int = 50
    """Updates after which actors get the weights, at the latest."""
    updates_per_step: float = 0.0
    """Most updates to one environment step, for the learner to wait beyond; 0: it never waits (with 0 actors: 1)."""
    disk: Path | None = None
    """Folder for the frames of the buffers; None: memory."""

    def __post_init__(self) -> None:
        for name in ("actors", "training_starts", "random_steps", "updates_per_step"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("capacity", "publish_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.demo_fraction <= 1:
            raise ConfigError(f"demo_fraction is {self.demo_fraction}, expected 0 to 1; 0.5 is usual")


class Collector:
    """Fills buffers with what actors do, ahead of and during training.

    `advance` is called before every update, `columns` when a row of progress.csv is due, `save` with a checkpoint.
    """

    def __init__(
        self, plan: ActorPlan, options: OnlineOptions, online: ReplayBuffer, demo: ReplayBuffer, counts: Counts
    ) -> None:
        self._plan, self._options = plan, options
        self._online, self._demo = online, demo
        self._intake = Intake(online, demo, counts)
        self._recent: deque[Collected] = deque(maxlen=_RECENT)
        self._sides: _Beside | _InStep | None = None
        self._clock = (time.perf_counter(), counts.env_steps)

    @property
    def in_step(self) -> bool:
        """Whether acting waits for learning and learning for acting, so that batches must not be drawn ahead."""
        return self._options.actors == 0

    def start(self, agent: Agent, device: torch.device, say: Callable[[str], None], log: Path) -> None:
        """Begin to act with `agent`'s policy, and come back when there is enough to learn from."""
        self._log, self._say = log, say
        if self.in_step:
            self._sides = _InStep(self._plan, agent, device, self._options, self._intake)
        else:
            self._sides = _Beside(self._plan, agent, self._options, self._intake, say)
        self._sides.reach(max(self._options.training_starts, self._intake.counts.env_steps))
        self._note_episodes()
        self._clock = (time.perf_counter(), self._intake.counts.env_steps)

    def advance(self, step: int) -> None:
        """Before update number `step` (from 0): let actors have had their share, and now and then the weights."""
        assert self._sides is not None
        ratio = self._options.updates_per_step or (1.0 if self.in_step else 0.0)
        if ratio:
            self._sides.reach(self._options.training_starts + int(step / ratio))
        if step % self._options.publish_every == 0:
            self._sides.publish()
        self._sides.check()
        self._note_episodes()

    def columns(self) -> dict[str, float]:
        """What the rows of progress.csv say of the world."""
        counts = self._intake.counts
        now = (time.perf_counter(), counts.env_steps)
        rate = (now[1] - self._clock[1]) / max(now[0] - self._clock[0], 1e-9)
        self._clock = now
        recent = list(self._recent)
        told = [one.success for one in recent if one.success is not None]
        nan = float("nan")
        return {
            "online/env_steps": float(counts.env_steps),
            "online/env_steps_per_s": rate,
            "online/episodes": float(counts.ended),
            "online/interventions": float(counts.interventions),
            "online/intervened_steps": float(counts.intervened),
            "online/success_recent": sum(told) / len(told) if told else nan,
            "online/return_recent": sum(one.reward for one in recent) / len(recent) if recent else nan,
            "online/length_recent": sum(one.length for one in recent) / len(recent) if recent else nan,
        }

    def save(self, folder: Path) -> None:
        """Write both buffers and the counts. Raises DataError when the disk refuses; the last save stays."""
        with self._quiet():
            self._online.save(folder / "online")
            self._demo.save(folder / "demo")
            write_json(folder / "counts.json", self._intake.counts.to_dict())

    def _quiet(self) -> threading.Lock:
        assert self._sides is not None
        return self._sides.lock

    def _note_episodes(self) -> None:
        with self._quiet():
            ended = list(self._intake.ended())
        if ended:
            self._recent.extend(ended)
            with self._log.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(one)) + "\n" for one in ended)

    def close(self) -> None:
        if self._sides is not None:
            self._sides.close()


def read_counts(folder: Path) -> Counts:
    """What `Collector.save` wrote. Raises CheckpointError."""
    try:
        return Counts.from_dict(json.loads((folder / "counts.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}/counts.json: missing or damaged ({error}); start another run, with --init for its weights"
        ) from error


class _InStep:
    """Acting in the learner's own process: the same seed gives the same run."""

    def __init__(
        self, plan: ActorPlan, agent: Agent, device: torch.device, options: OnlineOptions, intake: Intake
    ) -> None:
        self.lock = threading.Lock()
        self._intake = intake
        self._world, expert = plan.make_world()
        begun = intake.counts.episodes.get(0, 0)
        left = max(0, plan.random_steps - intake.counts.env_steps)
        source = plan.make_source(agent, expert, 0, device, left)
        self._events = collect(self._world, source, collection_seeds(plan.seed, 0, begun), lambda: False)

    def reach(self, env_steps: int) -> None:
        while self._intake.counts.env_steps < env_steps:
            self._intake.take(0, next(self._events))

    def publish(self) -> None:
        """The policy that acts is the one that learns."""

    def check(self) -> None:
        """Nobody else can fail."""

    def close(self) -> None:
        self._world.close()


class _Beside:
    """Actors in other processes, and a thread that takes in what they tell."""

    def __init__(
        self,
        plan: ActorPlan,
        agent: Agent,
        options: OnlineOptions,
        intake: Intake,
        say: Callable[[str], None],
    ) -> None:
        self.lock = threading.Lock()
        self._agent, self._intake, self._say = agent, intake, say
        self._weights = SharedWeights(agent.acting)
        self._actors = Actors(plan, self._weights, options.actors, intake.counts.episodes)
        self._failure: Exception | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="intake", daemon=True)
        self._thread.start()

    def reach(self, env_steps: int) -> None:
        while self._intake.counts.env_steps < env_steps:
            self.check()
            time.sleep(_POLL_S / 10)

    def publish(self) -> None:
        self._weights.publish(self._agent.acting)

    def check(self) -> None:
        """Raise what went wrong among the actors."""
        if self._failure is not None:
            raise self._failure

    def _listen(self) -> None:
        try:
            while not self._closed.is_set():
                for actor, event in self._actors.events(_POLL_S):
                    if isinstance(event, str):
                        self._say(event)
                        continue
                    with self.lock:
                        self._intake.take(actor, event)
        except Exception as error:  # whatever it is belongs to the thread that learns
            self._failure = error

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._actors.close()
