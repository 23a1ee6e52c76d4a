"""The synchroniser against a brute-force oracle that sees all messages at once, and under threads."""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.errors import ConfigError, DataError
from lapwing.robot.sync import Choice, Stream, Synced, Synchroniser, SyncOptions

TICK = 1 / 1024  # stamps are whole multiples, so that sums and differences are exact
Message = tuple[str, float, float]


@dataclass(frozen=True)
class Case:
    options: SyncOptions
    messages: list[Message]  # in an order of arrival within the allowed disorder and patience
    shuffled: list[Message]  # the same in another such order
    pop_at: list[bool]  # whether to pop after each message


@st.composite
def cases(draw: st.DrawFn, reference: str | float | None = None) -> Case:
    """Two to four streams with jitter, drops, a pause or an early end, arriving out of order within what is allowed."""
    names = [f"s{i}" for i in range(draw(st.integers(2, 4)))]
    seed = draw(st.integers(0, 2**32 - 1))
    rng = random.Random(seed)
    streams, messages = [], []
    for name in names:
        choice: Choice = draw(st.sampled_from(["nearest", "previous", "interpolated"]))
        streams.append(Stream(name, choice, max_skew=draw(st.sampled_from([120, 60, 30, 8, 0])) * TICK, capacity=1000))
        period, jitter = draw(st.integers(5, 80)), draw(st.integers(0, 30))
        dropped, end = draw(st.sampled_from([0.0, 0.1, 0.5])), draw(st.sampled_from([1200, 1200, 500]))
        pause = draw(st.sampled_from([None, 300]))
        stamps = {at + rng.randint(-jitter, jitter) for at in range(rng.randint(0, 100), end, period)}
        kept = [s for s in stamps if rng.random() >= dropped and not (pause and pause < s < pause + 400)]
        messages += [(name, stamp * TICK, rng.random()) for stamp in kept]
    disorder, patience = 40 * TICK, 100 * TICK
    chosen: str | float = reference if reference is not None else draw(st.sampled_from(names))
    options = SyncOptions(tuple(streams), chosen, disorder, patience)
    # Each message is delayed by less than the disorder, so it comes behind one younger by less than that.
    orders = [sorted(messages, key=lambda one: one[1] + rng.random() * disorder) for _ in range(2)]
    return Case(options, *orders, pop_at=[rng.random() < 0.5 for _ in messages])


def run(
    case: Case, messages: Sequence[Message], pops: Sequence[bool] | None = None
) -> tuple[Synchroniser, list[Synced]]:
    synchroniser = Synchroniser(case.options)
    rows = []
    for index, message in enumerate(messages):
        synchroniser.push(*message)
        while (pops is None or pops[index]) and (row := synchroniser.pop()):
            rows.append(row)
    synchroniser.finish()
    return synchroniser, rows + list(iter(synchroniser.pop, None))


def choose(stream: Stream, messages: Sequence[Message], at: float) -> tuple[float, float] | None:
    """(value, stamp) by looking at everything, or None."""
    own = sorted((stamp, value) for name, stamp, value in messages if name == stream.name)
    before = [one for one in own if one[0] <= at][-1:]
    after = [one for one in own if one[0] > at][:1]
    if before and before[0][0] == at:
        return before[0][1], at
    if stream.choice == "interpolated":
        if not before or not after or max(at - before[0][0], after[0][0] - at) > stream.max_skew:
            return None
        (low, first), (high, second) = before[0], after[0]
        return float(np.interp(at, [low, high], [first, second])), max((low, high), key=lambda s: abs(s - at))
    near = before if stream.choice == "previous" else before + after
    near = [one for one in near if abs(one[0] - at) <= stream.max_skew]
    return min(((value, stamp) for stamp, value in near), key=lambda one: abs(one[1] - at), default=None)


def expected(case: Case) -> tuple[list[tuple[float, dict[str, tuple[float, float]]]], dict[str, int]]:
    """Rows and misses, by looking at everything."""
    reference = case.options.reference
    if isinstance(reference, str):
        times = sorted(stamp for name, stamp, _ in case.messages if name == reference)
    else:
        stamps = [stamp for _, stamp, _ in case.messages] or [0.0]
        times = [k / reference for k in range(floor(min(stamps) * reference) - 9, ceil(max(stamps) * reference) + 9)]
    rows, missed = [], {stream.name: 0 for stream in case.options.streams}
    for at in times:
        found = {stream.name: choose(stream, case.messages, at) for stream in case.options.streams}
        given_by = {name: one for name, one in found.items() if one is not None}
        if len(given_by) == len(found):
            rows.append((at, given_by))
        elif given_by:
            for name in found.keys() - given_by.keys():
                missed[name] += 1
    return rows, missed


def check_against_oracle(case: Case) -> None:
    synchroniser, rows = run(case, case.messages)
    wanted, missed = expected(case)
    assert [row.stamp for row in rows] == [time for time, _ in wanted]
    for row, (_, by_name) in zip(rows, wanted, strict=True):
        assert dict(row.stamps) == {name: stamp for name, (_, stamp) in by_name.items()}
        assert all(row.values[name] == pytest.approx(value) for name, (value, _) in by_name.items())
    assert {name: one.missed for name, one in synchroniser.account().items()} == missed


@settings(deadline=None, max_examples=150)
@given(cases())
def test_rows_on_a_reference_stream_are_those_of_the_oracle(case: Case) -> None:
    check_against_oracle(case)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([16.0, 32.0, 64.0]).flatmap(lambda rate: cases(reference=rate)))
def test_rows_on_a_grid_are_those_of_the_oracle(case: Case) -> None:
    check_against_oracle(case)


@settings(deadline=None, max_examples=100)
@given(st.one_of(cases(), cases(reference=32.0)))
def test_neither_order_of_arrival_nor_moments_of_popping_change_the_rows(case: Case) -> None:
    _, rows = run(case, case.messages)
    assert run(case, case.shuffled)[1] == rows
    assert run(case, case.messages, case.pop_at)[1] == rows


@settings(deadline=None, max_examples=100)
@given(st.one_of(cases(), cases(reference=32.0)), st.integers(0, 2**32 - 1))
def test_bounds_hold_and_accounts_add_up_in_any_disorder(case: Case, seed: int) -> None:
    rng = random.Random(seed)
    synchroniser = Synchroniser(case.options)
    messages = [*case.messages, *case.messages[::7]]
    rng.shuffle(messages)
    rows = []
    for message in messages:
        synchroniser.push(*message)
        rows += [row] if rng.random() < 0.5 and (row := synchroniser.pop()) else []
        for one in synchroniser.account().values():
            assert one.pushed == one.used + one.dropped + one.waiting
    assert all(earlier.stamp < later.stamp for earlier, later in pairwise(rows))
    bounds = {stream.name: stream.max_skew for stream in case.options.streams}
    assert all(abs(skew) <= bounds[name] for row in rows for name, skew in row.skews.items())
    assert synchroniser.rows == len(rows)
    accounts = synchroniser.account()
    assert sum(one.pushed for one in accounts.values()) == len(messages)
    uses = sum(2 if s.choice == "interpolated" else 1 for s in case.options.streams) * len(rows)
    assert sum(one.used + one.reused for one in accounts.values()) <= uses


def pair(choice: Choice = "nearest", **changes: float) -> Synchroniser:
    """A reference and one other stream."""
    options = SyncOptions((Stream("camera"), Stream("arm", choice, max_skew=0.25)), "camera", **changes)
    return Synchroniser(options)


def test_a_row_leaves_when_nothing_nearer_can_come() -> None:
    sync = pair()
    sync.push("arm", 0.875, "before")
    sync.push("camera", 1.0, "frame")
    assert sync.pop() is None
    sync.push("arm", 1.0625, "after")
    row = sync.pop()
    assert row == Synced(1.0, {"camera": "frame", "arm": "after"}, {"camera": 1.0, "arm": 1.0625})
    assert row.skews == {"camera": 0.0, "arm": 0.0625}
    assert sync.pop() is None


def test_of_two_equally_near_messages_the_earlier_is_taken() -> None:
    sync = pair()
    for name, stamp in (("arm", 0.875), ("camera", 1.0), ("arm", 1.125)):
        sync.push(name, stamp, stamp)
    assert sync.pop().stamps["arm"] == 0.875  # type: ignore[union-attr]


def test_previous_never_looks_ahead_and_interpolated_needs_both_sides() -> None:
    for choice, value in (("previous", 2.0), ("interpolated", 3.0)):
        sync = pair(choice)  # type: ignore[arg-type]
        for name, stamp, number in (("arm", 0.875, 2), ("camera", 1.0, 0), ("arm", 1.125, 4)):
            sync.push(name, stamp, number)
        assert sync.pop().values["arm"] == value  # type: ignore[union-attr]
    sync = pair("interpolated")
    rows = list(sync.replay([("arm", 0.875, 2), ("camera", 1.0, 0)]))
    assert not rows
    assert sync.account()["arm"].missed == 1


def test_interpolated_arrays_are_linear_in_time() -> None:
    sync = pair("interpolated")
    sync.push("arm", 1.0, np.array([0, 10], np.float32))
    sync.push("camera", 1.0625, None)
    sync.push("arm", 1.25, np.array([4, 30], np.float32))
    row = sync.pop()
    assert row is not None
    np.testing.assert_allclose(row.values["arm"], [1, 15])
    assert row.stamps["arm"] == 1.25  # the farther of the two: the skew stays honest


def test_a_stalled_stream_is_named_and_its_rows_are_dropped_not_filled() -> None:
    sync = pair(patience=0.5)
    for index in range(30):
        sync.push("camera", index / 10, None)
        if index < 10:
            sync.push("arm", index / 10, None)
    rows = list(iter(sync.pop, None))
    assert rows[-1].stamps == {"camera": 1.1, "arm": 0.9}
    assert sync.stalled() == ("arm",)
    assert sync.account()["arm"].missed == sync.dropped_rows == 10  # 1.2 to 2.1: 0.25 short of the newest by patience
    assert sync.account()["arm"].reused == 2


def test_all_silent_streams_are_stalled_by_the_clock() -> None:
    sync = pair(patience=0.5)
    assert sync.stalled(now=100.0) == ("camera", "arm")
    sync.push("camera", 1.0, None)
    assert sync.stalled(now=1.25) == ()
    assert sync.stalled(now=2.0) == ("camera", "arm")


def test_late_repeated_unused_and_overflowing_messages_are_counted_apart() -> None:
    sync = Synchroniser(SyncOptions((Stream("camera"), Stream("arm", max_skew=0.5, capacity=3)), "camera"))
    for stamp in (1.0, 1.0, 0.5, 2.0, 3.0, 4.0):
        sync.push("arm", stamp, stamp)
    sync.push("camera", 4.0, None)
    row = sync.pop()
    assert row is not None
    assert row.values["arm"] == 4.0
    arm = sync.account()["arm"]
    assert (arm.pushed, arm.used, arm.repeated, arm.late, arm.overflowed, arm.unused) == (6, 1, 1, 1, 1, 2)


def test_a_row_whose_message_overflowed_is_dropped_rather_than_given_the_second_best() -> None:
    sync = Synchroniser(SyncOptions((Stream("camera"), Stream("arm", max_skew=0.5, capacity=2)), "camera"))
    sync.push("camera", 1.0, None)
    for stamp in (0.99, 1.2, 1.4):
        sync.push("arm", stamp, None)
    sync.finish()
    assert sync.pop() is None
    assert sync.account()["arm"].missed == 1


def test_a_grid_steps_over_years_of_silence_without_counting_them() -> None:
    options = SyncOptions((Stream("camera", max_skew=0.5), Stream("arm", max_skew=0.5)), reference=50.0)
    sync = Synchroniser(options)
    start = 1.7e9
    messages = [("camera", 0.0, None), ("arm", start, None), ("camera", start, None), ("camera", start + 0.02, None)]
    rows = list(sync.replay(messages))
    assert len(rows) > 40
    assert rows[0].stamp > start - 0.51
    assert 0 < sync.dropped_rows < 60


RATES = {"front": 30, "left_wrist": 30, "right_wrist": 60, "left_arm": 200, "right_arm": 200, "base": 100}
SLOT = 0.05  # s of stamps; the feeding threads meet after each, since a loaded machine lets them drift apart


def soak_options() -> SyncOptions:
    choices: dict[str, Choice] = {"left_arm": "interpolated", "right_arm": "interpolated", "base": "previous"}
    streams = [Stream(n, choices.get(n, "nearest"), 1.5 / rate, capacity=200) for n, rate in RATES.items()]
    return SyncOptions(tuple(streams), "front", patience=0.3)


def stamps_of(name: str, seconds: float) -> list[float]:
    """Jitter of a fifth of the period, 1 % lost; the left wrist camera pauses for a second in the middle."""
    rng, rate = random.Random(name), RATES[name]
    stamps = [(index + rng.uniform(0.2, 0.6)) / rate for index in range(int(seconds * rate)) if rng.random() > 0.01]
    return [s for s in stamps if not (name == "left_wrist" and seconds / 2 < s < seconds / 2 + 1)]


def feed(sync: Synchroniser, name: str, seconds: float, meeting: threading.Barrier) -> None:
    stamps = stamps_of(name, seconds)
    for slot in range(round(seconds / SLOT)):
        for stamp in stamps[bisect_left(stamps, slot * SLOT) : bisect_left(stamps, (slot + 1) * SLOT)]:
            sync.push(name, stamp, np.full(1000, stamp))
        meeting.wait()


def check_soak(seconds: float, pause: float) -> None:
    """Six threads push, each meeting takes `pause` seconds, a seventh thread pops: the rows are those of a replay."""
    sync, rows, most = Synchroniser(soak_options()), [], 0
    meeting = threading.Barrier(len(RATES), action=lambda: time.sleep(pause))
    threads = [threading.Thread(target=feed, args=(sync, name, seconds, meeting)) for name in RATES]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if row := sync.pop():
            assert all(np.ptp(value) == 0 for value in row.values.values())
            rows.append(Synced(row.stamp, {}, row.stamps))
        most = max(most, sum(one.pushed - one.used - one.dropped for one in sync.account().values()))
        time.sleep(pause / 10)
    sync.finish()
    rows += [Synced(row.stamp, {}, row.stamps) for row in iter(sync.pop, None)]

    replayed = Synchroniser(soak_options())
    messages = sorted((stamp, name) for name in RATES for stamp in stamps_of(name, seconds))
    expected = [Synced(row.stamp, {}, row.stamps) for row in replayed.replay((n, s, s) for s, n in messages)]
    assert rows == expected
    assert sync.account() == replayed.account()
    accounts = sync.account()
    print(accounts, f"{sync.rows} rows, {sync.dropped_rows} dropped, at most {most} messages held")
    assert 25 <= accounts["left_wrist"].missed <= 35  # the pause, less the bound at both ends
    assert sync.rows > 0.9 * (seconds - 1) * RATES["front"]
    assert all(one.pushed == one.used + one.dropped and one.late == one.overflowed == 0 for one in accounts.values())
    assert most < 0.6 * sum(RATES.values())  # the patience, a slot and some, whatever the length


def test_six_streams_from_six_threads() -> None:
    check_soak(seconds=20, pause=0.002)


@pytest.mark.slow
def test_six_streams_for_two_minutes_in_real_time() -> None:
    check_soak(seconds=120, pause=SLOT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: Stream("a", "latest"), "a: choice is 'latest'; expected nearest"),  # type: ignore[arg-type]
        (lambda: Stream("a", max_skew=-1), "a: max_skew is -1; expected seconds"),
        (lambda: Stream("a", capacity=1), "a: capacity is 1; expected at least 2"),
        (lambda: SyncOptions((), "a"), "streams are .*expected at least one"),
        (lambda: SyncOptions((Stream("a"), Stream("a")), "a"), "each name once"),
        (lambda: SyncOptions((Stream("a"),), "b"), "reference is 'b'; expected a rate in Hz or one of"),
        (lambda: SyncOptions((Stream("a"),), 0.0), "reference is 0.0 Hz"),
        (lambda: SyncOptions((Stream("a"),), "a", disorder=2.0), "disorder is 2.0 s, patience 0.5 s"),
    ],
)
def test_settings_that_cannot_be_meant(options: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options()  # type: ignore[operator]


def test_messages_that_cannot_be_used() -> None:
    sync = pair("interpolated")
    with pytest.raises(DataError, match=r"message of stream 'wrist'; expected one of \['camera', 'arm'\]"):
        sync.push("wrist", 0.0, None)
    with pytest.raises(DataError, match="camera: stamp is nan; expected seconds"):
        sync.push("camera", float("nan"), None)
    with pytest.raises(DataError, match="arm: got <U4 values; only numbers can be interpolated"):
        sync.push("arm", 0.0, "text")
    sync.push("arm", 0.0, np.zeros(7))
    with pytest.raises(DataError, match=r"arm: got shape \(6,\) after \(7,\)"):
        sync.push("arm", 1.0, np.zeros(6))
