"""What a conversion writes, while it grows: a flat file, a folder of ALOHA episodes or a file of transitions.

Read back before it is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

from tqdm import tqdm

from lapwing.data.formats.aloha import read_aloha
from lapwing.data.formats.aloha_writer import Dialect, episode_path, write_aloha_episode
from lapwing.data.formats.flat import read_flat
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.data.formats.serl import read_serl
from lapwing.data.formats.serl_writer import Form, write_serl
from lapwing.data.verify import (
    Watched,
    checksum_of_file,
    expect_same_frames,
    expect_same_numbers,
    expect_same_sensors,
    expect_sum,
    sum_of_sums,
)
from lapwing.episode import Episode
from lapwing.spec import RobotSpec

Record = Mapping[str, Any]


class FlatDraft:
    """A flat file in the making, a context manager. `folder` is kept between calls, `records` are of earlier ones."""

    def __init__(self, folder: Path, spec: RobotSpec, records: Sequence[Record]) -> None:
        self._path = folder / "flat.hdf5"
        self._path.unlink(missing_ok=True)  # of a call that was stopped while it compared
        self._writer = FlatWriter(self._path, spec, folder / "episodes", len(records))

    def __enter__(self) -> FlatDraft:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def holds(self, record: Record) -> bool:
        return True  # all is compared at the end

    def add(self, number: int, episode: Episode, bar: tqdm) -> Record:
        """Append an episode. Returns what to note of it."""
        images = {name: Watched.of(frames, bar, lossy=False) for name, frames in episode.images.items()}
        self._writer.add(replace(episode, images=images))
        steps = episode.num_steps
        return {"frames": {name: sum_of_sums(one.facts[:steps]) for name, one in images.items()}}

    def finish(self, episodes: Sequence[Episode], records: Sequence[Record], progress: bool) -> Path:
        """Compare all of the file, which the end of the block has made, with what went into it."""
        found = read_flat(self._path).episodes
        frames = sum(episode.num_steps * len(episode.images) for episode in found)
        with tqdm(total=frames, desc="compare", unit="frame", delay=1, disable=not progress) as bar:
            for number, (written, episode, record) in enumerate(zip(episodes, found, records, strict=True)):
                where = f"{self._path}: episode {number}"
                expect_same_numbers(where, written, episode, ending=False)
                for name, images in episode.images.items():
                    expect_sum(where, name, record["frames"][name], images, bar)
        return self._path


class TransitionDraft:
    """A file of transitions in the making, a context manager: each episode waits in an npz file of its own."""

    def __init__(self, folder: Path, spec: RobotSpec, to: Literal["pickle", "npz"], form: Form) -> None:
        self._folder, self._spec, self._form = folder / "episodes", replace(spec, sensors=()), form
        self._path = folder / f"transitions.{'pkl' if to == 'pickle' else 'npz'}"
        self._folder.mkdir(exist_ok=True)
        self._path.unlink(missing_ok=True)  # of a call that was stopped while it compared

    def __enter__(self) -> TransitionDraft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stray in self._folder.glob(".*"):  # of a call that was killed while it wrote
            stray.unlink()

    def holds(self, record: Record) -> bool:
        """Whether the episode that an earlier call wrote is there as it was."""
        path = self._episode_path(record["number"])
        return path.is_file() and checksum_of_file(path) == record["sum"]

    def add(self, number: int, episode: Episode, bar: tqdm) -> Record:
        """Write an episode down. Returns what to note of it."""
        path = self._episode_path(number)
        path.unlink(missing_ok=True)
        images = {name: Watched.of(frames, bar, lossy=False) for name, frames in episode.images.items()}
        write_serl(path, [replace(episode, images=images)], self._spec)
        return {
            "number": number,
            "sum": checksum_of_file(path),
            "frames": {name: sum_of_sums(one.facts) for name, one in images.items()},
        }

    def finish(self, episodes: Sequence[Episode], records: Sequence[Record], progress: bool) -> Path:
        """Write the file out of its episodes, and compare all of it with what went into them."""
        stored = _Stored([self._episode_path(record["number"]) for record in records])
        write_serl(self._path, stored, self._spec, self._form)
        found = read_serl(self._path).episodes
        frames = sum(episode.num_rows * len(episode.images) for episode in found)
        with tqdm(total=frames, desc="compare", unit="frame", delay=1, disable=not progress) as bar:
            for number, (written, episode, record) in enumerate(zip(episodes, found, records, strict=True)):
                where = f"{self._path}: episode {number}"
                expect_same_numbers(where, written, episode)
                for name, images in episode.images.items():
                    expect_sum(where, name, record["frames"][name], images, bar)
        return self._path

    def _episode_path(self, number: int) -> Path:
        return self._folder / f"{number}.npz"


@dataclass(frozen=True)
class _Stored(Sequence[Episode]):
    """Episodes that are read when they are asked for, one a file."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Episode]: ...

    def __getitem__(self, index: int | slice) -> Episode | Sequence[Episode]:
        if isinstance(index, slice):
            return _Stored(self.paths[index])
        return read_serl(self.paths[index]).episodes[0]


class AlohaDraft:
    """A folder of ALOHA episodes in the making, a context manager. Each file is read back as soon as it is there."""

    def __init__(self, folder: Path, spec: RobotSpec, dialect: Dialect) -> None:
        self._folder, self._spec, self._dialect = folder / "episodes", spec, dialect
        self._folder.mkdir(exist_ok=True)

    def __enter__(self) -> AlohaDraft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stray in self._folder.glob(".*"):  # of a call that was killed while it wrote
            stray.unlink()

    def holds(self, record: Record) -> bool:
        """Whether the file of an earlier call is there as it was."""
        path = episode_path(self._folder, record["number"])
        return path.is_file() and checksum_of_file(path) == record["sum"]

    def add(self, number: int, episode: Episode, bar: tqdm) -> Record:
        """Write an episode, and compare it with what went into it. Returns what to note of it."""
        path, lossy = episode_path(self._folder, number), self._dialect == "mobile-aloha"
        path.unlink(missing_ok=True)
        images = {name: Watched.of(frames, bar, lossy) for name, frames in episode.images.items()}
        write_aloha_episode(path, replace(episode, images=images), self._spec, self._dialect)
        (found,) = read_aloha(path).episodes
        expect_same_numbers(str(path), episode, found, timed=True)
        expect_same_sensors(str(path), episode.sensors, found.sensors)
        for name, frames in found.images.items():
            expect_same_frames(str(path), name, images[name].facts, frames, lossy)
        return {"sum": checksum_of_file(path)}

    def finish(self, episodes: Sequence[Episode], records: Sequence[Record], progress: bool) -> Path:
        return self._folder
