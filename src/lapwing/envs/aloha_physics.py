"""The ALOHA scene in motion, without eyes: objects are placed, joint commands followed, the task judged."""

from __future__ import annotations

from typing import Any

import numpy as np

from lapwing.envs.aloha_judge import Judge
from lapwing.envs.aloha_scene import (
    HOME,
    SUBSTEPS,
    Task,
    first_fingers,
    from_joints,
    joint_limits,
    joint_scene,
    to_joints,
    velocity_from_joints,
)
from lapwing.envs.mujoco_gl import mujoco
from lapwing.episode import Array

GOAL_STEPS = 10  # the strict goal must hold this long

# Body, its joint, and the box its start is drawn from: x and y of the packaged tasks, at rest on the table.
_THINGS = {
    "transfer": (("box", "red_box_joint", (0.0, 0.4, 0.02), (0.2, 0.6, 0.02)),),
    "insertion": (
        ("peg", "red_peg_joint", (0.1, 0.4, 0.01), (0.2, 0.6, 0.01)),
        ("socket", "blue_socket_joint", (-0.2, 0.4, 0.022), (-0.1, 0.6, 0.022)),
    ),
}


class Physics:
    """One task. `best_stage` is the best packaged reward so far (0 to 4), `success` the strict goal held."""

    def __init__(self, task: Task, size: int = 84) -> None:
        self.model: Any = joint_scene(task, size)
        self.data: Any = mujoco.MjData(self.model)
        self.limits = joint_limits(self.model)
        self._things = _THINGS[task]
        self._judge = Judge(self.model, task)
        self.best_stage = 0
        self._goal_held = 0

    def reset(self, seed: int) -> None:
        """Arms at home, things where the seed puts them."""
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:16] = self.data.ctrl[:] = to_joints(HOME)
        for _, joint, low, high in self._things:
            self.data.joint(joint).qpos[:] = *rng.uniform(low, high), 1.0, 0.0, 0.0, 0.0
        mujoco.mj_forward(self.model, self.data)
        self.best_stage = self._goal_held = 0

    def advance(self, action: Array) -> None:
        """Follow one command [14], clamped to the limits, for 20 ms."""
        self.data.ctrl[:] = to_joints(np.clip(action, *self.limits.T))
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        stage, at_goal = self._judge.look(self.data)
        self.best_stage = max(self.best_stage, stage)
        self._goal_held = self._goal_held + 1 if at_goal else 0

    @property
    def success(self) -> bool:
        return self._goal_held >= GOAL_STEPS

    @property
    def state(self) -> Array:
        """Six joints in rad and the gripper's opening, left then right, float32 [14]."""
        return from_joints(self.data.qpos).astype(np.float32)

    @property
    def velocity(self) -> Array:
        """Of the axes of the state, in rad/s and openings per s, float32 [14]."""
        return velocity_from_joints(self.data.qvel).astype(np.float32)

    @property
    def effort(self) -> Array:
        """What the motors exert on the axes of the state, N m, and N on the first finger, float32 [14]."""
        return first_fingers(self.data.qfrc_actuator).astype(np.float32)

    def places(self) -> list[Array]:
        """Where the things are, in m: [box], or [peg, socket]."""
        return [self.data.body(name).xpos.copy() for name, *_ in self._things]
