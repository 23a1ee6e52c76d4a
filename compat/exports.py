"""The documents' files, made from a run of the package. The run never reads them.

results/Exp0001/multimodal_robot/progress.csv  params.json  model_{best,final,STEP}_*.pth, and the run itself in run/
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from algos.algos_vae_multimodal import write_model
from torch import Tensor

from lapwing.run.checkpoint import checkpoint_steps, find_checkpoint, linked_step, load_train_state
from lapwing.run.directory import write_json

# Nobody knows a policy's return without a world, so these two say so. The other columns are facts.
UNKNOWN = ("AverageReturn", "StdReturn")
COLUMNS = {
    "CriticLoss": "critic_loss",
    "VAELoss": "vae_loss",
    "ActorLoss": "actor_loss",
    "MeanQ": "q_mean",
    "MeanV": "v_mean",
    "EncoderGradNorm": "encoder_grad_norm",
    "TestActionError": "valid/action_error",
    "TestActionErrorPositive": "valid/action_error_positive",
    "TestActionErrorZ0": "valid/action_error_z0",
    "TestActionErrorHold": "valid/action_error_hold",
    "TestActionErrorMean": "valid/action_error_mean",
    "TestQSpearman": "valid/q_spearman",
}


class Exports:
    """Brings `folder` up to date with the run in it, as often as asked. params: what params.json is to say."""

    def __init__(self, folder: Path, params: Mapping[str, Any]) -> None:
        self._folder, self._run, self._params = folder, folder / "run", params
        self._written: set[tuple[str, int]] = set()

    def refresh(self) -> None:
        """Write what the run has and the folder has not. Does nothing before the run exists."""
        if not (self._run / "config.json").exists():
            return
        if not self._written:
            write_json(self._folder / "params.json", self._params)
        self._write_progress()
        for step in checkpoint_steps(self._run):
            names = [name for name in self._names(step) if (name, step) not in self._written]
            if names:
                self._write_models(names, step)
                self._written |= {(name, step) for name in names}

    def _names(self, step: int) -> list[str]:
        """What the documents call the model saved at `step`."""
        names = {
            str(step): step % self._params["save_freq"] == 0,
            "best": step == linked_step(self._run, "best"),
            "final": step == self._params["max_timesteps"],
        }
        return [name for name, holds in names.items() if holds]

    def _write_progress(self) -> None:
        """Append new rows, so that `tail -f` goes on; write anew where a resumed run dropped some."""
        table = self._table()
        path = self._folder / "progress.csv"
        present = path.read_text(encoding="utf-8") if path.exists() else ""
        if table.startswith(present):
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(table[len(present) :])
        else:
            path.write_text(table, encoding="utf-8", newline="")

    def _table(self) -> str:
        source = self._run / "progress.csv"
        rows = csv.DictReader(io.StringIO(source.read_text(encoding="utf-8"))) if source.exists() else ()
        mean, deviation = self._data_returns()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["Training Steps", *UNKNOWN, "TestDataReturn", "TestDataReturnStd", *COLUMNS])
        for row in rows:
            facts = [row.get(name, "") for name in COLUMNS.values()]
            writer.writerow([row["step"], "nan", "nan", f"{mean:.6g}", f"{deviation:.6g}", *facts])
        return text.getvalue()

    def _data_returns(self) -> tuple[float, float]:
        """Mean and standard deviation of what the held-out episodes of the data earned; NaN without any."""
        valid = json.loads((self._run / "split.json").read_text(encoding="utf-8"))["valid"]
        earned = json.loads((self._run / "data.json").read_text(encoding="utf-8"))["returns"]
        returns = [earned[index] for index in valid]
        return (float(np.mean(returns)), float(np.std(returns))) if returns else (np.nan, np.nan)

    def _write_models(self, names: Sequence[str], step: int) -> None:
        networks, rest = saved_model(self._run, step)
        for name in names:
            write_model(f"model_{name}", self._folder, networks, rest)


def saved_model(run: Path, step: int) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """All tensors of the agent saved at `step`, and its settings and statistics, as `write_model` takes them."""
    checkpoint = find_checkpoint(run, step)
    described, spec, normalizer = (
        json.loads((checkpoint / f"{part}.json").read_text(encoding="utf-8")) for part in ("config", "spec", "stats")
    )
    facts = {key: described[key] for key in ("config", "reward_facts")}
    rest = {**facts, "spec": spec, "normalizer": normalizer, "steps": step}
    return load_train_state(checkpoint)["agent"]["networks"], rest
