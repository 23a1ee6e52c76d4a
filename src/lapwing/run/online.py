"""Collecting while learning: actors on one side, the learner's steps on the other, and what keeps them in step."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from lapwing.agent import Explorer
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run.actors import Actors
from lapwing.run.collect import Event, Share
from lapwing.run.directory import write_json
from lapwing.run.episode_log import EpisodeLog
from lapwing.run.explorer import ActorPlan
from lapwing.run.intake import Counts, Intake

COUNTS = "counts.json"
_POLL_S = 0.1


@dataclass(frozen=True)
class OnlineOptions:
    """How experience is collected beside the learning."""

    actors: int = 1
    """Processes that act, each in its own world. 0: act in this process, in step with the updates, which repeats."""
    ray: str | None = None
    """Let the actors work on the machines of the Ray cluster at this address; local: one that is started here."""
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
        for name in ("actors", "random_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("training_starts", "capacity", "publish_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.updates_per_step < math.inf:
            raise ConfigError(f"updates_per_step is {self.updates_per_step}, expected 0 or more")
        if self.ray is not None and self.actors == 0:
            raise ConfigError("ray: with 0 actors everything happens in this process; set --actors 1 or more")
        if not 0 <= self.demo_fraction <= 1:
            raise ConfigError(f"demo_fraction is {self.demo_fraction}, expected 0 to 1; 0.5 is usual")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` is the inverse."""
        return {**asdict(self), "disk": None if self.disk is None else str(self.disk)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> OnlineOptions:
        return OnlineOptions(**{**data, "disk": None if data["disk"] is None else Path(data["disk"])})


class Crew(Protocol):
    """Actors at work somewhere; see `Actors`."""

    def publish(self, acting: nn.Module) -> None: ...

    def events(self, timeout: float) -> Iterator[tuple[int, Event | str]]: ...

    def close(self) -> None: ...


class Collector:
    """Fills buffers with what actors do, ahead of and during training.

    `start` comes first, `advance` before every update, `columns` when a row of progress.csv is due, `save` with a
    checkpoint. What is saved are the buffers and the counts. A world amid an episode cannot be: that episode is cut,
    and the actor goes on with its next one.
    """

    def __init__(
        self, plan: ActorPlan, options: OnlineOptions, online: ReplayBuffer, demo: ReplayBuffer, counts: Counts
    ) -> None:
        self._plan, self._options = plan, options
        self._online, self._demo = online, demo
        self._intake = Intake(online, demo, counts)
        self._lock = threading.Lock()  # of the intake
        self._sides: _Beside | _InStep | None = None
        self._log: EpisodeLog | None = None
        self._clock = (time.perf_counter(), counts.env_steps)

    @property
    def in_step(self) -> bool:
        """Whether acting waits for learning and learning for acting, so that batches must not be drawn ahead."""
        return self._options.actors == 0

    def start(
        self, agent: Explorer, device: torch.device, log: Path, say: Callable[[str], None], stop: Callable[[], bool]
    ) -> None:
        """Begin to act with `agent`'s policy, and come back when there is enough to learn from, or at `stop`.

        log: the file for a line an episode. Raises ConfigError where actors cannot work, and what the buffers raise.
        """
        counts = self._intake.counts
        self._log = EpisodeLog(log, counts.env_steps)
        plan = replace(self._plan, config=asdict(agent.config))
        if self.in_step:
            self._sides = _InStep(plan, agent, device, self._intake, stop)
        else:
            crew = _hire(plan, agent.acting, self._options, counts.shares)
            self._sides = _Beside(crew, agent, self._intake, self._lock, say, stop)
        self._sides.reach(max(self._options.training_starts, counts.env_steps))
        self._clock = (time.perf_counter(), counts.env_steps)

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
        counts, log = self._intake.counts, self._log
        assert log is not None
        now = (time.perf_counter(), counts.env_steps)
        rate = (now[1] - self._clock[1]) / max(now[0] - self._clock[0], 1e-9)
        self._clock = now
        return {
            "online/env_steps": float(counts.env_steps),
            "online/env_steps_per_s": rate,
            "online/episodes": float(counts.ended),
            "online/interventions": float(counts.interventions),
            "online/intervened_steps": float(counts.intervened),
            **log.columns(),
        }

    def save(self, folder: Path) -> None:
        """Write both buffers and the counts; actors go on meanwhile. Raises DataError when the disk refuses.

        What was saved before then stays.
        """
        with self._lock:
            counts, heads = self._intake.counts.to_dict(), (self._online.head, self._demo.head)
        self._online.save(folder / "online", heads[0])
        self._demo.save(folder / "demo", heads[1])
        write_json(folder / COUNTS, counts)
        self._note_episodes()

    def _note_episodes(self) -> None:
        with self._lock:
            ended = list(self._intake.ended())
        if self._log is not None:  # else nobody has acted, for it could not be opened
            self._log.add(ended)

    def close(self) -> None:
        if self._sides is not None:
            self._sides.close()


def _hire(plan: ActorPlan, acting: nn.Module, options: OnlineOptions, before: Mapping[int, Share]) -> Crew:
    """Actors here or, where asked for, on the machines of a Ray cluster."""
    if options.ray is None:
        return Actors(plan, acting, options.actors, before)
    from lapwing.run.ray_actors import RayActors

    return RayActors(plan, acting, options.actors, before, options.ray)


def read_counts(folder: Path) -> Counts:
    """What `Collector.save` wrote. Raises CheckpointError."""
    try:
        return Counts.from_dict(json.loads((folder / COUNTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / COUNTS}: missing or damaged ({error}); start another run, with --init for its weights"
        ) from error


class _InStep:
    """Acting in the learner's own process: the same seed gives the same run."""

    def __init__(
        self, plan: ActorPlan, agent: Explorer, device: torch.device, intake: Intake, stop: Callable[[], bool]
    ) -> None:
        self._intake, self._stop = intake, stop
        self._events = plan.events(agent, 0, device, replace(intake.counts.shares.get(0, Share())))

    def reach(self, env_steps: int) -> None:
        while self._intake.counts.env_steps < env_steps and not self._stop():
            self._intake.take(0, next(self._events))

    def publish(self) -> None:
        """The policy that acts is the one that learns."""

    def check(self) -> None:
        """Nobody else can fail."""

    def close(self) -> None:
        self._events.close()


class _Beside:
    """Actors somewhere else, and a thread that takes in what they tell. The learner waits for neither."""

    def __init__(
        self,
        crew: Crew,
        agent: Explorer,
        intake: Intake,
        lock: threading.Lock,
        say: Callable[[str], None],
        stop: Callable[[], bool],
    ) -> None:
        self._crew, self._agent, self._intake, self._lock = crew, agent, intake, lock
        self._say, self._stop = say, stop
        self._failure: Exception | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="intake", daemon=True)
        self._thread.start()

    def reach(self, env_steps: int) -> None:
        while self._intake.counts.env_steps < env_steps and not self._stop():
            self.check()
            time.sleep(_POLL_S / 10)

    def publish(self) -> None:
        self._crew.publish(self._agent.acting)

    def check(self) -> None:
        """Raise what went wrong among the actors."""
        if self._failure is not None:
            raise self._failure

    def _listen(self) -> None:
        try:
            while not self._closed.is_set():
                for actor, event in self._crew.events(_POLL_S):
                    if isinstance(event, str):
                        self._say(event)
                        continue
                    with self._lock:
                        self._intake.take(actor, event)
        except Exception as error:  # whatever it is belongs to the thread that learns
            self._failure = error

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._crew.close()
