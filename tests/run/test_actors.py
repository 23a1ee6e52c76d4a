"""Actors in processes of their own: their weights, their death, their errors and their end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from acting_world import OneNumber, die, dies_once, line_plan, make_line, no_world
from torch import nn

from lapwing.errors import ConfigError
from lapwing.run import actors as module
from lapwing.run.actors import Actors, SharedWeights
from lapwing.run.collect import Began, Share, Stepped

PATIENCE_S = 300  # for processes to start, on a busy machine


def until(actors: Actors, done: Callable[[list[Any]], bool]) -> list[Any]:
    """(actor, event) as they come, until `done` says of all of them that it is enough."""
    told: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while not done(told):
        assert time.monotonic() < deadline, told[-5:]
        told += actors.events(1.0)
    return told


def texts(told: list[Any]) -> list[str]:
    return [event for _, event in told if isinstance(event, str)]


def test_what_is_published_is_fetched() -> None:
    learner, actor = OneNumber(1.0), OneNumber(0.0)
    weights = SharedWeights(learner)
    first = weights.fetch(actor)
    assert (actor.number.item(), first) == (1.0, weights.version)
    with torch.no_grad():
        learner.number += 1
    assert weights.version == first
    weights.publish(learner)
    assert weights.version != first
    assert weights.fetch(actor) == weights.version
    assert actor.number.item() == 2.0


def test_weights_that_are_changing_are_not_taken() -> None:
    class Peeped(OneNumber):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(peep())
            return super().state_dict(*args, **kwargs)

    seen: list[Any] = []
    peep: Callable[[], Any] = lambda: None  # noqa: E731
    actor = OneNumber(0.0)
    weights = SharedWeights(Peeped(1.0))
    peep = lambda: (weights.fetch(actor), actor.number.item())  # noqa: E731
    weights.publish(Peeped(2.0))
    assert seen[-1] == (None, 0.0)
    weights.fetch(actor)
    assert actor.number.item() == 2.0


def test_all_tensors_are_shared() -> None:
    def layers() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    learner, actor = layers(), layers()
    SharedWeights(learner).fetch(actor)
    for name, tensor in learner.state_dict().items():
        assert torch.equal(tensor, actor.state_dict()[name])


def test_a_killed_actor_is_restarted_and_all_that_it_told_is_kept(tmp_path: Path) -> None:
    """It dies amid its second episode, at its seventh step; the weights it gets afterwards are the published ones."""
    before = {0: Share(episodes=5, steps=40)}
    actors = Actors(line_plan(dies_once(tmp_path / "died", at=6)), OneNumber(0.25), 1, before)
    try:
        told = until(actors, lambda seen: bool(texts(seen)))
        (said,) = texts(told)
        assert said == "actor 0 died (exit code -9) and was restarted"
        events = [event for _, event in told[: told.index((0, said))]]
        assert [isinstance(event, Began) for event in events] == [True] + [False] * 4 + [True] + [False] * 2
        assert {event.action[0] for event in events if isinstance(event, Stepped)} == {0.25}
        actors.publish(OneNumber(0.75))
        after = until(actors, lambda seen: any(isinstance(one, Stepped) and one.action[0] == 0.75 for _, one in seen))
        begun = [event for _, event in events_of(after) if isinstance(event, Began)]
        assert begun[0].observation.state[1] == 0
        first = [one.observation.state[0] for one in (*events, *begun) if isinstance(one, Began)]
        assert len(set(first[:3])) == 3  # the next world, not one it has been in
    finally:
        actors.close()
    assert not multiprocessing.active_children()


def events_of(told: list[Any]) -> list[Any]:
    return [one for one in told if not isinstance(one[1], str)]


@pytest.mark.slow
def test_an_actor_that_dies_at_once_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTARTS", 1)
    actors = Actors(line_plan(partial(make_line, trouble=die)), OneNumber(), 1, {})
    try:
        with pytest.raises(ConfigError, match=r"actor 0: died 2 times before its first step .*exit code -9.*messages"):
            until(actors, lambda seen: len(texts(seen)) > 1)
    finally:
        actors.close()


def test_an_error_in_an_actors_world_reaches_the_learner() -> None:
    actors = Actors(line_plan(no_world), OneNumber(), 1, {})
    try:
        with pytest.raises(ConfigError, match="actor 0: line: its simulator\nis missing; install it"):
            until(actors, lambda seen: False)
    finally:
        actors.close()


LEARNER = """
from acting_world import OneNumber, line_plan
from lapwing.run.actors import Actors

if __name__ == "__main__":
    actors = Actors(line_plan(), OneNumber(), 1, {})
    while not list(actors.events(1.0)):
        pass
    print("acting", flush=True)
    while True:
        list(actors.events(1.0))
"""


@pytest.mark.slow
def test_actors_end_with_a_learner_that_was_killed(tmp_path: Path) -> None:
    """Its output ends when nobody is left who could write to it."""
    program = tmp_path / "learner.py"
    program.write_text(LEARNER)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as learner:
        assert learner.stdout is not None
        assert learner.stdout.readline() == "acting\n"
        learner.kill()
        assert learner.stdout.read() == ""
        assert learner.wait() == -signal.SIGKILL
