"""The controller that D4RL's maze2d data come from: from cell to cell by a shortest way, then on to the next goal.

As D4RL's WaypointController and generate_maze2d_datasets.py, but for these: ways come from a breadth-first search
instead of value iteration (the same lengths); the row after a change of goal shows the ball where it is, not where it
was one step before; many balls are driven side by side; and a ball that its last goal has left near a wall sets out
from the cell that it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from lapwing.envs.maze_layout import OFFSET, Maze
from lapwing.envs.maze_physics import Physics
from lapwing.episode import Array, Episode, Meta, Observation

NOISE = 0.5  # standard deviation of what is added to actions in the released data
_POSITION_GAIN, _VELOCITY_GAIN = 10.0, -1.0
_NEAR = 0.1  # a waypoint is reached within this distance, if the last step was shorter
_JITTER = 0.2  # waypoints before the last lie up to so much below their cell's row and column
_SIDE_BY_SIDE = 64


class Controller:
    """Drives `num` balls, each to its own goal. A goal counts as its cell: the last waypoint is at its numbers."""

    def __init__(self, maze: Maze, num: int, rng: np.random.Generator) -> None:
        self._maze, self._rng = maze, rng
        self._goal_cell = np.full(num, -1)
        self._cell = np.zeros(num, np.int64)  # of the waypoint
        self._waypoint = np.zeros((num, 2))
        self._before = np.zeros((num, 2))

    def aim(self, balls: Array, place: Array, goal: Array) -> None:
        """Send the balls numbered `balls` [M] from `place` [M, 2] to `goal` [M, 2]; one bound for that cell goes on."""
        goal_cell = self._maze.cell_at(goal - OFFSET)
        fresh = goal_cell != self._goal_cell[balls]
        balls, here = balls[fresh], self._maze.cell_at(place[fresh])
        self._goal_cell[balls], self._cell[balls] = goal_cell[fresh], here
        self._before[balls] = self._maze.cells[here]
        self._advance(balls)

    def _advance(self, balls: Array) -> None:
        """Let the next cell on the way be the waypoint."""
        goal = self._goal_cell[balls]
        following = self._maze.next_cell[self._cell[balls], goal]
        jitter = _JITTER * self._rng.random((len(balls), 2)) * (following != goal)[:, None]
        self._cell[balls], self._waypoint[balls] = following, self._maze.cells[following] - jitter

    def act(self, state: Array) -> tuple[Array, Array]:
        """Actions [num, 2] in states [num, 4], and which balls have arrived, bool [num]."""
        place, velocity = state[:, :2], state[:, 2:]
        end = self._maze.cells[self._goal_cell]
        is_slow = _length(self._before - place) < _NEAR
        arrived = (_length(place - end) < _NEAR) & is_slow
        heading = np.where(arrived[:, None], end, self._waypoint)
        action = _POSITION_GAIN * (heading - place) + _VELOCITY_GAIN * velocity
        self._before = place.copy()
        self._advance(np.flatnonzero(~arrived & is_slow & (_length(heading - place) < _NEAR)))
        return np.clip(action, -1.0, 1.0), arrived


def _length(gap: Array) -> Array:
    length: Array = np.hypot(gap[:, 0], gap[:, 1])
    return length


class Expert:
    """The controller as the scripted operator of a single copy: to the goal, and stay there."""

    def __init__(self, maze: Maze, noise: float) -> None:
        self._maze, self._noise = maze, noise

    def reset(self, seed: int) -> Meta:
        """Begin as the operator that belongs to `seed`."""
        self._rng = np.random.default_rng([seed, 1])
        self._controller: Controller | None = None
        return {}

    def __call__(self, observation: Observation, /) -> Array:
        state = observation.state[None].astype(np.float64)
        if self._controller is None:
            self._controller = Controller(self._maze, 1, self._rng)
            self._controller.aim(np.zeros(1, np.int64), state[:, :2], self._maze.goal[None])
        action, _ = self._controller.act(state)
        shaken: Array = _shaken(action, self._noise, self._rng)[0]
        return shaken


def _shaken(action: Array, noise: float, rng: np.random.Generator) -> Array:
    shaken: Array = np.clip(action + noise * rng.standard_normal(action.shape), -1.0, 1.0).astype(np.float32)
    return shaken


def demonstrations(maze: Maze, noise: float, seed: int) -> Iterator[Episode]:
    """Segments without end, each from where a ball was to a random goal; the same ones for the same seed.

    An episode ends where the ball arrives, or after the maze's longest time (truncated, both): nothing terminates. The
    reward is that of the maze's own goal, 1 where the observation *before* the action is within its radius, as D4RL
    relabels it. sensors: "goal" (whither), "qpos" and "qvel", float32 [N + 1, 2]. Segments come in the order of their
    beginnings, so that a short file is not a file of short ones.
    """
    rng = np.random.default_rng(seed)
    physics, controller = Physics(maze), Controller(maze, _SIDE_BY_SIDE, rng)
    balls = np.arange(_SIDE_BY_SIDE)
    state, goal = maze.draw_states(rng, len(balls)), maze.draw_places(rng, len(balls))
    controller.aim(balls, state[:, :2], goal)
    states = np.zeros((len(balls), maze.max_steps + 1, 4))
    actions = np.zeros((len(balls), maze.max_steps, 2), np.float32)
    numbers, length = balls.copy(), np.zeros(len(balls), np.int64)
    finished: dict[int, Episode] = {}
    fresh, due = count(len(balls)), 0
    while True:
        action, arrived = controller.act(state)
        action = _shaken(action, noise, rng)
        states[balls, length], actions[balls, length] = state, action
        state = physics.advance(state, action)
        length += 1
        ended = np.flatnonzero(arrived | (length == maze.max_steps))
        for ball in ended:
            steps = length[ball]
            states[ball, steps] = state[ball]
            finished[numbers[ball]] = _segment(maze, states[ball, : steps + 1], actions[ball, :steps], goal[ball])
            numbers[ball], length[ball] = next(fresh), 0
        if len(ended):
            goal[ended] = maze.draw_places(rng, len(ended))
            controller.aim(ended, state[ended, :2], goal[ended])
        while due in finished:
            yield finished.pop(due)
            due += 1


def _segment(maze: Maze, state: Array, action: Array, goal: Array) -> Episode:
    kept = state.astype(np.float32)
    aimed = np.tile(goal.astype(np.float32), (len(kept), 1))
    return Episode(
        images={},
        state=kept,
        action=action.copy(),
        reward=maze.at_goal(state[:-1]).astype(np.float32),
        terminated=False,
        sensors={"goal": aimed, "qpos": kept[:, :2], "qvel": kept[:, 2:]},
    )
