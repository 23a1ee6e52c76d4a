"""The worlds a policy can be sampled from and evaluated in. Each is imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

from lapwing.env import ActionSource, BatchEnv, Env, Single
from lapwing.envs.table import TABLE, Entry, Scripted
from lapwing.episode import Array, Episode
from lapwing.errors import WorldError
from lapwing.spec import RobotSpec

Quality = Literal["mixed", "expert", "noisy", "human"]
D4RL_DATA = {
    "pointmaze-umaze": "maze2d-umaze-v1",
    "pointmaze-medium": "maze2d-medium-v1",
    "pointmaze-large": "maze2d-large-v1",
    "door": "door-human-v1",
    "hopper": "hopper-expert-v2",
    "halfcheetah": "halfcheetah-expert-v2",
}
"""The worlds that data sets of D4RL come from, with the one whose reference returns turn a return into a score."""
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
    """How the operators of a world's own data act. Raises WorldError."""
    quality: Quality = _scripted(name).qualities[0]
    return quality


def make_world(name: str, num: int = 1, size: int | None = None) -> BatchEnv:
    """`num` copies of a world with cameras of `size` x `size` pixels, None: its own. Raises WorldError."""
    return _entry(name).copies(num, _size(name, size))


def make_expert_world(name: str, *, quality: Quality, size: int | None = None) -> tuple[Env, ActionSource]:
    """A world and its scripted operator, who sees what no policy does. Raises WorldError.

    The operator's luck depends on the seed of its `reset` alone. Reset amid an episode it goes on from there: in the
    aloha worlds it plans from where the arms and things then are; in the others it looks before every step.
    """
    return _scripted(name, quality).beside(quality, _size(name, size))


def make_drawn_world(name: str, size: int | None = None) -> tuple[Env, Callable[[], Array] | None]:
    """A world and, where it has no cameras, what draws it for a person: uint8 [H, W, 3]. Raises WorldError."""
    if drawn := _entry(name).drawn:
        return drawn()
    return Single(make_world(name, 1, size)), None


def world_spec(name: str, size: int | None = None) -> RobotSpec:
    """The robot of a world, without starting it. Raises WorldError."""
    return _entry(name).spec(_size(name, size))


def sample_world(name: str, *, quality: Quality, size: int | None = None, seed: int) -> Iterator[Episode]:
    """Scripted demonstrations of a world without end, the same ones for the same seed. Raises WorldError."""
    return _scripted(name, quality).alone(quality, _size(name, size), seed)


def sample_labelled(name: str, *, size: int | None = None, seed: int) -> Iterator[Episode]:
    """Episodes without end for a success classifier: a step is rewarded if what follows it shows the task done.

    Raises WorldError.
    """
    if name != "panda":
        raise WorldError(f"world {name!r} has nothing to show a classifier; choose panda")
    from lapwing.envs import panda

    return panda.labelled(_size(name, size), seed)


def _entry(name: str) -> Entry:
    if name not in TABLE:
        raise WorldError(f"world {name!r} is unknown; choose one of {', '.join(WORLDS)}")
    return TABLE[name]


def _size(name: str, size: int | None) -> int:
    return _entry(name).own_size if size is None else size


def _scripted(name: str, quality: Quality | None = None) -> Scripted:
    """The operators of a world, who can act as asked."""
    scripted = _entry(name).scripted
    if scripted is None:
        raise WorldError(f"world {name!r} has no scripted operator; choose another world, or recorded data")
    if quality is not None and quality not in scripted.qualities:
        known = " or ".join(", ".join(scripted.qualities).rsplit(", ", 1))
        raise WorldError(f"quality {quality!r} is not there in world {name!r}; choose {known}")
    return scripted
