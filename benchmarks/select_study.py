"""How well does `lapwing select` rank checkpoints? Its estimates beside the truth, where a world can tell that.

Samples a recording in a world, trains several algorithms on it, evaluates every kept checkpoint in fresh episodes, lets
`lapwing select` rank them, and prints the table and Spearman's rank correlation of each score with true success. What
is there already is kept, so an interrupted study goes on where it was:

    python benchmarks/select_study.py --world toy-dual-learned-state --out study

Arguments after `--` go to `lapwing select`; with --name they make another column beside the earlier ones.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lapwing import cli
from lapwing.run.checkpoint import checkpoint_steps
from lapwing.stats import rank_correlation

COMMON = "--eval-every 100000 --threads 1 --batch-size 128 --hidden 128 128"
LEARNERS = {
    "bc": "bc --steps 2400",
    "bc_small": "bc --steps 2400 --hidden 16 --lr 1e-3",
    "lapo": "lapo --steps 2400",
    "lapo_greedy": "lapo --steps 2400 --max-latent 3 --latent-penalty 0",
    "sac": "sac --steps 2400",
    "sac_weak": "sac --steps 2400 --imitation 0.1 --no-stop-when-diverged",
}


def main() -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="toy-dual-learned-state")
    parser.add_argument("--out", type=Path, default=Path("study"))
    parser.add_argument("--data", type=Path, help="a recording of that world; by default one is sampled")
    parser.add_argument("--demonstrations", type=int, default=300)
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=list(LEARNERS))
    parser.add_argument("--save-every", type=int, default=800, help="steps between the checkpoints that are ranked")
    parser.add_argument("--episodes", type=int, default=100, help="fresh episodes for each checkpoint")
    parser.add_argument("--measure", choices=("success", "return"), default="success")
    parser.add_argument("--name", default="default", help="of this selection, among others of the same checkpoints")
    words, further = _divided(sys.argv[1:])
    asked = parser.parse_args(words)
    data = asked.data or asked.out / "data.hdf5"
    if not data.exists():
        asked.out.mkdir(parents=True, exist_ok=True)
        _run(f"data sample {data} --world {asked.world} --episodes {asked.demonstrations} --seed 5")
    runs = [_trained(data, asked.out / name, LEARNERS[name], asked.save_every) for name in asked.learners]
    truth = {(run.name, step): _truth(run, step, asked) for run in runs for step in checkpoint_steps(run)}
    chosen = asked.out / f"select-{asked.name}"
    if not (chosen / "select.json").exists():
        paths = " ".join(str(run) for run in runs)
        _run(f"select {paths} --data {data} --out {chosen} --seed 100 --threads 1 {' '.join(further)}")
    _print(truth, sorted(asked.out.glob("select-*/select.json")))
    return 0


def _divided(words: list[str]) -> tuple[list[str], list[str]]:
    """What is before `--`, and what is after it."""
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def _run(command: str) -> None:
    print(f"lapwing {command}", flush=True)
    if cli.main(shlex.split(command)) != 0:
        raise SystemExit(f"failed: lapwing {command}")


def _trained(data: Path, run: Path, learner: str, every: int) -> Path:
    if not run.exists():
        algorithm, *flags = learner.split()
        _run(f"train {algorithm} {data} --out {run} {COMMON} {' '.join(flags)} --save-every {every}")
    return run


def _truth(run: Path, step: int, asked: argparse.Namespace) -> float:
    """Success rate, or mean return, of a checkpoint's deployed mode; kept beside the run."""
    kept = run / f"truth-{step}-{asked.measure}-{asked.episodes}.json"
    if not kept.exists():
        mode = {"bc": "bc"}.get(json.loads((run / "config.json").read_text())["algorithm"], "pi")
        _run(
            f"eval {run} --world {asked.world} --episodes {asked.episodes} --seed 777 --checkpoint {step} --mode {mode}"
        )
        (one,) = json.loads((run / "eval" / f"{asked.world}-777.json").read_text())["modes"].values()
        kept.write_text(
            json.dumps(one["rates"]["success"]["rate"] if asked.measure == "success" else one["return_mean"])
        )
    return float(json.loads(kept.read_text()))


def _print(truth: dict[tuple[str, int], float], selections: Sequence[Path]) -> None:
    found = {path.parent.name.removeprefix("select-"): json.loads(path.read_text()) for path in selections}
    scores = {name: {_key(one): one for one in record["policies"]} for name, record in found.items()}
    keys = sorted(truth, key=lambda key: -truth[key])
    true = np.array([truth[key] for key in keys])
    print(f"{'checkpoint':24} {'truth':>6} " + " ".join(f"{name:>12}" for name in scores))
    for key in keys:
        cells = " ".join(f"{score[key]['value']:12.3f}" if key in score else f"{'-':>12}" for score in scores.values())
        print(f"{key[0] + ' ' + str(key[1]):24} {truth[key]:6.2f} {cells}")
    for name, score in scores.items():
        if set(score) != set(keys):
            continue
        columns = {
            "value": [score[key]["value"] for key in keys],
            "lower bound": [score[key]["interval"][0] for key in keys],
            "action error": [-score[key]["action_error"] for key in keys],
            "off data": [-score[key]["off_data"] for key in keys],
        }
        said = ", ".join(f"{what} {rank_correlation(np.array(one), true):.2f}" for what, one in columns.items())
        best = truth[max(score, key=lambda key: score[key]["value"])]
        print(f"{name}: rank correlation with the truth: {said}; first choice {best:.2f} of at best {true.max():.2f}")


def _key(policy: dict[str, str]) -> tuple[str, int]:
    return Path(policy["run"]).name, int(policy["checkpoint"].removeprefix("step-"))


if __name__ == "__main__":
    sys.exit(main())
