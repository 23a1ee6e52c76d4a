"""What a training run shows and writes while it runs: the bar, progress.csv and TensorBoard."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm


class MeanMetrics:
    """Averages metrics over an interval without waiting for the device: sums stay tensors until `take`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        values = {name: value.detach().float() for name, value in metrics.items()}
        self._sums = {name: self._sums[name] + value for name, value in values.items()} if self._sums else values
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means since the last call, read from the device once."""
        if not self._sums:
            return {}
        means = (torch.stack(list(self._sums.values())) / self._count).tolist()
        taken = dict(zip(self._sums, means, strict=True))
        self._sums, self._count = {}, 0
        return taken


class ProgressTable:
    """progress.csv: one row per call, flushed; a column keeps its place once it has one.

    A metric seen for the first time adds its column at the end, by writing the table anew beside and renaming.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8", errors="replace") as file:  # damaged rows are cut
                reader = csv.DictReader(file)
                self._rows = list(reader)
                self._columns = list(reader.fieldnames or [])

    def cut_after(self, step: int) -> None:
        """Drop the rows later than `step`, and a last one that was only half written."""
        kept = [row for row in self._rows if _step_of(row) <= step]
        if len(kept) < len(self._rows):
            self._rows = kept
            self._rewrite()

    def write(self, row: Mapping[str, float]) -> None:
        text = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in row.items()}
        fresh = [name for name in text if name not in self._columns]
        self._rows.append(text)
        if fresh:
            self._columns += fresh
            self._rewrite()
            return
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(text)

    def _rewrite(self) -> None:
        partial = self._path.with_name(f".{self._path.name}.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(partial, self._path)


class RunLog:
    """The bar on the terminal, progress.csv and TensorBoard behind one `write`."""

    def __init__(self, run: Path, start: int, steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a slow import, needed here only

        self._table = ProgressTable(run / "progress.csv")
        self._table.cut_after(start)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            total=steps, initial=start, desc="train", unit="step", mininterval=interval, dynamic_ncols=True
        )

    def advance(self) -> None:
        self._bar.update()

    def write(self, step: int, row: Mapping[str, float]) -> None:
        self._table.write({"step": step, **row})
        for name, value in row.items():
            self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def status(self, text: str) -> None:
        """Show `text` behind the bar."""
        self._bar.set_postfix_str(text, refresh=False)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()
        self._board.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def _step_of(row: Mapping[str, str | None]) -> float:
    text = row.get("step") or ""
    complete = None not in row.values()
    return int(text) if text.isdigit() and complete else float("inf")
