"""The mazes of D4RL's maze2d: where their walls, goals and ways are. Known without MuJoCo.

A place (x, y) lies in the cell of row x and column y. Walls are squares of side 1; as in D4RL they stand 0.2 further
along both axes than the numbers say, so that the middle of cell (1, 1) is at (0.8, 0.8).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lapwing.episode import Array
from lapwing.spec import Axis, RobotSpec

GOAL_RADIUS = 0.5
OFFSET = 0.2
"""How far the middle of a cell lies below its row and column."""
RATE_HZ = 100.0
_SCATTER = 0.1  # how far from its cell's numbers a start, or a goal drawn at random, lies at most; of both speeds too
_STEPS = ((0, -1), (0, 1), (-1, 0), (1, 0))  # D4RL's order, which decides between ways of one length


@dataclass(frozen=True)
class Maze:
    """A maze as D4RL writes it: # is wall, O free, G free and the goal. max_steps: of an episode."""

    name: str
    rows: tuple[str, ...]
    max_steps: int

    @cached_property
    def walls(self) -> Array:
        """bool [rows, columns]"""
        return np.array([[tile == "#" for tile in row] for row in self.rows])

    @cached_property
    def cells(self) -> Array:
        """Row and column of every free cell, int64 [cells, 2]."""
        return np.argwhere(~self.walls)

    @cached_property
    def goal(self) -> Array:
        """Where the reward is, float64 [2]."""
        place: Array = np.argwhere([[tile == "G" for tile in row] for row in self.rows])[0].astype(np.float64)
        return place

    @cached_property
    def next_cell(self) -> Array:
        """On a shortest way from cell i to cell j, the number of the cell after i, int64 [i, j]; j where i is j."""
        number = {(int(row), int(column)): index for index, (row, column) in enumerate(self.cells)}
        table = np.zeros((len(number), len(number)), np.int64)
        for target, end in number.items():
            table[:, end] = self._ways_to(target, number)
        return table

    def _ways_to(self, target: tuple[int, int], number: dict[tuple[int, int], int]) -> Array:
        """The cell after each cell on its way to `target`, int64 [cells]."""
        distance = {target: 0}
        waiting = deque([target])
        while waiting:
            here = waiting.popleft()
            for cell in _neighbours(here):
                if cell in number and cell not in distance:
                    distance[cell] = distance[here] + 1
                    waiting.append(cell)
        following = {
            cell: cell
            if cell == target
            else min(filter(distance.__contains__, _neighbours(cell)), key=distance.__getitem__)
            for cell in number
        }
        return np.array([number[following[cell]] for cell in number])

    def cell_at(self, place: Array) -> Array:
        """The number of the free cell that each place [N, 2] lies in, int64 [N]."""
        gap = self.cells[None] - (place + OFFSET)[:, None]
        nearest: Array = np.abs(gap).max(-1).argmin(1)
        return nearest

    def draw_places(self, rng: np.random.Generator, num: int) -> Array:
        """Places near random free cells, float64 [num, 2]: D4RL's starts and random goals."""
        places: Array = self.cells[rng.integers(len(self.cells), size=num)] + rng.uniform(-_SCATTER, _SCATTER, (num, 2))
        return places

    def draw_states(self, rng: np.random.Generator, num: int) -> Array:
        """Starts of episodes, float64 [num, 4]: places and slow velocities."""
        return np.concatenate([self.draw_places(rng, num), _SCATTER * rng.standard_normal((num, 2))], axis=1)

    def at_goal(self, state: Array) -> Array:
        """Whether states [N, 4] earn the reward, bool [N]."""
        gap = state[:, :2] - self.goal
        near: Array = np.hypot(gap[:, 0], gap[:, 1]) <= GOAL_RADIUS
        return near


def _neighbours(cell: tuple[int, int]) -> list[tuple[int, int]]:
    return [(cell[0] + row, cell[1] + column) for row, column in _STEPS]


MAZES = {
    maze.name: maze
    for maze in (
        Maze("pointmaze-umaze", ("#####", "#GOO#", "###O#", "#OOO#", "#####"), 300),
        Maze(
            "pointmaze-medium",
            ("########", "#OO##OO#", "#OO#OOO#", "##OOO###", "#OO#OOO#", "#O#OO#O#", "#OOO#OG#", "########"),
            600,
        ),
        Maze(
            "pointmaze-large",
            (
                "############",
                "#OOOO#OOOOO#",
                "#O##O#O#O#O#",
                "#OOOOOO#OOO#",
                "#O####O###O#",
                "#OO#O#OOOOO#",
                "##O#O#O#O###",
                "#OO#OOO#OGO#",
                "############",
            ),
            800,
        ),
    )
}


def spec(maze: Maze) -> RobotSpec:
    """The point: where it is and how fast it moves; the forces that push it."""
    return RobotSpec(
        name=maze.name,
        cameras=(),
        state=(Axis("x", "m"), Axis("y", "m"), Axis("x_velocity", "m/s"), Axis("y_velocity", "m/s")),
        action=tuple(Axis(f"{along}_force", "100 N", "other", -1.0, 1.0) for along in "xy"),
        rate_hz=RATE_HZ,
    )
