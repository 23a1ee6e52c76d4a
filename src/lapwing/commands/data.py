"""`lapwing data`: sample, check, info, convert."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from lapwing import envs
from lapwing.commands.flags import parse
from lapwing.data import check as checking
from lapwing.data import convert as converting
from lapwing.data import info as summing
from lapwing.data.formats.aloha_writer import Dialect
from lapwing.data.formats.d4rl_writer import write_d4rl
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.data.formats.hdf5 import ImageLayout
from lapwing.data.formats.options import Base, ReadOptions
from lapwing.data.formats.serl_modes import SetupMode
from lapwing.data.formats.serl_writer import Form, write_serl, write_serl_folder
from lapwing.data.labelled_writer import write_labelled
from lapwing.episode import Episode, Recording
from lapwing.errors import ConfigError
from lapwing.robot.bag_scan import is_bag
from lapwing.robot.ros_bag import read_bags
from lapwing.robot.topics import read_topics


@dataclass(frozen=True)
class Sample:
    """Draw scripted demonstrations from a simulated world into an HDF5 file, or into transitions."""

    out: tyro.conf.Positional[Path]
    """The file to write; in the formats pickle and npz a name without ending is a folder, with one file an episode."""
    format: Literal["flat", "d4rl", "pickle", "npz"] | None = None
    """The layout to write; pickle and npz: transitions, as SERL reads them; d4rl: as D4RL's files, without images.
    None: d4rl for the pointmaze worlds, else flat."""
    world: envs.World = "toy"
    """The simulated world."""
    episodes: int | None = None
    """Whole episodes to draw; 100 when --steps is not given either."""
    steps: Annotated[int | None, tyro.conf.arg(aliases=["--n-samples"])] = None
    """Exact number of steps to draw; the last episode is cut, as truncated."""
    quality: envs.Quality | None = None
    """mixed: the whole range from expert to failing; expert: successes; noisy (toy, panda, two-arm-lift): clumsy, but
    mended; human (toy): with rests and hesitation. pointmaze: noisy, as D4RL's data, or expert, without noise. None:
    noisy for pointmaze and two-arm-lift, else mixed."""
    size: int | None = None
    """Height and width of the images in pixels; None: the world's own, 84 or 128 (panda)."""
    seed: int = 0
    """The same seed draws the same episodes."""
    labelled: tyro.conf.FlagCreatePairsOff[bool] = False
    """Of panda: draw frames for a success classifier instead, into OUT/success and OUT/failure (pickle, or npz)."""


def sample(args: Sequence[str]) -> int:
    """`lapwing data sample`"""
    command = parse(Sample, args, "lapwing data sample")
    if command.episodes is not None and command.steps is not None:
        raise ConfigError("--episodes and --steps (--n-samples) exclude each other; give one")
    for name in ("episodes", "steps"):
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}, expected at least 1")
    if command.seed < 0:
        raise ConfigError(f"--seed is {command.seed}, expected 0 or more")
    if command.size is not None and not 8 <= command.size <= 4096:
        raise ConfigError(f"--size is {command.size}, expected 8 to 4096 pixels")
    if command.size is not None and not envs.world_spec(command.world, None).cameras:
        raise ConfigError(f"--size is {command.size}, and {command.world} has no cameras; leave it out")
    if command.labelled:
        return _sample_labelled(command)
    spec = envs.world_spec(command.world, command.size)
    quality = command.quality or envs.own_quality(command.world)
    drawn = envs.sample_world(command.world, quality=quality, size=command.size, seed=command.seed)
    tally = _Tally()
    layout = command.format or ("d4rl" if command.world.startswith("pointmaze") else "flat")
    suffix = {"pickle": ".pkl", "npz": ".npz"}.get(layout, command.out.suffix)
    if command.out.suffix not in ("", suffix):
        raise ConfigError(
            f"{command.out}: its name ends in {command.out.suffix}, expected {suffix} for --format {layout}, "
            "or the name of a folder"
        )
    with closing(_enough(drawn, command)) as enough:  # or its bar shares the line of what goes wrong
        episodes = tally.count(enough)
        if layout == "d4rl":
            write_d4rl(command.out, episodes, spec)
        elif layout == "flat":
            with FlatWriter(command.out, spec) as writer:
                for episode in episodes:
                    writer.add(episode)
        elif command.out.suffix:
            write_serl(command.out, episodes, spec)
        else:
            write_serl_folder(command.out, episodes, spec, suffix)
    print(f"{command.out}: {tally.episodes} episodes, {tally.steps} steps, {tally.told}")
    return 0


def _sample_labelled(command: Sample) -> int:
    if command.steps is not None or command.quality not in (None, "mixed"):
        raise ConfigError("--labelled draws whole episodes of quality mixed; leave out --steps and --quality")
    if command.format in ("flat", "d4rl"):
        raise ConfigError(f"--labelled writes transitions, not --format {command.format}; choose pickle or npz")
    spec = envs.world_spec(command.world, command.size)
    drawn = envs.sample_labelled(command.world, size=command.size, seed=command.seed)
    suffix = ".npz" if command.format == "npz" else ".pkl"
    with closing(_enough(drawn, command)) as enough:
        successes, failures = write_labelled(command.out, enough, spec, suffix)
    print(f"{command.out}: {successes} frames show success, {failures} do not")
    return 0


@dataclass
class _Tally:
    """What has gone into a file."""

    episodes: int = 0
    steps: int = 0
    successes: int = 0
    judged: int = 0
    reward: float = 0.0

    @property
    def told(self) -> str:
        """How well it went: by successes, where anybody judged the episodes, else by reward."""
        if self.judged:
            return f"{self.successes} of the episodes succeed"
        return f"mean reward of a step {self.reward / self.steps:.4g}"

    def count(self, episodes: Iterator[Episode]) -> Iterator[Episode]:
        for episode in episodes:
            yield episode
            self.episodes, self.steps = self.episodes + 1, self.steps + episode.num_steps
            self.successes, self.judged = (
                self.successes + bool(episode.success),
                self.judged + (episode.success is not None),
            )
            self.reward += 0.0 if episode.reward is None else float(episode.reward.sum())


def _enough(drawn: Iterator[Episode], command: Sample) -> Generator[Episode]:
    """Episodes up to the number asked for, under a bar that counts in the unit asked for."""
    by_steps = command.steps is not None
    total = command.steps or command.episodes or 100
    with tqdm(total=total, desc="sample", unit="step" if by_steps else "episode") as bar:
        while bar.n < total:
            episode = next(drawn)
            if by_steps and episode.num_steps > total - bar.n:
                episode = _cut(episode, total - bar.n)
            yield episode
            bar.update(episode.num_steps if by_steps else 1)


def _cut(episode: Episode, steps: int) -> Episode:
    """The first `steps` of an episode; what would have become of it is unknown."""
    return replace(
        episode,
        images={name: frames[: steps + 1] for name, frames in episode.images.items()},
        state=episode.state[: steps + 1],
        action=episode.action[:steps],
        reward=None if episode.reward is None else episode.reward[:steps],
        grasp_penalty=None if episode.grasp_penalty is None else episode.grasp_penalty[:steps],
        sensors={name: readings[: steps + 1] for name, readings in episode.sensors.items()},
        terminated=False,
        success=None,
    )


@dataclass(frozen=True)
class Check:
    """Show what a recording holds and every problem it has. Exit code 0 only when no problem is an error: it can be
    trained on, by offline RL too if it has rewards."""

    path: tyro.conf.Positional[Path]
    """The recording: a flat file, a folder of ALOHA episodes or one of them, a LeRobot data set, a pickle or npz file
    of transitions or a folder of these, a data set of D4RL, Minari or robomimic, or pickled episodes."""
    image_layout: ImageLayout = "auto"
    """Order of the axes of images, where the shape does not tell."""
    base: Base = "auto"
    """Where a recorded base_action goes, as for training."""
    skip_damaged: tyro.conf.FlagCreatePairsOff[bool] = False
    """Judge what is left without the episodes that cannot be read."""
    mode: SetupMode | None = None
    """Which axes of the action are arms and which are grippers, where the file does not name them."""
    image_keys: tuple[str, ...] = ()
    """The cameras of transition files; by default every key whose values are images."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON for programs."""


def check(args: Sequence[str]) -> int:
    """`lapwing data check`"""
    command = parse(Check, args, "lapwing data check")
    options = ReadOptions(command.image_layout, command.base, command.skip_damaged, command.mode, command.image_keys)
    result = checking.check(command.path, options, progress=not command.json)
    print(json.dumps(result.to_dict(), indent=1) if command.json else checking.format_check(result))
    return 0 if result.passes else 2


@dataclass(frozen=True)
class Info:
    """Sum up a recording: episodes, steps, lengths, returns, success, size."""

    path: tyro.conf.Positional[Path]
    """The recording."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON for programs."""


def info(args: Sequence[str]) -> int:
    """`lapwing data info`"""
    command = parse(Info, args, "lapwing data info")
    figures = summing.info(command.path)
    print(json.dumps(figures, indent=1) if command.json else summing.format_info(figures))
    return 0


@dataclass(frozen=True)
class Convert:
    """Write a recording in another layout or size: a flat HDF5 file, a folder of ALOHA episodes, or transitions.

    All of it is read back and compared. When it is interrupted, the same command goes on where it was.
    """

    src: tyro.conf.Positional[Path]
    """A LeRobot v2.1 data set, a folder of ALOHA episodes or one of them, a flat file, a pickle or npz file of
    transitions or a folder of these, or with --topics a ROS bag or a folder of bags."""
    out: tyro.conf.Positional[Path]
    """The file or folder to write."""
    to: Literal["flat", "aloha", "pickle", "npz"] = "flat"
    """The layout to write; pickle and npz: transitions, as SERL and HIL-SERL read them."""
    dialect: Dialect = "aloha"
    """Whose programs are to read the ALOHA episodes; in mobile-aloha frames become JPEG."""
    form: Form = "document"
    """Whose programs are to read the pickle; in hilserl observations have a leading time axis."""
    size: int | None = None
    """Height and width of the images in pixels; None keeps them."""
    reward: str = "keep"
    """keep (or none): as the recording says, nothing made up. last-step: each episode ends in success, with reward 1,
    unless the recording says otherwise. Else a JSON or CSV file of labels (docs/data-formats.md)."""
    alignment: int = 0
    """Pair each observation with the action recorded so many steps later (negative: earlier)."""
    base: Base = "auto"
    """Where a recorded base_action goes, as for training."""
    image_layout: ImageLayout = "auto"
    """Order of the axes of images in a flat file, where the shape does not tell."""
    skip_damaged: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out episodes that cannot be read, and say which."""
    mode: SetupMode | None = None
    """Which axes of the action are arms and which are grippers, where the file does not name them."""
    image_keys: tuple[str, ...] = ()
    """The cameras of transition files; by default every key whose values are images."""
    topics: str | None = None
    """Of a ROS bag: which topics are what, a TOML file or cobot_magic; see docs/ros-bags.md."""


def convert(args: Sequence[str]) -> int:
    """`lapwing data convert`"""
    command = parse(Convert, args, "lapwing data convert")
    options = converting.ConvertOptions(
        to=command.to,
        dialect=command.dialect,
        form=command.form,
        size=command.size,
        reward=command.reward,
        alignment=command.alignment,
        base=command.base,
        image_layout=command.image_layout,
        skip_damaged=command.skip_damaged,
        mode=command.mode,
        image_keys=command.image_keys,
    )
    print(converting.convert(_source(command), command.out, options))
    return 0


def _source(command: Convert) -> Path | Recording:
    """What to convert: ROS bags are read here, where floors meet."""
    if command.topics is None:
        if is_bag(command.src):
            raise ConfigError(
                f"{command.src}: a ROS bag; say which topics are what: --topics cobot_magic or a TOML file"
            )
        return command.src
    if (command.base, command.image_layout, command.mode, command.image_keys) != ("auto", "auto", None, ()):
        raise ConfigError("--base, --image-layout, --mode and --image-keys say nothing of a ROS bag; its map does")
    return read_bags(command.src, read_topics(command.topics), command.skip_damaged)
