"""D4RL's maze2d: a ball is pushed to a fixed goal, and stays there, from anywhere in a maze.

Reward 1 for every step that ends within 0.5 of the goal. Nothing terminates; an episode is cut after 300, 600 or 800
steps (truncated). A success is an episode that was at the goal at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lapwing.envs.copies import checked_actions, one_seed_a_copy
from lapwing.envs.maze_layout import Maze, spec
from lapwing.envs.maze_physics import Physics
from lapwing.episode import Array, Observation
from lapwing.errors import ConfigError, WorldError


class PointMaze:
    """`num` balls in copies of a maze behind the BatchEnv protocol; `info` has "success".

    What happens in a copy depends on its seed and its actions alone.
    """

    def __init__(self, maze: Maze, num: int = 1) -> None:
        if num < 1:
            raise ConfigError(f"num: got {num}, expected at least one copy of {maze.name}")
        self.spec = spec(maze)
        self.max_steps = maze.max_steps
        self.num = num
        self._maze = maze
        self._physics = Physics(maze)
        self._step = -1

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start one episode per seed; with fewer seeds than copies the rest stand finished. Raises WorldError."""
        filled, self._truncated = one_seed_a_copy(self.spec.name, self.num, seeds)
        self._state = np.concatenate([self._maze.draw_states(np.random.default_rng(seed), 1) for seed in filled])
        self._step = 0
        return self._observation()

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Array]]:
        """Push every running ball by its part of `actions` [num, 2]. Raises SpecError when they do not fit."""
        if self._step < 0:
            raise WorldError(f"{self.spec.name}: step before the first reset; call reset(seeds) first")
        forces = np.clip(checked_actions(self, actions), -1.0, 1.0)
        running = np.flatnonzero(~self._truncated)
        reward = np.zeros(self.num, np.float32)
        if len(running):
            self._step += 1
            self._state[running] = self._physics.advance(self._state[running], forces[running])
            reward[running] = self._maze.at_goal(self._state[running])
            self._truncated[running] = self._step == self.max_steps
        info = {"success": self._maze.at_goal(self._state) & self._truncated}
        return self._observation(), reward, np.zeros(self.num, bool), self._truncated.copy(), info

    def close(self) -> None:
        """Nothing is held open."""

    def _observation(self) -> Observation:
        return Observation(images={}, state=self._state.astype(np.float32))
