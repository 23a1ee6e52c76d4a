"""A person at a window who watches a policy act and takes over from it, with a keyboard or a gamepad."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lapwing.env import ActionSource, Env, Info
from lapwing.episode import Array, Meta, Observation
from lapwing.run.keys import Device, Pair, pairs_of
from lapwing.run.pace import Pacer
from lapwing.run.window import Window
from lapwing.spec import Axis, RobotSpec

RATE_HZ = 10.0
"""Control steps a second, in a world that has no rate of its own."""
_SECONDS_ACROSS = {"gripper": 1.0}  # from one limit to the other, of an axis that is told where to be
_ARM_SECONDS_ACROSS = 10.0


class Watched:
    """A world as a person sees it: shown in a window, at its own rate in real time.

    draw: a picture, uint8 [H, W, 3], of a world without cameras; None: only the keys are shown. The window is listened
    to at the end of each step, so that what is pressed there is in the next action. `close` closes the window too.
    """

    def __init__(self, world: Env, window: Window, device: Device, draw: Callable[[], Array] | None = None) -> None:
        self.spec, self.max_steps = world.spec, world.max_steps
        self._world, self._window, self._draw = world, window, draw
        pairs = zip(pairs_of(world.spec, device), world.spec.action, strict=True)
        self._lines = [str(pair) if pair else f"{axis.name}: no room on the {device}" for pair, axis in pairs]
        self._pacer = Pacer(world.spec.rate_hz or RATE_HZ)

    def reset(self, seed: int) -> Observation:
        observation = self._world.reset(seed)
        self._show(observation)
        return observation

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        stepped = self._world.step(action)
        self._show(stepped[0])
        return stepped

    def close(self) -> None:
        self._window.close()
        self._world.close()

    def _show(self, observation: Observation) -> None:
        pictures = list(observation.images.values())
        if not pictures and self._draw is not None:
            pictures = [self._draw()]
        self._window.show(pictures, self._lines)
        self._pacer.tick()
        self._window.listen()


class Person:
    """Actions from what is pressed in a window.

    An axis that the state measures too, by the same name in the same unit, is told where to be: it goes on from where
    it is while a key is held, and stays there. All others are told how to move, and 0 while no key is held.
    """

    def __init__(self, window: Window, spec: RobotSpec, device: Device) -> None:
        self._window, self._pairs = window, pairs_of(spec, device)
        self._low = np.array([axis.low for axis in spec.action], np.float64)
        self._high = np.array([axis.high for axis in spec.action], np.float64)
        self._measured = np.array([_measuring(axis, spec) for axis in spec.action])
        rate = spec.rate_hz or RATE_HZ
        seconds = np.array([_SECONDS_ACROSS.get(axis.kind, _ARM_SECONDS_ACROSS) for axis in spec.action])
        self._stride = (self._high - self._low) / (seconds * rate)
        self._target: Array | None = None

    @property
    def has_taken_over(self) -> bool:
        return self._window.taken_over

    def hand_back(self) -> None:
        self._window.taken_over = False

    def reset(self, seed: int) -> Meta:
        """Go on from where the robot is."""
        self._target = None
        return {}

    def __call__(self, observation: Observation, /) -> Array:
        """Physical action, float32 [A]."""
        pressed = np.array([self._pressed(pair) for pair in self._pairs])
        told = self._measured >= 0
        if self._target is None:
            self._target = observation.state[self._measured].astype(np.float64)
        self._target = np.clip(self._target + pressed * self._stride, self._low, self._high)
        moving = np.where(pressed > 0, pressed * self._high, -pressed * self._low)
        action: Array = np.where(told, self._target, moving).astype(np.float32)
        return action

    def _pressed(self, pair: Pair | None) -> float:
        """-1 to 1."""
        return 0.0 if pair is None else self._window.amount(pair.more) - self._window.amount(pair.less)


class TakenOver:
    """A policy as a source of actions, with a person who takes over at any time; each episode begins with the policy.

    `intervening` follows the window, which is listened to while the world steps.
    """

    def __init__(self, policy: ActionSource, person: Person) -> None:
        self._policy, self._person = policy, person
        self._seed, self._acted = 0, False

    @property
    def intervening(self) -> bool:
        return self._person.has_taken_over

    def reset(self, seed: int) -> Meta:
        self._seed, self._acted = seed, False
        self._person.hand_back()
        return self._policy.reset(seed)

    def __call__(self, observation: Observation, /) -> Array | None:
        if not self.intervening:
            self._acted = False
            return self._policy(observation)
        if not self._acted:
            self._person.reset(self._seed)
            self._acted = True
        return self._person(observation)


def _measuring(axis: Axis, spec: RobotSpec) -> int:
    """The place in the state of what measures this axis, -1 for none. Bases are told how fast to go."""
    same = (place for place, one in enumerate(spec.state) if (one.name, one.unit) == (axis.name, axis.unit))
    return -1 if axis.kind == "base" else next(same, -1)
