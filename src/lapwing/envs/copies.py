"""What worlds of many copies share: what they are given is checked, and operators play episodes in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lapwing.env import BatchEnv
from lapwing.episode import Array, Episode
from lapwing.errors import SpecError, WorldError


def one_seed_a_copy(name: str, num: int, seeds: Sequence[int]) -> tuple[list[int], Array]:
    """A seed for each of `num` copies, and which of them (bool [num]) nobody asked for. Raises WorldError."""
    if not 1 <= len(seeds) <= num:
        raise WorldError(f"{name}: got {len(seeds)} seeds, expected 1 to {num}, one for each copy")
    return [*seeds, *[seeds[0]] * (num - len(seeds))], np.arange(num) >= len(seeds)


def checked_actions(world: BatchEnv, actions: Array) -> Array:
    """Actions [num, A] as float64. Raises SpecError when their shape does not fit or one is no number."""
    name, actions = world.spec.name, np.asarray(actions)
    expected = (world.num, world.spec.action_dim)
    if actions.shape != expected:
        raise SpecError(f"{name}: actions have shape {actions.shape}, expected {expected} (copies, action axes)")
    if not np.isfinite(actions).all():
        copy, axis = np.argwhere(~np.isfinite(actions))[0]
        found = f"{world.spec.action[axis].name!r} of copy {copy} is {actions[copy, axis]}"
        raise SpecError(f"{name}: action {found}, expected a number")
    return actions.astype(np.float64)


def redrawn(kept: Array, running: Array, fresh: Array) -> Array:
    """Images with those of the copies `running` replaced; an observation handed out earlier keeps its own."""
    if len(running) == len(kept):
        return fresh
    images = kept.copy()
    images[running] = fresh
    return images


def play(world: BatchEnv, act: Callable[[int], Array], kinds: Sequence[str], seeds: Sequence[int]) -> Iterator[Episode]:
    """One episode per seed, all stepped together; act(step) says what every copy does, `kinds` who acts in it."""
    observations = [world.reset(seeds)]
    actions: list[Array] = []
    rewards: list[Array] = []
    penalties: list[Array] = []
    steps = np.zeros(world.num, np.int64)
    running = np.ones(world.num, bool)
    while running.any():
        actions.append(act(len(actions)))
        observation, reward, terminated, truncated, info = world.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
        if "grasp_penalty" in info:
            penalties.append(info["grasp_penalty"])
        steps += running
        running = ~(terminated | truncated)
    judged = {name: flags for name, flags in info.items() if name not in ("success", "grasp_penalty")}
    for copy, length in enumerate(steps):
        rows = observations[: length + 1]
        yield Episode(
            images={name: np.stack([row.images[name][copy] for row in rows]) for name in world.spec.camera_names},
            state=np.stack([row.state[copy] for row in rows]),
            action=np.stack([action[copy] for action in actions[:length]]),
            reward=np.stack([reward[copy] for reward in rewards[:length]]),
            terminated=bool(terminated[copy]),
            success=bool(info["success"][copy]),
            meta={"kind": kinds[copy], "seed": seeds[copy], **{name: bool(one[copy]) for name, one in judged.items()}},
            grasp_penalty=np.stack([penalty[copy] for penalty in penalties[:length]]) if penalties else None,
        )
