"""From a script of fingertip poses to joint commands, by pulling the arms along in the planning scene."""

from __future__ import annotations

from typing import Any

import numpy as np

from lapwing.envs.aloha_scene import GRIPPERS, SUBSTEPS, Task, from_joints, planning_scene, to_joints
from lapwing.envs.aloha_script import Key
from lapwing.envs.mujoco_gl import mujoco
from lapwing.episode import Array

# A moving joint of the acting scene trails its command by about so many steps (its damping over its gain;
# measured by regressing the lag on the speed). Commands lead by as much.
_LEAD_STEPS = np.array([2.5, 2.0, 1.2, 0.6, 2.0, 0.0, 0.0] * 2)


class Planner:
    """Plans for one task."""

    def __init__(self, task: Task) -> None:
        self._model: Any = planning_scene(task)
        self._data: Any = mujoco.MjData(self._model)

    def follow(self, joints: Array, script: tuple[list[Key], list[Key]]) -> Array:
        """Commands [N, 14] that take the arms along the script; `joints` is the acting scene's whole position.

        The shorter arm's last pose is held until the longer one is through. Grippers are commanded as the
        script says, not as measured: a finger that closes on a thing must keep pushing.
        """
        data = self._data
        mujoco.mj_resetData(self._model, data)
        data.qpos[:] = joints
        mujoco.mj_forward(self._model, data)
        gripper = from_joints(data.qpos)[GRIPPERS]
        tracks = [_track((*self._fingertips(arm), gripper[arm]), keys) for arm, keys in enumerate(script)]
        length = max(len(track) for track in tracks)
        return _lead(np.stack([self._pull([t[min(step, len(t) - 1)] for t in tracks]) for step in range(length)]))

    def _pull(self, poses: list[Array]) -> Array:
        """One step towards a pose [8] an arm -> what to command [14]."""
        data, command = self._data, np.zeros(14)
        for arm, pose in enumerate(poses):
            data.mocap_pos[arm], data.mocap_quat[arm], command[7 * arm + 6] = pose[:3], pose[3:7], pose[7]
        data.ctrl[:] = to_joints(command)[[6, 7, 14, 15]]
        mujoco.mj_step(self._model, data, SUBSTEPS)
        return np.where(GRIPPERS, command, from_joints(data.qpos))

    def _fingertips(self, arm: int) -> tuple[Array, Array]:
        """Position and orientation of the point between an arm's fingertips that its weld holds."""
        body = self._data.body(int(self._model.eq_obj2id[arm]))
        offset, relative = self._model.eq_data[arm, 3:6].copy(), self._model.eq_data[arm, 6:10].copy()
        turn, shift = np.zeros(4), np.zeros(3)
        mujoco.mju_negQuat(relative, relative)
        mujoco.mju_mulQuat(turn, body.xquat, relative)
        mujoco.mju_rotVecQuat(shift, offset, turn)
        return body.xpos - shift, turn


def _track(start: tuple[Array, Array, float], keys: list[Key]) -> Array:
    """Poses [N, 8] from key to key, starting and stopping gently: position, quaternion, gripper."""
    here = np.array([*start[0], *start[1], start[2]])
    pieces = []
    for key in keys:
        turn = key.turn if here[3:7] @ key.turn >= 0 else -key.turn
        there = np.array([*key.place, *turn, key.gripper])
        time = np.arange(1, key.steps + 1) / key.steps
        piece = here + (there - here) * (time * time * (3 - 2 * time))[:, None]
        piece[:, 3:7] /= np.linalg.norm(piece[:, 3:7], axis=1, keepdims=True)
        pieces.append(piece)
        here = there
    return np.concatenate(pieces)


def _lead(planned: Array) -> Array:
    speed: Array = np.gradient(planned, axis=0)
    commands: Array = planned + _LEAD_STEPS * speed
    return commands
