"""Actors in processes of their own: each acts in its own world and tells what happens; one that dies is restarted."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor, nn

from lapwing.errors import ConfigError, LapwingError
from lapwing.run.collect import Event, Share, Stepped
from lapwing.run.explorer import ActorPlan

RESTARTS = 5
"""Of one actor in a row without a step in between: what fails at once will fail again."""
_GOODBYE_S = 5.0


class SharedWeights:
    """The acting networks' weights in memory that processes share, and the version they are of.

    Nobody holds a lock, for one who dies with it would stop all others. The version is odd while the weights change,
    so that a reader sees that what it has copied is none.
    """

    def __init__(self, acting: nn.Module) -> None:
        context = multiprocessing.get_context("spawn")
        self._tensors = {name: one.detach().cpu().clone().share_memory_() for name, one in acting.state_dict().items()}
        self._version = context.Value("q", 0, lock=False)

    @property
    def version(self) -> int:
        return int(self._version.value)

    def publish(self, acting: nn.Module) -> None:
        self._version.value += 1
        _copy(acting.state_dict(), self._tensors)
        self._version.value += 1

    def fetch(self, acting: nn.Module) -> int | None:
        """Bring `acting` up to date; returns the version it then is of, or None where the weights were changing."""
        version = self.version
        copied = {name: tensor.clone() for name, tensor in self._tensors.items()}
        if version % 2 or self.version != version:
            return None
        _copy(copied, acting.state_dict())
        return version


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


@dataclass
class _Actor:
    process: BaseProcess
    connection: Connection
    done: Share
    failures: int


class Actors:
    """`count` processes that act by `plan`, with the weights of `acting` until others are published.

    before: what each has done before, so that a resumed run goes on in other worlds. Close it after use.
    """

    def __init__(self, plan: ActorPlan, acting: nn.Module, count: int, before: Mapping[int, Share]) -> None:
        self._plan, self._weights = plan, SharedWeights(acting)
        self._context = multiprocessing.get_context("spawn")
        self._actors = {number: self._start(number, before.get(number, Share())) for number in range(count)}

    def _start(self, number: int, before: Share, failures: int = 0) -> _Actor:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_act, args=(self._plan, self._weights, number, before, theirs), name=f"actor-{number}", daemon=True
        )
        with _without_interrupts():
            process.start()
        theirs.close()  # so that its end is seen when the process is gone
        return _Actor(process, ours, replace(before), failures)

    def publish(self, acting: nn.Module) -> None:
        """Let the actors have these weights, each before its next step."""
        self._weights.publish(acting)

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
            except (EOFError, OSError):  # its end, or that of a message which it could not finish
                yield number, self._restart(number)
                continue
            if isinstance(message, str):
                raise ConfigError(f"actor {number}: {message}")
            actor.done.count(message)
            if isinstance(message, Stepped):
                actor.failures = 0
            yield number, message

    def _restart(self, number: int) -> str:
        dead = self._actors[number]
        dead.connection.close()
        _end(dead.process)
        how = f"exit code {dead.process.exitcode}"
        expect_worth_restarting(number, dead.failures, how)
        self._actors[number] = self._start(number, dead.done, dead.failures + 1)
        return f"actor {number} died ({how}) and was restarted"

    def close(self) -> None:
        for actor in self._actors.values():
            actor.process.terminate()
        for actor in self._actors.values():
            _end(actor.process)
            actor.connection.close()


def expect_worth_restarting(number: int, failures: int, how: str) -> None:
    """Raise ConfigError where an actor has been restarted too often without a step of it."""
    if failures >= RESTARTS:
        raise ConfigError(
            f"actor {number}: died {failures + 1} times before its first step (the last time: {how}); look at its "
            "messages above"
        )


def _end(process: BaseProcess) -> None:
    """Wait for a process that has been told to end, or has; not for ever."""
    process.join(_GOODBYE_S)
    if process.is_alive():
        process.kill()
        process.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started meanwhile never gets a Ctrl-C: it is meant for the learner, who says when to end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _act(plan: ActorPlan, weights: SharedWeights, number: int, before: Share, events: Connection) -> None:
    """An actor's process, for as long as the learner's lives. What goes wrong for good is sent as a text."""
    torch.set_num_threads(1)
    parent = os.getppid()
    with suppress(BrokenPipeError):  # the learner is gone
        try:
            agent = plan.make_actor(number, before)
            version = None
            while version is None and os.getppid() == parent:
                version = weights.fetch(agent.acting)
            for event in plan.events(agent, number, torch.device("cpu"), before):
                events.send(event)
                if os.getppid() != parent:
                    return
                if weights.version != version:
                    version = weights.fetch(agent.acting)
        except LapwingError as error:
            events.send(str(error))
