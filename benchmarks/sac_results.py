"""SAC in the Panda world from state, as docs/results.md reports it: offline beside BC and IQL, and learning online.

    python benchmarks/sac_results.py offline --out sac_offline
    python benchmarks/sac_results.py hybrid --out sac_hybrid

Draws 30 noisy demonstrations, trains every row of the table for every seed, evaluates in fresh episodes and prints the
table. `hybrid` trains with and without a scripted operator who takes over, evaluates several checkpoints and draws
success over environment steps. What is there already is not done again, so an interrupted table goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt

WORLD = "panda-state"


class Row(NamedTuple):
    """One row of a table: its name, the command behind `lapwing`, and its flags."""

    name: str
    command: tuple[str, ...]
    flags: tuple[str, ...] = ()


OFFLINE = [
    Row("SAC", ("train", "sac")),
    Row("SAC, no imitation", ("train", "sac"), ("--imitation", "0", "--grasp-imitation", "0")),
    Row("SAC, imitation alone", ("train", "sac"), ("--imitation", "1000")),
    Row("IQL", ("train", "iql")),
    Row("BC", ("train", "bc")),
]
# in step, so that a seed repeats; two updates to a step keep one core busy
HYBRID_FLAGS = ("--world", WORLD, "--actors", "0", "--updates-per-step", "2", "--training-starts", "300")
HYBRID = [
    Row("with takeovers", ("hybrid",), (*HYBRID_FLAGS, "--intervene", "scripted", "--budget", "1500")),
    Row("alone", ("hybrid",), HYBRID_FLAGS),
]


def main() -> None:
    args = _parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "demonstrations.hdf5"
    if not data.exists():
        _lapwing("data", "sample", data, "--world", WORLD, "--quality", "noisy", "--episodes", args.demonstrations)
    table = _offline(args, data) if args.table == "offline" else _hybrid(args, data)
    print(table)
    (args.out / "table.md").write_text(table + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["offline", "hybrid"])
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and the table")
    parser.add_argument("--demonstrations", type=int, default=30)
    parser.add_argument("--steps", type=int, help="updates; offline 3000, hybrid 10000 unless given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=200, help="fresh episodes for each checkpoint")
    parser.add_argument("--evaluation-seed", type=int, default=777)
    parser.add_argument("--checkpoints", type=int, default=4, help="evaluated of each hybrid run, evenly spaced")
    parser.add_argument("--rows", nargs="+", help="these rows alone, by name")
    return parser


def _offline(args: argparse.Namespace, data: Path) -> str:
    lines = [["", "seed", "success", "mean Q", "Q outside the returns"]]
    for row in _chosen(args, OFFLINE):
        for seed in args.seeds:
            run = _train(args, data, row, seed, args.steps or 3000)
            logged = _logged(run)[-1]
            values = [logged.get(name, "") for name in ("q_mean", "q_out_of_range")]
            lines.append([row.name, str(seed), _cell(_evaluate(args, run, "last")), *map(_number, values)])
    return _table(lines)


def _hybrid(args: argparse.Namespace, data: Path) -> str:
    steps = args.steps or 10_000
    points = [steps // args.checkpoints * (number + 1) for number in range(args.checkpoints)]
    lines = [["", "seed", "updates", "environment steps", "of them taken over", "success"]]
    axes = plt.figure(figsize=(7, 4)).gca()
    for row, color in zip(_chosen(args, HYBRID), ("C0", "C1"), strict=False):
        for seed in args.seeds:
            run = _train(args, data, row, seed, steps, "--save-every", points[0], "--log-every", points[0])
            logged = {int(float(one["step"])): one for one in _logged(run)}
            rates = [_evaluate(args, run, point) for point in points]
            taken = [float(logged[point]["online/env_steps"]) for point in points]
            for point, step, rate in zip(points, taken, rates, strict=True):
                intervened = logged[point].get("online/intervened_steps", "0")
                lines.append([row.name, str(seed), str(point), f"{step:.0f}", _number(intervened), _cell(rate)])
            label = row.name if seed == args.seeds[0] else None
            axes.plot(taken, [rate["rate"] for rate in rates], color=color, marker="o", markersize=3, label=label)
    axes.set(xlabel="environment steps", ylabel="success in fresh episodes", ylim=(0, 1.02))
    axes.legend()
    axes.figure.savefig(args.out / "curve.png", dpi=110, bbox_inches="tight")
    return _table(lines)


def _chosen(args: argparse.Namespace, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if args.rows is None or row.name in args.rows]


def _train(args: argparse.Namespace, data: Path, row: Row, seed: int, steps: int, *more: Any) -> Path:
    run: Path = args.out / f"{row.name.replace(',', '').replace(' ', '-').lower()}-{seed}"
    if not (run / "checkpoints" / f"step-{steps:08d}").exists():
        going_on = ["--resume"] if run.exists() else []
        _lapwing(
            *row.command, data, "--out", run, "--steps", steps, "--seed", seed, "--batch-size", 256,
            "--train-fraction", 1, "--threads", 1, *row.flags, *more, *going_on,
        )  # fmt: skip
    return run


def _evaluate(args: argparse.Namespace, run: Path, checkpoint: int | str) -> dict[str, Any]:
    """The rate of success and its interval."""
    path = run / f"evaluated-{checkpoint}-{args.episodes}-{args.evaluation_seed}.json"
    if not path.exists():
        said = _lapwing(
            "eval", run, "--world", WORLD, "--episodes", args.episodes, "--seed", args.evaluation_seed,
            "--checkpoint", checkpoint, "--json",
        )  # fmt: skip
        path.write_text(said, encoding="utf-8")
    (mode,) = json.loads(path.read_text(encoding="utf-8"))["modes"].values()
    success: dict[str, Any] = mode["rates"]["success"]
    return success


def _logged(run: Path) -> list[dict[str, str]]:
    with (run / "progress.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _lapwing(*words: Any) -> str:
    """The output of a lapwing command; its progress and errors go to the terminal."""
    command = [sys.executable, "-m", "lapwing.cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout


def _cell(success: dict[str, Any]) -> str:
    low, high = success["interval"]
    return f"{success['rate']:.1%} [{low:.0%}, {high:.0%}]"


def _number(value: str) -> str:
    return f"{float(value):.3g}" if value else ""


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest])


if __name__ == "__main__":
    main()
