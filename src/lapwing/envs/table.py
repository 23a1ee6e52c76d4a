"""The table of worlds: one entry each, made of functions that import a world's modules when they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lapwing.env import ActionSource, BatchEnv, Env, Sequential, Single
from lapwing.envs import maze_layout
from lapwing.envs.maze_layout import MAZES, Maze
from lapwing.envs.reach_scene import Mode
from lapwing.episode import Array, Episode
from lapwing.spec import RobotSpec

if TYPE_CHECKING:
    from lapwing.envs.aloha_scene import Task
    from lapwing.envs.aloha_script import Quality as AlohaQuality
    from lapwing.envs.panda_expert import Quality as PandaQuality
    from lapwing.envs.scripted import Quality as ToyQuality
    from lapwing.envs.two_arm_lift_expert import Quality as LiftQuality

Sampled = Iterator[Episode]
Operated = tuple[Env, ActionSource]
Drawn = tuple[Env, Callable[[], Array]]


@dataclass(frozen=True)
class Scripted:
    """What the operators of a world do. qualities: how they can act, as in its own data first.

    beside(quality, size): one world and its operator; alone(quality, size, seed): demonstrations without end.
    """

    qualities: tuple[Any, ...]
    beside: Callable[[Any, int], Operated]
    alone: Callable[[Any, int, int], Sampled]


@dataclass(frozen=True)
class Entry:
    """A world. size, everywhere: height and width of its images in pixels, `own_size` where nobody asks for another.

    spec(size); copies(num, size): so many side by side; drawn(): one without cameras, and what draws it for a person.
    All raise WorldError and ConfigError.
    """

    spec: Callable[[int], RobotSpec]
    copies: Callable[[int, int], BatchEnv]
    scripted: Scripted | None = None
    drawn: Callable[[], Drawn] | None = None
    own_size: int = 84


def _toy() -> Entry:
    def spec(size: int) -> RobotSpec:
        from lapwing.envs import toy

        return toy.spec(size)

    def copies(num: int, size: int) -> BatchEnv:
        from lapwing.envs.toy import Toy

        return Toy(num, size)

    def beside(quality: ToyQuality, size: int) -> Operated:
        from lapwing.envs.toy import Expert, Toy

        world = Toy(1, size)
        return Single(world), Expert(world, quality)

    def alone(quality: ToyQuality, size: int, seed: int) -> Sampled:
        from lapwing.envs import toy

        return toy.demonstrations(quality, size, seed)

    return Entry(spec, copies, Scripted(("mixed", "expert", "noisy", "human"), beside, alone))


def _reach(mode: Mode, cameras: bool) -> Entry:
    def seen(size: int) -> int | None:
        return size if cameras else None

    def spec(size: int) -> RobotSpec:
        from lapwing.envs import reach

        return reach.spec(mode, seen(size))

    def copies(num: int, size: int) -> BatchEnv:
        from lapwing.envs.reach import Reach

        return Reach(mode, num, seen(size))

    def beside(quality: ToyQuality, size: int) -> Operated:
        from lapwing.envs.reach import Expert, Reach

        world = Reach(mode, 1, seen(size))
        return Single(world), Expert(world, quality)

    def alone(quality: ToyQuality, size: int, seed: int) -> Sampled:
        from lapwing.envs import reach

        return reach.demonstrations(mode, quality, seen(size), seed)

    def drawn() -> Drawn:
        from lapwing.envs import picture
        from lapwing.envs.reach import Reach

        world = Reach(mode, 1, None)
        return Single(world), picture.table_drawing(world)

    scripted = Scripted(("mixed", "expert", "noisy", "human"), beside, alone)
    return Entry(spec, copies, scripted, None if cameras else drawn)


def _aloha(task: Task) -> Entry:
    def spec(size: int) -> RobotSpec:
        from lapwing.envs import aloha

        return aloha.spec(task, size)

    def copies(num: int, size: int) -> BatchEnv:
        from lapwing.envs.aloha import Aloha

        return Sequential([Aloha(task, size) for _ in range(num)])

    def beside(quality: AlohaQuality, size: int) -> Operated:
        from lapwing.envs.aloha import Aloha, Expert

        world = Aloha(task, size)
        return world, Expert(world, task, quality)

    def alone(quality: AlohaQuality, size: int, seed: int) -> Sampled:
        from lapwing.envs import aloha

        return aloha.demonstrations(task, quality, size, seed)

    return Entry(spec, copies, Scripted(("mixed", "expert"), beside, alone))


def _panda(cameras: bool) -> Entry:
    def spec(size: int) -> RobotSpec:
        from lapwing.envs import panda_spec

        return panda_spec.spec(cameras, size)

    def copies(num: int, size: int) -> BatchEnv:
        from lapwing.envs.panda import Panda

        return Sequential([Panda(cameras, size) for _ in range(num)])

    def beside(quality: PandaQuality, size: int) -> Operated:
        from lapwing.envs.panda import Panda
        from lapwing.envs.panda_expert import Expert

        world = Panda(cameras, size)
        return world, Expert(world.physics, quality)

    def alone(quality: PandaQuality, size: int, seed: int) -> Sampled:
        from lapwing.envs import panda

        return panda.demonstrations(cameras, quality, size, seed)

    def drawn() -> Drawn:
        from lapwing.envs import picture
        from lapwing.envs.panda import Panda

        world = Panda(cameras=False)
        return world, picture.drawing(world.physics.model, world.physics.data, "front")

    scripted = Scripted(("mixed", "expert", "noisy"), beside, alone)
    return Entry(spec, copies, scripted, None if cameras else drawn, own_size=128)


def _maze(maze: Maze) -> Entry:
    def spec(size: int) -> RobotSpec:
        return maze_layout.spec(maze)

    def copies(num: int, size: int) -> BatchEnv:
        from lapwing.envs.maze import PointMaze

        return PointMaze(maze, num)

    def noise(quality: str) -> float:
        from lapwing.envs.maze_expert import NOISE

        return NOISE if quality == "noisy" else 0.0

    def beside(quality: str, size: int) -> Operated:
        from lapwing.envs.maze import PointMaze
        from lapwing.envs.maze_expert import Expert

        return Single(PointMaze(maze)), Expert(maze, noise(quality))

    def alone(quality: str, size: int, seed: int) -> Sampled:
        from lapwing.envs import maze_expert

        return maze_expert.demonstrations(maze, noise(quality), seed)

    return Entry(spec, copies, Scripted(("noisy", "expert"), beside, alone))


def _gym(name: str) -> Entry:
    def spec(size: int) -> RobotSpec:
        from lapwing.envs import gym_state

        return gym_state.spec(name)

    def copies(num: int, size: int) -> BatchEnv:
        from lapwing.envs.gym_state import GymState

        return Sequential([GymState(name) for _ in range(num)])

    return Entry(spec, copies)


def _lift(cameras: bool) -> Entry:
    def spec(size: int) -> RobotSpec:
        from lapwing.envs import two_arm_lift_spec

        return two_arm_lift_spec.spec(cameras, size)

    def copies(num: int, size: int) -> BatchEnv:
        from lapwing.envs.two_arm_lift import TwoArmLift

        return Sequential([TwoArmLift(cameras, size) for _ in range(num)])

    def beside(quality: LiftQuality, size: int) -> Operated:
        from lapwing.envs.two_arm_lift import TwoArmLift
        from lapwing.envs.two_arm_lift_expert import Expert

        world = TwoArmLift(cameras, size)
        return world, Expert(world.physics, quality)

    def alone(quality: LiftQuality, size: int, seed: int) -> Sampled:
        from lapwing.envs import two_arm_lift

        return two_arm_lift.demonstrations(cameras, quality, size, seed)

    def drawn() -> Drawn:
        from lapwing.envs import picture
        from lapwing.envs.two_arm_lift import TwoArmLift
        from lapwing.envs.two_arm_lift_spec import CAMERAS

        world = TwoArmLift(cameras=False)
        return world, picture.drawing(world.physics.model, world.physics.data, CAMERAS["front"])

    return Entry(spec, copies, Scripted(("noisy", "expert"), beside, alone), None if cameras else drawn)


TABLE = {
    "toy": _toy(),
    "toy-single-fixed": _reach(Mode("single", "fixed"), cameras=True),
    "toy-single-fixed-state": _reach(Mode("single", "fixed"), cameras=False),
    "toy-single-learned": _reach(Mode("single", "learned"), cameras=True),
    "toy-single-learned-state": _reach(Mode("single", "learned"), cameras=False),
    "toy-dual-fixed": _reach(Mode("dual", "fixed"), cameras=True),
    "toy-dual-fixed-state": _reach(Mode("dual", "fixed"), cameras=False),
    "toy-dual-learned": _reach(Mode("dual", "learned"), cameras=True),
    "toy-dual-learned-state": _reach(Mode("dual", "learned"), cameras=False),
    "aloha": _aloha("transfer"),
    "aloha-insertion": _aloha("insertion"),
    "panda": _panda(cameras=True),
    "panda-state": _panda(cameras=False),
    "pointmaze-umaze": _maze(MAZES["pointmaze-umaze"]),
    "pointmaze-medium": _maze(MAZES["pointmaze-medium"]),
    "pointmaze-large": _maze(MAZES["pointmaze-large"]),
    "door": _gym("door"),
    "hopper": _gym("hopper"),
    "halfcheetah": _gym("halfcheetah"),
    "two-arm-lift": _lift(cameras=True),
    "two-arm-lift-state": _lift(cameras=False),
}
