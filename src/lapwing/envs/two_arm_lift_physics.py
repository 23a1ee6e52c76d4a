"""robosuite's TwoArmLift without eyes: two Pandas that face each other across a table, and a pot with two handles.

Everything is told in one frame, that of the camera in front of the table: x to the right, y away from it, z up. It is
that of the left arm's base; the right arm's is turned by half a turn.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lapwing.envs import mujoco_gl as _mujoco_gl  # noqa: F401  (chooses what to draw with, before robosuite does)
from lapwing.envs.two_arm_lift_spec import RATE_HZ
from lapwing.episode import Array
from lapwing.errors import WorldError

STEP_METRES, STEP_RADIANS = 0.05, 0.5  # of the hand's target for an action of 1
_FINGERS_OPEN = 0.08  # m between them
_OURS = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # robosuite's axes -> the camera's
_TO_BASE = np.array([[1, 1, 1, 1, 1, 1], [-1, -1, 1, -1, -1, 1]])  # the camera's axes -> those of each arm's base
_OPEN, _CLOSE = -1.0, 1.0  # what the package tells a gripper


class Physics:
    """One scene. Arms are ordered left, right."""

    def __init__(self) -> None:
        package = _load()
        with _quiet():
            self._env: Any = package.make(
                "TwoArmLift",
                robots=["Panda", "Panda"],
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                control_freq=RATE_HZ,
                hard_reset=False,
                ignore_done=True,
            )
        self._told = np.full(2, _OPEN)

    @property
    def model(self) -> Any:
        return self._env.sim.model._model

    @property
    def data(self) -> Any:
        return self._env.sim.data._data

    def reset(self, seed: int) -> None:
        """Arms and pot where the seed puts them, grippers told to open. numpy's own generator is left as it was."""
        before = np.random.get_state()
        try:
            np.random.seed(np.random.SeedSequence(seed).generate_state(8))  # the package draws from nowhere else
            self._seen = self._env.reset()
        finally:
            np.random.set_state(before)
        self._told[:] = _OPEN

    def advance(self, action: Array) -> int:
        """Follow one action, float64 [2, 7], for 0.1 s; returns how many grippers were turned round."""
        before, grip = self._told.copy(), action[:, 6]
        self._told = np.where(grip < -0.5, _CLOSE, np.where(grip > 0.5, _OPEN, before))
        self._seen = self._env.step(np.c_[action[:, :6] * _TO_BASE, self._told].reshape(-1))[0]
        return int((self._told != before).sum())

    @property
    def lifted(self) -> bool:
        """Whether the pot is more than 10 cm above the table, as the package judges."""
        return bool(self._env._check_success())

    @property
    def lift(self) -> float:
        """How far the pot is above the table, in m."""
        env = self._env
        sites = env.sim.data.site_xpos
        return float(sites[env.pot_center_id][2] - env.pot.top_offset[2] - sites[env.table_top_id][2])

    @property
    def hands(self) -> Array:
        """Where the fingers close, m, float64 [2, 3]."""
        hands: Array = self._both("robot{}_eef_pos") @ _OURS.T
        return hands

    @property
    def handles(self) -> Array:
        """The pot's handles, the left hand's first, m, float64 [2, 3]."""
        handles: Array = self._both("handle{}_xpos") @ _OURS.T
        return handles

    @property
    def across(self) -> Array:
        """The direction in which each hand's fingers move, float64 [2, 3]."""
        x, y, z, w = self._both("robot{}_eef_quat").T
        axis = np.stack([2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)], axis=-1)
        turned: Array = axis @ _OURS.T
        return turned

    @property
    def felt(self) -> Array:
        """Joints in rad, hand in m, share to which the gripper is open, arm by arm: float32 [22]."""
        fingers = self._both("robot{}_gripper_qpos")
        opening = np.clip((fingers[:, :1] - fingers[:, 1:]) / _FINGERS_OPEN, 0, 1)
        parts = [self._both("robot{}_joint_pos"), self.hands, opening]
        felt: Array = np.concatenate(parts, axis=1).reshape(-1).astype(np.float32)
        return felt

    def close(self) -> None:
        self._env.close()

    def _both(self, name: str) -> Array:
        both: Array = np.stack([self._seen[name.format(robot)] for robot in (0, 1)])
        return both


def _load() -> Any:
    try:
        with _quiet():
            package = importlib.import_module("robosuite")
    except ModuleNotFoundError as error:
        raise WorldError(
            f"two-arm-lift: the package {error.name} is not installed; `pip install -e '.[dual]'` in the clone"
        ) from error
    return package


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's remarks on what else could be installed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
