"""What a run directory has to tell, read back from its files."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lapwing.episode import Array
from lapwing.errors import CheckpointError
from lapwing.run.evaluate import Evaluation
from lapwing.run.held_out import HeldOut
from lapwing.stats import wilson_interval

_STEP = re.compile(r"step-(\d+)")

Record = TypeVar("Record")


@dataclass(frozen=True)
class WorldResult:
    """RUN/eval/<world>-<seed>.json: evaluations by mode, the deployed one first.

    filmed: the mode and the number of episodes in `filmstrip`, a PNG; both None where nothing was recorded.
    checkpoint: the name of what was judged, None where that was not written down.
    """

    world: str
    seed: int
    modes: Mapping[str, Evaluation]
    filmed: tuple[str, int] | None
    filmstrip: bytes | None
    checkpoint: str | None = None

    @property
    def deployed(self) -> Evaluation:
        return next(iter(self.modes.values()))

    @property
    def step(self) -> int | None:
        """The training step of what was judged, None where its name does not tell."""
        found = _STEP.fullmatch(self.checkpoint or "")
        return int(found[1]) if found else None


@dataclass(frozen=True)
class RunResults:
    """A run directory. progress: column -> (steps, values) without gaps; what is missing is None or empty."""

    path: Path
    config: Mapping[str, Any]
    data: Mapping[str, Any] | None
    progress: Mapping[str, tuple[Array, Array]]
    held_out: HeldOut | None
    held_out_step: int | None
    worlds: tuple[WorldResult, ...]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def algorithm(self) -> str:
        return str(self.config.get("algorithm", "policy"))

    @property
    def has_cameras(self) -> bool:
        """Whether it sees images, or may, where its data do not tell."""
        return bool((self.data or {}).get("spec", {}).get("cameras", True))

    @property
    def label(self) -> str:
        """What another run's report calls this one."""
        algorithm = self.algorithm.upper()
        return f"{algorithm}, separate run" if self.name == self.algorithm else f"{algorithm}, run {self.name}"

    @property
    def steps(self) -> int:
        """Training steps made so far."""
        return max((int(steps[-1]) for steps, _ in self.progress.values() if len(steps)), default=0)

    @property
    def judged_apart(self) -> bool:
        """Whether worlds and held-out episodes, or two worlds, did not judge the same checkpoint, as far as known."""
        judged = {world.step for world in self.worlds} | {self.held_out_step}
        return len(judged - {None}) > 1

    def world(self, name: str) -> WorldResult | None:
        """This run's evaluation in the world of that name with the most episodes."""
        there = [result for result in self.worlds if result.world == name]
        return max(there, key=lambda result: result.deployed.episodes, default=None)

    def data_success(self) -> tuple[float, tuple[float, float], int] | None:
        """Success rate of the recorded episodes, its interval and their number; None where nobody labelled them."""
        if self.data is None or self.data.get("success_rate") is None:
            return None
        rate, episodes = float(self.data["success_rate"]), int(self.data["episodes"])
        return rate, wilson_interval(round(rate * episodes), episodes), episodes


def read_results(run: Path) -> RunResults:
    """Read whatever is there. Raises CheckpointError when `run` is no run, or when a file is damaged."""
    config = read_json(run / "config.json")
    if config is None:
        raise CheckpointError(f"{run}: not a run, config.json is missing; expected a directory made by `lapwing train`")
    held_out = read_json(run / "held_out.json")
    return RunResults(
        path=run,
        config=config,
        data=read_json(run / "data.json"),
        progress=read_progress(run / "progress.csv"),
        held_out=None if held_out is None else parsed(HeldOut.from_dict, held_out, run / "held_out.json"),
        held_out_step=None if held_out is None else held_out.get("step"),
        worlds=tuple(_read_world(path) for path in sorted((run / "eval").glob("*.json"))),
    )


def _read_world(path: Path) -> WorldResult:
    picture = path.with_suffix(".png")

    def parse(record: Mapping[str, Any]) -> WorldResult:
        filmed = record["filmed"]
        modes = {mode: Evaluation.from_dict(one) for mode, one in record["modes"].items()}
        if not modes:
            raise ValueError("no modes")
        return WorldResult(
            world=str(record["world"]),
            seed=int(record["seed"]),
            modes=modes,
            filmed=None if filmed is None else (str(filmed["mode"]), int(filmed["episodes"])),
            filmstrip=picture.read_bytes() if filmed is not None and picture.exists() else None,
            checkpoint=record.get("checkpoint"),
        )

    record = read_json(path)
    return parsed(parse, {} if record is None else record, path)


def parsed(parse: Callable[[Mapping[str, Any]], Record], record: Mapping[str, Any], path: Path) -> Record:
    """`record` of the file at `path` as what `parse` makes of it. Raises CheckpointError where it does not fit."""
    try:
        return parse(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: does not fit this version ({error!r}); make it again, or delete it") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of a run, None where there is no file. Raises CheckpointError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged: {error}; make it again, or delete it") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}; make it again")
    return content


def read_progress(path: Path) -> dict[str, tuple[Array, Array]]:
    """Columns of progress.csv: name -> (steps, values) without gaps. Raises CheckpointError where it is damaged."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]  # the last may be half written
    except (OSError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{path}: damaged: {error}; delete it") from error
    columns = [name for name in (rows[0] if rows else ()) if name and name != "step"]
    progress = {}
    for column in columns:
        points = [(_number(row.get("step")), _number(row.get(column))) for row in rows]
        whole = np.array([point for point in points if all(map(math.isfinite, point))]).reshape(-1, 2)
        progress[column] = (whole[:, 0], whole[:, 1])
    return progress


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
