"""ACT in a simulated world, as docs/results.md reports it: checkpoints, seeds, decoder layers, executions.

    python benchmarks/act_results.py --world aloha --out act_aloha --steps 20000 -- --image-size 128 --batch-size 32

Records demonstrations, trains ACT (last and first decoder layer) and BC for every seed, evaluates several checkpoints
of each in fresh episodes, open loop and with temporal ensembling, and prints the table. Flags after `--` go to
`lapwing train act`, those after `--bc` to `lapwing train bc`. What is there already is not done again, so an
interrupted table goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Learner(NamedTuple):
    """A row of the table: its name, the algorithm and its flags."""

    name: str
    algorithm: str
    flags: list[str]


def main() -> None:
    words, act_flags, bc_flags = _parts(sys.argv[1:])
    args = _parser().parse_args(words)
    learners = [
        Learner("ACT, last layer", "act", [*act_flags, "--decoder-output", "last"]),
        Learner("BC", "bc", bc_flags),
        Learner(f"BC, chunks of {args.bc_chunk}", "bc", [*bc_flags, "--chunk", str(args.bc_chunk)]),
        Learner("ACT, first layer", "act", [*act_flags, "--decoder-output", "first"]),
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    data = _record(args)
    rows = []
    for learner in learners:
        for seed in args.seeds:
            run = _train(args, data, learner, seed)
            rows += [(learner, seed, step, _evaluate(args, run, step)) for step in _steps(args)]
            print(_table(args, rows), flush=True)
    (args.out / "table.md").write_text(_table(args, rows) + "\n", encoding="utf-8")


def _parts(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Our own flags, those behind `--`, and those behind `--bc`."""
    own, _, rest = _split(words, "--")
    act, _, bc = _split(rest, "--bc")
    return own, act, bc


def _split(words: list[str], mark: str) -> tuple[list[str], str, list[str]]:
    place = words.index(mark) if mark in words else len(words)
    return words[:place], mark, words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="aloha", help="aloha, aloha-insertion or toy")
    parser.add_argument("--quality", default="expert", help="of the demonstrations; toy also: human, mixed")
    parser.add_argument("--demonstrations", type=int, default=50)
    parser.add_argument(
        "--failures", default="auto", help="keep or drop what did not succeed; auto: as `lapwing record`"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels of the recorded frames")
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and the table")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--checkpoints", type=int, default=3, help="evaluated: the last ones, evenly spaced")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--episodes", type=int, default=200, help="fresh episodes for each checkpoint")
    parser.add_argument("--evaluation-seed", type=int, default=777)
    parser.add_argument("--data-seed", type=int, default=12)
    parser.add_argument("--bc-chunk", type=int, default=16)
    return parser


def _lapwing(*words: Any) -> str:
    """The output of a lapwing command; its progress and errors go to the terminal."""
    command = [sys.executable, "-m", "lapwing.cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout


def _record(args: argparse.Namespace) -> Path:
    folder: Path = args.out / "demonstrations"
    have = len(list(folder.glob("episode_*.hdf5")))
    if have < args.demonstrations:
        more = ["--append"] if have else []
        # another seed for what is still missing, or the same demonstrations would come again
        _lapwing(
            "record", "--world", args.world, "--expert", "scripted", "--quality", args.quality, "--out", folder,
            "--episodes", args.demonstrations - have, "--failures", args.failures, "--size", args.size,
            "--seed", args.data_seed + have, *more,
        )  # fmt: skip
    return folder


def _steps(args: argparse.Namespace) -> list[int]:
    every = args.steps // args.checkpoints
    return [every * (number + 1) for number in range(args.checkpoints)]


def _train(args: argparse.Namespace, data: Path, learner: Learner, seed: int) -> Path:
    run: Path = args.out / f"{learner.name.replace(',', '').replace(' ', '-').lower()}-{seed}"
    steps = _steps(args)[-1]
    if not (run / "checkpoints" / f"step-{steps:08d}").exists():
        more = ["--resume"] if run.exists() else []
        _lapwing(
            "train", learner.algorithm, data, "--out", run, "--steps", steps, "--seed", seed,
            "--save-every", _steps(args)[0], *learner.flags, *more,
        )  # fmt: skip
    return run


def _evaluate(args: argparse.Namespace, run: Path, step: int) -> dict[str, Any]:
    """Success by execution, as `lapwing eval --json` has it."""
    path = run / f"evaluated-{step}-{args.episodes}.json"
    if not path.exists():
        said = _lapwing(
            "eval", run, "--world", args.world, "--episodes", args.episodes, "--seed", args.evaluation_seed,
            "--checkpoint", step, "--ensemble", "--json",
        )  # fmt: skip
        path.write_text(said, encoding="utf-8")
    modes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["modes"]
    return modes


def _table(args: argparse.Namespace, rows: list[tuple[Learner, int, int, dict[str, Any]]]) -> str:
    head = ["learner", "seed", "step", "open loop", "ensemble"]
    lines = [[learner.name, str(seed), str(step), *map(_cell, modes.values())] for learner, seed, step, modes in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def _cell(evaluation: dict[str, Any]) -> str:
    success = evaluation["rates"]["success"]
    low, high = success["interval"]
    return f"{success['rate']:.1%} [{low:.0%}, {high:.0%}]"


if __name__ == "__main__":
    main()
