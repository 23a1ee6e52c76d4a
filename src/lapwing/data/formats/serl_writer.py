"""Writing transition files: pickles as the documents or HIL-SERL have them, and npz."""

from __future__ import annotations

import json
import pickle
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from lapwing.data.formats.serl_fields import STATE
from lapwing.data.formats.serl_npz import write_npz
from lapwing.data.formats.serl_table import META, OBSERVED, SPEC
from lapwing.episode import Array, Episode
from lapwing.errors import DataError
from lapwing.spec import RobotSpec

Form = Literal["document", "hilserl"]

_PROTOCOL = 3  # the first with bytes, and the last without frames: transitions can be written one by one
_BEGIN, _EMPTY_LIST, _APPEND, _STOP = b"\x80\x03", b"]", b"a", b"."


def write_serl(path: Path, episodes: Iterable[Episode], spec: RobotSpec, form: Form = "document") -> None:
    """Write a file of transitions, npz by its suffix or a pickle, which appears at `path` when all went well.

    form, of a pickle: "document" has arrays as they are, and `masks` is 1 - `dones`; "hilserl" has a leading time axis
    of 1, `dones` at every end, as its buffer needs, and what its environment tells in `infos`. Only one episode is in
    memory at a time; of an npz file, `episodes` are gone through several times, and those of an iterator kept.
    Time stamps and sensors have no place. Where no observation was made after an episode's last action, the last one
    stands for it, and `infos.next_observed` is false.
    Raises DataError when `path` exists, cannot be written, or an episode does not fit `spec`.
    """
    spec = replace(spec, sensors=())
    if STATE in spec.camera_names:
        raise DataError(f"{path}: a camera is called {STATE!r}, the key of the state; rename it")
    _expect_free(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with draft.open("wb") as file:
            if path.suffix.lower() == ".npz":
                stored = episodes if isinstance(episodes, Sequence) else list(episodes)
                for number, episode in enumerate(stored):
                    _expect_fit(path, number, episode, spec)
                _expect_some(path, len(stored))
                write_npz(file, stored, spec)
            else:
                _expect_some(path, _write_pickle(file, path, episodes, spec, form))
        _expect_free(path)
        draft.rename(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); free some space or choose another folder") from error
    finally:
        draft.unlink(missing_ok=True)


def write_serl_folder(
    folder: Path, episodes: Iterable[Episode], spec: RobotSpec, suffix: str, form: Form = "document"
) -> None:
    """Write a folder of files, one an episode, numbered so that their names are in order; see `write_serl`."""
    _expect_free(folder)
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        draft.mkdir()
        count = 0
        for episode in episodes:
            write_serl(draft / f"episode_{count:06d}{suffix}", [episode], spec, form)
            count += 1
        _expect_some(folder, count)
        _expect_free(folder)
        draft.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}); free some space or choose another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _expect_free(path: Path) -> None:
    if path.exists():
        raise DataError(f"{path}: already exists; choose another name or delete it first")
    if not path.parent.is_dir():
        raise DataError(f"{path}: cannot be written (no such folder); create or choose a folder")


def _expect_some(path: Path, count: int) -> None:
    if not count:
        raise DataError(f"{path}: no episode to write; expected at least one")


def _expect_fit(path: Path, number: int, episode: Episode, spec: RobotSpec) -> None:
    cameras = {one.name: (one.height, one.width, 3) for one in spec.cameras}
    for what, expected, got in (
        ("state axes", (spec.state_dim,), episode.state.shape[1:]),
        ("action axes", (spec.action_dim,), episode.action.shape[1:]),
        ("cameras", cameras, {name: tuple(frames.shape[1:]) for name, frames in episode.images.items()}),
    ):
        if got != expected:
            raise DataError(f"{path}: {what} of episode {number} are {got}, expected {expected} as in the spec")


def _write_pickle(file: IO[bytes], path: Path, episodes: Iterable[Episode], spec: RobotSpec, form: Form) -> int:
    """One list, transition by transition, for a list in memory would hold every frame. Returns how many episodes."""
    count = 0
    file.write(_BEGIN + _EMPTY_LIST)
    for episode in episodes:
        _expect_fit(path, count, episode, spec)
        for transition in transitions_of(episode, spec, form):
            file.write(pickle.dumps(transition, _PROTOCOL)[len(_BEGIN) : -len(_STOP)] + _APPEND)
        count += 1
    file.write(_STOP)
    return count


def transitions_of(episode: Episode, spec: RobotSpec, form: Form = "document") -> Iterator[dict[str, Any]]:
    """The transitions of an episode in order; all its frames are read at once."""
    images = {name: episode.images[name][:] for name in spec.camera_names}
    steps, ahead = episode.num_steps, min(episode.num_rows - 1, episode.num_steps)
    for step in range(steps):
        last = step == steps - 1
        terminated, cut = last and bool(episode.terminated), last and bool(episode.truncated)
        transition = {
            "observations": _observation(images, episode.state, step, form),
            "actions": np.asarray(episode.action[step], np.float32),
            "next_observations": _observation(images, episode.state, min(step + 1, ahead), form),
            "dones": last if form == "hilserl" else terminated,
            "masks": 0.0 if terminated else 1.0,
            "truncations": cut,
            "infos": _infos(episode, spec, step),
        }
        if episode.reward is not None:
            transition["rewards"] = float(np.float32(episode.reward[step]))
        if episode.intervened is not None:
            transition["intervened"] = bool(episode.intervened[step])
        if episode.grasp_penalty is not None:
            transition["grasp_penalty"] = float(np.float32(episode.grasp_penalty[step]))
        yield _as_hilserl(transition) if form == "hilserl" else transition


def _observation(images: Mapping[str, Array], state: Array, row: int, form: Form) -> dict[str, Array]:
    seen = {name: np.ascontiguousarray(frames[row]) for name, frames in images.items()}
    if state.shape[1]:
        seen[STATE] = np.asarray(state[row], np.float32)
    return {name: values[None] for name, values in seen.items()} if form == "hilserl" else seen


def _infos(episode: Episode, spec: RobotSpec, step: int) -> dict[str, Any]:
    """What the documents have no key for: of the whole episode, in its first and its last transition."""
    infos: dict[str, Any] = {}
    if step == 0:
        infos |= {_inner(SPEC): json.dumps(spec.to_dict()), _inner(META): json.dumps(dict(episode.meta))}
    if step == episode.num_steps - 1:
        if episode.success is not None:
            infos["succeed"] = bool(episode.success)
        if episode.num_rows == episode.num_steps:
            infos[_inner(OBSERVED)] = False
    return infos


def _inner(key: str) -> str:
    return key.removeprefix("infos/")


def _as_hilserl(transition: dict[str, Any]) -> dict[str, Any]:
    """HIL-SERL's recorder keeps the penalty, and the action of a human, in `infos`."""
    if "grasp_penalty" in transition:
        transition["infos"]["grasp_penalty"] = transition.pop("grasp_penalty")
    if transition.get("intervened"):
        transition["infos"]["intervene_action"] = transition["actions"]
    return transition
