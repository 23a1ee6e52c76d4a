"""A world whose one picture lights up, and a classifier of such pictures; importable by actors in any process."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np

from lapwing.agents.reward import RewardConfig
from lapwing.env import ActionSource, Env, Info
from lapwing.episode import Array, Episode, Observation
from lapwing.nets.backbone import BackboneConfig
from lapwing.run.hybrid import World
from lapwing.run.options import TrainOptions
from lapwing.run.train_reward import LabelledPaths, train_reward
from lapwing.spec import Axis, Camera, RobotSpec, unnamed_axes

SIZE = 16


def lit_spec(camera: str = "front") -> RobotSpec:
    action = (Axis("x", "m", "arm", -1.0, 1.0), Axis("grip", "close -1, hold 0, open 1", "gripper", -1.0, 1.0))
    return RobotSpec("lit", (Camera(camera, SIZE, SIZE),), unnamed_axes("s", 2), action)


def picture(lit: bool, seed: int = 0) -> Array:
    """Noise, dark or bright."""
    noise = np.random.default_rng(seed).integers(0, 60, (SIZE, SIZE, 3), np.uint8)
    return noise + np.uint8(180) if lit else noise


class Lit:
    """Bright from step `lit_at` on; after `length` steps the world itself says success, and ends."""

    def __init__(self, lit_at: int, length: int = 5) -> None:
        self.spec, self.max_steps = lit_spec(), length
        self._lit_at, self._made = lit_at, 0

    def reset(self, seed: int) -> Observation:
        self._made = 0
        return self._look()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        self._made += 1
        over = self._made == self.max_steps
        return self._look(), 7.0 * over, over, False, {"success": over}

    def _look(self) -> Observation:
        return Observation({"front": picture(self._made >= self._lit_at, self._made)}, np.full(2, self._made, float))

    def close(self) -> None:
        """Nothing is held open."""


def make_lit(lit_at: int) -> tuple[Env, ActionSource | None]:
    return Lit(lit_at), None


def lit_world(lit_at: int = 3) -> World:
    return World("lit", lit_spec(), partial(make_lit, lit_at), settings={"size": SIZE})


def demonstrations(count: int = 3, length: int = 5) -> list[Episode]:
    """Recorded in the world, with a reward of 1 at their end."""
    images = np.stack([picture(step >= 3, step) for step in range(length + 1)])
    state = np.repeat(np.arange(length + 1, dtype=np.float32)[:, None], 2, 1)
    action = np.tile(np.array([0.5, 1.0], np.float32), (length, 1))
    reward = np.eye(1, length, length - 1, dtype=np.float32)[0]
    return [Episode({"front": images}, state, action, reward, terminated=True, success=True) for _ in range(count)]


def train_classifier(folder: Path, camera: str = "front", seed: int = 0) -> Path:
    """A run of a classifier that knows dark from bright."""
    for kind in ("success", "failure"):
        (folder / kind).mkdir(parents=True)
        for number in range(3):
            looks = [{camera: picture(kind == "success", 10 * number + one)} for one in range(6)]
            steps = [
                {"observations": look, "next_observations": look, "actions": np.zeros(2), "rewards": 0, "masks": 1.0,
                 "dones": False}
                for look in looks
            ]  # fmt: skip
            (folder / kind / f"{number}.pkl").write_bytes(pickle.dumps(steps))
    config = RewardConfig(lr=3e-3, hidden=16, random_shift=1, vision=BackboneConfig("small", "none"))
    options = TrainOptions(
        steps=20, batch_size=8, eval_every=20, train_fraction=0.4, seed=seed, device="cpu", precision="fp32"
    )
    return train_reward(LabelledPaths([folder / "success"], [folder / "failure"]), folder / "run", config, options)
