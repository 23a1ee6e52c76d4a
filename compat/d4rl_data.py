"""What D4RL's names stand for: where the data lie on disk, how large they are, and which world they come from."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lapwing.errors import ConfigError, DataError
from lapwing.spec import RobotSpec

# State and action axes by the beginning of the name.
DIMENSIONS = {
    "maze2d": (4, 2), "antmaze": (29, 8), "hopper": (11, 3), "walker2d": (17, 6), "halfcheetah": (17, 6),
    "ant": (111, 8), "kitchen": (60, 9), "pen": (45, 24), "hammer": (46, 26), "door": (39, 28), "relocate": (39, 30),
}  # fmt: skip
WORLDS = {
    "maze2d-umaze": "pointmaze-umaze",
    "maze2d-medium": "pointmaze-medium",
    "maze2d-large": "pointmaze-large",
    "door": "door",
    "hopper": "hopper",
    "halfcheetah": "halfcheetah",
}
_KITCHENS = {
    "kitchen-complete-v0": "mini_kitchen_microwave_kettle_light_slider-v0",
    "kitchen-partial-v0": "kitchen_microwave_kettle_light_slider-v0",
    "kitchen-mixed-v0": "kitchen_microwave_kettle_bottomburner_light-v0",
}
_ANT_MAZES = {"umaze": "u-maze", "medium": "big-maze", "large": "hardest-maze"}


def default_folder() -> Path:
    """Where D4RL keeps what it downloads."""
    return Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")


def find_data(env_name: str, folder: Path) -> Path:
    """The file of a data set by its own name or by D4RL's. Raises DataError saying where to put it."""
    names = [f"{env_name}.hdf5", *_d4rl_names(env_name)]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    world = world_of(env_name)
    advice = f"put it there as {' or '.join(names)}, or give --dataset FILE"
    if world is not None and world.startswith("pointmaze"):
        advice += f"; `lapwing data sample {folder / names[0]} --world {world} --steps 1000000` makes one alike"
    raise DataError(f"{folder}: no data set {env_name!r}; {advice}")


def _d4rl_names(env_name: str) -> list[str]:
    """What D4RL calls the file, where that is another name."""
    if env_name in _KITCHENS:
        return [f"{_KITCHENS[env_name]}.hdf5"]
    if match := re.fullmatch(r"maze2d-(umaze|medium|large)-v1", env_name):
        return [f"maze2d-{match[1]}-sparse-v1.hdf5"]
    if match := re.fullmatch(r"(hopper|walker2d|halfcheetah|ant)-([a-z-]+)-(v\d)", env_name):
        return [f"{match[1]}_{match[2].replace('-', '_')}-{match[3]}.hdf5"]
    if match := re.fullmatch(r"antmaze-(umaze|medium|large)(-play|-diverse)?-v([02])", env_name):
        starts, goals = match[2] is not None, match[2] == "-diverse"
        fixed = "_fixed" if match[3] == "2" else ""
        maze = _ANT_MAZES[match[1]]
        return [f"Ant_maze_{maze}_noisy_multistart_{starts}_multigoal_{goals}_sparse{fixed}.hdf5"]
    return []


def world_of(env_name: str) -> str | None:
    """The world here that a data set comes from, None where there is none."""
    if "-dense" in env_name:
        return None
    return next((world for start, world in WORLDS.items() if env_name.startswith(f"{start}-")), None)


def expect_environment(path: Path, spec: RobotSpec, env_name: str) -> None:
    """Raise ConfigError where the data in `path` has other dimensions than the environment."""
    family = env_name.partition("-")[0]
    found, expected = (spec.state_dim, spec.action_dim), DIMENSIONS.get(family)
    if expected is not None and found != expected:
        raise ConfigError(
            f"{path}: {found[0]} state and {found[1]} action axes, expected {expected[0]} and {expected[1]} as "
            f"{env_name} has; choose the --env_name the data comes from"
        )
