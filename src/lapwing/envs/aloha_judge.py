"""What has been achieved in the ALOHA scene, read off the contacts."""

from __future__ import annotations

from typing import Any

from lapwing.envs.aloha_scene import Task

_BOX = ("red_box",)
_PEG = ("red_peg",)
_PIN = ("pin",)
_WALLS = ("socket-1", "socket-2", "socket-3", "socket-4")
_SOCKET = (*_WALLS, *_PIN)
_TABLE = ("table",)
_LEFT_FINGERS = ("vx300s_left/10_left_gripper_finger", "vx300s_left/10_right_gripper_finger")
_RIGHT_FINGERS = ("vx300s_right/10_left_gripper_finger", "vx300s_right/10_right_gripper_finger")
_HELD_HEIGHT = 0.1  # m, of the centre of what is held


class Judge:
    """Judges one task in one model."""

    def __init__(self, model: Any, task: Task) -> None:
        self._task = task
        self._names = [model.geom(index).name for index in range(model.ngeom)]
        self._right_arm = tuple(name for name in self._names if name.startswith("vx300s_right/"))
        self._touching: set[tuple[str, str]] = set()

    def look(self, data: Any) -> tuple[int, bool]:
        """The packaged task's reward of this moment, 0 to 4, and whether the strict goal holds in it."""
        pairs = [(self._names[one], self._names[other]) for one, other in data.contact.geom]
        self._touching = {*pairs, *((other, one) for one, other in pairs)}
        if self._task == "transfer":
            return self._transfer_stage(), self._cube_is_handed_over(data)
        return self._insertion_stage(), self._peg_is_inserted(data)

    def _touch(self, some: tuple[str, ...], others: tuple[str, ...]) -> bool:
        return any((one, other) in self._touching for one in some for other in others)

    def _held(self, thing: tuple[str, ...], fingers: tuple[str, ...], height: float) -> bool:
        """Between both fingers, off the table and up in the air."""
        between = all(self._touch(thing, (finger,)) for finger in fingers)
        return between and height > _HELD_HEIGHT and not self._touch(thing, _TABLE)

    def _cube_is_handed_over(self, data: Any) -> bool:
        height = data.body("box").xpos[2]
        return self._held(_BOX, _LEFT_FINGERS, height) and not self._touch(_BOX, self._right_arm)

    def _peg_is_inserted(self, data: Any) -> bool:
        peg = self._held(_PEG, _RIGHT_FINGERS, data.body("peg").xpos[2])
        socket = self._held(_SOCKET, _LEFT_FINGERS, data.body("socket").xpos[2])
        return peg and socket and self._touch(_PEG, _PIN)

    def _transfer_stage(self) -> int:
        """1 the right finger touches the cube, 2 off the table, 3 the left one touches it, 4 off the table."""
        lifted = not self._touch(_BOX, _TABLE)
        if self._touch(_BOX, _LEFT_FINGERS[:1]):
            return 4 if lifted else 3
        return (2 if lifted else 1) if self._touch(_BOX, _RIGHT_FINGERS[1:]) else 0

    def _insertion_stage(self) -> int:
        """1 both fingers touch, 2 both things off the table, 3 peg touches the socket there, 4 touches the pin."""
        lifted = not self._touch((*_PEG, *_WALLS), _TABLE)
        if self._touch(_PEG, _PIN):
            return 4
        if lifted and self._touch(_PEG, _WALLS):
            return 3
        if self._touch(_WALLS, _LEFT_FINGERS[:1]) and self._touch(_PEG, _RIGHT_FINGERS[1:]):
            return 2 if lifted else 1
        return 0
