"""The pace of a loop, on a clock that only moves when it is told to."""

from __future__ import annotations

import time

import pytest

from lapwing.run.pace import Pacer


class Clock:
    """Seconds that pass by sleeping and by work."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(clock: Clock, rate_hz: float | None, work: list[float]) -> tuple[Pacer, list[float]]:
    """The pacer after steps that take `work` seconds each, and when each was over."""
    pacer, ends = Pacer(rate_hz, clock, clock.sleep), []
    for seconds in work:
        clock.now += seconds
        pacer.tick()
        ends.append(pacer.elapsed)
    return pacer, ends


def test_steps_of_any_length_below_the_period_keep_the_rate(clock: Clock) -> None:
    pacer, ends = run(clock, 10.0, [0.01, 0.09, 0.0, 0.05])
    assert ends == pytest.approx([0.1, 0.2, 0.3, 0.4])
    pace = pacer.report()
    assert (pace.steps, pace.missed, pace.latest) == (4, 0, 0.0)
    assert pace.mean_hz == pytest.approx(10.0)


def test_errors_of_sleeping_do_not_add_up(clock: Clock) -> None:
    pacer = Pacer(10.0, clock, lambda seconds: clock.sleep(seconds + 0.004))  # wakes up late each time
    for _ in range(100):
        pacer.tick()
    assert pacer.elapsed == pytest.approx(10.004)


def test_a_late_step_delays_only_itself(clock: Clock) -> None:
    pacer, ends = run(clock, 10.0, [0.05, 0.15, 0.05, 0.05])
    assert ends == pytest.approx([0.1, 0.25, 0.3, 0.4])
    pace = pacer.report()
    assert (pace.missed, pace.latest) == (0, pytest.approx(0.05))


def test_whole_ticks_that_pass_are_counted_and_not_caught_up_with(clock: Clock) -> None:
    pacer, ends = run(clock, 10.0, [0.05, 0.35, 0.05, 0.05])
    assert ends == pytest.approx([0.1, 0.45, 0.5, 0.6])
    pace = pacer.report()
    assert (pace.missed, pace.latest) == (2, pytest.approx(0.25))
    assert pace.mean_hz == pytest.approx(4 / 0.6)


def test_a_loop_that_is_always_too_slow_goes_as_fast_as_it_can(clock: Clock) -> None:
    pace = run(clock, 10.0, [0.13] * 100)[0].report()
    assert pace.mean_hz == pytest.approx(1 / 0.13)
    assert pace.missed == 30 - 1  # the last late tick is not a whole one yet
    assert pace.latest < 0.13


def test_the_next_tick_is_known_before_it_comes(clock: Clock) -> None:
    pacer = Pacer(10.0, clock, clock.sleep)
    clock.now += 0.02
    assert pacer.due == pytest.approx(0.1)
    clock.now += 0.2
    assert pacer.due == pytest.approx(0.22)
    pacer.tick()
    assert pacer.due == pytest.approx(0.3)


def test_without_a_rate_nothing_waits(clock: Clock) -> None:
    pacer, ends = run(clock, None, [0.5, 0.25])
    assert ends == [0.5, 0.75]
    assert pacer.report().mean_hz == pytest.approx(2 / 0.75)
    assert Pacer(None, clock).report().mean_hz == 0.0


def test_the_systems_clock_is_waited_for() -> None:
    before, pacer = time.perf_counter(), Pacer(100.0)
    for _ in range(5):
        pacer.tick()
    assert time.perf_counter() - before >= 0.05
