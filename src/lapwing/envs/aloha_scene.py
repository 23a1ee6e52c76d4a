"""The packaged ViperX scenes of gym-aloha, compiled for us: one to act in and one to plan in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lapwing.envs.mujoco_gl import mujoco
from lapwing.episode import Array
from lapwing.errors import ConfigError, WorldError

Task = Literal["transfer", "insertion"]

SIDES = ("left", "right")
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
AXES = tuple(f"{side}_{joint}" for side in SIDES for joint in (*ARM_JOINTS, "gripper"))
GRIPPERS = np.array([axis.endswith("gripper") for axis in AXES])

# Home of both arms, as the packaged tasks start: six joints in rad and the gripper's opening, twice.
HOME = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.1] * 2)

# Place of a finger on its slide in m where the normalised gripper is 0 and 1: the convention of ALOHA's
# recordings. The joint itself ends a little inside both.
FINGER_CLOSED, FINGER_OPEN = 0.01844, 0.058

SUBSTEPS = 10  # of 2 ms: 50 Hz control

_FILES = {
    "transfer": ("bimanual_viperx_transfer_cube.xml", "bimanual_viperx_end_effector_transfer_cube.xml"),
    "insertion": ("bimanual_viperx_insertion.xml", "bimanual_viperx_end_effector_insertion.xml"),
}

# Eye and target in m. The wrist cameras ride on the gripper and look past the fingers; the packaged ones
# look through a long lens at the other arm. The global one stands near the packaged "angle", with a narrower view.
_WRIST_VIEW = (np.array([0.06, 0.0, 0.12]), np.array([0.18, 0.0, -0.02]), np.array([0.0, -1.0, 0.0]), 75.0)
_GLOBAL_VIEW = (np.array([0.0, -0.05, 0.65]), np.array([0.0, 0.5, 0.2]), np.array([1.0, 0.0, 0.0]), 44.0)


def joint_scene(task: Task, size: int) -> Any:
    """The scene to act in: position-controlled joints and cameras "left", "right" and "global" of `size` pixels.

    Shadows and multisampling, which cost ten times the drawing itself, are off.
    """
    scene = _load(task, 0)
    for side in SIDES:
        _add_camera(scene.body(f"vx300s_{side}/gripper_link"), side, *_WRIST_VIEW)
    _add_camera(scene.worldbody, "global", *_GLOBAL_VIEW)
    for light in scene.lights:
        light.castshadow = False
    scene.visual.quality.offsamples = 0
    scene.visual.map.znear = 0.005  # the packaged near plane cuts the gripper off the wrist cameras' view
    scene.visual.global_.offwidth = scene.visual.global_.offheight = size
    return scene.compile()


def planning_scene(task: Task) -> Any:
    """The scene to plan in: each gripper welded to a mocap body that pulls it along.

    The arms' joints lose their friction: since MuJoCo 3 it overcomes the weld, and the gripper stops beside its
    target. The weld is stiffer than packaged, and a faint spring keeps the forearm's roll near zero, which
    otherwise flips by half a turn whenever the wrist stretches.
    """
    model = _load(task, 1).compile()
    for side in SIDES:
        for name in ARM_JOINTS:
            model.dof_frictionloss[model.joint(f"vx300s_{side}/{name}").dofadr] = 0.0
        model.jnt_stiffness[model.joint(f"vx300s_{side}/forearm_roll").id] = 1.0  # N m/rad
    model.eq_solimp[:, :2] = 0.9
    return model


def _load(task: Task, which: int) -> Any:
    if task not in _FILES:
        raise ConfigError(f"aloha: task {task!r}, expected one of {', '.join(_FILES)}")
    package = find_spec("gym_aloha")  # located, not imported: importing it pulls in dm_control
    if package is None or not package.submodule_search_locations:
        raise WorldError("aloha: the package gym-aloha is not installed; `pip install -e '.[sim]'` in the clone")
    path = Path(package.submodule_search_locations[0]) / "assets" / _FILES[task][which]
    if not path.is_file():
        raise WorldError(f"{path}: not found; expected gym-aloha >= 0.1.4; `pip install -e '.[sim]'` in the clone")
    return mujoco.MjSpec.from_file(str(path))


def _add_camera(body: Any, name: str, eye: Array, target: Array, right: Array, fovy: float) -> None:
    """Mount a camera rigidly on `body`, looking from `eye` to `target`; `right` is the image's x axis."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    camera = body.add_camera()
    camera.name, camera.pos, camera.fovy = name, eye, fovy
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = np.concatenate([right, np.cross(right, forward)])


def joint_limits(model: Any) -> Array:
    """Lowest and highest value of every axis of state and action, float64 [14, 2]; grippers are 0 to 1."""
    limits = np.tile([0.0, 1.0], (len(AXES), 1))
    limits[~GRIPPERS] = [model.joint(f"vx300s_{side}/{joint}").range for side in SIDES for joint in ARM_JOINTS]
    return limits


def to_joints(action: Array) -> Array:
    """Action or state [14] -> the sixteen joint targets (two fingers an arm)."""
    joints = np.empty(16)
    for arm in (0, 1):
        finger = FINGER_CLOSED + action[7 * arm + 6] * (FINGER_OPEN - FINGER_CLOSED)
        joints[8 * arm : 8 * arm + 8] = *action[7 * arm : 7 * arm + 6], finger, -finger
    return joints


def from_joints(joints: Array) -> Array:
    """The sixteen joint positions -> state [14]."""
    state = first_fingers(joints)
    state[GRIPPERS] = (state[GRIPPERS] - FINGER_CLOSED) / (FINGER_OPEN - FINGER_CLOSED)
    return state


def velocity_from_joints(velocities: Array) -> Array:
    """The sixteen joint velocities -> how fast each axis of the state changes [14]."""
    velocity = first_fingers(velocities)
    velocity[GRIPPERS] /= FINGER_OPEN - FINGER_CLOSED
    return velocity


def first_fingers(joints: Array) -> Array:
    """One number for each of the sixteen joints -> one for each axis, [14]: of two fingers the first."""
    axes: Array = np.delete(joints[:16], [7, 15])
    return axes
