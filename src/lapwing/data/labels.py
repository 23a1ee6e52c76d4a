"""Checks of what the actions are labels for: how far the state follows behind them, and the scale of grippers.

The lag of an axis is the number of steps after which the state does what the action said: the shift at which the
movements of both, from step to step, agree best over all episodes. On a robot that follows a leader or a command it
is 1 at least, for an observation is made before the action of its step is sent, and what it is beyond that is the
robot's own delay: the policy has to lead by as much, so it is reported and not to be aligned away. At 0 or below,
the action says where the robot is already: a policy of it stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np

from lapwing.data.axes import corresponding_axes
from lapwing.data.problems import Problem, listed
from lapwing.episode import Array, Episode
from lapwing.spec import AxisKind, RobotSpec

_FARTHEST = 15  # steps: half a second at 30 Hz
_MOVING_ROWS = 100  # rows in which an axis must move before its lag is estimated
_CLEAR = 0.8  # correlation; teleoperated arms reach 0.88 to 0.96, axes at rest 0.2 to 0.6 (g1_inspire, 30 Hz)
_HALVES = 0.5  # a lag below 1 must leave at most this share of what a lag of 1 leaves unexplained
_SIDES = ("left_", "right_")
_SCALE = 2.0  # a gripper that stops at an object covers less than it was told to, but rarely half


@dataclass(frozen=True)
class Lag:
    """How many steps the state follows behind the action in one axis, with the correlations that say so."""

    axis: str
    kind: AxisKind
    steps: int
    correlation: float  # of the movements, at `steps`
    at_0: float
    at_1: float

    @property
    def is_behind(self) -> bool:
        """Whether the action clearly says no more than the state of its own step or of an earlier one."""
        return self.steps < 1 and 1 - self.correlation <= _HALVES * (1 - self.at_1)

    def __str__(self) -> str:
        return f"{self.axis} by {self.steps} (correlation {self.correlation:.2f}, {self.at_0:.2f} at 0)"


def measure_lags(episodes: Sequence[Episode], spec: RobotSpec) -> list[Lag]:
    """The lag of every action axis that moves and that a measurement follows clearly. Numbers must be finite."""
    lags = []
    for axis, action, measured in _tracks(episodes, spec):
        if sum(int(np.count_nonzero(moves)) for moves in action) < _MOVING_ROWS:
            continue
        curve = _correlations(action, measured)
        best = int(curve.argmax())
        if curve[best] >= _CLEAR and 0 < best < len(curve) - 1:
            at_0, at_1 = float(curve[_FARTHEST]), float(curve[_FARTHEST + 1])
            lags.append(
                Lag(spec.action[axis].name, spec.action[axis].kind, best - _FARTHEST, float(curve[best]), at_0, at_1)
            )
    return lags


def check_lags(path: Path, key: str, lags: Sequence[Lag]) -> list[Problem]:
    """Actions that repeat the state or come after it, and arms that differ in how far they trail."""
    behind = [lag for lag in lags if lag.is_behind]
    if not behind:
        return _check_sides(path, key, lags)
    shift = 1 - min(lag.steps for lag in behind)
    got = f"the state is not behind the action but with it or ahead: {listed(behind, 4)}"
    if len(behind) == len(lags):
        advice = f"a policy of it stays where it is: record the commands, or train with --alignment {shift}"
    else:
        rest = median_low(lag.steps for lag in lags if not lag.is_behind)
        advice = (
            f"the state follows the other axes by {rest}, so no --alignment suits all: record these axes' commands too"
        )
    return [Problem("warning", str(path), key, got, "actions that lead the state by a step or more", advice)]


def describe_lags(lags: Sequence[Lag]) -> list[str]:
    """The lags as one note, by number of steps."""
    if not lags:
        return []
    usual = median_low(lag.steps for lag in lags)
    others = listed((f"{lag.axis} {lag.steps}" for lag in lags if lag.steps != usual), 6)
    text = f"the state follows the action by {usual} step{'s' * (usual != 1)}"
    return [f"{text} (median of {len(lags)} axes{'; ' + others if others else ''})"]


def check_grippers(path: Path, key: str, episodes: Sequence[Episode], spec: RobotSpec) -> list[Problem]:
    """Grippers whose opening is measured on another scale than it is commanded on. Numbers must be finite."""
    found = []
    for action, state in _gripper_pairs(spec):
        low, high = _range([episode.action[:, action] for episode in episodes])
        state_low, state_high = _range([episode.state[:, state] for episode in episodes])
        wide, state_wide = high - low, state_high - state_low
        if min(wide, state_wide) <= 0:
            continue
        apart = abs((low + high) - (state_low + state_high)) / 2
        if not 1 / _SCALE < wide / state_wide < _SCALE or apart > max(wide, state_wide) / 2:
            name = spec.action[action].name
            found.append(f"{name} commanded {low:.3g} to {high:.3g}, measured {state_low:.3g} to {state_high:.3g}")
    if not found:
        return []
    advice = (
        "each is normalised by itself, so training goes on; programs with one scale for both, and a policy that "
        "holds the gripper where it is, go wrong: bring both to one"
    )
    return [Problem("warning", str(path), key, listed(found, 4), "one scale for command and measurement", advice)]


def _tracks(episodes: Sequence[Episode], spec: RobotSpec) -> list[tuple[int, list[Array], list[Array]]]:
    """(action axis, its movements, those measured) [N - 1] an episode: differences of positions, base velocities."""
    places = {axis.name: index for index, axis in enumerate(spec.state)}
    tracks = []
    for axis, state in enumerate(corresponding_axes(spec)):
        kind, name = spec.action[axis].kind, spec.action[axis].name
        if kind == "base":
            measured = [_base_velocity(episode, spec, axis, places.get(name)) for episode in episodes]
            known = [values for values in measured if values is not None]
            if len(known) == len(measured):
                tracks.append((axis, [one.action[:-1, axis].astype(float) for one in episodes], known))
        elif (state := places.get(name, -1) if kind == "gripper" else state) >= 0:
            moves = [np.diff(episode.action[:, axis].astype(float)) for episode in episodes]
            measured_moves = [np.diff(one.state[: one.num_steps, state].astype(float)) for one in episodes]
            tracks.append((axis, moves, measured_moves))
    return tracks


def _base_velocity(episode: Episode, spec: RobotSpec, axis: int, state: int | None) -> Array | None:
    """What was measured of a base axis: its state, or its column of the sensor `base_velocity`."""
    if state is not None:
        return episode.state[: episode.num_steps - 1, state].astype(float)
    column = [index for index, one in enumerate(spec.action) if one.kind == "base"].index(axis)
    sensor = episode.sensors.get("base_velocity")
    if sensor is None or column >= int(np.prod(sensor.shape[1:])):
        return None
    readings: Array = np.asarray(sensor[: episode.num_steps - 1], float).reshape(episode.num_steps - 1, -1)
    return readings[:, column]


def _correlations(action: Sequence[Array], measured: Sequence[Array]) -> Array:
    """Correlation of action[t] with measured[t + lag] over all episodes, for lags -15 to 15: float64 [31].

    0 for a lag at which less than half of the rows overlap: few rows agree by chance.
    """
    centre, measured_centre = np.concatenate(action).mean(), np.concatenate(measured).mean()
    sums, overlap = np.zeros((2 * _FARTHEST + 1, 3)), np.zeros(2 * _FARTHEST + 1)
    for one, other in zip(action, measured, strict=True):
        x, y = one - centre, other - measured_centre
        for lag in range(-_FARTHEST, _FARTHEST + 1):
            if abs(lag) < len(x):
                first, second = x[max(0, -lag) : len(x) - max(0, lag)], y[max(0, lag) : len(y) + min(0, lag)]
                sums[lag + _FARTHEST] += first @ second, first @ first, second @ second
                overlap[lag + _FARTHEST] += len(first)
    scale = np.sqrt(sums[:, 1] * sums[:, 2])
    known = (scale > 0) & (2 * overlap >= overlap[_FARTHEST])
    curve: Array = np.divide(sums[:, 0], scale, out=np.zeros(len(sums)), where=known)
    return curve


def _check_sides(path: Path, key: str, lags: Sequence[Lag]) -> list[Problem]:
    """The same joints of two arms should trail alike; one arm that trails farther hangs on a slower line."""
    steps = {
        side: {lag.axis.removeprefix(side): lag.steps for lag in lags if lag.axis.startswith(side)} for side in _SIDES
    }
    left, right = (steps[side] for side in _SIDES)
    shared = sorted(left.keys() & right.keys())
    if len(shared) < 3 or abs(median_low(left[name] - right[name] for name in shared)) < 2:
        return []
    usual = [median_low(side[name] for name in shared) for side in (left, right)]
    got = f"the left arm follows its action by {usual[0]} steps, the right arm by {usual[1]}"
    advice = "training goes on; look for a slower bus, driver or clock on one side"
    return [Problem("warning", str(path), key, got, "two arms alike", advice)]


def _gripper_pairs(spec: RobotSpec) -> list[tuple[int, int]]:
    """(action axis, state axis) of each gripper: by name, or by place where state and action have as many axes."""
    places = {axis.name: index for index, axis in enumerate(spec.state) if axis.kind == "gripper"}
    same_size = spec.state_dim == spec.action_dim
    pairs = [
        (index, places.get(axis.name, index if same_size and spec.state[index].kind == "gripper" else -1))
        for index, axis in enumerate(spec.action)
        if axis.kind == "gripper"
    ]
    return [(action, state) for action, state in pairs if state >= 0]


def _range(parts: Sequence[Array]) -> tuple[float, float]:
    """From the lowest to the highest value but for a thousandth at either end."""
    low, high = np.quantile(np.concatenate(parts), (0.001, 0.999))
    return float(low), float(high)
