"""A person who presses what a list says, for tests of taking over; importable by actors in any process."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import pygame
from acting_world import Line

from lapwing.env import ActionSource, Env
from lapwing.run.person import Person, TakenOver, Watched
from lapwing.run.window import Window
from lapwing.spec import Axis

Script = Mapping[int, Sequence[str]]
"""What is pressed (+space) and released (-up) before which listening, counted from 0."""


class Pressing(Window):
    """A window at which somebody follows a script."""

    script: Script
    listened = 0

    def listen(self) -> None:
        for word in self.script.get(self.listened, ()):
            press(word)
        self.listened += 1
        super().listen()


def press(*words: str) -> None:
    """press("+space", "-up"): as SDL tells it."""
    for word in words:
        kind = pygame.KEYDOWN if word[0] == "+" else pygame.KEYUP
        pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(word[1:])))


class FastLine(Line):
    """A world of 200 steps a second whose axes have keys: x, and a gripper."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        x, grip = self.spec.action
        self.spec = replace(self.spec, action=(x, replace(grip, name="gripper")), rate_hz=200.0)


def make_pressed(learner: int, script: Script, length: int = 6) -> tuple[Env, ActionSource]:
    world = FastLine(length)
    window = Pressing("keyboard", partial(os.kill, learner, signal.SIGINT))
    window.script = script
    return Watched(world, window, "keyboard"), Person(window, world.spec, "keyboard")


def taken_over(policy: ActionSource, person: ActionSource, spent: int) -> TakenOver:
    assert isinstance(person, Person)
    return TakenOver(policy, person)


def axes(*names: str, unit: str = "m/step", kind: str = "arm", low: float = -1.0, high: float = 1.0) -> list[Axis]:
    return [Axis(name, unit, kind, low, high) for name in names]  # type: ignore[arg-type]
