"""A person who takes over: what the keys become, and what is stored of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("pygame") is None:
    pytest.skip("the extra [sim] is not installed", allow_module_level=True)

import torch
from acting_world import Always, NumberAgent, demonstrations, line_normalizer, line_plan
from person_at_window import FastLine, Script, axes, make_pressed, press, taken_over

from lapwing.agents.sac import SacConfig
from lapwing.data.formats.flat import FlatWriter
from lapwing.data.replay import ReplayBuffer
from lapwing.envs import make_world, world_spec
from lapwing.episode import Array, Observation
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.checkpoint import linked_step
from lapwing.run.collect import Began, Share, Stepped
from lapwing.run.hybrid import World, train_hybrid
from lapwing.run.online import OnlineOptions, read_counts
from lapwing.run.options import TrainOptions
from lapwing.run.person import Person, TakenOver
from lapwing.run.window import Window
from lapwing.spec import RobotSpec

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def window() -> Iterator[Window]:
    opened = Window("keyboard", lambda: None)
    opened.show([], [])
    yield opened
    opened.close()


Act = Callable[..., list[float]]


@pytest.fixture
def act(window: Window) -> Callable[[RobotSpec], Act]:
    """act(spec)("+up", state=...): what the person does after that."""

    def of(spec: RobotSpec) -> Act:
        person = Person(window, spec, "keyboard")
        person.reset(0)

        def pressing(*words: str, state: Array | None = None) -> list[float]:
            press(*words)
            window.listen()
            seen = Observation({}, np.zeros(spec.state_dim) if state is None else state)
            return [round(float(value), 4) for value in person(seen)]

        return pressing

    return of


def test_displacements_follow_the_keys_and_end_with_them(act: Callable[[RobotSpec], Act]) -> None:
    pressing = act(world_spec("toy-single-learned-state"))
    assert pressing() == [0.0] * 7
    assert pressing("+right", "+down") == [1, -1, 0, 0, 0, 0, 0]
    assert pressing("-down") == [1, 0, 0, 0, 0, 0, 0]
    assert pressing("-right", "+q") == [0, 0, 0, 0, 0, 0, -1]
    assert pressing("-q") == [0.0] * 7  # the gripper stays as it is
    assert pressing("+left", "+right") == [0.0] * 7


def test_two_arms_move_at_once(act: Callable[[RobotSpec], Act]) -> None:
    pressing = act(world_spec("toy-dual-learned-state"))
    action = pressing("+d", "+up", "+q", "+o")
    assert np.flatnonzero(action).tolist() == [0, 6, 8, 13]
    assert [action[place] for place in (0, 6, 8, 13)] == [1, -1, 1, 1]


def test_the_gripper_of_a_world_holds_when_its_key_is_released(act: Callable[[RobotSpec], Act]) -> None:
    world = make_world("toy-single-learned-state", 1)
    pressing, openings = act(world.spec), []
    world.reset([1])
    for words in (("+q", "-q"), (), (), ("+e", "-e"), ()):
        openings.append(world.step(np.array([pressing(*words)]))[0].state[0, 2])
    assert openings == [0, 0, 0, 1, 1]


def test_axes_that_are_told_where_to_be_go_on_from_where_they_are(act: Callable[[RobotSpec], Act]) -> None:
    state = [*axes("joint", unit="rad", low=-1.0, high=1.0), *axes("grip", unit="open", kind="gripper", low=0.0)]
    base = axes("base", unit="m/step", kind="base", low=-0.5, high=0.5)
    spec = RobotSpec("told", (), (*state, *base), (*state, *base), rate_hz=10.0)
    pressing, here = act(spec), np.array([0.3, 0.5, 0.2])
    assert pressing(state=here) == [0.3, 0.5, 0.0]
    assert pressing("+2", state=here) == [0.32, 0.5, 0.0]  # 2 rad in ten seconds
    assert pressing(state=here + 9) == [0.34, 0.5, 0.0]  # from what was told, not from what was reached
    assert pressing("-2", "+4", state=here) == [0.34, 0.6, 0.0]  # one opening in a second
    assert pressing("-4", "+5", state=here) == [0.34, 0.6, -0.5]
    assert pressing("-5", state=here) == [0.34, 0.6, 0.0]


def test_a_told_axis_stays_within_its_limits(act: Callable[[RobotSpec], Act]) -> None:
    both = tuple(axes("joint", unit="rad"))
    pressing = act(RobotSpec("told", (), both, both, rate_hz=10.0))
    assert pressing("+2", state=np.array([0.95])) == [0.97]
    assert [pressing() for _ in range(3)] == [[0.99], [1.0], [1.0]]


def test_each_takeover_begins_where_the_robot_then_is(window: Window) -> None:
    both = tuple(axes("joint", unit="rad"))
    source = TakenOver(Always(-1.0), Person(window, RobotSpec("told", (), both, both), "keyboard"))
    source.reset(1)

    def acted(state: float, *words: str) -> tuple[bool, float]:
        press(*words)
        window.listen()
        action = source(Observation({}, np.array([state])))
        assert action is not None
        return source.intervening, round(float(action[0]), 4)

    assert acted(0.5) == (False, -1.0)
    assert acted(0.5, "+space") == (True, 0.5)
    assert acted(0.7) == (True, 0.5)
    assert acted(0.7, "+space") == (False, -1.0)
    assert acted(0.7, "+space") == (True, 0.7)
    source.reset(2)
    assert acted(0.1) == (False, -1.0)


def events(script: Script, steps: int, random_steps: int = 0) -> list[Stepped]:
    plan = line_plan(partial(make_pressed, os.getpid(), script), taken_over, random_steps)
    happened = plan.events(NumberAgent(-0.5), 0, CPU, Share())
    told = [one for one in islice(happened, steps) if not isinstance(one, Began)]
    happened.close()
    return told


def test_what_is_stored_is_the_persons_action_and_marked() -> None:
    told = events({1: ("+space", "+right"), 3: ("-right",), 4: ("+space",)}, 7)
    assert [one.intervened for one in told] == [False, True, True, True, False, False]
    assert [one.action.tolist() for one in told[1:4]] == [[1, 0], [1, 0], [0, 0]]
    assert told[0].action.tolist() == told[4].action.tolist() != [0, 0]


def test_the_next_episode_begins_with_the_policy() -> None:
    told = events({2: ("+space",)}, 10)
    assert [one.intervened for one in told] == [False, False, True, True, True, True, False, False]


def test_a_person_takes_over_from_random_actions_too() -> None:
    told = events({1: ("+space", "+left"), 3: ("+space",)}, 12, random_steps=4)
    assert [one.intervened for one in told[:6]] == [False, True, True, False, False, False]
    assert [one.action.tolist() for one in told[1:3]] == [[-1, 0], [-1, 0]]
    assert len({one.action.tobytes() for one in (told[0], told[3], told[4], told[5])}) == 4  # the four random ones


OPTIONS = TrainOptions(
    steps=10_000, batch_size=8, eval_every=5000, log_every=5000, device="cpu", precision="fp32", train_fraction=1.0
)
CONFIG = SacConfig(hidden=(8,), imitation=0.0, grasp_imitation=0.0, vision=BackboneConfig("small", "none"))


@pytest.mark.parametrize("actors", [0, 1])
def test_escape_saves_everything(tmp_path: Path, actors: int) -> None:
    spec = FastLine(6).spec
    with FlatWriter(tmp_path / "demos.hdf5", spec) as writer:
        for episode in demonstrations():
            writer.add(episode)
    script = {2: ("+space", "+left"), 5: ("-left",), 20: ("+escape",)}
    world = World("line", spec, partial(make_pressed, os.getpid(), script), taken_over)
    online = OnlineOptions(actors=actors, training_starts=10, random_steps=0, capacity=4000)
    with pytest.raises(KeyboardInterrupt, match="saved step") as stopped:
        train_hybrid(tmp_path / "demos.hdf5", tmp_path / "run", world, CONFIG, OPTIONS, online)
    counts = read_counts(tmp_path / "run" / "buffers")
    assert (counts.interventions, counts.intervened) == (1, 4)
    assert counts.env_steps >= 16
    learned = linked_step(tmp_path / "run", "last") or 0  # an actor may have been quicker than the first update
    assert learned >= (actors == 0)
    assert f"saved step {learned};" in str(stopped.value)
    stored = [_load(tmp_path, name, spec) for name in ("online", "demo")]
    marked = np.concatenate([one.intervened for one in stored[0]])
    assert np.concatenate([one.action for one in stored[0]])[marked].tolist() == [[-1, 0]] * 3 + [[0, 0]]
    assert sum(one.num_steps for one in stored[1]) == 3 * 4 + 4


def _load(folder: Path, name: str, spec: RobotSpec) -> list[Any]:
    buffer = ReplayBuffer(spec, line_normalizer(), 4000)
    buffer.load(folder / "run" / "buffers" / name)
    return list(buffer.to_episodes())
