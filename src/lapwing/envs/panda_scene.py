"""gym-hil's scene of a Panda arm, a two-finger gripper and a cube, compiled for us."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lapwing.envs.mujoco_gl import mujoco
from lapwing.errors import WorldError

_UNSEEN = 1  # the group of what the wrist camera never sees, and of nothing else in this scene
_BEHIND_THE_WRIST = {f"link{number}" for number in range(2, 8)}  # of the arm; it does look down on the foot at times
_VISUAL = 2  # the packaged group of what is only looked at


def drawn_scene(size: int) -> Any:
    """The scene with cameras of `size` pixels. Raises WorldError.

    Shadows and multisampling, which cost ten times the drawing itself, are off.
    """
    scene = _load()
    for light in scene.lights:
        light.castshadow = False
    for geom in scene.geoms:
        if geom.group == _VISUAL and geom.parent.name in _BEHIND_THE_WRIST:
            geom.group = _UNSEEN
    scene.visual.quality.offsamples = 0
    scene.visual.global_.offwidth = scene.visual.global_.offheight = size
    return scene.compile()


def blind_scene() -> Any:
    """The same physics without the meshes that are only looked at: it loads ten times faster. Raises WorldError."""
    scene = _load()
    for geom in list(scene.geoms):
        # A body whose inertia is not written down weighs what its meshes do.
        if geom.group == _VISUAL and geom.parent.explicitinertial:
            scene.delete(geom)
    return scene.compile()


def view_option(camera: str) -> Any:
    """What to draw for a camera: the wrist's is spared the arm behind it, half of all triangles."""
    option = mujoco.MjvOption()
    option.geomgroup[_UNSEEN] = camera != "wrist"
    return option


def _load() -> Any:
    package = find_spec("gym_hil")  # located, not imported: importing it pulls in gymnasium and all of its worlds
    if package is None or not package.submodule_search_locations:
        raise WorldError("panda: the package gym-hil is not installed; `pip install -e '.[sim]'` in the clone")
    path = Path(package.submodule_search_locations[0]) / "assets" / "scene.xml"
    if not path.is_file():
        raise WorldError(f"{path}: not found; expected gym-hil >= 0.1.14; `pip install -e '.[sim]'` in the clone")
    return mujoco.MjSpec.from_file(str(path))
