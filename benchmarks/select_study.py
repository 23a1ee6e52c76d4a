"""How well does `lapwing select` rank checkpoints? Its estimates beside the truth, where a world can tell that.

Samples a recording in a world, trains several algorithms on it, evaluates every kept checkpoint in fresh episodes, lets
`lapwing select` rank them, and prints the table and Spearman's rank correlation of each score with the truth. What
is there already is kept, so an interrupted study goes on where it was:

    python benchmarks/select_study.py --world toy-dual-learned-state --out study

With --policies it takes runs or checkpoints that are there (RUN or RUN/checkpoints/STEP) and trains nothing. Arguments
after `--` go to `lapwing select`; with --name they make another column beside the earlier ones.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from lapwing import cli
from lapwing.envs import make_world
from lapwing.run.candidates import Checkpoint, find_candidates, open_candidate
from lapwing.run.evaluate import evaluate
from lapwing.run.policy import Policy
from lapwing.stats import rank_correlation

COMMON = "--eval-every 100000 --threads 1 --batch-size 128 --hidden 128 128 --steps 2400"
LEARNERS = {
    "bc": "bc",
    "bc_small": "bc --hidden 16 --lr 1e-3",
    "td3bc": "td3bc",
    "td3bc_greedy": "td3bc --alpha 40",
    "iql": "iql",
    "lapo": "lapo",
    "lapo_greedy": "lapo --max-latent 3 --latent-penalty 0",
    "lapo_chunk": "lapo --preset state --hidden 128 128",
}
SEED = 777  # of the fresh episodes
Names = dict[str, Checkpoint]


def main() -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="toy-dual-learned-state")
    parser.add_argument("--out", type=Path, default=Path("study"))
    parser.add_argument("--data", type=Path, help="a recording of that world; by default one is sampled")
    parser.add_argument("--demonstrations", type=int, default=300)
    parser.add_argument("--policies", type=Path, nargs="+", help="runs or checkpoints, instead of training some")
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=list(LEARNERS))
    parser.add_argument("--save-every", type=int, default=800, help="steps between the checkpoints that are ranked")
    parser.add_argument("--episodes", type=int, default=100, help="fresh episodes for each checkpoint")
    parser.add_argument("--measure", choices=("success", "return"), default="success")
    parser.add_argument("--name", default="default", help="of this selection, among others of the same checkpoints")
    words, further = _divided(sys.argv[1:])
    asked = parser.parse_args(words)
    asked.out.mkdir(parents=True, exist_ok=True)
    data = asked.data or asked.out / "data.hdf5"
    if not data.exists():
        _run(f"data sample {data} --world {asked.world} --episodes {asked.demonstrations} --seed 5")
    paths = asked.policies or [_trained(data, asked.out / name, LEARNERS[name], asked) for name in asked.learners]
    checkpoints = {one.label: one for one in find_candidates(paths)}
    truth = _truths(checkpoints, asked)
    chosen = asked.out / f"select-{asked.name}"
    if not (chosen / "select.json").exists():
        words = [str(path) for path in paths]
        _run(f"select {shlex.join(words)} --data {data} --out {chosen} --seed 100 --threads 1 {shlex.join(further)}")
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


def _trained(data: Path, run: Path, learner: str, asked: argparse.Namespace) -> Path:
    if not run.exists():
        algorithm, *flags = learner.split()
        _run(f"train {algorithm} {data} --out {run} {COMMON} {' '.join(flags)} --save-every {asked.save_every}")
    return run


def _truths(checkpoints: Names, asked: argparse.Namespace) -> dict[str, float]:
    """Success rate, or mean return, of each checkpoint's deployed mode; kept in the study's folder."""
    kept = asked.out / f"truth-{asked.measure}-{asked.episodes}.json"
    truth: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    torch.set_num_threads(1)
    for label, checkpoint in checkpoints.items():
        if label not in truth:
            truth[label] = _truth(checkpoint, asked)
            print(f"{label}: {truth[label]:.3f}", flush=True)
            kept.write_text(json.dumps(truth, indent=1))
    return {label: truth[label] for label in checkpoints}


def _truth(checkpoint: Checkpoint, asked: argparse.Namespace) -> float:
    candidate = open_candidate(checkpoint, torch.device("cpu"))
    world = make_world(asked.world, asked.episodes)
    policy = Policy(candidate.agent, candidate.spec, candidate.normalizer)
    found = evaluate(policy, world, asked.episodes, SEED)
    world.close()
    return found.success_rate if asked.measure == "success" else float(np.mean(found.returns))


def _print(truth: Mapping[str, float], selections: Sequence[Path]) -> None:
    found = {path.parent.name.removeprefix("select-"): json.loads(path.read_text()) for path in selections}
    scores = {name: {one["label"]: one for one in record["policies"]} for name, record in found.items()}
    labels = sorted(truth, key=lambda label: -truth[label])
    true = np.array([truth[label] for label in labels])
    print(f"{'checkpoint':28} {'truth':>7} " + " ".join(f"{name:>12}" for name in scores))
    for label in labels:
        cells = " ".join(
            f"{score[label]['value']:12.3f}" if label in score else f"{'-':>12}" for score in scores.values()
        )
        print(f"{label:28} {truth[label]:7.2f} {cells}")
    for name, score in scores.items():
        if set(score) != set(labels):
            continue
        columns = {
            "value": [score[label]["value"] for label in labels],
            "lower bound": [score[label]["interval"][0] for label in labels],
            "action error": [-score[label]["action_error"] for label in labels],
            "off data": [-score[label]["off_data"] for label in labels],
        }
        said = ", ".join(f"{what} {rank_correlation(np.array(one), true):.2f}" for what, one in columns.items())
        best = truth[max(score, key=lambda label: score[label]["value"])]
        print(f"{name}: rank correlation with the truth: {said}; first choice {best:.2f} of at best {true.max():.2f}")


if __name__ == "__main__":
    sys.exit(main())
