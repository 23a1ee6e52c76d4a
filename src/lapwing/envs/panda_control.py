"""Operational-space control of the Panda's hand, with the gains and limits of gym-hil's controller.

Khatib 1987, "A unified approach for motion and force control of robot manipulators: the operational space
formulation": torques that accelerate the hand as a spring and damper would, in position and orientation, while a faint
spring pulls the arm's seven joints home in the freedom that is left. It runs fifty times a control step, so its arrays
are made once and what gym-hil computes twice is computed once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lapwing.envs.mujoco_gl import mujoco
from lapwing.episode import Array

JOINTS = 7
_STIFFNESS, _DAMPING = 200.0, 2 * np.sqrt(200.0)  # of the hand, 1/s^2 and 1/s: critically damped
_HOME_STIFFNESS, _HOME_DAMPING = 0.5, 2 * np.sqrt(0.5)  # of the joints
_SINGULAR = 1e-2  # determinant of the inverse inertia below which, and relative singular value at which, it is cut


class Controller:
    """Torques for the arm of one model, whose first seven degrees of freedom are its joints."""

    def __init__(self, model: Any, home: Array) -> None:
        self._model, self._home = model, home
        self._site = model.site("pinch").id
        self._jacobian = np.zeros((6, model.nv))
        self._inertia = np.zeros((model.nv, model.nv))
        self._turn, self._back, self._off = np.zeros(4), np.zeros(4), np.zeros(4)
        self._error = np.zeros(6)

    def torques(self, data: Any, position: Array, orientation: Array) -> Array:
        """Joint torques in N m, float64 [7], that pull the hand to a position in m and an orientation (quaternion)."""
        mujoco.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        mujoco.mj_fullM(self._model, self._inertia, data.qM)
        jacobian = self._jacobian[:, :JOINTS]
        joints, speeds = data.qpos[:JOINTS], data.qvel[:JOINTS]
        wanted = -_STIFFNESS * self._hand_error(data, position, orientation) - _DAMPING * (jacobian @ speeds)
        homeward = _HOME_STIFFNESS * (self._home - joints) - _HOME_DAMPING * speeds
        mobility = np.linalg.inv(self._inertia[:JOINTS, :JOINTS]) @ jacobian.T  # of the joints, by forces on the hand
        # The homeward pull, less what of it would move the hand.
        force = _solve(jacobian @ mobility, wanted - homeward @ mobility)
        torques: Array = jacobian.T @ force + homeward + data.qfrc_bias[:JOINTS]
        return torques

    def _hand_error(self, data: Any, position: Array, orientation: Array) -> Array:
        """Where the hand is, seen from where it should be: m and, about the world's axes, rad; float64 [6]."""
        self._error[:3] = data.site_xpos[self._site] - position
        mujoco.mju_mat2Quat(self._turn, data.site_xmat[self._site])
        mujoco.mju_negQuat(self._back, orientation)
        mujoco.mju_mulQuat(self._off, self._turn, self._back)
        mujoco.mju_quat2Vel(self._error[3:], self._off, 1.0)
        return self._error


def _solve(matrix: Array, right: Array) -> Array:
    """matrix^-1 right; least squares without the directions in which the hand hardly moves, near a singular pose."""
    if abs(np.linalg.det(matrix)) >= _SINGULAR:
        return np.linalg.solve(matrix, right)
    least: Array = np.linalg.pinv(matrix, rcond=_SINGULAR) @ right
    return least
