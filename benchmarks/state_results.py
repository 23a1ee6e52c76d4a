"""The tables of state mode in docs/results.md: LAPO beside IQL, TD3+BC and BC on D4RL's protocols.

    python benchmarks/state_results.py umaze --out state_results
    python benchmarks/state_results.py umaze --out state_results --tried --seeds 0 --steps 25000
    python benchmarks/state_results.py door --out state_results --data door-v0_demos.pickle

The mazes draw a million transitions with D4RL's controller; the others take a recording. Every row is trained for every
seed with the same sizes, and each of the last checkpoints is evaluated in fresh episodes. The score of a run is their
mean, never the best of them, with the 95 % bootstrap interval over the episodes. `--tried` compares variants of LAPO
instead. What is there already is not done again, so an interrupted table goes on; give another --out for another
version's presets.
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
import numpy as np

from lapwing.data.scores import normalised_score
from lapwing.envs import D4RL_DATA
from lapwing.stats import bootstrap_interval

SIZES = ("--hidden", "128", "128", "128", "--batch-size", "256")
CONSTANT = ("--critic-lr", "1e-3", "--vae-lr", "1e-3", "--actor-lr", "1e-3")
RATES = (*CONSTANT, "--decay-steps", "{steps}")


class Row(NamedTuple):
    """One row of a table: its name, its algorithm and its flags."""

    name: str
    algorithm: str
    flags: tuple[str, ...] = ()


class Table(NamedTuple):
    """A world, what is trained for it, how long, and how many of the last checkpoints count."""

    world: str
    rows: Sequence[Row]
    steps: int = 50_000
    checkpoints: int = 5
    train_fraction: float = 0.99


LAPO = Row("LAPO", "lapo", ("--preset", "state", "--decay-steps", "{steps}"))
BC, IQL, TD3BC = (
    Row(name, kind, ("--lr", "1e-3")) for name, kind in (("BC", "bc"), ("IQL", "iql"), ("TD3+BC", "td3bc"))
)
LAPO_FEW = Row("LAPO", "lapo", RATES)  # its own settings: the preset is for more than a few episodes
LAPO_CHUNKS = Row("LAPO, chunks of 5", "lapo", (*RATES, "--chunk", "5"))
DEMONSTRATIONS = {"steps": 5_000, "checkpoints": 1, "train_fraction": 1.0}
TABLES = {
    **{maze: Table(f"pointmaze-{maze}", (LAPO, IQL, TD3BC, BC)) for maze in ("umaze", "medium", "large")},
    "door": Table("door", (BC, IQL, LAPO_FEW, LAPO_CHUNKS), **DEMONSTRATIONS),
    "hopper": Table("hopper", (BC, LAPO_FEW), **DEMONSTRATIONS),
    "halfcheetah": Table("halfcheetah", (BC, LAPO_FEW), **DEMONSTRATIONS),
}
TRIED = [
    LAPO,
    Row("constant learning rates", "lapo", ("--preset", "state", "--vae-decay-steps", "0")),
    Row("a CVAE that goes on learning", "lapo", (*LAPO.flags, "--vae-decay-steps", "0")),
    Row("no Fourier features", "lapo", (*LAPO.flags, "--critic-frequency", "0")),
    Row("chunk 1", "lapo", (*LAPO.flags, "--chunk", "1")),
    Row("KL weight 0.3", "lapo", (*LAPO.flags, "--kl-beta", "0.3")),
    Row("KL weight 0.3, chunk 2", "lapo", (*LAPO.flags, "--kl-beta", "0.3", "--chunk", "2")),
    Row("tau 0.005", "lapo", (*LAPO.flags, "--tau", "0.005")),
    Row("expectile 0.9", "lapo", (*LAPO.flags, "--value-expectile", "0.9")),
    Row("the policy's value", "lapo", (*LAPO.flags, "--value", "policy")),
    Row("no LayerNorm", "lapo", (*LAPO.flags, "--no-critic-layer-norm")),
    Row("product", "lapo", CONSTANT),
    Row("the paper's", "lapo", ("--preset", "original", "--kl-beta", "0.3", *CONSTANT)),
]


def main() -> None:
    args = _parser().parse_args()
    table = TABLES[args.table]
    data = args.data or args.out / f"{args.table}.hdf5"
    if not data.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        _lapwing("data", "sample", data, "--world", table.world, "--steps", 1_000_000)
    head = ["", "seed", "score", "of single checkpoints", "success", "off data", "start value", "earned"]
    lines, axes = [head, ["---"] * len(head)], plt.figure(figsize=(7, 4)).gca()
    for number, row in enumerate(
        row for row in (TRIED if args.tried else table.rows) if row.name in (args.rows or [row.name])
    ):
        for seed in args.seeds:
            run = _train(args, table, data, row, seed)
            points = {step: _evaluate(args, table, run, step) for step in _steps(args, table)}
            lines.append([row.name, str(seed), *_cells(table.world, list(points.values())[-table.checkpoints :])])
            scores = [one["figures"]["score"] for one in points.values()]
            axes.plot(list(points), scores, f"C{number}", label=row.name if seed == args.seeds[0] else None)
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(text)
    name = f"{args.table}{'-tried' if args.tried else ''}"
    (args.out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    axes.set(xlabel="updates", ylabel="D4RL score", title=table.world)
    axes.legend()
    axes.figure.savefig(args.out / f"{name}.png", dpi=110, bbox_inches="tight")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and the table")
    parser.add_argument("--data", type=Path, help="the recording; the mazes sample their own")
    parser.add_argument("--tried", action="store_true", help="variants of LAPO instead of the algorithms")
    parser.add_argument("--rows", nargs="+", help="these rows alone, by name")
    parser.add_argument("--steps", type=int, help="updates; the table's own unless given")
    parser.add_argument("--every", type=int, default=2_500, help="updates between checkpoints")
    parser.add_argument("--first", type=int, help="evaluate from this update on; the last ones alone unless given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100, help="fresh episodes for each evaluation")
    parser.add_argument("--evaluation-seed", type=int, default=777)
    return parser


def _train(args: argparse.Namespace, table: Table, data: Path, row: Row, seed: int) -> Path:
    name = row.name.replace(",", "").replace("'", "").replace(" ", "-").lower()
    steps = args.steps or table.steps
    run: Path = args.out / f"{args.table}-{name}-{steps}-{seed}"
    if not (run / "checkpoints" / f"step-{steps:08d}").exists():
        going_on = ["--resume"] if run.exists() else []
        _lapwing(
            "train", row.algorithm, data, "--out", run, "--steps", steps, "--seed", seed, *SIZES,
            "--train-fraction", table.train_fraction, "--eval-every", 10_000, "--save-every", args.every,
            "--threads", 1, *(flag.format(steps=steps) for flag in row.flags), *going_on,
        )  # fmt: skip
    return run


def _steps(args: argparse.Namespace, table: Table) -> range:
    last = args.steps or table.steps
    return range(args.first or last - (table.checkpoints - 1) * args.every, last + 1, args.every)


def _evaluate(args: argparse.Namespace, table: Table, run: Path, step: int) -> dict[str, Any]:
    """What the deployed mode did at one checkpoint."""
    path = run / f"evaluated-{step}-{args.episodes}-{args.evaluation_seed}.json"
    if not path.exists():
        said = _lapwing(
            "eval", run, "--world", table.world, "--episodes", args.episodes, "--seed", args.evaluation_seed,
            "--checkpoint", step, "--json",
        )  # fmt: skip
        path.write_text(said, encoding="utf-8")
    modes = json.loads(path.read_text(encoding="utf-8"))["modes"]
    first: dict[str, Any] = next(iter(modes.values()))
    return first


def _cells(world: str, evaluated: Sequence[dict[str, Any]]) -> list[str]:
    scores = [one["figures"]["score"] for one in evaluated]
    episodes = np.mean([one["returns"] for one in evaluated], 0)  # all checkpoints play the same ones
    low, high = (normalised_score(D4RL_DATA[world], bound) for bound in bootstrap_interval(episodes))
    cells = [f"{mean(scores):.1f} [{low:.0f}, {high:.0f}]", f"{min(scores):.0f} to {max(scores):.0f}"]
    rates = [one["rates"]["success"]["rate"] for one in evaluated if "success" in one["rates"]]
    cells.append(f"{mean(rates):.0%}" if rates else "")
    for name, form in (("off_data", ".0%"), ("start_value", ".1f"), ("discounted_return", ".1f")):
        known = [one["figures"][name] for one in evaluated if one["figures"].get(name) is not None]
        cells.append(format(mean(known), form) if known else "")
    return cells


def _lapwing(*words: Any) -> str:
    """The output of a lapwing command; its progress and errors go to the terminal."""
    command = [sys.executable, "-m", "lapwing.cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout


if __name__ == "__main__":
    main()
