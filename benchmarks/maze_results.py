"""D4RL's maze2d protocol, as docs/results.md reports it: LAPO beside IQL, TD3+BC and BC, and what was tried.

    python benchmarks/maze_results.py --maze umaze --out maze_results
    python benchmarks/maze_results.py --maze umaze --out maze_results --tried --seeds 0 --steps 25000

Draws a million transitions with D4RL's controller, trains every row for every seed with the same sizes, and evaluates
each of the last five checkpoints in fresh episodes. The score of a run is their mean, never the best of them. `--tried`
compares variants of LAPO instead. What is there already is not done again, so an interrupted table goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import matplotlib.pyplot as plt

SIZES = ("--hidden", "128", "128", "128", "--batch-size", "256")
LAPO_RATES = ("--critic-lr", "1e-3", "--vae-lr", "1e-3", "--actor-lr", "1e-3")
PAPER_LATENT = ("--kl-beta", "0.3", "--max-latent", "2", "--latent-penalty", "0", "--bc-coef", "0")


class Row(NamedTuple):
    """One row of a table: its name, its algorithm and its flags."""

    name: str
    algorithm: str
    flags: tuple[str, ...] = ()


ROWS = [
    Row("LAPO", "lapo", ("--preset", "state", *LAPO_RATES)),
    Row("IQL", "iql", ("--lr", "1e-3")),
    Row("TD3+BC", "td3bc", ("--lr", "1e-3")),
    Row("BC", "bc", ("--lr", "1e-3")),
]
TRIED = [
    Row("original", "lapo", ("--preset", "original", "--kl-beta", "0.3", *LAPO_RATES)),
    Row("product", "lapo", LAPO_RATES),
    Row("LayerNorm", "lapo", (*PAPER_LATENT, *LAPO_RATES)),
    *(Row(f"LayerNorm {n} steps", "lapo", (*PAPER_LATENT, *LAPO_RATES, "--n-step", str(n))) for n in (3, 5, 10)),
    *(Row(f"LayerNorm chunk {n}", "lapo", (*PAPER_LATENT, *LAPO_RATES, "--chunk", str(n))) for n in (5, 10)),
    *(
        Row(f"LayerNorm chunk 5 expectile {tau}", "lapo", ("--preset", "state", *LAPO_RATES, "--value-expectile", tau))
        for tau in ("0.9", "0.97", "0.99")
    ),
    Row("LayerNorm expectile 0.97", "lapo", ("--preset", "state", *LAPO_RATES, "--chunk", "1")),
    Row("chunk 5 expectile 0.97", "lapo", ("--preset", "state", *LAPO_RATES, "--no-critic-layer-norm")),
]


def main() -> None:
    args = _parser().parse_args()
    data = args.out / f"{args.maze}.hdf5"
    if not data.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        _lapwing("data", "sample", data, "--world", f"pointmaze-{args.maze}", "--steps", 1_000_000)
    head = ["", "seed", "score, mean of the last five", "lowest to highest", "off data", "start value", "earned"]
    lines, axes = [head], plt.figure(figsize=(7, 4)).gca()
    rows = [row for row in (TRIED if args.tried else ROWS) if args.rows is None or row.name in args.rows]
    for number, row in enumerate(rows):
        for seed in args.seeds:
            run = _train(args, data, row, seed)
            points = {step: _evaluate(args, run, step) for step in _steps(args)}
            last = list(points.values())[-5:]
            lines.append([row.name, str(seed), *_cells(last)])
            label = row.name if seed == args.seeds[0] else None
            axes.plot(list(points), [one["score"] for one in points.values()], f"C{number}", label=label)
    table = "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(head), *lines[1:]])
    print(table)
    name = f"{args.maze}{'-tried' if args.tried else ''}"
    (args.out / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    axes.set(xlabel="updates", ylabel="D4RL score", title=f"pointmaze-{args.maze}")
    axes.legend()
    axes.figure.savefig(args.out / f"{name}.png", dpi=110, bbox_inches="tight")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maze", choices=["umaze", "medium", "large"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and the table")
    parser.add_argument("--tried", action="store_true", help="variants of LAPO instead of the algorithms")
    parser.add_argument("--rows", nargs="+", help="these rows alone, by name")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=2_500, help="updates between evaluations")
    parser.add_argument("--first", type=int, help="no evaluation before this update; the last five alone unless given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100, help="fresh episodes for each evaluation")
    parser.add_argument("--evaluation-seed", type=int, default=777)
    return parser


def _train(args: argparse.Namespace, data: Path, row: Row, seed: int) -> Path:
    run: Path = args.out / f"{args.maze}-{row.name.replace(' ', '-').lower()}-{seed}"
    if not (run / "checkpoints" / f"step-{args.steps:08d}").exists():
        going_on = ["--resume"] if run.exists() else []
        _lapwing(
            "train", row.algorithm, data, "--out", run, "--steps", args.steps, "--seed", seed, *SIZES,
            "--train-fraction", 0.99, "--eval-every", 10_000, "--save-every", args.every, "--threads", 1,
            *row.flags, *going_on,
        )  # fmt: skip
    return run


def _steps(args: argparse.Namespace) -> range:
    first = args.steps - 4 * args.every if args.first is None else args.first
    return range(first, args.steps + 1, args.every)


def _evaluate(args: argparse.Namespace, run: Path, step: int) -> dict[str, float]:
    """The figures of the deployed mode at one checkpoint."""
    path = run / f"evaluated-{step}-{args.episodes}-{args.evaluation_seed}.json"
    if not path.exists():
        said = _lapwing(
            "eval", run, "--world", f"pointmaze-{args.maze}", "--episodes", args.episodes,
            "--seed", args.evaluation_seed, "--checkpoint", step, "--json",
        )  # fmt: skip
        path.write_text(said, encoding="utf-8")
    modes = json.loads(path.read_text(encoding="utf-8"))["modes"]
    figures: dict[str, float] = next(iter(modes.values()))["figures"]
    return figures


def _cells(figures: Sequence[dict[str, Any]]) -> list[str]:
    scores = [one["score"] for one in figures]
    cells = [f"{mean(scores):.1f}", f"{min(scores):.0f} to {max(scores):.0f}"]
    cells.append(f"{mean(one['off_data'] for one in figures):.0%}")
    for name in ("start_value", "discounted_return"):
        known = [one[name] for one in figures if name in one]
        cells.append(f"{mean(known):.1f}" if known else "")
    return cells


def _lapwing(*words: Any) -> str:
    """The output of a lapwing command; its progress and errors go to the terminal."""
    command = [sys.executable, "-m", "lapwing.cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout


if __name__ == "__main__":
    main()
