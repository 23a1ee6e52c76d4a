"""Actors on the machines of a Ray cluster: what `Actors` are on this one, with weights through the object store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lapwing.errors import ConfigError, LapwingError
from lapwing.run.actors import expect_worth_restarting
from lapwing.run.collect import Event, Share, Stepped
from lapwing.run.explorer import ActorPlan

LOCAL = "local"
"""The address of a cluster that is started here and ends with the run."""
_TURN_S = 0.05  # what an actor does between two looks for weights, and what is lost when it dies
_AHEAD = 2  # turns asked for at a time: an actor never waits to be asked


@dataclass
class _Actor:
    handle: Any
    turns: list[Any]
    done: Share
    failures: int


class RayActors:
    """`count` Ray actors that act by `plan`, each with a processor of its own. Close it after use.

    Every machine needs this package. The actors are asked for turns; one sees the weights published before its turn
    was asked for. Raises ConfigError without Ray, or where the cluster cannot be reached or is too small.
    """

    def __init__(
        self, plan: ActorPlan, acting: nn.Module, count: int, before: Mapping[int, Share], address: str
    ) -> None:
        self._ray = _import_ray()
        self._is_ours = _connect(self._ray, address, count)
        self._kind = self._ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(_Turns)
        self._plan = self._ray.put(plan)
        self.publish(acting)
        self._actors = {number: self._start(number, before.get(number, Share())) for number in range(count)}

    def _start(self, number: int, before: Share, failures: int = 0) -> _Actor:
        handle = self._kind.remote(self._plan, number, replace(before))
        actor = _Actor(handle, [], replace(before), failures)
        self._ask(actor)
        return actor

    def _ask(self, actor: _Actor) -> None:
        """References travel in a list, so that Ray does not fetch what the actor has already."""
        while len(actor.turns) < _AHEAD:
            actor.turns.append(actor.handle.turn.remote([self._weights]))

    def publish(self, acting: nn.Module) -> None:
        """Let the actors have these weights."""
        self._weights = self._ray.put({name: one.detach().cpu().numpy() for name, one in acting.state_dict().items()})

    def events(self, timeout: float) -> Iterator[tuple[int, Event | str]]:
        """What has happened, with the actor's number; a text says that one died and was restarted.

        Waits for `timeout` seconds at most. Raises ConfigError when an actor cannot work.
        """
        by_turn = {actor.turns[0]: number for number, actor in self._actors.items()}
        ready, _ = self._ray.wait(list(by_turn), num_returns=len(by_turn), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(by_turn), num_returns=1, timeout=timeout)
        for turn in ready:
            number = by_turn[turn]
            actor = self._actors[number]
            try:
                told = self._ray.get(turn)
            except self._ray.exceptions.RayError as error:
                yield number, self._restart(number, error)
                continue
            actor.turns.remove(turn)
            self._ask(actor)
            yield from self._heard(number, actor, told)

    def _heard(self, number: int, actor: _Actor, told: list[Event | str]) -> Iterator[tuple[int, Event]]:
        for message in told:
            if isinstance(message, str):
                raise ConfigError(f"actor {number}: {message}")
            actor.done.count(message)
            if isinstance(message, Stepped):
                actor.failures = 0
            yield number, message

    def _restart(self, number: int, error: Exception) -> str:
        dead = self._actors[number]
        self._ray.kill(dead.handle)
        how = next(reversed(str(error).strip().splitlines()), type(error).__name__).strip()
        expect_worth_restarting(number, dead.failures, how)
        self._actors[number] = self._start(number, dead.done, dead.failures + 1)
        return f"actor {number} died ({how}) and was restarted"

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor.handle)
        if self._is_ours:
            self._ray.shutdown()


class _Turns:
    """What runs in a Ray actor. A turn's last event may be a text: what goes wrong for good."""

    def __init__(self, plan: ActorPlan, number: int, before: Share) -> None:
        torch.set_num_threads(1)
        self._fetched: Any = None
        self._agent = plan.make_actor(number, before)
        self._events = plan.events(self._agent, number, torch.device("cpu"), before)

    def turn(self, weights: list[Any]) -> list[Event | str]:
        self._fetch(weights[0])
        told: list[Event | str] = []
        until = time.monotonic() + _TURN_S
        try:
            while time.monotonic() < until:
                told.append(next(self._events))
        except LapwingError as error:
            told.append(str(error))
        return told

    def _fetch(self, reference: Any) -> None:
        if reference != self._fetched:
            weights = _import_ray().get(reference)
            self._agent.acting.load_state_dict({name: torch.tensor(one) for name, one in weights.items()})
            self._fetched = reference


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "ray: the package is missing, expected it for --ray; pip install 'lapwing[ray]', or leave --ray out"
        ) from error
    return ray


def _connect(ray: Any, address: str, count: int) -> bool:
    """Join the cluster, or start one; returns whether it is ours to end."""
    is_ours = address == LOCAL
    try:
        if is_ours:
            ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="error")
        elif not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises all kinds, and plain exceptions
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"ray: no cluster at {address!r} ({reason}); start one with `ray start --head`") from error
    free = ray.cluster_resources().get("CPU", 0)
    if free < count:
        raise ConfigError(f"ray: {count} actors need a processor each, the cluster has {free:g}; set --actors {free:g}")
    return is_ours
