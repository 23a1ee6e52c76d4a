"""Time stamps with a known rate, known gaps and a known skew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lapwing.data.timing import check_order, check_timing, describe_timing, measure_timing
from lapwing.episode import Array, Episode

PATH = Path("eps")
LABELS = ("a.hdf5", "b.hdf5", "c.hdf5")


def episode(time: Array | None, **stamps: Any) -> Episode:
    rows = 100 if time is None else len(time)
    state = np.zeros((rows, 1), np.float32)
    sensors = {f"stamp_{name}": np.asarray(values, np.float64) for name, values in stamps.items()}
    return Episode({}, state, state[: rows - 1], None, False, time=time, sensors=sensors)


def ticks(rate_hz: float = 50.0, rows: int = 101, start: float = 1e9) -> Array:
    return start + np.arange(rows) / rate_hz


def lines(episodes: list[Episode], rate_hz: float = 50.0) -> list[str]:
    timing = measure_timing(episodes, LABELS[: len(episodes)], rate_hz)
    problems = check_order(PATH, episodes, LABELS[: len(episodes)])
    return [str(one) for one in [*problems, *(check_timing(PATH, timing) if timing else [])]]


def notes(episodes: list[Episode], rate_hz: float = 50.0) -> list[str]:
    timing = measure_timing(episodes, LABELS[: len(episodes)], rate_hz)
    assert timing is not None
    return describe_timing(timing)


def test_even_stamps_are_fine():
    episodes = [episode(ticks()), episode(ticks(start=0.0))]
    assert lines(episodes) == []
    (note,) = notes(episodes)
    assert note.startswith("time stamps: 50 Hz (50 to 50 by episode, 50 Hz declared), jitter ")
    assert note.endswith(" ms, 0 gaps")


def test_without_stamps_there_is_nothing_to_say():
    assert measure_timing([episode(None)], LABELS[:1], 50.0) is None
    assert lines([episode(None)]) == []


def test_stamps_that_go_backwards_are_an_error():
    back = ticks()
    back[41:] -= 3.0
    (line,) = lines([episode(ticks()), episode(back)])
    assert line.startswith(
        "error: eps: time: stamps that go backwards in 1 of 2 episodes (b.hdf5), the first at row 41 of b.hdf5, "
        "expected stamps that grow; look after the recorder's clock"
    )


def test_stamps_that_are_no_numbers_are_an_error():
    broken = ticks()
    broken[7] = np.nan
    (line,) = lines([episode(broken)])
    assert "stamps that are no numbers in 1 of 1 episodes (a.hdf5), the first at row 7 of a.hdf5" in line


def test_a_stream_that_goes_backwards_is_an_error_too():
    back = ticks() - 0.01
    back[50] = back[40]
    (line,) = lines([episode(ticks(), cam_high=back)])
    assert line.startswith("error: eps: stamp_cam_high: stamps that go backwards in 1 of 1 episodes (a.hdf5)")


def test_slow_and_fast_episodes_are_named():
    text = lines([episode(ticks(50)), episode(ticks(40)), episode(ticks(60))])
    assert text[0].startswith(
        "warning: eps: time: 1 of 3 episodes ran slower, at 40 to 40 Hz: b.hdf5, expected the declared 50 Hz"
    )
    assert text[1].startswith("warning: eps: time: 1 of 3 episodes ran faster, at 60 to 60 Hz: c.hdf5")
    assert "(40 to 60 by episode" in notes([episode(ticks(50)), episode(ticks(40)), episode(ticks(60))])[0]


def test_a_rate_that_nobody_declared_cannot_be_missed():
    assert lines([episode(ticks(50)), episode(ticks(40))], rate_hz=0) == []
    assert "no rate declared" in notes([episode(ticks())], rate_hz=0)[0]


def test_a_gap_is_measured():
    late = ticks(rows=1001)
    late[300:] += 0.08
    (line,) = lines([episode(late)])
    assert "1 of 1000 intervals are gaps, the longest 100 ms, expected at most 2 periods of 20 ms" in line


def test_jitter_is_measured_without_the_gaps():
    rng = np.random.default_rng(0)
    uneven = ticks(rows=2001) + rng.uniform(-0.004, 0.004, 2001)
    assert lines([episode(uneven)]) == []
    assert "jitter 3.37 ms" in notes([episode(uneven)])[0]
    more = ticks(rows=2001) + rng.uniform(-0.009, 0.009, 2001)
    assert any(
        "intervals vary by 7." in line and "at most 20% of the period of 20 ms" in line
        for line in lines([episode(more)])
    )


def test_streams_in_step_are_noted():
    one = episode(ticks(), cam_high=ticks() - 0.004, cam_low=ticks() - 0.010)
    assert lines([one]) == []
    assert notes([one])[1] == "skew of cam_high, cam_low: median 10 ms, at most 10 ms"


def test_streams_apart_are_a_warning():
    late = ticks() - 0.004
    late[60:63] = late[59]
    (line,) = lines([episode(ticks(), cam_high=ticks(), cam_low=late)])
    assert (
        "streams more than a period (20 ms) apart in 3 of 101 observations, 64 ms at most; stamp_cam_low is the "
        "earliest" in line
    )


def test_one_late_frame_in_many_is_none():
    rows = 1001
    late = ticks(rows=rows)
    late[60:63] = late[59]
    assert lines([episode(ticks(rows=rows), cam_low=late)]) == []


def test_a_camera_slower_than_the_loop_is_named():
    slow = np.repeat(ticks(25, rows=51), 2)[:101]
    (line,) = lines([episode(ticks(), cam_high=ticks(), cam_low=slow)])
    assert "readings shown twice in a row: stamp_cam_low 50%, expected a fresh reading for each observation" in line


def test_a_sensor_of_several_values_is_no_stamp():
    assert lines([episode(ticks(), parts=np.zeros((101, 2)))]) == []


@pytest.mark.parametrize("rows", [1, 2])
def test_the_shortest_episodes_are_no_trouble(rows):
    time = ticks(rows=rows)
    state = np.zeros((rows, 1), np.float32)
    assert lines([Episode({}, state, state, None, False, time=time)]) == []
