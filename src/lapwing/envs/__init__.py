"""The worlds a policy can be sampled from and evaluated in. Each is imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, get_args

from lapwing.env import ActionSource, BatchEnv, Env, Sequential, Single
from lapwing.episode import Array, Episode
from lapwing.errors import WorldError
from lapwing.spec import RobotSpec

if TYPE_CHECKING:
    from lapwing.envs.maze_layout import Maze
    from lapwing.envs.reach_scene import Mode

Quality = Literal["mixed", "expert", "noisy", "human"]
AlohaTask = Literal["transfer", "insertion"]

REACH_WORLDS: dict[str, tuple[Literal["single", "dual"], Literal["fixed", "learned"]]] = {
    "toy-single-fixed": ("single", "fixed"),
    "toy-single-learned": ("single", "learned"),
    "toy-dual-fixed": ("dual", "fixed"),
    "toy-dual-learned": ("dual", "learned"),
}
PANDA_WORLDS = ("panda", "panda-state")
LIFT_WORLDS = ("two-arm-lift", "two-arm-lift-state")
D4RL_DATA = {
    "pointmaze-umaze": "maze2d-umaze-v1",
    "pointmaze-medium": "maze2d-medium-v1",
    "pointmaze-large": "maze2d-large-v1",
    "door": "door-human-v1",
    "hopper": "hopper-expert-v2",
    "halfcheetah": "halfcheetah-expert-v2",
}
"""The worlds that data sets of D4RL come from, with the one whose reference returns turn a return into a score."""
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
    "panda",
    "panda-state",
    "pointmaze-umaze",
    "pointmaze-medium",
    "pointmaze-large",
    "door",
    "hopper",
    "halfcheetah",
    "two-arm-lift",
    "two-arm-lift-state",
]
WORLDS: tuple[str, ...] = get_args(World)


def own_quality(name: str) -> Quality:
    """How the operators of a world's data act, where one does not ask for others."""
    return "noisy" if name.startswith("pointmaze") else "mixed"


def own_size(name: str) -> int:
    """Height and width of a world's images in pixels, where one does not ask for others."""
    return 128 if name == "panda" else 84


def make_world(name: str, num: int = 1, size: int | None = None) -> BatchEnv:
    """`num` copies of a world with cameras of `size` x `size` pixels, None: its own. Raises WorldError."""
    size = own_size(name) if size is None else size
    if name in PANDA_WORLDS:
        from lapwing.envs.panda import Panda

        return Sequential([Panda(not name.endswith(STATE), size) for _ in range(num)])
    if maze := _maze(name):
        from lapwing.envs.maze import PointMaze

        return PointMaze(maze, num)
    if name in D4RL_DATA:
        from lapwing.envs.gym_state import GymState

        return Sequential([GymState(name) for _ in range(num)])
    if name in LIFT_WORLDS:
        from lapwing.envs.two_arm_lift import TwoArmLift

        return Sequential([TwoArmLift(not name.endswith(STATE), size) for _ in range(num)])
    if mode := _reach_mode(name):
        from lapwing.envs.reach import Reach

        return Reach(mode, num, _camera_size(name, size))
    task = _aloha_task(name)
    if task is None:
        from lapwing.envs.toy import Toy

        return Toy(num, size)
    from lapwing.envs.aloha import Aloha

    return Sequential([Aloha(task, size) for _ in range(num)])


def make_expert_world(name: str, *, quality: Quality, size: int | None = None) -> tuple[Env, ActionSource]:
    """A world and its scripted operator, who sees what no policy does. Raises WorldError.

    The operator's luck depends on the seed of its `reset` alone. Reset amid an episode it goes on from there: in the
    aloha worlds it plans from where the arms and things then are; in the others it looks before every step.
    """
    size = own_size(name) if size is None else size
    if name in PANDA_WORLDS:
        from lapwing.envs import panda, panda_expert

        arm = panda.Panda(not name.endswith(STATE), size)
        return arm, panda_expert.Expert(arm.physics, _panda_quality(quality))
    if maze := _maze(name):
        from lapwing.envs import maze_expert
        from lapwing.envs.maze import PointMaze

        return Single(PointMaze(maze)), maze_expert.Expert(maze, _maze_noise(quality))
    if name in LIFT_WORLDS:
        from lapwing.envs import two_arm_lift, two_arm_lift_expert

        pair = two_arm_lift.TwoArmLift(not name.endswith(STATE), size)
        return pair, two_arm_lift_expert.Expert(pair.physics, _lift_quality(quality))
    _expect_operator(name)
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


def make_drawn_world(name: str, size: int | None = None) -> tuple[Env, Callable[[], Array] | None]:
    """A world and, where it has no cameras, what draws it for a person: uint8 [H, W, 3]. Raises WorldError."""
    if name in PANDA_WORLDS and name.endswith(STATE):
        from lapwing.envs import panda, picture

        arm = panda.Panda(cameras=False)
        return arm, picture.drawing(arm.physics.model, arm.physics.data, "front")
    if name in LIFT_WORLDS and name.endswith(STATE):
        from lapwing.envs import picture, two_arm_lift, two_arm_lift_spec

        pair = two_arm_lift.TwoArmLift(cameras=False)
        return pair, picture.drawing(pair.physics.model, pair.physics.data, two_arm_lift_spec.CAMERAS["front"])
    mode = _reach_mode(name)
    if mode is None or not name.endswith(STATE):
        return Single(make_world(name, 1, size)), None
    from lapwing.envs import picture, reach

    table = reach.Reach(mode, 1, None)
    return Single(table), picture.table_drawing(table)


def world_spec(name: str, size: int | None = None) -> RobotSpec:
    """The robot of a world, without starting it. Raises WorldError."""
    size = own_size(name) if size is None else size
    if name in PANDA_WORLDS:
        from lapwing.envs import panda_spec

        return panda_spec.spec(not name.endswith(STATE), size)
    if maze := _maze(name):
        from lapwing.envs import maze_layout

        return maze_layout.spec(maze)
    if name in D4RL_DATA:
        from lapwing.envs import gym_state

        return gym_state.spec(name)
    if name in LIFT_WORLDS:
        from lapwing.envs import two_arm_lift_spec

        return two_arm_lift_spec.spec(not name.endswith(STATE), size)
    if mode := _reach_mode(name):
        from lapwing.envs import reach

        return reach.spec(mode, _camera_size(name, size))
    task = _aloha_task(name)
    if task is None:
        from lapwing.envs import toy

        return toy.spec(size)
    from lapwing.envs import aloha

    return aloha.spec(task, size)


def sample_world(name: str, *, quality: Quality, size: int | None = None, seed: int) -> Iterator[Episode]:
    """Scripted demonstrations of a world without end, the same ones for the same seed. Raises WorldError."""
    size = own_size(name) if size is None else size
    if name in PANDA_WORLDS:
        from lapwing.envs import panda

        return panda.demonstrations(not name.endswith(STATE), _panda_quality(quality), size, seed)
    if maze := _maze(name):
        from lapwing.envs import maze_expert

        return maze_expert.demonstrations(maze, _maze_noise(quality), seed)
    if name in LIFT_WORLDS:
        from lapwing.envs import two_arm_lift

        return two_arm_lift.demonstrations(not name.endswith(STATE), _lift_quality(quality), size, seed)
    _expect_operator(name)
    if mode := _reach_mode(name):
        from lapwing.envs import reach

        return reach.demonstrations(mode, quality, _camera_size(name, size), seed)
    task = _aloha_task(name)
    if task is None:
        from lapwing.envs import toy

        return toy.demonstrations(quality, size, seed)
    from lapwing.envs import aloha

    return aloha.demonstrations(task, _aloha_quality(quality), size, seed)


def sample_labelled(name: str, *, size: int | None = None, seed: int) -> Iterator[Episode]:
    """Episodes without end for a success classifier: a step is rewarded if what follows it shows the task done.

    Raises WorldError.
    """
    if name != "panda":
        raise WorldError(f"world {name!r} has nothing to show a classifier; choose panda")
    from lapwing.envs import panda

    return panda.labelled(own_size(name) if size is None else size, seed)


def _maze(name: str) -> Maze | None:
    """The maze of a pointmaze world; None for every other world."""
    if not name.startswith("pointmaze"):
        return None
    from lapwing.envs.maze_layout import MAZES

    return MAZES.get(name)


def _maze_noise(quality: Quality) -> float:
    """Standard deviation of what the operator's actions are shaken by."""
    if quality not in ("expert", "noisy"):
        raise WorldError(f"quality {quality!r} belongs to other worlds than the pointmazes; choose noisy or expert")
    from lapwing.envs.maze_expert import NOISE

    return NOISE if quality == "noisy" else 0.0


def _expect_operator(name: str) -> None:
    if name in D4RL_DATA:
        raise WorldError(f"world {name!r} has no scripted operator; choose another world, or recorded data")


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
    if quality in ("mixed", "expert"):
        return quality
    owner = "toy world" if quality == "human" else "toy and panda worlds"
    raise WorldError(f"quality {quality!r} belongs to the {owner}; choose mixed or expert")


def _panda_quality(quality: Quality) -> Literal["mixed", "expert", "noisy"]:
    if quality == "human":
        raise WorldError("quality 'human' belongs to the toy world; choose mixed, expert or noisy")
    return quality


def _lift_quality(quality: Quality) -> Literal["expert", "noisy"]:
    if quality in ("expert", "noisy"):
        return quality
    raise WorldError(f"quality {quality!r} is not there in the two-arm-lift world; choose expert or noisy")
