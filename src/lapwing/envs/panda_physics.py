"""The Panda scene in motion, without eyes: the block is placed, commands are followed, the lift is judged.

As gym-hil's PandaPickCube, but for how the block is placed: by a generator of our own instead of numpy's global one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lapwing.envs.mujoco_gl import mujoco
from lapwing.envs.panda_control import JOINTS, Controller
from lapwing.episode import Array

STEP_METRES = 0.025  # that the hand's target moves along an axis for an action of 1
LIFTED = 0.1  # m above its start, where the block has been picked
REACH = np.array([[0.2, -0.3, 0.0], [0.6, 0.3, 0.5]])  # m, that the hand's target stays in

_HOME = np.array([0.0, 0.195, 0.0, -2.43, 0.0, 2.62, 0.785])  # rad
_BLOCK_STARTS = np.array([[0.3, -0.15], [0.5, 0.15]])  # m, x and y
_OUT_OF_BOUNDS = 0.05  # m beyond where it may start, the block is lost
_SUBSTEPS = 50  # of 2 ms: 10 Hz control
_CLOSED = 255.0  # the gripper's command, from 0


class Physics:
    """One scene."""

    def __init__(self, model: Any) -> None:
        self.model: Any = model
        self.data: Any = mujoco.MjData(model)
        self._controller = Controller(model, _HOME)
        self._hand, self._block = self.data.sensor("2f85/pinch_pos"), self.data.sensor("block_pos")
        self._fingers = self.data.joint("left_driver_joint"), self.data.joint("right_driver_joint")
        self._gripper = model.actuator("fingers_actuator").id
        self._block_rests = float(model.geom("block").size[2])

    def reset(self, seed: int) -> None:
        """The arm at home with an open gripper, the block where the seed puts it."""
        place = np.random.default_rng(seed).uniform(*_BLOCK_STARTS)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:JOINTS] = _HOME
        self.data.joint("block").qpos[:3] = *place, self._block_rests
        mujoco.mj_forward(self.model, self.data)
        self.data.mocap_pos[0] = self._hand.data
        self._start_height = float(self._block.data[2])

    def advance(self, action: Array) -> None:
        """Follow one action [4] for 0.1 s: the target's motion in steps, and the gripper's in shares of its way."""
        data, target = self.data, self.data.mocap_pos[0]
        np.clip(target + action[:3] * STEP_METRES, *REACH, out=target)
        data.ctrl[self._gripper] = np.clip(self.gripper + action[3], 0.0, 1.0) * _CLOSED
        for _ in range(_SUBSTEPS):
            data.ctrl[:JOINTS] = self._controller.torques(data, target, data.mocap_quat[0])
            mujoco.mj_step(self.model, data)

    @property
    def gripper(self) -> float:
        """What the gripper is told, 0 open to 1 closed."""
        return float(self.data.ctrl[self._gripper]) / _CLOSED

    @property
    def target(self) -> Array:
        """Where the hand is told to be, in m, float64 [3]; it follows within 0.2 s or so."""
        place: Array = self.data.mocap_pos[0].copy()
        return place

    @property
    def hand(self) -> Array:
        """The place between the fingertips, in m, float64 [3]."""
        place: Array = self._hand.data.copy()
        return place

    @property
    def block(self) -> Array:
        """The block's centre, in m, float64 [3]."""
        place: Array = self._block.data.copy()
        return place

    @property
    def finger_speed(self) -> float:
        """The faster finger's speed, in rad/s."""
        return float(max(abs(finger.qvel[0]) for finger in self._fingers))

    @property
    def lift(self) -> float:
        """How far the block is above its start, in m."""
        return float(self._block.data[2]) - self._start_height

    @property
    def lost(self) -> bool:
        """Whether the block has left the place where it can be picked."""
        low, high = _BLOCK_STARTS
        place = self._block.data[:2]
        return bool((place < low - _OUT_OF_BOUNDS).any() or (place > high + _OUT_OF_BOUNDS).any())

    @property
    def state(self) -> Array:
        """Joints in rad, their speeds in rad/s, the gripper's command 0 to 1, the hand in m: float32 [18]."""
        joints, speeds = self.data.qpos[:JOINTS], self.data.qvel[:JOINTS]
        return np.concatenate([joints, speeds, [self.gripper], self._hand.data]).astype(np.float32)
