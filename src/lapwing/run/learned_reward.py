"""A world to learn in whose reward a trained success classifier gives, in every actor the same one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from lapwing.env import ActionSource, Env
from lapwing.errors import SpecError
from lapwing.run.classifier import SuccessClassifier
from lapwing.run.explorer import MakeWorld
from lapwing.run.hybrid import World
from lapwing.run.reward_wrapper import ClassifierReward


def rewarded(world: World, reward: Path | None) -> World:
    """`world` with the reward of the classifier at `reward`, a run or a checkpoint; None: with its own.

    The classifier is read once, here, and handed to the actors: whatever becomes of the run, they all judge alike, and
    those that are restarted too. The settings hold its fingerprint, so that a resumed run has the same. Raises
    CheckpointError where there is none, SpecError where the world lacks a camera that it looks at.
    """
    if reward is None:
        return replace(world, settings={**world.settings, "reward": None})
    classifier = SuccessClassifier.load(reward)
    missing = [name for name in classifier.spec.camera_names if name not in world.spec.camera_names]
    if missing:
        there = ", ".join(world.spec.camera_names) or "none"
        raise SpecError(
            f"world {world.name!r}: its cameras are {there}, expected {missing[0]!r} too, which the classifier at "
            f"{reward} looks at; choose another world or classifier, or leave --reward out"
        )
    settings = {"reward": str(reward.absolute()), "reward_weights": classifier.fingerprint()}
    return replace(world, make=partial(_judged, world.make, classifier), settings={**world.settings, **settings})


def _judged(make: MakeWorld, classifier: SuccessClassifier) -> tuple[Env, ActionSource | None]:
    world, expert = make()
    return ClassifierReward(world, classifier), expert
