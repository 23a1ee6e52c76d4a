"""Frames that show success and frames that do not, and balanced batches of them.

Reading them is labelled_files.py's; this file divides it by recording and draws from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lapwing.agent import Labelled
from lapwing.batch import Batch, Obs
from lapwing.episode import Array, Frames
from lapwing.errors import ConfigError, DataError
from lapwing.spec import Camera

Unit = Literal["file", "episode", "stretch"]
STRETCHES = 10  # that a lone file or episode is cut into, so that something can be held out
_SUCCESS, _FAILURE = 1, 0


@dataclass(frozen=True)
class Part:
    """Frames of one episode, or of one file that knows no episodes. label: int8 [N], 1 where they show success.

    images: camera -> uint8 [N, H, W, 3], indexed with rows int64 [b]; recording: what parts of the same recording
    share, which may be in several files; episode: its number there.
    """

    file: str
    name: str
    recording: str
    episode: int
    images: Mapping[str, Frames]
    label: Array


@dataclass(frozen=True)
class Stretch:
    """Rows of a part, ascending."""

    part: Part
    rows: Array

    @property
    def label(self) -> Array:
        return self.part.label[self.rows]

    @property
    def name(self) -> str:
        whole = len(self.rows) == len(self.part.label)
        return self.part.name if whole else f"{self.part.name}, rows {self.rows[0]} to {self.rows[-1]}"


class LabelledFrames:
    """Some labelled frames, ready to be drawn from. Rows count over the stretches, one after another.

    Batches hold images and `label` alone: the state is [B, 0] and the action [B, 0, 0]. Raises DataError when a class
    is missing.
    """

    def __init__(self, cameras: Sequence[Camera], stretches: Sequence[Stretch]) -> None:
        self.cameras, self.stretches = tuple(cameras), tuple(stretches)
        self.label = np.concatenate([one.label for one in stretches]) if stretches else np.zeros(0, np.int8)
        self.successes, self.failures = int((self.label == _SUCCESS).sum()), int((self.label == _FAILURE).sum())
        lengths = np.array([len(one.rows) for one in stretches], np.int64)
        self._first_row = lengths.cumsum() - lengths
        for name, count in (("success", self.successes), ("failure", self.failures)):
            if count == 0:
                raise DataError(f"labelled frames: none of {len(self.label)} shows {name}, expected some of each kind")

    def stream(
        self, sampling: Labelled, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Endless batches, half success and half failure, from number `start` on.

        Each kind is dealt out in a new order pass by pass, so that no frame comes twice before all came once. Batch t
        depends on seed, t and rank alone. `world_size` processes share the `batch_size` samples of a batch, each with
        as many of both kinds. Raises ConfigError when they cannot be divided so.
        """
        del sampling  # it says no more than that frames are labelled
        if batch_size % (2 * world_size):
            raise ConfigError(
                f"batch_size: got {batch_size}, expected a multiple of {2 * world_size}, half of it success, for "
                f"{world_size} process{'es' * (world_size > 1)}; choose another"
            )
        return self._draw(batch_size // 2, seed, start, rank, world_size)

    def _draw(self, half: int, seed: int, start: int, rank: int, world_size: int) -> Iterator[Batch]:
        decks = [_Deck(np.flatnonzero(self.label == kind), seed, kind) for kind in (_SUCCESS, _FAILURE)]
        number = start
        while True:
            rows = np.concatenate([deck.deal(number * half, half)[rank::world_size] for deck in decks])
            yield self._batch(rows)
            number += 1

    def ordered(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Batch, Array]]:
        """Each frame once, with its rows (int64 [b]); the last batch may be smaller.

        `limit` thins each kind evenly to half of that, to one at least.
        """
        rows = np.arange(len(self.label))
        if limit is not None:
            kinds = [np.flatnonzero(self.label == kind) for kind in (_SUCCESS, _FAILURE)]
            rows = np.sort(np.concatenate([_thinned(one, max(1, limit // 2)) for one in kinds]))
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            yield self._batch(part), part

    def images(self, rows: Array) -> dict[str, Array]:
        """Frames at `rows` (int64 [b]): camera -> uint8 [b, H, W, 3]."""
        which = np.searchsorted(self._first_row, rows, side="right") - 1
        out = {one.name: np.empty((len(rows), one.height, one.width, 3), np.uint8) for one in self.cameras}
        for index in np.unique(which):
            here, one = which == index, self.stretches[index]
            for name, frames in out.items():
                frames[here] = one.part.images[name][one.rows[rows[here] - self._first_row[index]]]
        return out

    def where(self, row: int) -> str:
        """The file or episode that a row is from, and its number there."""
        index = int(np.searchsorted(self._first_row, row, side="right")) - 1
        one = self.stretches[index]
        return f"{one.part.name}, frame {one.rows[row - self._first_row[index]]}"

    def _batch(self, rows: Array) -> Batch:
        count = len(rows)
        nothing = torch.zeros(count)
        return Batch(
            obs=Obs({name: torch.from_numpy(one) for name, one in self.images(rows).items()}, torch.zeros(count, 0)),
            action=torch.zeros(count, 0, 0),
            is_pad=torch.zeros(count, 0, dtype=torch.bool),
            reward=nothing,
            discount=nothing,
            mc_return=nothing,
            label=torch.from_numpy(self.label[rows].astype(np.float32)),
        )


class _Deck:
    """Rows dealt without end, shuffled anew for each pass over them."""

    def __init__(self, rows: Array, seed: int, kind: int) -> None:
        self._rows, self._seed, self._kind = rows, seed, kind
        self._pass, self._shuffled = -1, rows

    def deal(self, first: int, count: int) -> Array:
        """The rows at places `first` to `first + count` of the endless deal, int64 [count]."""
        passes, places = np.divmod(np.arange(first, first + count), len(self._rows))
        return np.concatenate([self._shuffle(one)[places[passes == one]] for one in range(passes[0], passes[-1] + 1)])

    def _shuffle(self, number: int) -> Array:
        if number != self._pass:
            bits = np.random.Philox(key=self._seed, counter=np.array([0, number, self._kind, 0], np.uint64))
            self._pass, self._shuffled = number, np.random.Generator(bits).permutation(self._rows)
        return self._shuffled


def _thinned(rows: Array, count: int) -> Array:
    if count >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


@dataclass(frozen=True)
class Division:
    """What to learn from, what to choose the threshold on, and what to measure on; no `unit` is on two sides."""

    unit: Unit
    train: tuple[Stretch, ...]
    calibration: tuple[Stretch, ...]
    test: tuple[Stretch, ...]


def divide(parts: Sequence[Part], train_fraction: float, seed: int) -> Division:
    """Divide at random by file, those of one recording together; where that leaves a side without a kind, by episode,
    then by stretches of rows.

    What is not for training is halved between calibration and test. Raises ConfigError for a fraction that holds
    nothing out, DataError where there are too few frames of a kind.
    """
    if not 0 < train_fraction < 1:
        raise ConfigError(
            f"train_fraction: got {train_fraction}, expected between 0 and 1: the threshold is chosen and judged on "
            "frames that were held out; try 0.8"
        )
    for unit, groups in _units(parts):
        sides = _assign(groups, train_fraction, np.random.default_rng(seed))
        if all(map(_has_both, sides)):
            return Division(unit, *(tuple(side) for side in sides))
    kinds = [sum(int((part.label == kind).sum()) for part in parts) for kind in (_SUCCESS, _FAILURE)]
    raise DataError(
        f"labelled frames: {kinds[0]} of success and {kinds[1]} of failure are too few to be divided into training, "
        "calibration and test; record more, best in several files of each kind"
    )


def _has_both(side: Sequence[Stretch]) -> bool:
    return all(any((one.label == kind).any() for one in side) for kind in (_SUCCESS, _FAILURE))


def _units(parts: Sequence[Part]) -> Iterator[tuple[Unit, list[list[Stretch]]]]:
    """Groups of rows that stay together, ever smaller."""
    whole = [Stretch(part, np.arange(len(part.label))) for part in parts]
    recordings: dict[str, list[Stretch]] = {}
    episodes: dict[tuple[str, int], list[Stretch]] = {}
    for one in whole:
        recordings.setdefault(one.part.recording, []).append(one)
        episodes.setdefault((one.part.recording, one.part.episode), []).append(one)
    yield "file", list(recordings.values())
    yield "episode", list(episodes.values())
    yield (
        "stretch",
        [[Stretch(one.part, rows)] for one in whole for rows in np.array_split(one.rows, STRETCHES) if len(rows)],
    )


def _assign(groups: Sequence[list[Stretch]], fraction: float, random: np.random.Generator) -> list[list[Stretch]]:
    """Training, calibration and test, both kinds in each wherever that can be had.

    Groups of both kinds, of success alone and of failure alone are dealt out apart. Of fewer than three with both kinds
    test gets the first and calibration the second: groups of one kind, dealt to training first, fill the other sides.
    """
    sides: list[list[Stretch]] = [[], [], []]
    shown = [set(np.concatenate([one.label for one in group]).tolist()) for group in groups]
    for kinds in ({_SUCCESS, _FAILURE}, {_SUCCESS}, {_FAILURE}):
        members = [group for group, shows in zip(groups, shown, strict=True) if shows == kinds]
        order, count = random.permutation(len(members)), len(members)
        least = int(count > 2 or len(kinds) == 1)
        training = max(least, min(round(fraction * count), count - 2))
        middle = training + (count - training + least) // 2
        for side, chosen in zip(sides, (order[:training], order[training:middle], order[middle:]), strict=True):
            side += [one for index in sorted(chosen.tolist()) for one in members[index]]
    return sides
