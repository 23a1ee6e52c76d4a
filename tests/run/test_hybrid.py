"""Demonstrations and a world at once: what a run leaves, how it is resumed, and what it survives."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from acting_world import (
    Always,
    EveryOther,
    demonstrations,
    dies_once,
    interrupt_at,
    line_spec,
    line_world,
    make_line,
    no_world,
)

from lapwing import envs
from lapwing.agents.bc import BcConfig
from lapwing.agents.sac import SacAgent, SacConfig
from lapwing.data.formats.flat import FlatWriter
from lapwing.data.normalize import Normalizer
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import CheckpointError, ConfigError, DataError, SpecError
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.checkpoint import linked_step, load_train_state
from lapwing.run.episode_log import read_episodes
from lapwing.run.hybrid import World, train_hybrid
from lapwing.run.online import OnlineOptions, read_counts
from lapwing.run.options import TrainOptions

CONFIG = SacConfig(hidden=(8,), imitation=0.0, grasp_imitation=0.0, vision=BackboneConfig("small", "none"))
OPTIONS = TrainOptions(
    steps=6, batch_size=8, eval_every=3, save_every=100, log_every=2, device="cpu", precision="fp32", train_fraction=1.0
)
IN_STEP = OnlineOptions(actors=0, training_starts=10, random_steps=6, capacity=4000)
WATCHED = line_world(partial(make_line, expert=Always(1, 1)), intervene=EveryOther)
Train = Callable[..., Path]


def write_demos(path: Path, states: int = 2) -> Path:
    with FlatWriter(path, line_spec(states)) as writer:
        for episode in demonstrations(states=states):
            writer.add(episode)
    return path


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """train("name", world=WATCHED, resume=False, steps=6, actors=0, ...) -> run directory."""

    def run(name: str, world: World = WATCHED, resume: bool = False, data: Path | None = None, **changes: Any) -> Path:
        if data is None:
            data = tmp_path / "demos.hdf5"
            if not data.exists():
                write_demos(data)
        online = replace(IN_STEP, **{key: changes.pop(key) for key in list(changes) if hasattr(IN_STEP, key)})
        return train_hybrid(data, tmp_path / name, world, CONFIG, replace(OPTIONS, **changes), online, resume=resume)

    return run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def parameters(run: Path) -> dict[str, torch.Tensor]:
    return load_train_state(run / "checkpoints" / "last")["agent"]["networks"]


def same(first: Any, second: Any) -> bool:
    """Equal to the bit, tensor by tensor."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else bool(first == second)


def buffer(run: Path, name: str, states: int = 2) -> ReplayBuffer:
    normalizer = Normalizer.fit(demonstrations(states=states), line_spec(states))
    replay = ReplayBuffer(line_spec(states), normalizer, 4000)
    replay.load(run / "buffers" / name)
    return replay


def actions(replay: ReplayBuffer) -> np.ndarray:
    return np.concatenate([episode.action for episode in replay.to_episodes()])


def test_a_run_leaves_buffers_counts_and_a_line_an_episode(train: Train) -> None:
    run = train("run")
    counts = read_counts(run / "buffers")
    assert counts.env_steps == 10 + 5
    assert len(buffer(run, "online")) == 15
    assert len(buffer(run, "demo")) == 3 * 4 + counts.intervened
    assert [one.env_step for one in read_episodes(run / "episodes.jsonl")] == [4, 8, 12]
    assert linked_step(run, "last") == 6
    settings = json.loads((run / "config.json").read_text())
    assert settings["online"]["training_starts"] == 10
    assert settings["world"] == {"name": "line"}


def test_the_first_steps_are_random_and_interventions_replace_the_action(train: Train) -> None:
    run = train("run", updates_per_step=0.5)  # six updates: ten steps more
    done = actions(buffer(run, "online"))
    intervened = np.concatenate([one.intervened for one in buffer(run, "online").to_episodes()])
    counts = read_counts(run / "buffers")
    assert not intervened[:6].any()
    assert (np.abs(done[:6]) < 1).all()
    assert (done[intervened] == 1).all()
    assert intervened.sum() == counts.intervened > 0
    demo = list(buffer(run, "demo").to_episodes())
    assert [one.num_steps for one in demo[:3]] == [4, 4, 4]
    assert sum(one.num_steps for one in demo[3:]) == counts.intervened
    assert all((one.action == 1).all() for one in demo[3:])


def test_recorded_episodes_are_demonstrations_unless_somebody_took_over_in_them(train: Train, tmp_path: Path) -> None:
    marks = np.zeros((3, 4), bool)
    marks[1, 2:] = True
    with FlatWriter(tmp_path / "marked.hdf5", line_spec()) as writer:
        for episode, intervened in zip(demonstrations(), marks, strict=True):
            writer.add(replace(episode, intervened=intervened))
    run = train("run", data=tmp_path / "marked.hdf5", steps=1)
    demonstrated = [one.intervened.tolist() for one in list(buffer(run, "demo").to_episodes())[:3]]
    assert demonstrated == [[True] * 4, [False, False, True, True], [True] * 4]


def test_both_rates_and_the_success_are_reported(train: Train) -> None:
    table = rows(train("run"))
    assert [row["online/env_steps"] for row in table] == ["11", "12", "13", "15"]
    assert all(float(row["steps_per_s"]) > 0 and float(row["online/env_steps_per_s"]) > 0 for row in table)
    assert {row["online/success_recent"] for row in table} == {"1"}
    assert {row["online/length_recent"] for row in table} == {"4"}


def test_the_same_seed_gives_the_same_run_to_the_bit(train: Train) -> None:
    first, again, other = (train(name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert same(parameters(first), parameters(again))
    assert np.array_equal(actions(buffer(first, "online")), actions(buffer(again, "online")))
    assert not same(parameters(first), parameters(other))


def test_a_resumed_run_has_buffers_counts_optimisers_and_random_numbers(train: Train) -> None:
    run = train("run")
    saved, counts = load_train_state(run / "checkpoints" / "last"), read_counts(run / "buffers")
    held = {name: actions(buffer(run, name)) for name in ("online", "demo")}
    train("run", resume=True)  # nothing is left to do
    assert same(load_train_state(run / "checkpoints" / "last"), saved)
    assert read_counts(run / "buffers") == counts
    assert all(np.array_equal(actions(buffer(run, name)), held[name]) for name in held)
    train("run", resume=True, steps=12)
    later = read_counts(run / "buffers")
    assert later.env_steps == 10 + 11
    assert later.shares[0].episodes > counts.shares[0].episodes
    assert np.array_equal(actions(buffer(run, "online"))[: len(held["online"])], held["online"])
    assert [row["step"] for row in rows(run)] == ["2", "3", "4", "6", "8", "9", "10", "12"]
    agent = load_train_state(run / "checkpoints" / "last")["agent"]
    assert agent["updates"] == 12
    assert {float(one["step"]) for one in agent["optimizers"]["critic"]["state"].values()} == {12.0}


def test_the_same_resumption_gives_the_same_run(train: Train, tmp_path: Path) -> None:
    run = train("run")
    shutil.copytree(run, tmp_path / "copy", symlinks=True)
    assert same(*(parameters(train(name, resume=True, steps=10)) for name in ("run", "copy")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_starts": 11}, "cannot resume with online.training_starts 11, the run has 10"),
        ({"actors": 1}, "cannot resume with online.actors 1, the run has 0"),
        ({"world": replace(WATCHED, settings={"budget": 3})}, "cannot resume with world.budget 3, the run has None"),
    ],
)
def test_a_resumed_run_keeps_its_settings(train: Train, changes: dict[str, Any], message: str) -> None:
    train("run")
    with pytest.raises(ConfigError, match=message):
        train("run", resume=True, steps=9, **changes)


def steps_that(number: int, at: int) -> World:
    make = partial(make_line, trouble=partial(interrupt_at, at, number), expert=Always(1, 1))
    return line_world(make, intervene=EveryOther)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved_and_goes_on(train: Train, number: int) -> None:
    """The signal comes in the world's thirteenth step, before the third update."""
    with pytest.raises(KeyboardInterrupt, match=r"run: saved step 2; go on with --resume"):
        train("run", world=steps_that(number, at=11))
    run = train("run", resume=True)
    assert linked_step(run, "last") == 6
    assert read_counts(run / "buffers").env_steps == 15


def press_twice(at: int, made: int) -> None:
    """In this very thread: the process may hand a signal to another one, and two that wait there become one."""
    if made == at:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_two_signals_together_are_one_and_a_later_one_stops_at_once(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` sends SIGTERM to its command and to the group that is in."""
    twice = line_world(partial(make_line, trouble=partial(press_twice, 11), expert=Always(1, 1)), intervene=EveryOther)
    with pytest.raises(KeyboardInterrupt, match=r"saved step 2; go on with --resume"):
        train("together", world=twice)
    monkeypatch.setattr("lapwing.run.train._ONE_PRESS_S", -1.0)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train("later", world=twice)


def test_what_was_collected_before_the_first_update_is_not_lost(train: Train) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"run: saved step 0"):
        train("run", world=steps_that(signal.SIGINT, at=6))
    run = train("run", resume=True)
    assert read_counts(run / "buffers").env_steps == 15
    assert [one.env_step for one in read_episodes(run / "episodes.jsonl")] == [4, 11, 15]


def breaks_at(at: int, made: int) -> None:
    if made == at:
        raise ConfigError("line: the arm is stuck")


def test_what_was_collected_before_an_error_is_not_lost(train: Train) -> None:
    broken = line_world(partial(make_line, trouble=partial(breaks_at, 12), expert=Always(1, 1)), intervene=EveryOther)
    with pytest.raises(ConfigError, match="the arm is stuck"):
        train("run", world=broken)
    assert read_counts(train("run", resume=True, steps=6) / "buffers").env_steps == 15


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: a write beyond is cut short and then fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_while_saving_buffers_leaves_the_last_save(train: Train, tmp_path: Path) -> None:
    """Three updates bring 750 wide rows: more than a file may hold, while a checkpoint is less."""
    world = line_world(partial(make_line, states=500), states=500)
    often = {"world": world, "data": write_demos(tmp_path / "wide.hdf5", 500), "random_steps": 9999}
    often |= {"updates_per_step": 0.004, "eval_every": 3}
    run = train("run", steps=3, **often)
    files = {path: path.read_bytes() for path in (run / "buffers").rglob("*") if path.is_file()}
    with largest_file(1 << 20), pytest.raises(DataError, match=r"online: the replay buffer cannot be saved"):
        train("run", steps=6, resume=True, **often)
    assert {path: path.read_bytes() for path in (run / "buffers").rglob("*") if path.is_file()} == files
    assert linked_step(run, "last") == 3
    train("run", steps=6, resume=True, **often)
    assert linked_step(run, "last") == 6
    assert read_counts(run / "buffers").env_steps == len(buffer(run, "online", 500)) == 10 + 5 * 250


def test_a_run_whose_counts_are_gone_is_not_begun_anew(train: Train) -> None:
    run = train("run")
    (run / "buffers" / "counts.json").unlink()
    with pytest.raises(CheckpointError, match=r"counts\.json: missing or damaged"):
        train("run", resume=True, steps=9)
    assert len(buffer(run, "online")) == 15


def test_a_run_killed_in_its_first_save_begins_with_the_demonstrations(train: Train) -> None:
    run = train("run")
    (run / "buffers" / "counts.json").unlink()
    for link in ("last", "best"):
        (run / "checkpoints" / link).unlink()
    train("run", resume=True, steps=9)
    assert read_counts(run / "buffers").env_steps == len(buffer(run, "online"))


def test_demonstrations_of_another_robot_are_one_error(train: Train, tmp_path: Path) -> None:
    mars = World("toy-dual-fixed-state", envs.world_spec("toy-dual-fixed-state"), make_line)
    with pytest.raises(SpecError, match=r"world 'toy-dual-fixed-state': its state axes are \d+, the demonstrations' 2"):
        train("run", world=mars)
    arms = replace(line_spec(), action=tuple(replace(one, kind="arm") for one in line_spec().action))
    with pytest.raises(SpecError, match=r"its kinds of action axes are \['arm', 'arm'\], the demonstrations' \['arm',"):
        train("run", world=World("arms", arms, make_line))
    assert not (tmp_path / "run").exists()


def test_a_buffer_without_room_for_the_demonstrations_is_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="capacity is 14, expected at least the 15 observations of the demonstrations"
    ):
        train("run", capacity=14)
    assert not (tmp_path / "run").exists()


def test_several_learners_are_refused(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="hybrid: one process learns, got 2; start it without torchrun"):
        train("run")
    assert not (tmp_path / "run").exists()


def test_an_algorithm_without_transitions_is_refused(tmp_path: Path) -> None:
    demos = write_demos(tmp_path / "demos.hdf5")
    with pytest.raises(ConfigError, match="hybrid: this algorithm does not learn from transitions"):
        train_hybrid(demos, tmp_path / "run", WATCHED, BcConfig(hidden=(8,)), OPTIONS, IN_STEP, algorithm="bc")


def test_actors_in_processes_feed_a_run_and_one_that_dies_does_not_end_it(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("run", world=line_world(dies_once(tmp_path / "died", at=6)), actors=1, training_starts=12)
    assert "actor 0 died (exit code -9) and was restarted" in capsys.readouterr().err
    counts = read_counts(run / "buffers")
    assert len(buffer(run, "online")) == counts.env_steps >= 12
    lengths = [one.num_steps for one in buffer(run, "online").to_episodes()]
    assert lengths[:2] == [4, 2]
    assert all(float(row["steps_per_s"]) > 0 for row in rows(run))
    assert all(math.isfinite(float(row["online/env_steps_per_s"])) for row in rows(run))
    assert not multiprocessing.active_children()


def test_an_interrupt_leaves_no_actor_behind(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    update = SacAgent.update

    def press(agent: SacAgent, batch: Any) -> Any:
        if agent.updates == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return update(agent, batch)

    monkeypatch.setattr(SacAgent, "update", press)
    with pytest.raises(KeyboardInterrupt, match="run: saved step 3"):
        train("run", world=line_world(), actors=1)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_error_of_an_actor_ends_the_run(train: Train) -> None:
    with pytest.raises(ConfigError, match="actor 0: line: its simulator"):
        train("run", world=line_world(no_world), actors=1)
    assert not multiprocessing.active_children()
