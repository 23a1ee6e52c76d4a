"""The simulated arm and camera: what they do depends on time and seed, with the faults that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from lapwing.episode import Array
from lapwing.robot.arm import Arm, Reading, SimulatedArm
from lapwing.robot.camera import Camera, SimulatedCamera
from lapwing.robot.clock import Clock, ManualClock, WallClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(5.0)


def make_arm(clock: Clock, **faults: float) -> SimulatedArm:
    return SimulatedArm(
        np.array([0.0, 0.5]), np.array([1.0, 2.0]), clock, leader=lambda time: np.array([time, 0.0]), **faults
    )  # type: ignore[arg-type]


def watch(arm: Arm, clock: Clock, seconds: float, every: float = 0.001) -> list[Reading]:
    """All readings that are seen by asking often."""
    readings: list[Reading] = []
    for _ in range(round(seconds / every)):
        clock.sleep(every)
        reading = arm.read_state()
        if reading is not None and (not readings or reading.stamp > readings[-1].stamp):
            readings.append(reading)
    return readings


def test_it_moves_at_its_speed_after_the_latency(clock: ManualClock) -> None:
    arm = make_arm(clock, latency=0.02, jitter=0.0, dropped=0.0)
    arm.send_command(np.array([1.0, 0.5]))
    readings = watch(arm, clock, 1.5)
    by_time = {round(one.stamp - 5, 6): one.position[0] for one in readings}
    assert by_time[0.02] == 0
    assert by_time[0.52] == pytest.approx(0.5)
    assert readings[-1].position.tolist() == [1.0, 0.5]
    halfway = next(one for one in readings if one.stamp > 5.5)
    assert halfway.velocity is not None
    assert halfway.velocity.tolist() == pytest.approx([1.0, 0.0])
    assert halfway.effort is not None
    assert halfway.effort[0] == pytest.approx(1 - halfway.position[0])


def test_readings_arrive_late_at_their_rate_with_some_lost(clock: ManualClock) -> None:
    arm = make_arm(clock, rate_hz=200.0, latency=0.004, jitter=0.3, dropped=0.2)
    assert arm.read_state() is None
    ages = []
    readings = []
    for _ in range(5000):
        clock.sleep(0.001)
        reading = arm.read_state()
        if reading is not None and (not readings or reading.stamp > readings[-1]):
            readings.append(reading.stamp)
            ages.append(clock.now() - reading.stamp)
    assert 750 < len(readings) < 850
    assert 0.002 <= min(ages) < 0.004 < max(ages) < 0.0071  # 6 ms, seen within 1
    assert 0.001 < np.std(np.diff(readings)) < 0.01


def test_it_is_the_same_again_whenever_it_is_asked(clock: ManualClock) -> None:
    def path(every: float) -> tuple[float, float]:
        clock = ManualClock()
        arm = make_arm(clock, dropped=0.2)
        arm.send_command(np.array([3.0, 0.0]))
        last = watch(arm, clock, 1.0, every)[-1]
        return last.stamp, float(last.position[0])

    assert path(0.001) == pytest.approx(path(0.1))


def test_lost_commands_are_not_obeyed(clock: ManualClock) -> None:
    arm = SimulatedArm(np.zeros(1), np.array([1e9]), clock, rate_hz=1000.0, latency=0.001, dropped=0.3)
    seen = set()
    for target in range(1, 201):
        arm.send_command(np.array([float(target)]))
        seen |= {one.position[0] for one in watch(arm, clock, 0.02)}
    assert 120 < len(seen - {0.0}) < 160


def test_a_stop_holds_an_arm_and_halts_a_base_whatever_was_on_its_way(clock: ManualClock) -> None:
    for is_base, held in ((False, pytest.approx(0.396, abs=0.01)), (True, pytest.approx(0.0))):
        arm = SimulatedArm(np.zeros(1), np.ones(1), clock, is_base=is_base, dropped=0.0)
        arm.send_command(np.ones(1))
        watch(arm, clock, 0.4)
        arm.send_command(np.array([-1.0]))
        arm.stop()
        assert watch(arm, clock, 1.0)[-1].position == held


def test_the_leader_is_where_the_operator_holds_it(clock: ManualClock) -> None:
    arm = make_arm(clock)
    assert arm.read_leader() is None
    clock.sleep(1.0)
    reading = arm.read_leader()
    assert reading is not None
    assert reading.position[0] == reading.stamp
    assert 5.98 < reading.stamp < 6
    assert SimulatedArm(np.zeros(2), np.ones(2), clock).read_leader() is None


def test_a_camera_shows_what_there_was_to_see(clock: ManualClock) -> None:
    def view(time: float) -> Array:
        return np.full((2, 3, 3), round((time - 5) * 100), np.uint8)

    camera: Camera = SimulatedCamera(view, clock, rate_hz=50.0, latency=0.02, jitter=0.1, dropped=0.2)
    assert camera.read() is None
    seen: dict[float, int] = {}
    for _ in range(2000):
        clock.sleep(0.001)
        if newest := camera.read():
            stamp, frame = newest
            assert clock.now() - stamp >= 0.01
            assert frame.shape == (2, 3, 3)
            seen[stamp] = int(frame[0, 0, 0])
    assert 70 < len(seen) < 90
    assert list(seen) == sorted(seen)
    assert all(value == round((stamp - 5) * 100) for stamp, value in seen.items())


def test_the_wall_clock_goes_on_and_sleeps() -> None:
    clock = WallClock()
    start = clock.now()
    clock.sleep(0.01)
    assert clock.now() - start >= 0.009
