"""Pictures, for a person, of worlds whose policies see none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lapwing.envs.reach import Reach
from lapwing.envs.reach_camera import draw
from lapwing.episode import Array

SIZE = 320


def table_drawing(table: Reach) -> Callable[[], Array]:
    """What draws the first copy of a toy world, uint8 [SIZE, SIZE, 3]."""

    def picture() -> Array:
        drawn: Array = draw(table.scene, np.arange(1), SIZE)[0]
        return drawn

    return picture


def drawing(model: Any, data: Any, camera: str) -> Callable[[], Array]:
    """What draws a MuJoCo scene, uint8 [SIZE, SIZE, 3], with the bodies that collide: others it may lack.

    Without shadows and reflections, which take longest. Raises WorldError where nothing can be drawn.
    """
    from lapwing.envs.mujoco_gl import mujoco, open_renderer

    model.vis.global_.offwidth = model.vis.global_.offheight = SIZE
    renderer, view = open_renderer(model, SIZE), mujoco.MjvOption()
    view.geomgroup[:] = 1
    for effect in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[effect] = False

    def picture() -> Array:
        renderer.update_scene(data, camera, view)
        drawn: Array = renderer.render()
        return drawn

    return picture
