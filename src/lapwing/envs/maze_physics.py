"""A ball pushed through a maze, on MuJoCo: D4RL's maze2d with every number of its scene, and nothing to look at.

D4RL's maze_model.py: radius 0.1 m, density 1000, damping 1, gear 100, steps of 0.01 s, one step an action, the velocity
clipped to 5 m/s along each axis before it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from lapwing.envs.maze_layout import OFFSET, Maze
from lapwing.envs.mujoco_gl import mujoco
from lapwing.episode import Array

MAX_SPEED = 5.0  # m/s along an axis

_SCENE = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint damping="1" type="slide"/>
    <geom friction="0.5 0.1 0.1" density="1000" margin="0.002" condim="1" contype="2" conaffinity="1"/>
    <motor ctrlrange="-1 1" ctrllimited="true" gear="100"/>
  </default>
  <worldbody>
    <body pos="{start} {start} 0">
      <geom type="sphere" size="0.1" contype="1"/>
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
    </body>
    {walls}
  </worldbody>
  <actuator>
    <motor joint="x"/>
    <motor joint="y"/>
  </actuator>
</mujoco>
"""


class Physics:
    """The scene of a maze. It remembers nothing: what happens to a ball depends on its state and its action alone."""

    def __init__(self, maze: Maze) -> None:
        walls = "".join(
            f'<geom type="box" pos="{row + 1} {column + 1} 0" size="0.5 0.5 0.2"/>'
            for row, column in np.argwhere(maze.walls)
        )
        self._model: Any = mujoco.MjModel.from_xml_string(_SCENE.format(start=1 + OFFSET, walls=walls))
        self._data: Any = mujoco.MjData(self._model)
        # MuJoCo's own loop over states: 2 us a step, where a loop in Python takes 6.
        self._stepper: Any = import_module("mujoco.rollout").Rollout(nthread=0)

    def advance(self, state: Array, action: Array) -> Array:
        """One step of every ball: state [N, 4] (x, y and their velocities) and action [N, 2] -> float64 [N, 4]."""
        begin = np.zeros((len(state), 5))  # MuJoCo's first number is the time
        begin[:, 1:3] = state[:, :2]
        begin[:, 3:] = np.clip(state[:, 2:], -MAX_SPEED, MAX_SPEED)
        ended, _ = self._stepper.rollout(self._model, [self._data], begin, action[:, None].astype(np.float64))
        moved: Array = ended[:, 0, 1:].copy()
        return moved
