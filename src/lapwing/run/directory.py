"""The run directory: taken once, made whole in one move, and the settings a resumed run must share with it.

RUN/config.json  split.json  data.json  states.npz  progress.csv  held_out.json  report.html  tensorboard/  checkpoints/
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lapwing.errors import CheckpointError, ConfigError


def expect_free(run: Path, *, can_resume: bool) -> None:
    """Raise CheckpointError unless a run can be made at `run`: nothing there yet, and a place one can write to.

    can_resume: whether the command that makes it could also go on with one that is there.
    """
    if run.is_dir() and any(run.iterdir()):
        instead = "go on with --resume, or choose another --out" if can_resume else "choose another --out"
        raise CheckpointError(f"{run}: already exists; {instead}")
    if run.is_symlink() and not run.exists():
        raise CheckpointError(f"{run}: is a link to nothing, expected a free name; choose another --out")
    if run.exists() and run.resolve() == Path.cwd():
        raise CheckpointError(f"{run}: is the current directory, expected one to make; choose another --out")
    if run.exists() and not run.is_dir():
        raise CheckpointError(f"{run}: is a file, expected a directory to make; choose another --out")
    parent = next(folder for folder in run.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise CheckpointError(f"{run}: {parent} is not a directory one can write to; choose another --out")


def create_run(run: Path, contents: Mapping[str, Any]) -> None:
    """Make the run directory with its files, all of them or none: JSON, but arrays by name for one in .npz."""
    partial = run.absolute().with_name(f".{run.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, content in contents.items():
            if name.endswith(".npz"):
                np.savez(partial / name, **content)
            else:
                write_json(partial / name, content)
        (partial / "checkpoints").mkdir()
        os.rename(partial, run)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Let no other process train this run meanwhile; the lock goes with its process. Raises CheckpointError."""
    folder = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"{run}: another process is training it; wait for it to end, or choose another --out"
            ) from error
        yield
    finally:
        os.close(folder)


def write_json(path: Path, content: Any) -> None:
    """Write beside and rename."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_settings(run: Path) -> dict[str, Any]:
    """What config.json of a run to resume says. Raises CheckpointError when `run` is none, or was imported."""
    path = run / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{run}: not a run to resume, config.json is missing; start one without --resume"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {error}; restore it, or start another run") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: damaged: expected a JSON object; restore it, or start another run")
    if "imported" in settings:
        raise CheckpointError(f"{run}: was imported, there is no training to resume; start one from it: --init {run}")
    return settings


def expect_same(run: Path, started: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigError naming the first setting in which a resumed run differs from its beginning.

    More steps are allowed. In "config" a value may also be what was asked for before it was resolved.
    """
    was, asked = dict(_leaves(started)), dict(_leaves({"config": started.get("resolved_from", {})}))
    for name, value in _leaves(now):
        before = was.get(name)
        if name == "options.steps" and isinstance(before, int) and value >= before:
            continue
        if value not in (before, asked.get(name, before)):
            allowed = "it may only grow" if name == "options.steps" else "leave it as it was, or start another run"
            raise ConfigError(f"{run}: cannot resume with {name} {value!r}, the run has {before!r}; {allowed}")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value
