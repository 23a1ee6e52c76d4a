"""LeRobot v2.0 and v2.1 data sets: one parquet file an episode, one video an episode and camera, JSON about both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.data.formats.video import VideoFrames, probe_video
from lapwing.data.problems import ranges
from lapwing.episode import Array, Episode, Meta, Recording
from lapwing.errors import DataError
from lapwing.spec import Axis, AxisKind, Camera, RobotSpec, unnamed_axes

STATE, ACTION = "observation.state", "action"
CAMERA_PREFIX = "observation.images."
VERSIONS = ("v2.0", "v2.1")

_KIND_WORDS: tuple[tuple[AxisKind, tuple[str, ...]], ...] = (
    ("gripper", ("gripper", "hand", "finger", "thumb")),
    ("base", ("base", "wheel")),
    ("arm", ("shoulder", "elbow", "wrist", "forearm", "waist", "arm", "joint")),
)


@dataclass(frozen=True)
class Damage:
    """An episode that cannot be used, and why: which file of the data set, what is wrong with it."""

    episode: int
    reason: str

    def __str__(self) -> str:
        return f"episode {self.episode}: {self.reason}"


def is_lerobot(path: Path) -> bool:
    """Whether the folder is a LeRobot data set of any version."""
    return (path / "meta" / "info.json").is_file()


DAMAGE_ADVICE = "restore the files, or go on without these episodes: lapwing data convert SRC OUT --skip-damaged"


def scan_lerobot(path: Path, size: int | None = None) -> tuple[Recording, tuple[Damage, ...]]:
    """Read the sound episodes of a LeRobot data set and say what is wrong with the others.

    Frames are decoded when indexed, as `size` x `size` where given. The frame count of a video is taken from its
    header here; a fault inside the stream shows when it is decoded. Raises DataError when the data set as a whole
    cannot be read.
    """
    info = _Info.read(path)
    spec = info.spec(size)
    episodes: list[Episode] = []
    damaged: list[Damage] = []
    for entry in info.entries():
        try:
            episodes.append(_read_episode(info, spec, entry))
        except _Damaged as damage:
            damaged.append(Damage(entry.index, str(damage)))
    return Recording(path, "lerobot", spec, episodes, info.notes()), tuple(damaged)


def describe_damage(damaged: Sequence[Damage]) -> str:
    """One line: how many episodes are damaged, which, and what is wrong with the first."""
    count = f"{len(damaged)} damaged episode{'s' if len(damaged) > 1 else ''}"
    first = damaged[0]
    return f"{count} ({ranges(one.episode for one in damaged)}); the first, {first}"


@dataclass(frozen=True)
class _Entry:
    index: int
    length: int
    task: str


class _Damaged(Exception):
    """Ends the reading of one episode. Holds the reason."""


@dataclass(frozen=True)
class _Info:
    """meta/info.json, with the fields that are read checked."""

    root: Path
    raw: Mapping[str, Any]

    @staticmethod
    def read(root: Path) -> _Info:
        file = root / "meta" / "info.json"
        raw = _load_json(file, _read_text(file))
        if raw.get("codebase_version") not in VERSIONS:
            raise DataError(
                f"{file}: codebase_version is {raw.get('codebase_version')!r}, expected {' or '.join(VERSIONS)}; "
                "export the data set in that version"
            )
        info = _Info(root, raw)
        for key in (STATE, ACTION):
            info.width(key)
        return info

    @property
    def features(self) -> Mapping[str, Any]:
        features = self.raw.get("features")
        items = features.items() if isinstance(features, Mapping) else ()
        return {key: feature for key, feature in items if isinstance(feature, Mapping)}

    @property
    def video_keys(self) -> dict[str, str]:
        """Camera name -> feature key, depth maps left out."""
        return {
            key.removeprefix(CAMERA_PREFIX): key
            for key, feature in self.features.items()
            if feature.get("dtype") == "video" and not (feature.get("info") or {}).get("video.is_depth_map")
        }

    def width(self, key: str) -> int:
        """Axes of a vector feature."""
        shape = (self.features.get(key) or {}).get("shape")
        if not (isinstance(shape, list) and len(shape) == 1 and isinstance(shape[0], int) and shape[0] > 0):
            raise DataError(
                f"{self.root / 'meta/info.json'}: features.{key}: shape is {shape}, expected one number of axes; "
                "only data sets with a state and an action vector can be read"
            )
        return int(shape[0])

    def axes(self, key: str) -> tuple[Axis, ...]:
        names = list(_flat_names(self.features[key].get("names")))
        if len(names) != self.width(key) or len(set(names)) != len(names):
            return unnamed_axes(key.removeprefix("observation."), self.width(key))
        return tuple(Axis(name, kind=_kind(name)) for name in names)

    def spec(self, size: int | None) -> RobotSpec:
        return RobotSpec(
            name=str(self.raw.get("robot_type") or self.root.name),
            cameras=tuple(self.camera(name, key, size) for name, key in self.video_keys.items()),
            state=self.axes(STATE),
            action=self.axes(ACTION),
            rate_hz=self.rate_hz,
        )

    def camera(self, name: str, key: str, size: int | None) -> Camera:
        feature = self.features[key]
        shape = dict(zip(feature.get("names") or (), feature.get("shape") or (), strict=False))
        height, width = shape.get("height"), shape.get("width")
        if not (isinstance(height, int) and isinstance(width, int)):
            raise DataError(
                f"{self.root / 'meta/info.json'}: features.{key}: shape {feature.get('shape')} with names "
                f"{feature.get('names')}, expected height, width and channels; mend the file"
            )
        return Camera(name, size or height, size or width)

    @property
    def rate_hz(self) -> float:
        fps = self.raw.get("fps")
        if not isinstance(fps, int | float) or fps <= 0:
            raise DataError(f"{self.root / 'meta/info.json'}: fps is {fps!r}, expected a rate above 0; mend the file")
        return float(fps)

    def entries(self) -> Iterator[_Entry]:
        """One entry a line of meta/episodes.jsonl."""
        file = self.root / "meta" / "episodes.jsonl"
        for number, line in enumerate(_read_text(file).splitlines(), 1):
            if line.strip():
                raw = _load_json(file, line, number)
                try:
                    tasks = raw.get("tasks") or ()
                    yield _Entry(int(raw["episode_index"]), int(raw["length"]), "; ".join(map(str, tasks)))
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(
                        f"{file}: line {number}: {line[:80]!r}, expected episode_index, length and tasks; restore it"
                    ) from error

    def file(self, template: str, episode: int, video_key: str = "") -> str:
        """Path within the data set that a template of info.json gives for an episode."""
        try:
            chunk = episode // int(self.raw.get("chunks_size", 1000))
            return str(self.raw[template]).format(episode_chunk=chunk, episode_index=episode, video_key=video_key)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise DataError(
                f"{self.root / 'meta/info.json'}: {template} is {self.raw.get(template)!r}, expected a template of "
                "episode_chunk, episode_index and video_key; mend the file"
            ) from error

    def notes(self) -> tuple[str, ...]:
        """What the data set holds and this reader leaves."""
        read = {STATE, ACTION, *self.video_keys.values()}
        bookkeeping = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
        left = sorted(set(self.features) - read - bookkeeping)
        return (f"not read: {', '.join(left)}",) if left else ()


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; restore it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not UTF-8 text ({error}); restore it") from error


def _load_json(file: Path, text: str, line: int = 1) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file}: line {line}: not JSON ({error}); restore the file") from error
    if not isinstance(raw, dict):
        raise DataError(f"{file}: line {line}: {type(raw).__name__}, expected a JSON object; restore the file")
    return raw


def _flat_names(names: Any) -> Iterator[str]:
    """Axis names however they are nested: a list, a list of lists, {"motors": [...]} or {name: index}."""
    if isinstance(names, str):
        yield names
    elif isinstance(names, Mapping):
        values = list(names.values())
        yield from _flat_names(list(names) if all(isinstance(value, int) for value in values) else values)
    elif isinstance(names, list):
        for name in names:
            yield from _flat_names(name)


def _kind(name: str) -> AxisKind:
    return next((kind for kind, words in _KIND_WORDS if any(word in name.lower() for word in words)), "other")


def _read_episode(info: _Info, spec: RobotSpec, entry: _Entry) -> Episode:
    """One episode with its videos opened and counted, not decoded. Raises _Damaged."""
    state, action = _read_rows(info, entry)
    images = {}
    for camera in spec.cameras:
        file = info.file("video_path", entry.index, info.video_keys[camera.name])
        try:
            probe_video(info.root / file, entry.length)
        except DataError as error:
            raise _Damaged(f"{file}: {error}") from error
        images[camera.name] = VideoFrames(info.root / file, (entry.length, camera.height, camera.width, 3))
    meta: Meta = {"source_episode": entry.index, "task": entry.task}
    return Episode(images, state, action, reward=None, terminated=False, meta=meta)


def _read_rows(info: _Info, entry: _Entry) -> tuple[Array, Array]:
    """State [N, S] and action [N, A] of an episode. Raises _Damaged."""
    file = info.file("data_path", entry.index)
    columns = _read_parquet(info.root / file, file)
    vectors = []
    for key in (STATE, ACTION):
        if key not in columns:
            raise _Damaged(f"{file}: no column {key}")
        values = columns[key].reshape(len(columns[key]), -1)  # a vector of one axis is stored as plain numbers
        expected = (entry.length, info.width(key))
        if values.shape != expected:
            raise _Damaged(f"{file}: {key} is {values.shape}, expected {expected} as episodes.jsonl and info.json say")
        vectors.append(values.astype(np.float32))
    _check_time(columns.get("timestamp"), info.rate_hz, file)
    return vectors[0], vectors[1]


def _check_time(time: Array | None, rate_hz: float, file: str) -> None:
    """Row t belongs to frame t only when no row was dropped: its time must be within half a frame of t / rate."""
    if time is None:
        return
    late = np.abs(time.reshape(-1) * rate_hz - np.arange(len(time))) > 0.5
    if late.any():
        row = int(np.argmax(late))
        raise _Damaged(f"{file}: timestamp of row {row} is {float(time[row]):.3f} s, expected {row / rate_hz:.3f} s")


def _read_parquet(path: Path, file: str) -> dict[str, Array]:
    """State, action and timestamp columns as arrays, those that are there."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{path}: reading parquet needs pyarrow, which is not installed; run `pip install -e '.[lerobot]'` in the "
            "clone"
        ) from error
    if not path.is_file():
        raise _Damaged(f"{file}: no such file")
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        names = [name for name in (STATE, ACTION, "timestamp") if name in table.column_names]
        return {name: np.array(table.column(name).to_pylist(), np.float64) for name in names}
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        raise _Damaged(f"{file}: not a readable parquet file ({error})") from error
