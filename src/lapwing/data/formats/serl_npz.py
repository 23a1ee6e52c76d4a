"""Transitions as stacked arrays in an npz file, the form that cannot run anything. Keys are in docs/data-formats.md."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from lapwing.data.formats.serl_table import META, OBSERVED, SPEC, Table
from lapwing.data.problems import listed
from lapwing.episode import Array, Episode
from lapwing.errors import DataError
from lapwing.spec import RobotSpec

_DETAILS = "lapwing"  # JSON of what differs from transition to transition
_FINAL = "final_observations/"  # one row an episode
_BLOCK_BYTES = 32 << 20


def read_npz(path: Path) -> Table:
    """Read a file. Raises DataError where it is none, holds objects, or its arrays are not of one length."""
    columns = _arrays(path)
    details = columns.pop(_DETAILS, None)
    final = {name: columns.pop(name) for name in [*columns] if name.startswith(_FINAL)}
    if not any(name in columns for name in ("actions", "labels")) and not any("/" in name for name in columns):
        found = listed(sorted(columns), 12) or "nothing"
        raise DataError(f"{path}: holds arrays {found}, expected 'observations/...', 'actions' and so on; rename them")
    lengths = {name: len(values) if values.ndim else 0 for name, values in columns.items()}
    length = next(iter(lengths.values()))
    if not length or set(lengths.values()) != {length}:
        told = listed(f"{name} {rows}" for name, rows in sorted(lengths.items()))
        raise DataError(f"{path}: rows of its arrays are {told}, expected one number above 0; store one row a step")
    for name, values in final.items():
        key = name.removeprefix(_FINAL)
        columns[f"next_observations/{key}"] = _following(path, columns, key, values)
    return Table(path, length, columns if details is None else _detailed(path, columns, length, details))


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path") from error
    except Exception as error:  # of a damaged archive zipfile, zlib and numpy raise about anything
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: holds Python objects, expected plain arrays; nothing of it was run. Store arrays of numbers"
            ) from None
        raise DataError(f"{path}: not a whole npz file ({type(error).__name__}: {error}); copy it again") from error


def _following(path: Path, columns: dict[str, Any], key: str, final: Array) -> list[Array]:
    """The observation after each step: the next row, or after an episode's last step the episode's row of `final`."""
    rows = list(columns.get(f"observations/{key}", ()))
    flags = [columns[name] for name in ("dones", "truncations") if name in columns]
    marked = [flag.reshape(len(flag), -1)[:, 0] != 0 for flag in flags if flag.size == len(rows)]
    ends = np.flatnonzero(np.any(marked, axis=0)) if marked else np.zeros(0, np.int64)
    if not rows or final.ndim == 0 or len(ends) != len(final) or ends[-1:].tolist() != [len(rows) - 1]:
        raise DataError(
            f"{path}: '{_FINAL}{key}' has {len(np.atleast_1d(final))} rows, expected one for each of the {len(ends)} "
            "steps that 'dones' or 'truncations' mark, the last among them; store one an episode"
        )
    following = [*rows[1:], rows[-1]]
    for end, row in zip(ends, final, strict=True):
        following[end] = row
    return following


def _detailed(path: Path, columns: dict[str, Any], length: int, details: Any) -> dict[str, Any]:
    """The columns as a pickle would give them: None where an episode lacks something, texts at its first row."""
    texts: dict[str, list[Any]] = {key: [None] * length for key in (SPEC, META, OBSERVED, "infos/succeed")}
    try:
        declared = json.loads(str(details[()]))
        for episode in declared["episodes"]:
            first, last = int(episode["first"]), int(episode["last"])
            if not 0 <= first <= last < length:
                raise ValueError(f"an episode from row {first} to {last}")
            texts[SPEC][first], texts[META][first] = json.dumps(declared["spec"]), json.dumps(episode["meta"])
            texts[OBSERVED][last], texts["infos/succeed"][last] = episode["next_observed"], episode["success"]
            for key in episode["absent"]:
                columns[key] = [*columns[key][:first], *[None] * (last + 1 - first), *columns[key][last + 1 :]]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"{path}: array {_DETAILS!r} is not the JSON our writer makes ({error}); delete it") from error
    return columns | texts


def write_npz(file: IO[bytes], episodes: Sequence[Episode], spec: RobotSpec) -> None:
    """Write episodes, which are gone through once for the numbers and once a camera. Each frame is stored once."""
    columns, details = _numbers(episodes)
    with zipfile.ZipFile(file, "w") as archive:
        for camera in spec.cameras:
            item = (camera.height, camera.width, 3)
            last: list[Array] = []
            blocks = (block for one in episodes for block in _frames(one, camera.name, last))
            _write_frames(archive, f"observations/{camera.name}", (len(columns["actions"]), *item), blocks)
            _write_frames(archive, f"{_FINAL}{camera.name}", (len(details), *item), last)
        for key, values in columns.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
        text = np.array(json.dumps({"spec": spec.to_dict(), "episodes": details}))
        with archive.open(zipfile.ZipInfo(f"{_DETAILS}.npy"), "w") as member:
            np.lib.format.write_array(member, text, allow_pickle=False)


def _numbers(episodes: Iterable[Episode]) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """Every column of numbers, and what there is to say of each episode."""
    parts: dict[str, list[Array]] = {}
    details: list[dict[str, Any]] = []
    optional = {"rewards": np.float32, "grasp_penalty": np.float32, "intervened": np.bool_}
    first = 0
    for episode in episodes:
        steps = episode.num_steps
        last = np.arange(steps) == steps - 1
        found = dict(zip(optional, (episode.reward, episode.grasp_penalty, episode.intervened), strict=True))
        columns = {
            "observations/state": np.asarray(episode.state[:steps], np.float32),
            f"{_FINAL}state": np.asarray(episode.state[-1:], np.float32),
            "actions": np.asarray(episode.action, np.float32),
            "dones": last & episode.terminated,
            "truncations": last & episode.truncated,
            "masks": 1 - (last & episode.terminated).astype(np.float32),
        }
        for key, kind in optional.items():
            columns[key] = np.zeros(steps, kind) if found[key] is None else np.asarray(found[key], kind)
        for key, values in columns.items():
            parts.setdefault(key, []).append(values)
        details.append(
            {
                "first": first,
                "last": first + steps - 1,
                "success": None if episode.success is None else bool(episode.success),
                "meta": dict(episode.meta),
                "next_observed": episode.num_rows > steps,
                "absent": [key for key, values in found.items() if values is None],
            }
        )
        first += steps
    return _present(parts, details), details


def _present(parts: dict[str, list[Array]], details: list[dict[str, Any]]) -> dict[str, Array]:
    """The columns joined, without those that no episode has and without a state of no axes."""
    never = {key for key in parts if all(key in one["absent"] for one in details)}
    for one in details:
        one["absent"] = [key for key in one["absent"] if key not in never]
    joined = {key: np.concatenate(values) for key, values in parts.items() if key not in never}
    return {key: values for key, values in joined.items() if values.size}


def _frames(episode: Episode, camera: str, last: list[Array]) -> Iterable[Array]:
    """The frames of the episode's steps, block by block; its very last is added to `last`."""
    frames, steps, rows = episode.images[camera], episode.num_steps, episode.num_rows
    size = max(1, _BLOCK_BYTES // int(np.prod(frames.shape[1:])))
    for start in range(0, rows, size):
        block = frames[start : min(start + size, rows)]
        yield block[: max(0, steps - start)]
    last.append(block[-1:].copy())


def _write_frames(archive: zipfile.ZipFile, key: str, shape: tuple[int, ...], blocks: Iterable[Array]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(np.ascontiguousarray(block).data)
