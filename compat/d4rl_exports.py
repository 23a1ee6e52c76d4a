"""The original's files, made from a run of the package: progress.csv, params.json and model_STEP_*.pth.

With a world for the data set, each row of progress.csv holds the mean return of ten fresh episodes and its normalised
score as a fraction; without one both are NaN.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from algos.algos_vae import Latent
from algos.algos_vae_multimodal import write_model
from exports import saved_model

from lapwing.data.scores import normalised_score
from lapwing.env import BatchEnv
from lapwing.envs import make_world
from lapwing.episode import Array, Observation
from lapwing.errors import ConfigError, WorldError
from lapwing.run.checkpoint import checkpoint_steps, find_checkpoint, load_acting
from lapwing.run.directory import write_json
from lapwing.run.evaluate import evaluate
from lapwing.run.policy import Policy

EPISODES = 10
COLUMNS = ("Training Epochs", "Training Steps", "AverageReturn", "NormReturn")


class Exports:
    """Brings `folder` up to date with the run in it, as often as asked. params: what params.json is to say."""

    def __init__(self, folder: Path, params: Mapping[str, Any], world: str | None) -> None:
        self._folder, self._run, self._params, self._world = folder, folder / "run", params, world
        self._judged: set[int] = set()
        self._written: set[int] = set()

    def refresh(self) -> None:
        """Write what the run has and the folder has not. Does nothing before the run exists."""
        if not (self._run / "config.json").exists():
            return
        if not (self._folder / "params.json").exists():
            write_json(self._folder / "params.json", self._params)
        every, last = self._params["eval_freq"], self._params["max_timesteps"]
        for step in checkpoint_steps(self._run):
            if step not in self._judged and (step % every == 0 or step == last):
                self._judge(step)
                self._judged.add(step)
            saved = self._params["save_model"] and step % self._params["save_freq"] == 0
            if step not in self._written and (saved or step == last):
                self._write_models(step)
                self._written.add(step)

    def _judge(self, step: int) -> None:
        """Add a row to progress.csv, unless an earlier call of the script has."""
        path = self._folder / "progress.csv"
        known = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
        if any(row["Training Steps"] == str(step) for row in known):
            return
        average, score = self._returns(step)
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not known:
                writer.writerow(COLUMNS)
            writer.writerow([math.ceil(step / self._params["eval_freq"]), step, f"{average:.6g}", f"{score:.6g}"])

    def _returns(self, step: int) -> tuple[float, float]:
        """Mean return of fresh episodes and the normalised score; NaN where nobody knows."""
        if self._world is None:
            return math.nan, math.nan
        try:
            world = _Seen(make_world(self._world, EPISODES))
        except WorldError as error:
            print(f"main_d4rl: warning: {error}; AverageReturn and NormReturn are NaN", file=sys.stderr)
            self._world = None
            return math.nan, math.nan
        try:
            agent, spec, normalizer, _ = load_acting(find_checkpoint(self._run, step), "cpu")
            result = evaluate(Policy(agent, spec, normalizer), world, EPISODES, self._params["seed"])
        finally:
            world.close()
        if self._params["plot"]:
            _plot(world.seen, self._folder / "eval_fig.png")
        average = float(np.mean(result.returns))
        try:
            return average, normalised_score(self._params["env_name"], average) / 100
        except ConfigError:  # no reference returns
            return average, math.nan

    def _write_models(self, step: int) -> None:
        write_model(f"model_{step}", self._folder, *saved_model(self._run, step), Latent.parts)


class _Seen:
    """A world that keeps the first two axes of every state, [steps, B, 2], for the picture."""

    def __init__(self, world: BatchEnv) -> None:
        self._world = world
        self.spec, self.max_steps, self.num = world.spec, world.max_steps, world.num
        self.seen: list[Array] = []

    def reset(self, seeds: Sequence[int]) -> Observation:
        observation = self._world.reset(seeds)
        self.seen = [observation.state[:, :2].copy()]
        return observation

    def step(self, actions: Array) -> tuple[Observation, Array, Array, Array, dict[str, Array]]:
        told = self._world.step(actions)
        self.seen.append(told[0].state[:, :2].copy())
        return told

    def close(self) -> None:
        self._world.close()


def _plot(seen: Sequence[Array], path: Path) -> None:
    """Where the episodes went, a colour each, and in red where they began."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    paths = np.stack(seen, 1)
    for episode in paths:
        axes.scatter(*episode.T, s=4, alpha=0.2)
    axes.scatter(*paths[:, 0].T, color="red", s=12)
    axes.set(xlabel="first axis of the state", ylabel="second")
    axes.figure.savefig(path)
