"""d3rlpy's IQL and PLAS, timed as `lapwing bench state` times ours. It runs where d3rlpy is installed, without Lapwing.

    python -m venv d3rl && d3rl/bin/pip install d3rlpy
    d3rl/bin/python benchmarks/d3rlpy_state.py --threads 1
    lapwing bench state --threads 1 --d3rlpy d3rl/bin/python

The first prints d3rlpy's figures alone. The second starts this script as workers that step in turn with ours, which
alone makes ratios that hold on a machine with other work: `--serve` reads lines of JSON, {"what": "update" or "draw",
"count": how often}, and answers each with the mean seconds of one.

PLAS trains its VAE first (`warmup_steps`, half a million by default) and the rest afterwards: its two phases are timed
apart. update: a step on a batch that lies ready; draw: `sample_transition_batch` and the way to tensors.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import d3rlpy
import numpy as np
import structlog
import torch
from d3rlpy.algos import IQLConfig, PLASConfig  # by name: `import *` would bring its own `torch` along
from d3rlpy.models import VectorEncoderFactory
from d3rlpy.torch_utility import TorchMiniBatch

EPISODES, EPISODE_STEPS = 20, 500
ALGORITHMS = ("iql", "plas-vae", "plas-rl")


class Learner:
    """One algorithm of d3rlpy with a buffer of noise, as things to do."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.algo = make(options)
        self.buffer = noise(options)
        self.algo.build_with_dataset(self.buffer)
        self.batch = self.draw()
        self.device = torch.device(options.device)

    def draw(self) -> TorchMiniBatch:
        sampled = self.buffer.sample_transition_batch(self.algo.batch_size)
        return TorchMiniBatch.from_batch(
            sampled, gamma=self.algo.config.gamma, compute_returns_to_go=False, device=self.algo.impl.device
        )

    def update(self) -> None:
        self.algo.impl.update(self.batch, 1)  # a step beyond the VAE's where it has 0 of its own

    def seconds(self, what: str, count: int) -> float:
        """Of one `update` or `draw`, the mean of `count`."""
        action: Callable[[], object] = {"update": self.update, "draw": self.draw}[what]
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(count):
            action()
        synchronize(self.device)
        return (time.perf_counter() - began) / count


def make(options: argparse.Namespace) -> d3rlpy.algos.QLearningAlgoBase:
    """d3rlpy's default widths differ from network to network, so each gets its own factory."""
    encoder = VectorEncoderFactory(options.hidden)
    shared = {"batch_size": options.batch, "actor_encoder_factory": encoder, "critic_encoder_factory": encoder}
    if options.algorithm == "iql":
        config = IQLConfig(value_encoder_factory=encoder, **shared)
    else:
        warmup = sys.maxsize if options.algorithm == "plas-vae" else 0
        config = PLASConfig(imitator_encoder_factory=encoder, warmup_steps=warmup, **shared)
    return config.create(device=options.device)


def noise(options: argparse.Namespace) -> d3rlpy.dataset.ReplayBufferBase:
    """Episodes of random numbers."""
    random = np.random.default_rng(0)
    steps = EPISODES * EPISODE_STEPS
    return d3rlpy.dataset.MDPDataset(
        observations=random.normal(size=(steps, options.state)).astype(np.float32),
        actions=random.uniform(-1, 1, (steps, options.action)).astype(np.float32),
        rewards=random.uniform(size=(steps, 1)).astype(np.float32),
        terminals=np.zeros(steps, np.float32),
        timeouts=(np.arange(1, steps + 1) % EPISODE_STEPS == 0).astype(np.float32),
    )


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def serve(options: argparse.Namespace) -> None:
    """Answer questions line by line. d3rlpy writes its log to stdout, which therefore becomes stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    learner = Learner(options)
    for line in sys.stdin:
        print(json.dumps(learner.seconds(**json.loads(line))), file=answers, flush=True)


def show(options: argparse.Namespace) -> None:
    """A table of all algorithms, one after the other, the median of `repeats` rounds."""
    print(f"d3rlpy {d3rlpy.__version__}, torch {torch.__version__}, batch {options.batch}, hidden {options.hidden}")
    print(f"{'':10}{'updates/s':>12}{'with drawing':>14}")
    for name in ALGORITHMS:
        options.algorithm = name
        learner = Learner(options)
        learner.seconds("update", 3)
        steps = max(1, int(options.seconds / learner.seconds("update", 3)))
        update, draw = (
            median(learner.seconds(what, steps) for _ in range(options.repeats)) for what in ("update", "draw")
        )
        print(f"{name:10}{1 / update:12.1f}{1 / (update + draw):14.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time d3rlpy's IQL and PLAS.")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="iql", help="the one that --serve is about")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--state", type=int, default=4)
    parser.add_argument("--action", type=int, default=2)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu:0")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each algorithm in each round")
    parser.add_argument("--serve", action="store_true", help="be a worker of `lapwing bench state --d3rlpy`")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))  # not of each buffer
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    (serve if options.serve else show)(options)


if __name__ == "__main__":
    main()
