"""A trained policy in a world: what a control loop on the robot looks like, with the robot left out.

python examples/act.py RUN        (RUN was trained on recordings of the toy world)
"""

from __future__ import annotations

import sys

import numpy as np

import lapwing
from lapwing.envs import make_world


def main(run: str, seed: int = 1) -> float:
    """Act through one episode and return what was earned."""
    policy = lapwing.load_policy(run)
    world = make_world("toy", num=1, size=policy.spec.cameras[0].height)
    observation = world.reset([seed])
    policy.reset()
    earned, ended = 0.0, False
    while not ended:
        action = policy(observation)  # [1, 16], physical units
        observation, reward, terminated, truncated, _ = world.step(action)
        earned += float(reward[0])
        ended = bool(np.any(terminated | truncated))
    return earned


if __name__ == "__main__":
    print(f"return {main(sys.argv[1]):g}")
