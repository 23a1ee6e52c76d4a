"""The robot as a world: simulated arms and cameras on a manual clock, through the gate and the synchroniser."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lapwing.env import Env
from lapwing.episode import Array
from lapwing.errors import RobotError, SpecError
from lapwing.robot.arm import Reading, SimulatedArm
from lapwing.robot.camera import SimulatedCamera
from lapwing.robot.clock import ManualClock, WallClock
from lapwing.robot.description import Description
from lapwing.robot.station import Leaders, Station

GOAL = np.array([1.5, 0.9, 1.2, 0.1, 0.3, -0.4])


@dataclass
class Spy:
    """An arm whose commands and stops are noted, and which can be made to fail."""

    arm: Any
    clock: ManualClock
    sent: list[tuple[float, Array]]
    stops: int = 0
    broken: str = ""

    def read_state(self) -> Reading | None:
        if self.broken == "read":
            raise OSError("bus is gone")
        reading: Reading | None = self.arm.read_state()
        return reading

    def read_leader(self) -> Reading | None:
        return None if self.broken == "leader" else self.arm.read_leader()

    def send_command(self, command: Array) -> None:
        if self.broken == "send":
            raise OSError("bus is gone")
        self.sent.append((self.clock.now(), command))
        self.arm.send_command(command)

    def stop(self) -> None:
        if self.broken == "stop":
            raise OSError("bus is gone")
        self.stops += 1
        self.arm.stop()


@dataclass
class Stalling:
    """A camera that shows nothing new from a time on, or whose clock lags."""

    camera: SimulatedCamera
    clock: ManualClock
    until: float = np.inf
    lag: float = 0.0
    newest: tuple[float, Array] | None = None

    def read(self) -> tuple[float, Array] | None:
        if self.clock.now() <= self.until and (frame := self.camera.read()):
            self.newest = (frame[0] - self.lag, frame[1])
        return self.newest


@pytest.fixture
def spies(arms: dict[str, SimulatedArm], clock: ManualClock) -> dict[str, Spy]:
    return {name: Spy(arm, clock, []) for name, arm in arms.items()}


@pytest.fixture
def eyes(cameras: dict[str, SimulatedCamera], clock: ManualClock) -> dict[str, Stalling]:
    return {name: Stalling(camera, clock) for name, camera in cameras.items()}


@pytest.fixture
def station(
    description: Description, spies: dict[str, Spy], eyes: dict[str, Stalling], clock: ManualClock
) -> Iterator[Station]:
    with Station(description, spies, eyes, clock, max_steps=200, watch=False) as station:
        yield station


def test_it_is_a_world_in_which_the_arms_go_where_they_are_sent(station: Env, clock: ManualClock) -> None:
    observation = station.reset(0)
    begun = clock.now()
    np.testing.assert_allclose(observation.state, [0.3, 0.1, 0.3, 0.5])
    for _ in range(150):
        observation, reward, terminated, truncated, info = station.step(GOAL)
        assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    np.testing.assert_allclose(observation.state, GOAL[:4], atol=1e-6)
    np.testing.assert_allclose(observation.sensors["base_velocity"], GOAL[4:], atol=1e-6)
    assert 150 / 50 <= clock.now() - begun < 150 / 50 + 0.2  # a lost frame makes a step wait for the next one


@pytest.mark.parametrize("rate_hz", [50.0, 20.0])
def test_rows_come_at_the_rate_and_a_loop_slower_than_the_cameras_sees_fresh_ones(
    description: Description,
    arms: dict[str, SimulatedArm],
    cameras: dict[str, SimulatedCamera],
    clock: ManualClock,
    rate_hz: float,
) -> None:
    description = replace(description, spec=replace(description.spec, rate_hz=rate_hz))
    with Station(description, arms, cameras, clock, watch=False) as station:
        station.reset(0)
        for _ in range(100):
            frame = station.step(GOAL)[0].images["front"]
            age = (round(clock.now() * 100) - int(frame[0, 0, 0])) % 256 / 100
            assert age < 0.1  # 20 ms each for transport, the other camera, the queue and a loss; rounding
        rows = station.account()["front"].used
        assert rows - 3 <= 101 + station.skipped_rows <= rows
        assert (station.skipped_rows <= 3) if rate_hz == 50 else (station.skipped_rows > 100)


def test_observations_fit_the_spec_and_carry_their_stamps(station: Station) -> None:
    observations = [station.reset(0), *(station.step(GOAL)[0] for _ in range(50))]
    for one in observations:
        assert {name: frame.shape for name, frame in one.images.items()} == {"front": (4, 6, 3), "wrist": (4, 6, 3)}
        assert one.state.dtype == np.float32
        assert {n: (x.shape, str(x.dtype)) for n, x in one.sensors.items()} == {
            sensor.name: (sensor.shape, sensor.dtype) for sensor in station.spec.sensors
        }
    stamps = {name: np.array([one.sensors[f"stamp_{name}"] for one in observations]) for name in station.account()}
    front = stamps.pop("front")
    assert front[0] == 0
    assert (np.diff(front) > 0).all()
    assert all(np.abs(stamp - front).max() <= 0.015 for stamp in stamps.values())
    shades = np.array([int(one.images["front"][0, 0, 0]) for one in observations])
    np.testing.assert_allclose((shades - shades[0]) % 256 / 100, front, atol=0.011)


def test_an_interpolated_state_belongs_to_the_stamp_of_the_row(
    description: Description, arms: dict[str, SimulatedArm], cameras: dict[str, SimulatedCamera], clock: ManualClock
) -> None:
    slow = SimulatedArm(np.zeros(2), np.array([0.25, 1.0]), clock)  # it never comes to rest on its way
    with Station(description, {**arms, "left": slow}, cameras, clock, watch=False) as station:
        station.reset(0)
        rows = [station.step(GOAL)[0] for _ in range(30)][10:]
    stamps = np.array([one.sensors["stamp_front"] for one in rows])
    states = np.array([one.state[0] for one in rows])
    np.testing.assert_allclose(np.diff(states), 0.25 * np.diff(stamps), atol=1e-6)
    np.testing.assert_allclose([one.sensors["velocity"][0] for one in rows], 0.25, rtol=1e-5)


def test_every_command_keeps_the_limits_whatever_is_asked(station: Station, spies: dict[str, Spy]) -> None:
    rng = np.random.default_rng(0)
    station.reset(0)
    for _ in range(190):
        station.step(rng.uniform(-5, 5, 6))
    bounds = {"left": ([-1, 0], [2, 1], [2, 5], [10, 100]), "base": ([-0.5, -1], [0.5, 1], [1, 1], [10, 10])}
    for name, (low, high, speed, acceleration) in bounds.items():
        time, command = (np.array(values) for values in zip(*spies[name].sent, strict=True))
        assert len(time) == 190
        velocity = np.diff(command, axis=0) / np.diff(time)[:, None]
        assert ((command >= low) & (command <= high)).all()
        assert (np.abs(velocity) <= np.array(speed) * (1 + 1e-6)).all()
        change = np.diff(velocity, axis=0) / np.diff(time)[1:, None]
        assert (np.abs(change) <= np.array(acceleration) * (1 + 1e-6)).all()


def test_the_first_command_begins_where_the_robot_is(station: Station, spies: dict[str, Spy]) -> None:
    station.reset(0)
    station.step(GOAL)
    for name, start in {"left": [0.3, 0.1], "right": [0.3, 0.5], "base": [0.0, 0.0]}.items():
        assert len(spies[name].sent) == 1
        np.testing.assert_allclose(spies[name].sent[0][1], start, atol=100 * 0.02**2)  # what acceleration allows


def test_every_episode_has_stamps_and_accounts_of_its_own(station: Station, clock: ManualClock) -> None:
    for seed in (0, 1):
        observation = station.reset(seed)
        assert observation.sensors["stamp_front"] == 0
        for _ in range(30):
            observation = station.step(GOAL)[0]
        assert 30 <= station.account()["front"].pushed <= 35
        clock.sleep(3.0)


@pytest.mark.parametrize("name", ["front", "wrist"])
def test_a_stalled_camera_stops_the_arms_and_is_named(
    station: Station, eyes: dict[str, Stalling], spies: dict[str, Spy], clock: ManualClock, name: str
) -> None:
    station.reset(0)
    for _ in range(20):
        station.step(GOAL)
    eyes[name].until = clock.now()
    stops = {part: spy.stops for part, spy in spies.items()}
    steps = 0
    while not (outcome := station.step(GOAL))[3]:
        steps += 1
    observation, _, terminated, _, info = outcome
    assert steps < 15
    assert not terminated
    assert info == {"stopped": True, f"stalled_{name}": True}
    assert clock.now() - eyes[name].until < 0.75
    assert {part: spy.stops - stops[part] for part, spy in spies.items()} == {"left": 1, "right": 1, "base": 1}
    assert station.stopped is not None
    assert station.stopped.startswith("no command accepted for 0.1")
    (before, last), (now, braked) = spies["left"].sent[-2:]
    assert abs(braked - last).max() / (now - before) < 0.2  # it was braked, not cut off
    sent = len(spies["left"].sent)
    again = station.step(GOAL)
    assert again[3]
    assert len(spies["left"].sent) == sent
    assert again[0].sensors[f"stamp_{name}"] == observation.sensors[f"stamp_{name}"]


def test_after_a_stop_only_a_reset_arms_it_again(
    station: Station, eyes: dict[str, Stalling], clock: ManualClock
) -> None:
    station.reset(0)
    eyes["front"].until = clock.now()
    while not station.step(GOAL)[3]:
        pass
    eyes["front"].until = np.inf
    assert station.step(GOAL)[4]["stopped"]
    observation = station.reset(0)
    assert station.stopped is None
    moved = [station.step(GOAL)[0].state for _ in range(30)][-1]
    assert (np.abs(moved - observation.state) > 0.2).all()


def test_without_commands_the_arms_brake_and_stop(station: Station, spies: dict[str, Spy], clock: ManualClock) -> None:
    station.reset(0)
    for _ in range(20):
        station.step(GOAL)
    stops, sent = spies["left"].stops, len(spies["left"].sent)
    for _ in range(500):
        clock.sleep(0.002)
        station.keep()
    assert spies["left"].stops == stops + 1
    assert len(spies["left"].sent) > sent + 3
    reading = spies["base"].read_state()
    assert reading is not None
    np.testing.assert_allclose(reading.position, 0, atol=1e-9)
    _, _, _, truncated, info = station.step(GOAL)
    assert (truncated, info) == (True, {"stopped": True})


def test_a_command_without_numbers_brakes_and_the_next_is_followed(station: Station) -> None:
    station.reset(0)
    station.step(GOAL)
    observation, _, _, truncated, info = station.step(np.full(6, np.nan))
    assert (truncated, info) == (False, {})
    assert station.refused == "command of left_shoulder is nan, expected a number"
    assert np.isfinite(observation.state).all()
    assert station.step(GOAL)[0].state[0] > 0.3


def test_the_leaders_lead(station: Station, spies: dict[str, Spy], clock: ManualClock) -> None:
    leaders = Leaders(station)
    observation = station.reset(0)
    assert leaders.reset(0) == {"source": "leader arms"}
    for _ in range(100):
        action = leaders(observation)
        assert action is not None
        observation = station.step(action)[0]
    np.testing.assert_allclose(observation.state, [1.5, 0.8, 1.0, 0.2], atol=1e-6)
    spies["right"].broken = "leader"
    assert leaders(observation) is None
    with pytest.raises(RobotError, match="leaders: no fresh reading of all of them"):
        leaders.reset(1)


def test_an_episode_ends_after_its_steps(station: Station) -> None:
    station.reset(0)
    cut = [station.step(GOAL)[3] for _ in range(200)]
    assert cut == [False] * 199 + [True]


def test_a_device_that_never_answers_is_named(station: Station, eyes: dict[str, Stalling]) -> None:
    eyes["wrist"].until = -1.0
    with pytest.raises(RobotError, match="small: no row of readings in 5 s: nothing came from wrist; see after"):
        station.reset(0)


def test_streams_that_never_meet_are_named(station: Station, eyes: dict[str, Stalling]) -> None:
    eyes["wrist"].lag = 50.0
    with pytest.raises(RobotError, match="wrist had nothing within max_skew; see after their clocks and rates"):
        station.reset(0)


def test_a_reference_that_lags_leaves_no_row_and_the_stamps_tell(station: Station, eyes: dict[str, Stalling]) -> None:
    eyes["front"].lag = 50.0
    with pytest.raises(RobotError, match=r"5 s: the streams had nothing within .* stamps: front 54\.\d+, wrist 104\."):
        station.reset(0)


def test_readings_of_another_clock_are_refused_before_anything_moves(
    description: Description, spies: dict[str, Spy], eyes: dict[str, Stalling], clock: ManualClock
) -> None:
    slow: Any = SimpleNamespace(now=lambda: clock.now() - 50, sleep=clock.sleep)
    with (
        Station(description, spies, eyes, slow, watch=False) as station,
        pytest.raises(RobotError, match=r"small: readings are stamped 49\.9\d+ s ahead of the station's clock"),
    ):
        station.reset(0)
    assert not spies["left"].sent


@pytest.mark.parametrize("what", ["read", "send"])
def test_a_driver_that_fails_stops_all_arms_and_is_heard(station: Station, spies: dict[str, Spy], what: str) -> None:
    station.reset(0)
    station.step(GOAL)
    stops = spies["base"].stops
    spies["left"].broken = what
    with pytest.raises(OSError, match="bus is gone"):
        station.step(GOAL)
    assert spies["base"].stops == stops + 1


def test_an_arm_that_cannot_be_stopped_does_not_keep_the_others_from_it(
    station: Station, spies: dict[str, Spy]
) -> None:
    station.reset(0)
    stops = spies["base"].stops
    spies["right"].broken = "stop"
    with pytest.raises(OSError, match="bus is gone"):
        station.close()
    assert spies["base"].stops == stops + 1
    spies["right"].broken = ""


def test_devices_that_do_not_fit_the_description_are_refused(
    description: Description, spies: dict[str, Spy], eyes: dict[str, Stalling], clock: ManualClock
) -> None:
    def build(**changes: Any) -> Station:
        return Station(description, **{"arms": spies, "cameras": eyes, "clock": clock, "watch": False, **changes})

    with pytest.raises(SpecError, match=r"cameras: got \['front'\], expected those of .*\['front', 'wrist'\]"):
        build(cameras={"front": eyes["front"]})
    with pytest.raises(SpecError, match=r"arms: got \['left', 'right'\], expected"):
        build(arms={name: arm for name, arm in spies.items() if name != "base"})
    large = SimulatedCamera(lambda time: np.zeros((9, 6, 3), np.uint8), clock)
    with pytest.raises(SpecError, match=r"wrist: frames are uint8 \(9, 6, 3\), expected uint8 \(4, 6, 3\)"):
        build(cameras={**eyes, "wrist": large}).reset(0)
    with pytest.raises(SpecError, match=r"left: position: got shape \[3\], expected 2 numbers"):
        build(arms={**spies, "left": SimulatedArm(np.zeros(3), np.ones(3), clock)}).reset(0)
    silent = SimpleNamespace(read_state=lambda: Reading(0.0, np.zeros(2)), stop=lambda: None)
    with pytest.raises(SpecError, match="left: velocity: got nothing, expected 2 numbers"):
        build(arms={**spies, "left": silent}).reset(0)


def test_the_watchdog_stops_the_arms_while_nobody_calls(description: Description) -> None:
    clock = WallClock()
    limits = replace(description.limits, max_age=20.0, watchdog=0.05)
    description = replace(description, limits=limits, sync=replace(description.sync, patience=5.0))
    arms = {name: SimulatedArm(np.zeros(2), np.ones(2), clock, is_base=name == "base") for name in description.parts}
    stops = threading.Semaphore(0)
    arms["base"].stop = stops.release  # type: ignore[method-assign]
    black = np.zeros((4, 6, 3), np.uint8)
    cameras = {name: SimulatedCamera(lambda time: black, clock) for name in description.spec.camera_names}
    with Station(description, arms, cameras, clock) as station:
        station.reset(0)
        assert stops.acquire(blocking=False)  # the reset's own
        assert stops.acquire(timeout=20)
        assert station.stopped is not None
        assert station.step(GOAL)[4]["stopped"]


def test_a_driver_that_fails_under_the_watchdog_is_heard_in_the_next_step(
    description: Description, spies: dict[str, Spy], eyes: dict[str, Stalling], clock: ManualClock
) -> None:
    with Station(description, spies, eyes, clock) as station:
        station.reset(0)
        station.step(GOAL)
        spies["left"].broken = "send"
        stops = spies["base"].stops
        clock.sleep(1.0)
        give_up = time.monotonic() + 20
        while spies["base"].stops == stops and time.monotonic() < give_up:
            time.sleep(0.005)
        assert spies["base"].stops > stops  # the watchdog was there before the step
        with pytest.raises(OSError, match="bus is gone"):
            station.step(GOAL)
        spies["left"].broken = ""
        station.reset(1)
        assert not station.step(GOAL)[3]


def test_a_policy_that_thinks_too_long_is_refused_for_that_tick(station: Station, clock: ManualClock) -> None:
    station.reset(0)
    station.step(GOAL)
    clock.sleep(0.085)
    assert not station.step(GOAL)[3]
    assert station.refused is not None
    assert station.refused.startswith("decided on an observation 0.1")
    assert not station.step(GOAL)[3]


class Bus:
    """Motors that are where they were sent; reading takes its time."""

    def __init__(self, position: list[float]) -> None:
        self.position = position

    def read(self) -> list[float]:
        time.sleep(0.002)
        return self.position

    def write(self, position: list[float]) -> None:
        self.position = position


def test_the_example_of_the_documents_runs(robot_file: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "robot.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    text = robot_file.read_text().replace('"velocity", "effort"', "")
    for key, patient in {"max_skew_ms": 200, "patience_ms": 2000, "max_age_ms": 5000, "watchdog_ms": 5000}.items():
        text = re.sub(rf"{key} = \d+", f"{key} = {patient}", text)  # on a machine that does other things as well
    robot_file.write_text(text)
    arms = {name: names["BusArm"](Bus([0.2, 0.5]), Bus([0.3, 0.6])) for name in ("left", "right")}
    arms["base"] = names["BusArm"](Bus([0.0, 0.0]), Bus([0.0, 0.0]))
    camera = SimpleNamespace(read=lambda: (time.monotonic(), np.zeros((4, 6, 3), np.uint8)))
    observation, info = names["teleoperate"](str(robot_file), arms, {"front": camera, "wrist": camera}, 25)
    assert info == {}
    np.testing.assert_allclose(observation.state, [0.3, 0.6, 0.3, 0.6], atol=1e-6)
