"""What a conversion starts from: a recording of any layout, resized, labelled and aligned as asked, frames unread."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lapwing.data.align import align
from lapwing.data.formats import read_recording
from lapwing.data.formats.aloha import is_aloha, scan_aloha
from lapwing.data.formats.aloha_writer import Dialect
from lapwing.data.formats.hdf5 import ImageLayout
from lapwing.data.formats.lerobot import Damage, is_lerobot, scan_lerobot
from lapwing.data.formats.options import Base, ReadOptions
from lapwing.data.formats.serl_modes import SetupMode
from lapwing.data.formats.serl_writer import Form
from lapwing.data.formats.video import ResizedFrames
from lapwing.data.problems import listed
from lapwing.data.sidecar import LAST_STEP, Label, expect_known, labelled, read_sidecar
from lapwing.episode import Episode, Recording
from lapwing.errors import ConfigError, DataError
from lapwing.spec import Camera

_KEEP = ("keep", "none")
_NUMBER = re.compile(r"episode_(\d+)\.hdf5")


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    to, dialect, form: the layout to write; the dialect counts for ALOHA, the form for pickles alone. size: frames
    become size x size pixels by area, each side scaled by itself; None keeps them. reward: "keep" leaves rewards and
    terminations as the recording says, and so does its older name "none"; "last-step" says that each episode ends in
    success, unless the recording denies it: reward 1 and a termination at its last step; anything else is the path of
    a file of labels (sidecar.py). alignment: pair observation t with the action recorded at t + alignment.
    skip_damaged: leave out episodes that cannot be read. base, image_layout, mode, image_keys: as for reading.
    """

    to: Literal["flat", "aloha", "pickle", "npz"] = "flat"
    dialect: Dialect = "aloha"
    form: Form = "document"
    size: int | None = None
    reward: str = "keep"
    alignment: int = 0
    base: Base = "auto"
    image_layout: ImageLayout = "auto"
    skip_damaged: bool = False
    mode: SetupMode | None = None
    image_keys: tuple[str, ...] = ()

    @property
    def labels(self) -> Path | None:
        """The file of labels, where `reward` is one."""
        return None if self.reward in (*_KEEP, LAST_STEP) else Path(self.reward)


def expect_settings(options: ConvertOptions) -> None:
    if options.size is not None and not 1 <= options.size <= 4096:
        raise ConfigError(f"size: {options.size}, expected 1 to 4096 pixels; 84 suits most policies")
    if options.labels and not options.labels.is_file():
        raise ConfigError(
            f"reward: {options.reward!r}, expected keep, none, {LAST_STEP} or a file of labels; there is no such file"
        )


@dataclass(frozen=True)
class Source:
    """A recording as it is to be written, frames unread. names: of its episodes, as labels call them."""

    recording: Recording
    names: list[str]
    damaged: tuple[Damage, ...]
    notes: tuple[str, ...]

    @property
    def episodes(self) -> Sequence[Episode]:
        return self.recording.episodes


def open_source(src: Path | Recording, options: ConvertOptions) -> Source:
    """Raises DataError when nothing can be read, labels do not fit, or the layout has no room for what there is."""
    labels = None if options.labels is None else read_sidecar(options.labels)
    recording, damaged = _read(src, options)
    if options.size is not None:
        recording = _resized(recording, options.size)
    names = [episode_name(recording, index) for index in range(len(recording.episodes))]
    recording = _labelled(recording, names, damaged, options.reward, labels)
    recording = align(recording, options.alignment)
    if options.to == "flat":
        _expect_rewards_everywhere(recording, names)
    if options.to == "aloha" and not recording.spec.state:
        raise DataError(f"{recording.path}: no state, expected one for ALOHA episodes; convert --to flat or npz")
    return Source(recording, names, damaged, (*recording.notes, *_notes(recording, options)))


def _read(src: Path | Recording, options: ConvertOptions) -> tuple[Recording, tuple[Damage, ...]]:
    if isinstance(src, Recording):
        return src, ()
    reading = ReadOptions(options.image_layout, options.base, options.skip_damaged, options.mode, options.image_keys)
    if is_lerobot(src):
        return scan_lerobot(src, options.size)
    if is_aloha(src):
        recording, damage = scan_aloha(src, reading)
        if recording is not None:
            return recording, tuple(map(_damage, damage))
    return read_recording(src, reading), ()


def _damage(message: str) -> Damage:
    """An ALOHA file that cannot be used, by its number."""
    number = _NUMBER.search(message)
    return Damage(int(number[1]) if number else 0, message)


def _resized(recording: Recording, size: int) -> Recording:
    if all((camera.height, camera.width) == (size, size) for camera in recording.spec.cameras):
        return recording
    cameras = tuple(Camera(camera.name, size, size) for camera in recording.spec.cameras)
    episodes = [
        replace(episode, images={name: ResizedFrames(part, size) for name, part in episode.images.items()})
        for episode in recording.episodes
    ]
    return replace(recording, spec=replace(recording.spec, cameras=cameras), episodes=episodes)


def episode_name(recording: Recording, index: int) -> str:
    """What a label calls an episode: by its file's number, its number in a data set, or its place."""
    meta = recording.episodes[index].meta
    if recording.layout == "aloha":
        return str(meta["file"]).removesuffix(".hdf5")
    return f"episode_{meta['source_episode'] if recording.layout == 'lerobot' else index}"


def _labelled(
    recording: Recording, names: list[str], damaged: Sequence[Damage], reward: str, labels: dict[str, Label] | None
) -> Recording:
    if reward in _KEEP:
        return recording
    if labels is None:
        labels = dict.fromkeys(names, Label(reward=LAST_STEP))
    else:
        expect_known(Path(reward), labels, [*names, *(f"episode_{damage.episode}" for damage in damaged)])
    episodes = [
        labelled(episode, labels[name], f"{reward}: {name}") if name in labels else episode
        for name, episode in zip(names, recording.episodes, strict=True)
    ]
    return replace(recording, episodes=episodes)


def _expect_rewards_everywhere(recording: Recording, names: list[str]) -> None:
    """Before hours of decoding: the flat layout has one dataset of rewards for all episodes."""
    without = [name for name, one in zip(names, recording.episodes, strict=True) if one.reward is None]
    if 0 < len(without) < len(names):
        raise DataError(
            f"{recording.path}: {len(without)} of {len(names)} episodes have no rewards ({listed(without, 4)}), "
            "expected all or none; label them, or use --reward last-step"
        )


def _notes(recording: Recording, options: ConvertOptions) -> list[str]:
    """What the layout to be written has no room for, and what offline RL will miss."""
    notes, episodes = [], recording.episodes
    if options.to != "aloha":
        lost = [sensor.name for sensor in recording.spec.sensors]
        lost += ["time stamps"] * any(episode.time is not None for episode in episodes)
        if options.to == "flat":
            lost += ["the observation after the last action"] * any(one.num_rows > one.num_steps for one in episodes)
        if lost:
            layout = "the flat layout has" if options.to == "flat" else "transitions have"
            notes.append(f"{layout} no room for: {listed(lost, 16)}")
        without = sum(one.num_rows == one.num_steps and one.truncated for one in episodes)
        if options.to != "flat" and without:
            notes.append(
                f"the observation after the last action is unknown in {without} of the episodes that were cut: the one "
                "before it stands for it, and other programs take it for true"
            )
        if episodes and all(episode.reward is None for episode in episodes):
            notes.append("no rewards, which offline RL (LAPO) needs: --reward last-step or LABELS.json gives them")
    elif options.dialect == "mobile-aloha":
        notes.append("frames are JPEG of quality 50 in this dialect: not the same pixels")
    return notes


def damage_of(episode: Episode, index: int, reason: str) -> Damage:
    """An episode whose frames cannot be read, by the number of its file, the one in its data set, or its place."""
    number = _NUMBER.search(str(episode.meta.get("file", "")))
    return Damage(int(number[1]) if number else int(episode.meta.get("source_episode", index)), reason)
