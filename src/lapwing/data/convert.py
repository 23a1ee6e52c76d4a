"""Other recordings into the flat HDF5 layout: LeRobot data sets, or a flat file to be resized or given rewards."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tqdm import tqdm

from lapwing.data.formats import read_recording
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.data.formats.lerobot import DAMAGE_ADVICE, Damage, describe_damage, is_lerobot, scan_lerobot
from lapwing.data.formats.video import ResizedFrames
from lapwing.episode import Array, Episode, Frames, Recording
from lapwing.errors import ConfigError, DataError
from lapwing.spec import Camera

Reward = Literal["last-step", "none"]

_BLOCK_FRAMES = 64


@dataclass(frozen=True)
class Conversion:
    """What was written, and the damaged episodes that were left out."""

    path: Path
    episodes: int
    steps: int
    skipped: tuple[Damage, ...]

    def __str__(self) -> str:
        text = f"{self.path}: wrote {self.episodes} episode{'s' * (self.episodes != 1)}, {self.steps} steps"
        return f"{text}; left out {describe_damage(self.skipped)}" if self.skipped else text


def convert(
    src: Path | Recording,
    dst: Path,
    *,
    size: int | None = None,
    reward: Reward = "none",
    skip_damaged: bool = False,
    progress: bool = True,
) -> Conversion:
    """Write `src` as a flat file, which appears at `dst` when all went well.

    src: a path, or a recording that has been opened already: ROS bags, which this floor does not know.
    size: frames become size x size pixels by area, each side scaled by itself; None keeps them.
    reward: "last-step" says that each episode ends in success, unless the recording says otherwise: reward 1 and
    a termination on its last step; "none" makes nothing up.
    skip_damaged: leave out episodes that cannot be read. Raises DataError naming them otherwise.
    """
    _expect_settings(size, reward)
    recording, damaged = _open(src, size)
    src = recording.path
    if damaged and not skip_damaged:
        raise _refusal(src, damaged)
    if not recording.episodes:
        raise DataError(f"{src}: no sound episode; {describe_damage(damaged) if damaged else 'it holds none'}")
    skipped = list(damaged)
    written = steps = 0
    frames = recording.num_steps * len(recording.spec.cameras)
    with (
        FlatWriter(dst, recording.spec) as writer,
        tqdm(total=frames, desc="convert", unit="frame", disable=not progress) as bar,
    ):
        for index, episode in enumerate(recording.episodes):
            try:
                images = {name: _spool(part, dst, bar) for name, part in episode.images.items()}
            except DataError as error:
                damage = Damage(int(episode.meta.get("source_episode", index)), str(error))
                if not skip_damaged:
                    raise _refusal(src, [damage]) from error
                skipped.append(damage)
                continue
            except OSError as error:
                raise DataError(f"{dst}: cannot be written ({error.strerror}); free some space") from error
            writer.add(_rewarded(replace(episode, images=images), reward))
            written, steps = written + 1, steps + episode.num_steps
    return Conversion(dst, written, steps, tuple(sorted(skipped, key=lambda damage: damage.episode)))


def _expect_settings(size: int | None, reward: str) -> None:
    if size is not None and not 1 <= size <= 4096:
        raise ConfigError(f"size: {size}, expected 1 to 4096 pixels; 84 suits most policies")
    if reward not in get_args(Reward):
        raise ConfigError(f"reward: {reward!r}, expected one of {', '.join(get_args(Reward))}")


def _open(src: Path | Recording, size: int | None) -> tuple[Recording, tuple[Damage, ...]]:
    if isinstance(src, Path) and is_lerobot(src):
        return scan_lerobot(src, size)
    recording = src if isinstance(src, Recording) else read_recording(src)
    return (recording if size is None else _resized(recording, size)), ()


def _resized(recording: Recording, size: int) -> Recording:
    cameras = tuple(Camera(camera.name, size, size) for camera in recording.spec.cameras)
    episodes = [
        replace(episode, images={name: ResizedFrames(part, size) for name, part in episode.images.items()})
        for episode in recording.episodes
    ]
    return replace(recording, spec=replace(recording.spec, cameras=cameras), episodes=episodes)


def _refusal(src: Path, damaged: tuple[Damage, ...] | list[Damage]) -> DataError:
    return DataError(f"{src}: {describe_damage(damaged)}; {DAMAGE_ADVICE}")


def _spool(frames: Frames, dst: Path, bar: tqdm) -> Array:
    """Decode all frames into a nameless file beside `dst`: a late fault leaves nothing of the episode behind.

    In memory a long episode at full size would not fit.
    """
    with tempfile.TemporaryFile(dir=dst.parent) as file:
        for start in range(0, frames.shape[0], _BLOCK_FRAMES):
            block = frames[start : start + _BLOCK_FRAMES]
            file.write(np.ascontiguousarray(block).data)
            bar.update(len(block))
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=frames.shape)


def _rewarded(episode: Episode, reward: Reward) -> Episode:
    if reward == "none":
        return episode
    values = np.zeros(episode.num_steps, np.float32)
    if episode.success is False:
        return replace(episode, reward=values)
    values[-1] = 1
    return replace(episode, reward=values, terminated=True)
