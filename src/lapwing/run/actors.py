"""Actors in processes of their own: each acts in its own world and tells what happens; one that dies is restarted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor, nn

from lapwing.errors import ConfigError, LapwingError
from lapwing.run.collect import Began, Event, collect, collection_seeds
from lapwing.run.explorer import ActorPlan

_RESTARTS = 5  # of one actor in a row without a step in between: what fails at once will fail again


class SharedWeights:
    """The acting networks' weights in memory that processes share, and how many times they were published."""

    def __init__(self, acting: nn.Module) -> None:
        context = multiprocessing.get_context("spawn")
        self._tensors = {name: one.detach().cpu().clone().share_memory_() for name, one in acting.state_dict().items()}
        self._version = context.Value("q", 0)

    @property
    def version(self) -> int:
        return int(self._version.value)

    def publish(self, acting: nn.Module) -> None:
        with self._version.get_lock():
            _copy(acting.state_dict(), self._tensors)
            self._version.value += 1

    def fetch(self, acting: nn.Module) -> int:
        """Bring `acting` up to date; returns the version it then is of."""
        with self._version.get_lock():
            _copy(self._tensors, acting.state_dict())
            return int(self._version.value)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


@dataclass
class _Actor:
    process: BaseProcess
    connection: Connection
    episodes: int  # begun so far: a restarted actor goes on with the next seed
    random_left: int
    failures: int = 0


class Actors:
    """`count` processes that act by `plan`. Close it after use.

    episodes: how many episodes each has begun before, so that a resumed run goes on with other worlds.
    """

    def __init__(self, plan: ActorPlan, weights: SharedWeights, count: int, episodes: Mapping[int, int]) -> None:
        self._plan, self._weights = plan, weights
        self._context = multiprocessing.get_context("spawn")
        share = -(-plan.random_steps // count)
        self._actors = {number: self._start(number, episodes.get(number, 0), share) for number in range(count)}

    def _start(self, number: int, episodes: int, random_steps: int) -> _Actor:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_act, args=(self._plan, self._weights, number, episodes, random_steps, theirs), daemon=True
        )
        process.start()
        theirs.close()  # so that its end is seen when the process is gone
        return _Actor(process, ours, episodes, random_steps)

    def events(self, timeout: float) -> Iterator[tuple[int, Event | str]]:
        """What has happened, with the actor's number; a text says that one died and was restarted.

        Waits for `timeout` seconds at most. Raises ConfigError when an actor cannot work.
        """
        by_connection: dict[Any, int] = {one.connection: number for number, one in self._actors.items()}
        for ready in wait(list(by_connection), timeout):
            number = by_connection[ready]
            actor = self._actors[number]
            try:
                message = actor.connection.recv()
            except (EOFError, OSError):
                yield number, self._restart(number)
                continue
            if isinstance(message, str):
                raise ConfigError(f"actor {number}: {message}")
            if isinstance(message, Began):
                actor.episodes += 1
            else:
                actor.failures, actor.random_left = 0, max(0, actor.random_left - 1)
            yield number, message

    def _restart(self, number: int) -> str:
        dead = self._actors[number]
        dead.connection.close()
        dead.process.join()
        if dead.failures >= _RESTARTS:
            raise ConfigError(
                f"actor {number}: died {dead.failures + 1} times before its first step (exit code "
                f"{dead.process.exitcode}); look at its messages above"
            )
        self._actors[number] = self._start(number, dead.episodes, dead.random_left)
        self._actors[number].failures = dead.failures + 1
        return f"actor {number} died (exit code {dead.process.exitcode}) and was restarted"

    def close(self) -> None:
        for actor in self._actors.values():
            actor.process.terminate()
        for actor in self._actors.values():
            actor.process.join()
            actor.connection.close()


def _act(
    plan: ActorPlan, weights: SharedWeights, number: int, episodes: int, random_steps: int, events: Connection
) -> None:
    """An actor's process. What goes wrong for good is sent as a text."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the learner, which says when to end
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed + 104729 * (number + 1) + episodes)
    parent = os.getppid()
    try:
        agent, (world, expert) = plan.make_agent(), plan.make_world()
        source = plan.make_source(agent, expert, number, torch.device("cpu"), random_steps)
        version = weights.fetch(agent.acting)
        for event in collect(world, source, collection_seeds(plan.seed, number, episodes), lambda: False):
            events.send(event)
            if os.getppid() != parent:  # the learner is gone
                return
            if weights.version != version:
                version = weights.fetch(agent.acting)
    except BrokenPipeError:
        return
    except LapwingError as error:
        events.send(str(error))
    except Exception:
        traceback.print_exc()
        raise
