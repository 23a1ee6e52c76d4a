"""Actors of a Ray cluster with two workers, started here: what they tell, what they get, how they die and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from acting_world import OneNumber, die, dies_once, line_plan, make_line, no_world

from lapwing.errors import ConfigError
from lapwing.run import actors as module
from lapwing.run.collect import Began, Share, Stepped
from lapwing.run.ray_actors import RayActors

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # a cluster takes its time, and warns
PATIENCE_S = 300


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two processors."""
    modules = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # the workers need the world of the tests
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=modules)
    yield context.address_info["address"]
    ray.shutdown()


def until(actors: RayActors, done: Callable[[list[Any]], bool]) -> list[Any]:
    """(actor, event) as they come, until `done` says of all of them that it is enough."""
    told: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while not done(told):
        assert time.monotonic() < deadline, told[-5:]
        told += actors.events(1.0)
    return told


def test_two_actors_tell_and_get_new_weights(cluster: str) -> None:
    actors = RayActors(line_plan(), OneNumber(0.25), 2, {1: Share(episodes=3)}, cluster)
    try:
        told = until(actors, lambda seen: {number for number, _ in seen} == {0, 1})
        assert isinstance(told[0][1], Began)
        assert {event.action[0] for _, event in told if isinstance(event, Stepped)} == {0.25}
        actors.publish(OneNumber(0.75))
        new = [number for number, event in until(actors, both_do(0.75)) if isinstance(event, Stepped)]
        assert set(new) == {0, 1}
    finally:
        actors.close()


def both_do(value: float) -> Callable[[list[Any]], bool]:
    return lambda seen: (
        {number for number, event in seen if isinstance(event, Stepped) and event.action[0] == value} == {0, 1}
    )


def test_an_actor_that_is_killed_is_restarted(cluster: str, tmp_path: Path) -> None:
    actors = RayActors(line_plan(dies_once(tmp_path / "died", at=400)), OneNumber(), 1, {}, cluster)
    try:
        told = until(actors, lambda seen: any(isinstance(event, str) for _, event in seen))
        (said,) = [event for _, event in told if isinstance(event, str)]
        assert said.startswith("actor 0 died (")
        assert said.endswith("and was restarted")
        again = until(actors, lambda seen: len(seen) > 0)
        assert isinstance(again[0][1], Began)
    finally:
        actors.close()


def test_an_actor_that_dies_at_once_ends_the_run(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTARTS", 1)
    actors = RayActors(line_plan(partial(make_line, trouble=die)), OneNumber(), 1, {}, cluster)
    try:
        with pytest.raises(ConfigError, match=r"actor 0: died 2 times before its first step"):
            until(actors, lambda seen: False)
    finally:
        actors.close()


def test_an_error_in_an_actors_world_reaches_the_learner(cluster: str) -> None:
    actors = RayActors(line_plan(no_world), OneNumber(), 1, {}, cluster)
    try:
        with pytest.raises(ConfigError, match="actor 0: line: its simulator"):
            until(actors, lambda seen: False)
    finally:
        actors.close()


def test_more_actors_than_processors_are_refused(cluster: str) -> None:
    with pytest.raises(ConfigError, match="ray: 3 actors need a processor each, the cluster has 2; set --actors 2"):
        RayActors(line_plan(), OneNumber(), 3, {}, cluster)


def test_no_cluster_there_is_said() -> None:
    ray.shutdown()
    with pytest.raises(ConfigError, match=r"ray: no cluster at 'auto' .*; start one with `ray start --head`"):
        RayActors(line_plan(), OneNumber(), 1, {}, "auto")
