"""What keeps acting and learning in step, or keeps either from waiting; counted, not timed."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from acting_world import Always, EveryOther, NumberAgent, line_normalizer, line_plan, line_spec, make_line

from lapwing.data.replay import ReplayBuffer
from lapwing.errors import CheckpointError, ConfigError
from lapwing.run import online as module
from lapwing.run.collect import Event, Share
from lapwing.run.episode_log import EpisodeLog, read_episodes
from lapwing.run.intake import Collected, Counts
from lapwing.run.online import Collector, OnlineOptions, read_counts

CPU = torch.device("cpu")
WATCHED = line_plan(partial(make_line, expert=Always(1, 1)), EveryOther)


class FakeCrew:
    """Actors that tell what a test has put into `waiting`, at once."""

    def __init__(self, *_: Any) -> None:
        self.waiting: queue.Queue[Any] = queue.Queue()
        self.published: list[float] = []
        self.closed = False

    def act(self, steps: int, actor: int = 0) -> None:
        """Put in as many steps of the line as asked for, and what begins their episodes."""
        made = 0
        for event in line_plan(seed=len(self.published)).events(NumberAgent(), actor, CPU, Share()):
            self.waiting.put((actor, event))
            made += int(hasattr(event, "action"))
            if made == steps:
                return

    def publish(self, acting: Any) -> None:
        self.published.append(acting.number.item())

    def events(self, timeout: float) -> Iterator[tuple[int, Event | str]]:
        try:
            message = self.waiting.get(timeout=timeout / 10)
        except queue.Empty:
            return
        try:
            if isinstance(message, Exception):
                raise message
            yield message
        finally:
            self.waiting.task_done()

    def close(self) -> None:
        self.closed = True


class Started:
    """A collector, its buffers, and what it said."""

    def __init__(self, folder: Path, options: OnlineOptions, plan: Any = None, counts: Counts | None = None) -> None:
        self.online, self.demo = (ReplayBuffer(line_spec(), line_normalizer(), 5000) for _ in range(2))
        self.counts = counts or Counts()
        self.collector = Collector(plan or line_plan(), options, self.online, self.demo, self.counts)
        self.agent, self.said, self.log = NumberAgent(), [], folder / "episodes.jsonl"
        self.stopped = threading.Event()

    def start(self) -> Started:
        self.collector.start(self.agent, CPU, self.log, self.said.append, self.stopped.is_set)
        return self


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> FakeCrew:
    one = FakeCrew()
    monkeypatch.setattr(module, "Actors", lambda *_: one)
    return one


@pytest.fixture
def beside(crew: FakeCrew, tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """beside(publish_every=5): a started collector with a fake crew, which told ten steps to begin with."""
    made: list[Started] = []

    def start(**options: Any) -> Started:
        crew.act(10)
        made.append(Started(tmp_path, OnlineOptions(**{"training_starts": 10, **options})))
        return made[-1].start()

    yield start
    for one in made:
        one.collector.close()


def in_step(folder: Path, plan: Any = None, counts: Counts | None = None, **options: Any) -> Started:
    return Started(folder, OnlineOptions(**{"actors": 0, "training_starts": 10, **options}), plan, counts).start()


def test_learning_starts_after_so_many_steps_and_keeps_in_step(tmp_path: Path) -> None:
    one = in_step(tmp_path)
    assert one.collector.in_step
    assert one.counts.env_steps == len(one.online) == 10
    for step in range(7):
        one.collector.advance(step)
        assert one.counts.env_steps == 10 + step
    one.collector.close()


@pytest.mark.parametrize(("ratio", "env_steps"), [(0.5, 10 + 12), (2.0, 10 + 3), (4.0, 10 + 1)])
def test_updates_per_step_bounds_the_ratio(tmp_path: Path, ratio: float, env_steps: int) -> None:
    one = in_step(tmp_path, updates_per_step=ratio)
    for step in range(7):
        one.collector.advance(step)
        assert step <= ratio * (one.counts.env_steps - 10) + ratio
    assert one.counts.env_steps == env_steps


def test_with_actors_too_the_ratio_is_kept(beside: Callable[..., Started], crew: FakeCrew) -> None:
    one = beside(updates_per_step=0.25)
    crew.act(8)
    one.collector.advance(2)
    assert one.counts.env_steps == 18
    one.stopped.set()  # there are no more steps: without this it would wait for them
    one.collector.advance(3)
    assert one.counts.env_steps == 18


def test_updates_do_not_wait_for_a_world_that_stands_still(beside: Callable[..., Started]) -> None:
    one = beside()
    for step in range(500):
        one.collector.advance(step)
    assert one.counts.env_steps == 10


def test_actors_do_not_wait_for_updates_that_do_not_come(beside: Callable[..., Started], crew: FakeCrew) -> None:
    one = beside()
    crew.act(300)
    crew.waiting.join()  # everything was taken, and no update was made
    assert one.counts.env_steps == 310
    assert crew.published == []


def test_actors_go_on_while_buffers_are_saved(
    beside: Callable[..., Started], crew: FakeCrew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes amid a save is not in it, in no buffer and no count."""
    one = beside()
    save = one.online.save

    def slow_save(*args: Any) -> None:
        crew.act(40)
        crew.waiting.join()
        save(*args)

    monkeypatch.setattr(one.online, "save", slow_save)
    one.collector.save(tmp_path / "buffers")
    assert one.counts.env_steps == 50
    assert read_counts(tmp_path / "buffers").env_steps == 10
    again = ReplayBuffer(line_spec(), line_normalizer(), 5000)
    again.load(tmp_path / "buffers" / "online")
    assert len(again) == 10


@pytest.mark.parametrize("every", [1, 3])
def test_weights_are_published_in_time(beside: Callable[..., Started], crew: FakeCrew, every: int) -> None:
    one = beside(publish_every=every)
    for step in range(7):
        with torch.no_grad():
            one.agent.acting.number.fill_(step)
        one.collector.advance(step)
    assert crew.published == list(range(0, 7, every))


def test_an_interrupt_ends_the_wait_for_the_start(tmp_path: Path, crew: FakeCrew) -> None:
    one = Started(tmp_path, OnlineOptions(training_starts=10))
    one.stopped.set()
    one.start()
    assert one.counts.env_steps < 10
    one.collector.close()
    assert crew.closed


def test_what_goes_wrong_among_actors_reaches_the_learner(beside: Callable[..., Started], crew: FakeCrew) -> None:
    one = beside()
    crew.waiting.put(ConfigError("actor 3: no camera"))
    crew.waiting.join()
    with pytest.raises(ConfigError, match="actor 3: no camera"):
        advance_for_ever(one)


def advance_for_ever(one: Started) -> None:
    for step in range(10**9):
        one.collector.advance(step)


def test_it_is_said_that_an_actor_was_restarted(beside: Callable[..., Started], crew: FakeCrew) -> None:
    one = beside()
    crew.waiting.put((0, "actor 0 died and was restarted"))
    crew.act(4)
    crew.waiting.join()
    assert one.said == ["actor 0 died and was restarted"]
    assert one.counts.env_steps == 14


def test_the_columns_say_what_the_world_said(tmp_path: Path) -> None:
    one = in_step(tmp_path, WATCHED, training_starts=11)
    one.collector.advance(0)
    columns = one.collector.columns()
    assert columns.pop("online/env_steps_per_s") >= 0
    assert columns == {
        "online/env_steps": 11, "online/episodes": 2, "online/interventions": 3, "online/intervened_steps": 5,
        "online/success_recent": 1, "online/return_recent": 1, "online/length_recent": 4,
    }  # fmt: skip
    lines = [json.loads(line) for line in one.log.read_text().splitlines()]
    assert lines == [
        {
            "actor": 0, "env_step": step, "length": 4, "reward": 1.0, "success": True, "intervened": 2,
            "true_success": None,
        }
        for step in (4, 8)
    ]  # fmt: skip


def test_before_the_first_end_there_is_no_rate(tmp_path: Path) -> None:
    columns = in_step(tmp_path, training_starts=2).collector.columns()
    assert all(math.isnan(columns[f"online/{name}_recent"]) for name in ("success", "return", "length"))


def test_a_later_run_goes_on_with_counts_and_other_worlds(tmp_path: Path) -> None:
    first = in_step(tmp_path, WATCHED)
    first.collector.save(tmp_path / "buffers")
    saved = read_counts(tmp_path / "buffers")
    assert saved == first.counts
    first.collector.advance(15)  # one more episode ends, after the save
    later = in_step(tmp_path, WATCHED, counts=saved, training_starts=14)
    assert later.counts.env_steps == 14
    assert later.counts.shares[0].episodes == 4  # the one that was running is cut
    assert [one.env_step for one in read_episodes(later.log)] == [4, 8]
    later.collector.advance(0)
    assert [one.env_step for one in read_episodes(later.log)] == [4, 8, 14]
    begun, later_begun = ([int(one.state[0, 0]) for one in x.online.to_episodes()] for x in (first, later))
    assert later_begun
    assert later_begun == begun[3 : 3 + len(later_begun)]  # those of the fourth episode on, which the save did not have


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"env_steps": 1, "shares": {"x": {}}}',
        '{"shares": {}, "more": 1}',
        '{"shares": {}, "env_steps": "many"}',
        '{"shares": {"0": {"steps": -1}}}',
    ],
)
def test_damaged_counts_are_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "counts.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"counts\.json: missing or damaged"):
        read_counts(tmp_path)


def ended(env_step: int, success: bool | None = True) -> Collected:
    return Collected(0, env_step, 5, 2.0, success, 0)


def test_the_log_forgets_what_came_after_the_save(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    EpisodeLog(path, 0).add([ended(5), ended(9), ended(14)])
    with path.open("a") as file:
        file.write('{"actor": 0, "env_')
    assert [one.env_step for one in read_episodes(path)] == [5, 9, 14]
    log = EpisodeLog(path, 10)
    assert [one.env_step for one in read_episodes(path)] == [5, 9]
    log.add([ended(11, None), ended(12, False)])
    assert [one.env_step for one in read_episodes(path)] == [5, 9, 11, 12]
    assert log.columns()["online/success_recent"] == pytest.approx(2 / 3)


def test_a_half_written_line_is_gone_once_another_comes(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    EpisodeLog(path, 0).add([ended(5)])
    with path.open("a") as file:
        file.write('{"actor": 0, "env_')
    EpisodeLog(path, 99).add([ended(6)])
    assert [one.env_step for one in read_episodes(path)] == [5, 6]


def test_rates_are_of_the_last_twenty(tmp_path: Path) -> None:
    log = EpisodeLog(tmp_path / "episodes.jsonl", 0)
    log.add([ended(step, success=step > 15) for step in range(30)])
    assert log.columns()["online/success_recent"] == pytest.approx(14 / 20)


def test_a_damaged_log_is_said(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text('{"actor": 1}\n')
    with pytest.raises(CheckpointError, match=r"episodes\.jsonl: damaged"):
        read_episodes(tmp_path / "episodes.jsonl")


def test_with_a_damaged_log_nothing_begins_and_the_buffers_can_be_saved(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text('{"actor": 1}\n')
    one = Started(tmp_path, OnlineOptions(actors=0, training_starts=10))
    with pytest.raises(CheckpointError, match=r"episodes\.jsonl: damaged"):
        one.start()
    one.collector.save(tmp_path / "buffers")
    one.collector.close()
    assert read_counts(tmp_path / "buffers") == Counts()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": -1}, "actors is -1, expected 0 or more"),
        ({"training_starts": 0}, "training_starts is 0, expected at least 1"),
        ({"random_steps": -5}, "random_steps is -5, expected 0 or more"),
        ({"capacity": 0}, "capacity is 0, expected at least 1"),
        ({"publish_every": 0}, "publish_every is 0, expected at least 1"),
        ({"updates_per_step": -1.0}, "updates_per_step is -1.0, expected 0 or more"),
        ({"updates_per_step": math.nan}, "updates_per_step is nan, expected 0 or more"),
        ({"demo_fraction": 1.5}, "demo_fraction is 1.5, expected 0 to 1"),
        ({"ray": "local", "actors": 0}, "ray: with 0 actors everything happens in this process"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OnlineOptions(**options)


@pytest.mark.parametrize("disk", [None, Path("frames")])
def test_options_come_back_from_json(disk: Path | None) -> None:
    options = OnlineOptions(actors=3, disk=disk)
    assert OnlineOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
