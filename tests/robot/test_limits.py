"""The gate before the motors: no limit is passed, whatever is asked for and whenever; and it stops when it must."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.episode import Array
from lapwing.errors import ConfigError, RobotError, SpecError
from lapwing.robot.limits import Bounds, Gate, Limits, Motion, brake, follow, make_bounds
from lapwing.spec import Axis

AXES = (
    Axis("left_waist", "rad", "arm", -3.0, 2.0),
    Axis("left_gripper", "open", "gripper", 0.0, 1.0),
    Axis("base_linear", "m/s", "base", -0.5, 1.0),
)
LIMITS = Limits(
    speed={"arm": 2.0, "gripper": 4.0, "base": 1.0}, acceleration={"arm": 8.0, "gripper": 60.0, "base": 5.0}
)


@pytest.fixture
def bounds() -> Bounds:
    return make_bounds(AXES, LIMITS)


def at_rest(position: Array) -> Motion:
    position = np.asarray(position, np.float64)
    return Motion(position, np.zeros_like(position), position)


def chunks(rng: np.random.Generator, bounds: Bounds, rows: int, steps: int) -> Array:
    """One chunk of targets a row, float64 [steps, rows, A], of a kind drawn by row; most are not feasible."""
    low, high = bounds.low, bounds.high
    middle, width = (low + high) / 2, high - low
    time = np.arange(steps)[:, None, None]
    anywhere = rng.uniform(low - width, high + width, (steps, rows, len(low)))
    kinds = [
        anywhere,
        np.broadcast_to(anywhere[:1], anywhere.shape),  # a jump, then nothing
        np.broadcast_to(np.where(rng.random((rows, 1)) < 0.5, low, high), anywhere.shape),  # full speed at a limit
        np.where((time + rng.integers(2, size=(rows, 1))) % 2, high + 1, low - 1),  # sign flips every tick
        middle + width * rng.uniform(0, 1, (rows, 1)) * np.sin(time * rng.uniform(0.01, 2, (rows, 1))),
        np.where(rng.random((steps, rows, 1)) < 0.2, np.nan, anywhere),
        np.where(rng.random(anywhere.shape) < 0.1, rng.choice([np.inf, -np.inf, 1e308, -1e308]), anywhere),
        middle + np.cumsum(rng.normal(0, 0.02, anywhere.shape), axis=0),
    ]
    return np.choose(rng.integers(len(kinds), size=(rows, 1)), kinds)


def run(bounds: Bounds, motion: Motion, targets: Array, dts: Array) -> tuple[Motion, Array]:
    """The commands, [steps, rows, A]."""
    commands = []
    for target, dt in zip(targets, dts, strict=True):
        motion = follow(bounds, motion, target, dt)
        commands.append(motion.position)
    return motion, np.stack(commands)


def test_a_hundred_thousand_random_chunks_pass_no_limit(bounds: Bounds) -> None:
    rng, rows, steps, in_a_row = np.random.default_rng(0), 12_500, 15, 8
    motion = at_rest(rng.uniform(bounds.low, bounds.high, (rows, len(AXES))))
    before, velocity = motion.position, np.zeros_like(motion.position)
    at_speed_limit = at_position_limit = at_acceleration_limit = 0
    for _ in range(in_a_row):
        # 50 Hz with jitter, bursts and late ticks
        dts = rng.choice([0.02, 0.018, 0.023, 0.001, 0.15], p=[0.5, 0.2, 0.2, 0.05, 0.05], size=(steps, rows, 1))
        motion, commands = run(bounds, motion, chunks(rng, bounds, rows, steps), dts)
        for command, dt in zip(commands, dts, strict=True):
            was, velocity = velocity, (command - before) / dt
            before = command
            acceleration = (velocity - was) / dt
            assert np.isfinite(command).all()
            assert (command >= bounds.low).all()
            assert (command <= bounds.high).all()
            assert (np.abs(velocity) <= bounds.speed * (1 + 1e-9)).all()
            assert (np.abs(acceleration) <= bounds.acceleration * (1 + 1e-6)).all()
            at_speed_limit += np.count_nonzero(np.abs(velocity) > 0.999 * bounds.speed)
            at_acceleration_limit += np.count_nonzero(np.abs(acceleration) > 0.999 * bounds.acceleration)
            at_position_limit += np.count_nonzero((command - bounds.low < 1e-3) | (bounds.high - command < 1e-3))
    # The test would say nothing if the limits were never reached.
    assert min(at_speed_limit, at_position_limit, at_acceleration_limit) > 50_000


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(1e-4, 0.5)), min_size=1, max_size=40),
    st.floats(-3, 2),
    st.floats(0.05, 20),
    st.floats(0.1, 500),
)
def test_any_targets_at_any_times_pass_no_limit(
    ticks: list[tuple[float, float]], start: float, speed: float, acceleration: float
) -> None:
    bounds = make_bounds(AXES[:1], Limits({"arm": speed}, {"arm": acceleration}))
    motion, velocity = at_rest(np.array([start])), 0.0
    for target, dt in ticks:
        before = motion.position[0]
        motion = follow(bounds, motion, np.array([target]), dt)
        was, velocity = velocity, (motion.position[0] - before) / dt
        assert -3 <= motion.position[0] <= 2
        assert abs(velocity) <= speed + 1e-9
        assert abs(velocity - was) / dt <= acceleration * (1 + 1e-6) + 1e-4  # rounding of 1e-12 over dt^2


def test_what_is_within_the_limits_passes_unchanged(bounds: Bounds) -> None:
    rng = np.random.default_rng(1)
    dts = rng.uniform(0.015, 0.04, 400)
    time = np.cumsum(dts)[:, None]
    wanted = np.array([-0.5, 0.5, 0.2]) + np.array([0.8, 0.3, 0.2]) * np.sin(time * np.array([1.5, 3.0, 2.0]))
    ramp = np.minimum(time / 2, 1)
    ramp = ramp**2 * (3 - 2 * ramp)  # begins at rest
    wanted = wanted[0] + ramp * (wanted - wanted[0])
    _, commands = run(bounds, at_rest(wanted[0]), wanted[1:], dts[1:])
    np.testing.assert_allclose(commands, wanted[1:], atol=1e-12)


def test_a_jump_is_followed_at_full_speed_and_not_passed(bounds: Bounds) -> None:
    target = np.array([1.5, 0.9, 0.8])
    _, commands = run(bounds, at_rest(np.zeros(3)), np.tile(target, (200, 1)), np.full(200, 0.02))
    assert (commands <= target + 1e-12).all()
    np.testing.assert_allclose(commands[-1], target)
    arrival = (np.abs(commands - target) < 1e-6).argmax(0) * 0.02
    at_least = target / bounds.speed + bounds.speed / bounds.acceleration  # trapezoid of speed in continuous time
    assert (arrival < at_least + 0.16).all()


def test_a_moving_target_is_caught_up_with_and_kept(bounds: Bounds) -> None:
    targets = np.column_stack([0.5 + 0.5 * np.arange(100) * 0.02, np.full(100, 0.5), np.zeros(100)])
    _, commands = run(bounds, at_rest(np.zeros(3)), targets, np.full(100, 0.02))
    np.testing.assert_allclose(commands[70:], targets[70:], atol=1e-9)


def test_braking_holds_the_position_and_takes_velocities_to_zero(bounds: Bounds) -> None:
    motion, commands = run(bounds, at_rest(np.zeros(3)), np.tile([1.9, 0.9, 0.9], (30, 1)), np.full(30, 0.02))
    path = [motion.position]
    for _ in range(60):
        motion = brake(bounds, motion, 0.02)
        path.append(motion.position)
    np.testing.assert_allclose(motion.velocity, 0, atol=1e-12)
    assert motion.position[2] == pytest.approx(0, abs=1e-12)
    assert commands[-1][0] < motion.position[0] < commands[-1][0] + 2.0**2 / (2 * 8)
    assert (np.diff(np.array(path)[:, 0]) >= 0).all()


def test_an_axis_found_outside_its_limits_only_comes_back(bounds: Bounds) -> None:
    _, commands = run(bounds, at_rest(np.array([2.1, 0.5, 0.0])), np.tile([5.0, 0.5, 0], (5, 1)), np.full(5, 0.02))
    assert (np.diff(commands[:, 0], prepend=2.1) <= 0).all()
    _, commands = run(bounds, at_rest(np.array([2.1, 0.5, 0.0])), np.tile([1.0, 0.5, 0], (99, 1)), np.full(99, 0.02))
    assert commands[-1][0] == pytest.approx(1.0)


@pytest.fixture
def gate() -> Gate:
    gate = Gate(AXES, replace(LIMITS, max_age=0.1, watchdog=0.3))
    gate.arm(np.array([0.0, 0.5, 0.0]), 10.0)
    return gate


def moving(gate: Gate, ticks: int = 15) -> float:
    """Go towards one side; the time afterwards."""
    for tick in range(1, ticks + 1):
        gate.command(np.array([1.0, 0.9, 0.5]), 10 + tick * 0.02, observed=10 + tick * 0.02 - 0.05)
    return 10 + ticks * 0.02


def test_a_command_without_a_number_is_refused_and_the_next_good_one_followed(gate: Gate) -> None:
    now = moving(gate)
    before = gate.command(np.array([1.0, 0.9, 0.5]), now + 0.02, now)
    braking = gate.command(np.array([1.0, np.nan, 0.5]), now + 0.04, now)
    assert gate.refused == "command of left_gripper is nan, expected a number"
    assert gate.stopped is None
    assert np.isfinite(braking).all()
    assert 0 < braking[0] - before[0] < 0.02 * 2
    assert gate.command(np.array([1.0, 0.9, 0.5]), now + 0.06, now)[0] > braking[0]
    gate.command(np.zeros(2), now + 0.08, now)
    assert gate.refused == "command of shape [2], expected 3 numbers"


def test_a_decision_on_an_old_observation_is_refused(gate: Gate) -> None:
    now = moving(gate)
    gate.command(np.array([1.0, 0.9, 0.5]), now + 0.02, observed=now - 0.1)
    assert gate.refused == "decided on an observation 0.120 s old, expected at most 0.1 s"


def test_without_commands_the_gate_stops_until_it_is_armed_again(gate: Gate) -> None:
    now = moving(gate)
    assert not gate.check(now + 0.29)
    assert gate.check(now + 0.31)
    assert gate.stopped == "no command accepted for 0.310 s, expected one every 0.3 s"
    for tick in range(100):
        held = gate.command(np.array([1.0, 0.9, 0.5]), now + 0.33 + tick * 0.02, now + 0.33 + tick * 0.02)
    assert gate.at_rest
    assert held[2] == pytest.approx(0, abs=1e-9)
    assert gate.refused == gate.stopped
    gate.arm(held, now + 5)
    assert gate.stopped is None
    assert gate.command(np.array([1.0, 0.9, 0.5]), now + 5.02, now + 5)[2] > 0


def test_refused_commands_do_not_feed_the_watchdog(gate: Gate) -> None:
    now = moving(gate)
    for tick in range(1, 20):
        gate.command(np.full(3, np.nan), now + tick * 0.02, now)
    assert gate.stopped is not None
    assert "the last was refused: command of left_waist is nan" in gate.stopped


def test_a_refusal_that_was_followed_by_a_good_command_is_not_blamed_for_the_stop(gate: Gate) -> None:
    gate.command(np.full(3, np.nan), 10.02, 10.0)
    gate.command(np.zeros(3), 10.04, 10.02)
    assert gate.check(10.4)
    assert gate.stopped == "no command accepted for 0.360 s, expected one every 0.3 s"
    assert gate.refused == "command of left_waist is nan, expected a number"


def test_a_clock_that_stands_or_goes_back_moves_nothing(gate: Gate) -> None:
    now = moving(gate)
    held = gate.command(np.array([1.0, 0.9, 0.5]), now + 0.02, now)
    np.testing.assert_array_equal(gate.command(np.array([-1.0, 0.1, 0.0]), now + 0.02, now), held)
    np.testing.assert_array_equal(gate.command(np.array([-1.0, 0.1, 0.0]), now - 1, now - 1), held)


def test_a_gate_moves_nothing_before_it_knows_where_the_robot_is() -> None:
    gate = Gate(AXES, LIMITS)
    with pytest.raises(RobotError, match="gate: not armed; arm it with the measured position"):
        gate.command(np.zeros(3), 0.0, 0.0)
    with pytest.raises(SpecError, match=r"gate: armed at .*nan.*, expected 3 finite numbers"):
        gate.arm(np.array([0.0, np.nan, 0.0]), 0.0)


def test_the_limit_of_an_axis_comes_before_that_of_its_kind() -> None:
    limits = Limits({"arm": 2.0, "left_waist": 0.5, "gripper": 1.0, "base": 1.0}, LIMITS.acceleration)
    assert make_bounds(AXES, limits).speed.tolist() == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("axes", "limits", "message"),
    [
        (AXES, Limits({"arm": 1.0}, LIMITS.acceleration), "speed: nothing for axis 'left_gripper'; give it, or one"),
        (AXES, Limits({**LIMITS.speed, "wrist": 1.0}, {}), "limits: speed: 'wrist' is no axis and no kind"),
        ((Axis("a", "rad", "arm"),), Limits({"arm": 1.0}, {"arm": 1.0}), "a: low None, high None; expected two"),
        ((replace(AXES[2], low=0.1),), Limits({"base": 1.0}, {"base": 1.0}), "a velocity must be able to be 0"),
    ],
)
def test_limits_that_leave_an_axis_free_are_refused(axes: tuple[Axis, ...], limits: Limits, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Gate(axes, limits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"speed": {"arm": 0.0}}, "limits: speed: arm is 0.0, expected a number above 0"),
        ({"acceleration": {"arm": float("inf")}}, "limits: acceleration: arm is inf"),
        ({"watchdog": -1.0}, "limits: watchdog is -1.0, expected seconds above 0"),
        ({"max_age": float("nan")}, "limits: max_age is nan"),
    ],
)
def test_limits_that_are_none(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(LIMITS, **fields)  # type: ignore[arg-type]
