"""The recording loop: who acts, when an episode ends, how it is judged, and what its file says of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lapwing.data.formats.aloha import read_aloha
from lapwing.data.record import EpisodeWriter
from lapwing.env import Info
from lapwing.envs import make_expert_world
from lapwing.episode import Array, Episode, Meta, Observation
from lapwing.errors import ConfigError
from lapwing.run import recorder
from lapwing.run.operator import Key, Operator
from lapwing.run.pace import Pacer
from lapwing.run.recorder import PolicySource, RecordOptions, Takeover, record
from lapwing.spec import RobotSpec, Sensor, unnamed_axes


class Counter:
    """A world whose state counts the steps. `infos` and `ends` say by step what it says and how it ends."""

    def __init__(
        self,
        infos: dict[int, Info] | None = None,
        ends: dict[int, tuple[bool, bool]] | None = None,
        stamped: bool = False,
    ) -> None:
        sensors = (Sensor("stamp_left", (), "s", "float64"), Sensor("stamp_top", (), "s", "float64")) if stamped else ()
        self.spec = RobotSpec("counter", (), unnamed_axes("s", 2), unnamed_axes("a", 1), 20.0, sensors)
        self.max_steps = 100
        self._infos, self._ends = infos or {}, ends or {}

    def reset(self, seed: int) -> Observation:
        self._steps, self._seed = 0, seed
        return self._observe()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        self._steps += 1
        terminated, truncated = self._ends.get(self._steps, (False, False))
        info = self._infos.get(self._steps, self._infos.get(0, {"success": terminated}))
        return self._observe(), float(terminated), terminated, truncated, info

    def close(self) -> None:
        """Nothing is held open."""

    def _observe(self) -> Observation:
        stamps = {"stamp_left": np.float64(self._steps / 7), "stamp_top": np.float64(self._steps / 7 - 0.01)}
        state = np.array([self._seed, self._steps], np.float32)
        return Observation({}, state, {one.name: stamps[one.name] for one in self.spec.sensors})


class Constant:
    """A source that always does the same, for so many steps."""

    def __init__(self, value: float, steps: int = 10**6) -> None:
        self.value, self.steps, self.resets = value, steps, []

    def reset(self, seed: int) -> Meta:
        self.resets.append(seed)
        self._left = self.steps
        return {"kind": f"constant {self.value:g}"}

    def __call__(self, observation: Observation, /) -> Array | None:
        self._left -= 1
        return np.array([self.value], np.float32) if self._left >= 0 else None


class Fingers(Operator):
    """An operator who presses keys after given steps, and gives `answer` when asked."""

    def __init__(self, keys: dict[int, Key] | None = None, answer: Key | None = None) -> None:
        super().__init__()
        self._keys, self._answer, self._looks, self.asked = keys or {}, answer, 0, False

    def pressed(self) -> Key | None:
        self._looks += 1
        return self._keys.get(self._looks)

    def ask(self, question: str, *answers: Key) -> Key | None:
        self.asked = True
        return self._answer


class Studio:
    """Records into a folder and reads back what it holds."""

    def __init__(self, folder: Path, writer: EpisodeWriter) -> None:
        self._folder, self._writer = folder, writer

    def record(
        self,
        env: Any,
        source: Any = None,
        keys: Operator | None = None,
        seed: int = 3,
        meta: Any = None,
        **options: Any,
    ) -> recorder.Take:
        return record(
            env, source or Constant(1.0), self._writer, seed, RecordOptions(**options), keys or Fingers(), meta
        )

    def last(self) -> Episode:
        return read_aloha(self._folder).episodes[-1]


def studio(folder: Path, spec: RobotSpec) -> Iterator[Studio]:
    with EpisodeWriter(folder, spec) as writer:
        yield Studio(folder, writer)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    yield from studio(tmp_path_factory.mktemp("plain"), Counter().spec)


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    yield from studio(tmp_path_factory.mktemp("stamped"), Counter(stamped=True).spec)


class Clock:
    """Seconds that pass by sleeping and by work alone."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Laborious(Counter):
    """A counter whose steps take so many seconds of a clock."""

    def __init__(self, clock: Clock, work: Sequence[float]) -> None:
        super().__init__()
        self._clock, self._work = clock, work

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        self._clock.now += self._work[self._steps]
        return super().step(action)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the loop goes by."""
    clock = Clock()
    monkeypatch.setattr(recorder, "Pacer", partial(Pacer, clock=clock, sleep=clock.sleep))
    return clock


def test_first_and_following_steps_are_recorded_with_the_worlds_clock(plain: Studio) -> None:
    take = plain.record(Counter(ends={4: (True, False)}), meta={"world": "counter"})
    assert (take.verdict, take.ending, take.success, take.pace.steps) == ("kept", "world", True, 4)
    episode = plain.last()
    assert episode.state.tolist() == [[3, row] for row in range(5)]
    assert episode.action.tolist() == [[1.0]] * 4
    assert episode.reward.tolist() == [0, 0, 0, 1]
    assert episode.time.tolist() == pytest.approx([row / 20 for row in range(5)])
    assert not episode.intervened.any()
    assert (episode.terminated, episode.success) == (True, True)
    assert {"world": "counter", "seed": 3, "kind": "constant 1"}.items() <= episode.meta.items()


def test_a_world_may_cut_an_episode(plain: Studio) -> None:
    take = plain.record(Counter(ends={3: (False, True)}))
    assert (take.ending, take.success) == ("world", False)
    assert (plain.last().terminated, plain.last().success) == (False, False)


def test_a_limit_and_an_exhausted_source_end_an_episode(plain: Studio) -> None:
    assert plain.record(Counter(), max_steps=5).ending == "limit"
    assert plain.last().num_steps == 5
    assert plain.record(Counter(), Constant(2.0, steps=6)).ending == "source"
    assert plain.last().num_steps == 6


def test_nothing_to_do_is_nothing_recorded(plain: Studio) -> None:
    take = plain.record(Counter(), Constant(2.0, steps=0))
    assert (take.verdict, take.path) == ("empty", None)


@pytest.mark.parametrize(
    ("key", "success", "terminated"),
    [("stop", False, False), ("success", True, True), ("failure", False, False), ("finish", False, False)],
)
def test_keys_end_an_episode_and_label_it(plain: Studio, key: Key, success: bool, terminated: bool) -> None:
    take = plain.record(Counter(), keys=Fingers({7: key}))
    assert (take.ending, take.success, take.pace.steps) == (key, success, 7)
    assert (plain.last().num_steps, plain.last().terminated, plain.last().success) == (7, terminated, success)


def test_a_key_discards(plain: Studio) -> None:
    before = plain.record(Counter(), max_steps=1)
    take = plain.record(Counter(), keys=Fingers({2: "discard"}))
    assert (take.verdict, take.path) == ("discarded", None)
    after = plain.record(Counter(), max_steps=1)
    assert before.path is not None
    assert after.path is not None
    assert number(after.path) == number(before.path) + 1


def number(path: Path) -> int:
    return int(path.stem.removeprefix("episode_"))


@pytest.mark.parametrize(
    ("answer", "verdict", "success"),
    [("success", "kept", True), ("failure", "kept", False), (None, "kept", None), ("discard", "discarded", None)],
)
def test_where_the_world_cannot_tell_the_operator_is_asked(
    plain: Studio, answer: Key | None, verdict: str, success: bool | None
) -> None:
    keys = Fingers(answer=answer)
    take = plain.record(Counter(infos={0: {}}), keys=keys, max_steps=2)
    assert keys.asked
    assert (take.verdict, take.success) == (verdict, success)
    if verdict == "kept":
        assert plain.last().success is success
        assert plain.last().terminated is bool(success)


def test_who_has_labelled_an_episode_is_not_asked_again(plain: Studio) -> None:
    keys = Fingers({2: "failure"}, answer="success")
    assert plain.record(Counter(infos={0: {}}), keys=keys).success is False
    assert not keys.asked


def test_failures_are_dropped_when_told(plain: Studio) -> None:
    take = plain.record(Counter(), max_steps=3, keep_failures=False)
    assert (take.verdict, take.path, take.success) == ("failed", None, False)
    assert plain.record(Counter(ends={3: (True, False)}), keep_failures=False).verdict == "kept"


def test_a_step_in_which_the_robot_was_stopped_is_not_recorded(plain: Studio) -> None:
    take = plain.record(Counter(infos={4: {"stopped": True}}, ends={4: (False, True)}))
    assert (take.ending, take.pace.steps) == ("stopped", 3)
    assert plain.last().state[-1].tolist() == [3, 3]


def test_the_streams_own_stamps_come_first(stamped: Studio) -> None:
    stamped.record(Counter(stamped=True), max_steps=3)
    episode = stamped.last()
    assert episode.time.tolist() == pytest.approx([row / 7 for row in range(4)])
    assert (episode.time == episode.sensors["stamp_left"][:]).all()


def test_a_set_rate_is_kept_and_reported(plain: Studio, clock: Clock) -> None:
    work = [0.01] * 5 + [0.13] + [0.01] * 4
    take = plain.record(Laborious(clock, work), max_steps=10, rate_hz=25.0)
    assert take.pace.missed == 2
    assert take.pace.latest == pytest.approx(0.09)
    assert take.pace.mean_hz == pytest.approx(10 / 0.48)
    episode = plain.last()
    steady = np.arange(6) / 25
    assert episode.time[:6].tolist() == pytest.approx(steady.tolist())
    assert episode.time[6:].tolist() == pytest.approx([0.33, 0.36, 0.4, 0.44, 0.48])
    assert episode.meta["mean_rate_hz"] == pytest.approx(20.833)
    assert (episode.meta["missed_ticks"], episode.meta["worst_delay_s"]) == (2, pytest.approx(0.09))
    assert episode.meta["too_slow"] is True  # 20.8 Hz are below 84 % of 25


@pytest.mark.parametrize(("too_slow", "verdict"), [("mark", "kept"), ("discard", "too slow")])
@pytest.mark.parametrize(("seconds", "is_slow"), [(0.0235, False), (0.0245, True)])  # 42.6 and 40.8 of 50 Hz
def test_an_episode_below_its_rate_is_marked_or_discarded(
    plain: Studio, clock: Clock, too_slow: Any, verdict: str, seconds: float, is_slow: bool
) -> None:
    take = plain.record(Laborious(clock, [seconds] * 20), max_steps=20, rate_hz=50.0, too_slow=too_slow)
    assert take.verdict == (verdict if is_slow else "kept")
    if take.path:
        assert plain.last().meta["too_slow"] is is_slow


def test_without_a_rate_no_pace_is_claimed(plain: Studio, clock: Clock) -> None:
    assert plain.record(Laborious(clock, [9.0, 9.0]), max_steps=2, too_slow="discard").verdict == "kept"
    assert not {"mean_rate_hz", "too_slow"} & set(plain.last().meta)


def test_steps_of_a_takeover_are_marked(plain: Studio) -> None:
    first, other = Constant(1.0), Constant(2.0)
    take = plain.record(Counter(), Takeover(first, other, after=3), max_steps=5)
    assert take.intervened == 2
    assert plain.last().action[:, 0].tolist() == [1, 1, 1, 2, 2]
    assert plain.last().intervened.tolist() == [False, False, False, True, True]
    assert (first.resets, other.resets) == ([3], [3])


def test_what_working_a_gripper_cost_is_kept(plain: Studio) -> None:
    costs = {step: Info(success=step == 3, grasp_penalty=-0.02 * (step == 2)) for step in (1, 2, 3)}
    plain.record(Counter(costs, ends={3: (True, False)}))
    np.testing.assert_allclose(plain.last().grasp_penalty, [0.0, -0.02, 0.0])
    plain.record(Counter(ends={3: (True, False)}))
    assert plain.last().grasp_penalty is None


def test_a_key_takes_over_and_hands_back(plain: Studio) -> None:
    first, other = Constant(1.0), Constant(2.0)
    source = Takeover(first, other)
    plain.record(Counter(), source, Fingers({2: "take over", 4: "take over"}), max_steps=6)
    assert plain.last().action[:, 0].tolist() == [1, 1, 2, 2, 1, 1]
    assert plain.last().intervened.tolist() == [False, False, True, True, False, False]
    assert len(first.resets) == 2  # what it had planned is stale when it comes back
    plain.record(Counter(), source, max_steps=1)
    assert not plain.last().intervened.any()


def test_who_has_taken_over_is_not_relieved_by_the_count(plain: Studio) -> None:
    source = Takeover(Constant(1.0), Constant(2.0), after=3)
    plain.record(Counter(), source, Fingers({1: "take over"}), max_steps=5)
    assert plain.last().action[:, 0].tolist() == [1, 2, 2, 2, 2]


def test_the_key_means_nothing_where_nobody_can_take_over(plain: Studio) -> None:
    plain.record(Counter(), Constant(1.0), Fingers({1: "take over"}), max_steps=3)
    assert plain.last().action[:, 0].tolist() == [1, 1, 1]


def test_a_policy_is_a_source(plain: Studio) -> None:
    class Policy:
        resets = 0

        def reset(self) -> None:
            self.resets += 1

        def __call__(self, observation: Observation, /) -> Array:
            return observation.state[1:] * 10

    policy = Policy()
    plain.record(Counter(), PolicySource(policy), max_steps=3)
    assert plain.last().action[:, 0].tolist() == [0, 10, 20]
    assert policy.resets == 1


def test_a_full_ring_ends_the_episode(monkeypatch: pytest.MonkeyPatch, plain: Studio) -> None:
    original, calls = EpisodeWriter.step, []

    def refuse_the_fifth(self: EpisodeWriter, *args: Any, **named: Any) -> bool:
        calls.append(named["wait"])
        if len(calls) < 5:
            return original(self, *args, **named)
        self.lost += 1
        return False

    monkeypatch.setattr(EpisodeWriter, "step", refuse_the_fifth)
    take = plain.record(Counter(ends={5: (True, False)}), rate_hz=1000.0)
    assert (take.ending, take.lost, take.success) == ("overrun", 1, None)
    assert calls == [False] * 5
    episode = plain.last()
    assert (episode.num_steps, episode.terminated, episode.success, episode.meta["overrun"]) == (4, False, None, 1)


def test_unhurried_worlds_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch, plain: Studio) -> None:
    original, waits = EpisodeWriter.step, []

    def note(self: EpisodeWriter, *args: Any, **named: Any) -> bool:
        waits.append(named["wait"])
        return original(self, *args, **named)

    monkeypatch.setattr(EpisodeWriter, "step", note)
    plain.record(Counter(), max_steps=2)
    assert waits == [True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_hz": 0.0}, "--rate-hz is 0.0, expected above 0"),
        ({"rate_hz": float("nan")}, "--rate-hz is nan, expected above 0"),
        ({"max_steps": 0}, "--max-steps is 0, expected at least 1"),
        ({"slowest": 84.0}, "--slowest is 84.0, expected a share of the rate, 0 to 1"),
    ],
)
def test_settings_without_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RecordOptions(**options)


def test_the_toy_worlds_expert_is_recorded_as_it_acts(tmp_path: Path) -> None:
    env, expert = make_expert_world("toy", quality="expert", size=16)
    with EpisodeWriter(tmp_path / "eps", env.spec) as writer:
        takes = [record(env, expert, writer, seed, RecordOptions(), Operator()) for seed in (1, 2, 1)]
    assert [take.success for take in takes] == [True] * 3
    first, other, again = read_aloha(tmp_path / "eps").episodes
    assert first.meta["kind"] == "good"
    assert first.time is None  # the toy world has no clock
    assert (first.action == again.action).all()
    assert first.state.shape != other.state.shape or (first.state != other.state).any()
    observation = env.reset(1)
    for row in range(first.num_rows):
        assert (first.state[row] == observation.state).all()
        assert all((first.images[name][row] == observation.images[name]).all() for name in env.spec.camera_names)
        if row < first.num_steps:
            observation, *_ = env.step(first.action[row])
