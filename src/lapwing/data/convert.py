"""One layout into another: flat files, ALOHA folders, LeRobot data sets and transitions to any but LeRobot's.

Episode by episode, so that an interrupted conversion goes on where it was; read back and compared; and under its name
only when all of it is there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lapwing import __version__
from lapwing.data.convert_source import ConvertOptions, Source, damage_of, expect_settings, open_source
from lapwing.data.drafts import AlohaDraft, FlatDraft, TransitionDraft
from lapwing.data.fingerprint import fingerprint
from lapwing.data.formats.lerobot import DAMAGE_ADVICE, Damage, describe_damage
from lapwing.data.unfinished import Unfinished
from lapwing.data.verify import Unreadable
from lapwing.episode import Episode, Recording
from lapwing.errors import DataError

__all__ = ["Conversion", "ConvertOptions", "convert"]

Draft = FlatDraft | AlohaDraft | TransitionDraft


@dataclass(frozen=True)
class Conversion:
    """What was written; resumed: how many of the episodes an earlier call had done; notes: what else to know."""

    path: Path
    episodes: int
    steps: int
    skipped: tuple[Damage, ...]
    resumed: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.path}: wrote {self.episodes} episode{'s' * (self.episodes != 1)}, {self.steps} steps"
        text += f" ({self.resumed} of them before an interruption)" if self.resumed else ""
        text += f"; left out {describe_damage(self.skipped)}" if self.skipped else ""
        return "\n".join([text, *(f"note: {note}" for note in self.notes)])


def convert(
    src: Path | Recording, dst: Path, options: ConvertOptions | None = None, progress: bool = True
) -> Conversion:
    """Write `src` in another layout; the file or folder appears at `dst` when all went well.

    src: a path, or a recording that has been opened already: ROS bags, which this floor does not know. Until the end
    a hidden folder beside `dst` holds what is done: the same call goes on from there after an interruption.
    Raises DataError naming damaged episodes unless they may be left out, ConfigError for settings out of range.
    """
    options = options or ConvertOptions()
    expect_settings(options)
    if not dst.name:  # ".", "/" or nothing at all
        raise DataError(f"{dst}: has no name of its own, expected that of a file or folder to write; give one")
    if options.to != "aloha" and dst.is_dir():
        raise DataError(f"{dst}: is a folder, expected the name of a file to write; choose another name, or --to aloha")
    suffixes = {"pickle": (".pkl", ".pickle"), "npz": (".npz",)}.get(options.to, (dst.suffix.lower(),))
    if dst.suffix.lower() not in suffixes:  # by which it is known again
        raise DataError(f"{dst}: its name ends in {dst.suffix or 'nothing'}, expected {suffixes[0]}; rename it")
    source = open_source(src, options)
    path = source.recording.path
    if source.damaged and not options.skip_damaged:
        raise _refusal(path, source.damaged)
    if not source.episodes:
        told = describe_damage(source.damaged) if source.damaged else "it holds none"
        raise DataError(f"{path}: no sound episode; {told}")
    with Unfinished(dst, _identity(source.recording, options)) as work:
        _expect_room(work, source.recording, options)
        try:
            return _convert(source, work, options, progress)
        except DataError as error:
            raise DataError(f"{error}{_hint(work)}") from error
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(f"{interrupt}{_hint(work)}".removeprefix("; ")) from interrupt


def _hint(work: Unfinished) -> str:
    if not work.records or not work.path.exists():
        return ""
    done = len(work.records)
    return f"; {done} episode{'s are' if done > 1 else ' is'} done, and the same command goes on from there"


def _identity(recording: Recording, options: ConvertOptions) -> dict[str, Any]:
    """What must not change between the calls of one conversion. Leaving out damaged episodes changes no other."""
    settings = {key: value for key, value in asdict(options).items() if key != "skip_damaged"}
    if options.labels:
        settings["labels"] = _digest(options.labels.read_bytes())
    # Whatever told how to read it: flags, or a map of topics.
    read = (recording.spec.to_dict(), [(one.num_steps, dict(one.meta)) for one in recording.episodes])
    return {
        "source": str(recording.path.absolute()),
        "source files": fingerprint(recording.path),
        **settings,
        "contents": _digest(repr(read).encode()),
        "version": __version__,
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]


def _refusal(src: Path, damaged: Sequence[Damage]) -> DataError:
    return DataError(f"{src}: {describe_damage(damaged)}; {DAMAGE_ADVICE}")


def _expect_room(work: Unfinished, recording: Recording, options: ConvertOptions) -> None:
    """Refuse at once what would fill the disk hours later. Frames of one file lie there twice before the end.

    A pickle has them twice itself.
    """
    if options.to == "aloha" and options.dialect == "mobile-aloha":
        return  # what JPEG leaves is not known
    frame_bytes = sum(3 * camera.height * camera.width for camera in recording.spec.cameras)
    done = sum(file.stat().st_size for file in work.path.rglob("*") if file.is_file())
    times = {"aloha": 1, "flat": 2, "npz": 2, "pickle": 3}[options.to]
    needed = recording.num_steps * frame_bytes * times - done
    free = shutil.disk_usage(work.path).free
    if needed > free:
        raise DataError(
            f"{work.out}: cannot be written: it takes {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free; free some "
            "space, or convert to a smaller --size"
        )


def _convert(source: Source, work: Unfinished, options: ConvertOptions, progress: bool) -> Conversion:
    episodes, cameras = source.episodes, len(source.recording.spec.cameras)
    frames = [(one.num_steps if options.to == "flat" else one.num_rows) * cameras for one in episodes]
    before, skipped = list(work.records), list(source.damaged)
    written: list[Episode] = []
    records: list[dict[str, Any]] = []
    with (
        _draft(source.recording, work, options) as draft,
        tqdm(total=sum(frames), desc="convert", unit="frame", disable=not progress) as bar,
    ):
        for index, episode in enumerate(episodes):
            known = before[index] if index < len(before) else None
            record = _done(draft, work, known, episode, len(written), bar, frames[index])
            if record["written"]:
                written.append(episode)
                records.append(record)
                continue
            skipped.append(damage_of(episode, index, record["reason"]))
            if not options.skip_damaged:
                work.discard()
                raise _refusal(source.recording.path, skipped)
        if not written:
            work.discard()
            raise DataError(f"{source.recording.path}: no sound episode; {describe_damage(skipped)}")
    _finish(draft, work, written, records, progress)
    return Conversion(
        work.out,
        len(written),
        sum(episode.num_steps for episode in written),
        tuple(sorted(skipped, key=lambda damage: damage.episode)),
        sum(record["written"] for record in before),
        source.notes,
    )


def _done(
    draft: Draft,
    work: Unfinished,
    known: dict[str, Any] | None,
    episode: Episode,
    number: int,
    bar: tqdm,
    frames: int,
) -> dict[str, Any]:
    """The record of an episode: that of an earlier call where what it wrote is still there, else after writing it."""
    if known is not None and (not known["written"] or draft.holds(known)):
        _count(bar, frames)
        return known
    record = _write(draft, episode, number, bar)
    if known is None:
        work.note(record)
    elif not record["written"]:
        raise DataError(f"{work.out}: an episode that was done is lost, and its source with it: {record['reason']}")
    return record


def _count(bar: tqdm, frames: int) -> None:
    """Move the bar on over what an earlier call has done, without taking it for speed."""
    if not bar.disable:
        bar.initial += frames
        bar.last_print_n += frames
        bar.n += frames


def _finish(
    draft: Draft,
    work: Unfinished,
    written: Sequence[Episode],
    records: Sequence[dict[str, Any]],
    progress: bool,
) -> None:
    try:
        result = draft.finish(written, records, progress)
    except DataError:
        work.discard()  # to go on from what is damaged would end here again
        raise
    work.finish(result)


def _draft(recording: Recording, work: Unfinished, options: ConvertOptions) -> Draft:
    if options.to == "aloha":
        return AlohaDraft(work.path, recording.spec, options.dialect)
    if options.to != "flat":
        return TransitionDraft(work.path, recording.spec, options.to, options.form)
    return FlatDraft(work.path, recording.spec, [record for record in work.records if record["written"]])


def _write(draft: Draft, episode: Episode, number: int, bar: tqdm) -> dict[str, Any]:
    """Write one episode. Returns what to note of it; where its frames cannot be read, the reason."""
    try:
        facts = draft.add(number, episode, bar)
    except Unreadable as error:
        return {"written": False, "reason": str(error)}
    return {"written": True, "number": number, **facts}
