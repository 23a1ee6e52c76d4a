"""The worlds a policy can be sampled from and evaluated in. Each is imported only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

from lapwing.env import ActionSource, BatchEnv, Env, Sequential, Single
from lapwing.episode import Episode
from lapwing.errors import WorldError
from lapwing.spec import RobotSpec

if TYPE_CHECKING:
    from lapwing.envs.reach_scene import Mode

Quality = Literal["mixed", "expert", "human"]
AlohaTask = Literal["transfer", "insertion"]

REACH_WORLDS: dict[str, tuple[Literal["single", "dual"], Literal["fixed", "learned"]]] = {
    "toy-single-fixed": ("single", "fixed"),
    "toy-single-learned": ("single", "learned"),
    "toy-dual-fixed": ("dual", "fixed"),
    "toy-dual-learned": ("dual", "learned"),
}
STATE = "-state"
"""What the name of a world ends in whose things are told by the state instead of images."""
World = Literal[
    "toy",
    "toy-single-fixed",
    "toy-single-fixed-state",
    "toy-single-learned",
    "toy-single-learned-state",
    "toy-dual-fixed",
    "toy-dual-fixed-state",
    "toy-dual-learned",
    "toy-dual-learned-state",
    "aloha",
    "aloha-insertion",
]
WORLDS: tuple[str, ...] = get_args(World)


def make_world(name: str, num: int = 1, size: int = 84) -> BatchEnv:
    """`num` copies of a world with cameras of `size` x `size` pixels. Raises WorldError."""
    if mode := _reach_mode(name):
        from lapwing.envs.reach import Reach

        return Reach(mode, num, _camera_size(name, size))
    task = _aloha_task(name)
    if task is None:
        from lapwing.envs.toy import Toy

        return Toy(num, size)
    from lapwing.envs.aloha import Aloha

    return Sequential([Aloha(task, size) for _ in range(num)])


def make_expert_world(name: str, *, quality: Quality, size: int = 84) -> tuple[Env, ActionSource]:
    """A world and its scripted operator, who sees what no policy does. Raises WorldError.

    The operator's luck depends on the seed of its `reset` alone. Reset amid an episode it goes on from there: in the
    toy worlds it looks before every step; in the others it plans from where the arms and things then are.
    """
    if mode := _reach_mode(name):
        from lapwing.envs import reach

        table = reach.Reach(mode, 1, _camera_size(name, size))
        return Single(table), reach.Expert(table, quality)
    task = _aloha_task(name)
    if task is None:
        from lapwing.envs import toy

        copies = toy.Toy(1, size)
        return Single(copies), toy.Expert(copies, quality)
    from lapwing.envs import aloha

    style = _aloha_quality(quality)
    world = aloha.Aloha(task, size)
    return world, aloha.Expert(world, task, style)


def world_spec(name: str, size: int = 84) -> RobotSpec:
    """The robot of a world, without starting it. Raises WorldError."""
    if mode := _reach_mode(name):
        from lapwing.envs import reach

        return reach.spec(mode, _camera_size(name, size))
    task = _aloha_task(name)
    if task is None:
        from lapwing.envs import toy

        return toy.spec(size)
    from lapwing.envs import aloha

    return aloha.spec(task, size)


def sample_world(name: str, *, quality: Quality, size: int, seed: int) -> Iterator[Episode]:
    """Scripted demonstrations of a world without end, the same ones for the same seed. Raises WorldError."""
    if mode := _reach_mode(name):
        from lapwing.envs import reach

        return reach.demonstrations(mode, quality, _camera_size(name, size), seed)
    task = _aloha_task(name)
    if task is None:
        from lapwing.envs import toy

        return toy.demonstrations(quality, size, seed)
    from lapwing.envs import aloha

    return aloha.demonstrations(task, _aloha_quality(quality), size, seed)


def _reach_mode(name: str) -> Mode | None:
    """The set-up of a toy world for SAC; None for every other world."""
    setup = REACH_WORLDS.get(name.removesuffix(STATE))
    if setup is None:
        return None
    from lapwing.envs.reach_scene import Mode

    return Mode(*setup)


def _camera_size(name: str, size: int) -> int | None:
    return None if name.endswith(STATE) else size


def _aloha_task(name: str) -> AlohaTask | None:
    """The task of an aloha world; None for the toy world."""
    if name not in WORLDS:
        raise WorldError(f"world {name!r} is unknown; choose one of {', '.join(WORLDS)}")
    if name == "toy":
        return None
    return "insertion" if name == "aloha-insertion" else "transfer"


def _aloha_quality(quality: Quality) -> Literal["mixed", "expert"]:
    if quality == "human":
        raise WorldError("quality 'human' belongs to the toy world; choose mixed or expert")
    return quality
