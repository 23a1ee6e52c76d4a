"""Observations that carry their number, so that a test of the replay buffer can see where a sample came from."""

from __future__ import annotations

import numpy as np

from lapwing.data.normalize import Normalizer
from lapwing.data.replay import ReplayBuffer
from lapwing.episode import Observation
from lapwing.spec import Axis, Camera, RobotSpec

SPEC = RobotSpec(
    name="numbered",
    cameras=(Camera("wrist", 4, 6), Camera("front", 6, 4)),
    state=(Axis("number"), Axis("other")),
    action=(Axis("x"), Axis("grip", kind="gripper")),
)


def plain_normalizer(spec: RobotSpec = SPEC) -> Normalizer:
    """Leaves numbers as they are."""
    zero, one = np.zeros(spec.action_dim, np.float32), np.ones(spec.action_dim, np.float32)
    state = np.zeros(spec.state_dim, np.float32), np.ones(spec.state_dim, np.float32)
    return Normalizer(*state, zero, one, zero, one, zero - 1e9, zero + 1e9, np.full(spec.action_dim, -1))


def observation(number: int, spec: RobotSpec = SPEC) -> Observation:
    """Its state begins with `number`; every pixel has it too, in two channels, and the camera in the third."""
    images = {}
    for place, camera in enumerate(spec.cameras):
        pixel = np.array([number % 256, number // 256, place], np.uint8)
        images[camera.name] = np.tile(pixel, (camera.height, camera.width, 1))
    return Observation(images, np.array([number, -number], np.float32))


def buffer(capacity: int = 100, **more) -> ReplayBuffer:
    return ReplayBuffer(SPEC, plain_normalizer(), capacity, **more)


def numbers(obs) -> list[int]:
    """The number of each observation of a batch, which all its pixels and its state must agree on."""
    found = obs.state[:, 0].int().tolist()
    for place, frames in enumerate(obs.images.values()):
        for number, frame in zip(found, frames.numpy(), strict=True):
            assert (frame == [number % 256, number // 256, place]).all()
    return found


def fill(replay: ReplayBuffer, steps: int, first: int = 0, length: int = 7, actor: int = 0) -> int:
    """`steps` steps in episodes of `length`, which end and are cut in turn; returns the next free number.

    The step that leads to observation n has action (n, -n), reward n and grasp penalty -n / 10.
    """
    number = first
    replay.begin(observation(number), actor)
    for step in range(1, steps + 1):
        number += 1
        last, even = step % length == 0, step // length % 2 == 0
        action = np.array([number, -number], np.float32)
        penalty = -number / 10
        replay.add(
            action, number, last and even, last and not even, observation(number), number % 3 == 0, penalty, actor
        )
        if last and step < steps:
            number += 1
            replay.begin(observation(number), actor)
    return number + 1
