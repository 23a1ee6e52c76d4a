"""What the scripted operators of the ALOHA scene do: poses of the fingertips, varied, now and then mistaken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lapwing.envs.aloha_scene import GRIPPERS, Task
from lapwing.episode import Array

Quality = Literal["mixed", "expert"]

# clean: nothing goes wrong. disturbed: pushed off the path for a moment, again and again. retried: the first
# grasp closes beside the thing, the second one on it. missed: only the first. dropped: opens too early.
# stopped: holds what it has and goes no further.
MIXED = {"clean": 0.25, "disturbed": 0.25, "retried": 0.15, "missed": 0.15, "dropped": 0.1, "stopped": 0.1}


@dataclass(frozen=True)
class Key:
    """Be there after so many steps: between the fingertips, in m, with this quaternion and gripper opening."""

    steps: int
    place: Array
    turn: Array
    gripper: float


@dataclass(frozen=True)
class Style:
    """How one episode is done: its kind, the steps of each phase, and where."""

    kind: str
    steps: Mapping[str, int]
    hover: float
    meeting: Array
    miss: Array  # where the missed grasp closes, from the thing
    clumsy: int  # the arm that makes the mistake where either could: 0 left, 1 right


def _about(axis: int, degrees: float) -> Array:
    half = np.deg2rad(degrees) / 2
    turn = np.array([np.cos(half), 0.0, 0.0, 0.0])
    turn[1 + axis] = np.sin(half)
    return turn


def _along_x(metres: float) -> Array:
    return np.array([metres, 0.0, 0.0])


def _up(metres: float) -> Array:
    return np.array([0.0, 0.0, metres])


# Fingers pointing down to the table, of the left and the right arm; and level, one above the other, so that the
# left fingers find the sides of the cube that the right ones leave free.
_DOWN = (_about(1, 66.0), _about(1, -66.0))
_SIDEWAYS = _about(0, 90.0)

_CLOSING = 8  # steps in which a gripper's command goes from open to closed
_GRASP_HEIGHT = 0.022  # m; lower, the fingertips press on the table and do not close
_PEG_RAISE = 0.012  # gripped at one height, the socket's centre lies higher in the hand than the peg's

_STEPS = {
    "transfer": {
        "reach": 45, "descend": 20, "grip": 15, "carry": 40, "approach": 25, "take": 20, "release": 12, "part": 35,
    },
    "insertion": {"reach": 45, "descend": 20, "grip": 25, "carry": 40, "settle": 20, "push": 30, "hold": 45},
}  # fmt: skip


def draw_style(task: Task, quality: Quality, rng: np.random.Generator) -> Style:
    """Draw how the next episode is done."""
    kind = str(rng.choice(list(MIXED), p=list(MIXED.values()))) if quality == "mixed" else "clean"
    pace = rng.uniform(0.9, 1.15)
    steps = {phase: round(nominal * pace * rng.uniform(0.95, 1.2)) for phase, nominal in _STEPS[task].items()}
    return Style(
        kind=kind,
        steps=steps,
        hover=rng.uniform(0.06, 0.1),
        meeting=np.array([0.0, 0.5, 0.25]) + rng.uniform(-0.05, 0.05, 3),
        miss=np.array([rng.uniform(-0.02, 0.02), rng.choice([-1, 1]) * rng.uniform(0.07, 0.09), 0.0]),
        clumsy=int(rng.integers(2)) if task == "insertion" else 1,
    )


def write_script(task: Task, things: Sequence[Array], style: Style) -> tuple[list[Key], list[Key]]:
    """What the left and the right arm do; `things` are the places of the cube, or of peg and socket."""
    if task == "transfer":
        return _transfer(things[0], style)
    return _insertion(things[0], things[1], style)


def _transfer(cube: Array, style: Style) -> tuple[list[Key], list[Key]]:
    steps, meeting = style.steps, style.meeting
    take_over = steps["approach"] + steps["take"]
    right = _fetch(1, cube, style)
    right.append(Key(steps["carry"], meeting, _DOWN[1], 0.0))
    beside, reached = meeting + _along_x(-0.1), meeting + _along_x(0.012)
    left = [Key(_length(right), beside, _SIDEWAYS, 1.0)]
    if style.kind == "stopped":
        wait = take_over + steps["release"]
        return [*left, Key(wait, beside, _SIDEWAYS, 1.0)], right
    if style.kind == "dropped":
        right.append(Key(_CLOSING, meeting, _DOWN[1], 1.0))
    else:
        right.append(Key(take_over, meeting, _DOWN[1], 0.0))
        right.append(Key(_CLOSING, meeting, _DOWN[1], 1.0))
        right.append(Key(steps["release"] - _CLOSING, meeting, _DOWN[1], 1.0))
    right.append(Key(steps["part"], meeting + _along_x(0.1), _DOWN[1], 1.0))
    left.append(Key(steps["approach"], reached, _SIDEWAYS, 1.0))
    left.append(Key(_CLOSING, reached, _SIDEWAYS, 0.0))
    return left, right


def _insertion(peg: Array, socket: Array, style: Style) -> tuple[list[Key], list[Key]]:
    left, right = (_fetch(arm, thing, style) + _push(arm, style) for arm, thing in ((0, socket), (1, peg)))
    return left, right


def _push(arm: int, style: Style) -> list[Key]:
    """Carry to the meeting and push towards the other hand: peg and socket lie end to end, then in each other."""
    steps, side = style.steps, 2 * arm - 1
    middle = style.meeting + _up(arm * _PEG_RAISE)
    apart = middle + _along_x(side * 0.07)
    joined = middle + _along_x(side * 0.045)
    gripper = float(style.kind == "dropped" and arm == style.clumsy)
    keys = [Key(steps["carry"], apart, _DOWN[arm], 0.0), Key(steps["settle"], apart, _DOWN[arm], gripper)]
    there = apart if style.kind == "stopped" else joined
    return [*keys, Key(steps["push"], there, _DOWN[arm], gripper), Key(steps["hold"], there, _DOWN[arm], gripper)]


def _fetch(arm: int, thing: Array, style: Style) -> list[Key]:
    """Grasp a thing from the table, with the mistakes of the style's kind."""
    place = np.array([thing[0], thing[1], _GRASP_HEIGHT])
    clumsy = arm == style.clumsy
    if style.kind == "missed" and clumsy:
        return _grasp(arm, place + style.miss, style)
    if style.kind != "retried":
        return _grasp(arm, place, style)
    aside = [*_grasp(arm, place + style.miss, style), Key(_CLOSING, place + style.miss, _DOWN[arm], 1.0)]
    aside.append(Key(style.steps["descend"], place + style.miss + _up(style.hover), _DOWN[arm], 1.0))
    first = aside if clumsy else [Key(_length(aside), place + _up(style.hover), _DOWN[arm], 1.0)]
    return first + _grasp(arm, place, style)


def _grasp(arm: int, place: Array, style: Style) -> list[Key]:
    steps, turn = style.steps, _DOWN[arm]
    return [
        Key(steps["reach"], place + _up(style.hover), turn, 1.0),
        Key(steps["descend"], place, turn, 1.0),
        Key(_CLOSING, place, turn, 0.0),
        Key(steps["grip"] - _CLOSING, place, turn, 0.0),
    ]


def _length(keys: Sequence[Key]) -> int:
    return sum(key.steps for key in keys)


def shake(actions: Array, rng: np.random.Generator) -> Array:
    """Push the arms' commands [N, 14] aside and back again, once to three times."""
    shaken = actions.copy()
    for _ in range(rng.integers(1, 4)):
        width = int(rng.integers(20, 41))
        start = int(rng.integers(len(actions) - width))
        push = rng.normal(0.0, rng.uniform(0.02, 0.08), actions.shape[1])  # rad
        bump = np.sin(np.linspace(0.0, np.pi, width)) ** 2
        shaken[start : start + width] += bump[:, None] * np.where(GRIPPERS, 0.0, push)
    return shaken
