"""`lapwing demo`: from nothing to a judged policy, as the commands one would type oneself.

The settings of the toy world were fixed on development worlds (docs/results.md); the evaluation worlds are fresh.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lapwing.commands.flags import parse
from lapwing.errors import ConfigError
from lapwing.run.results import read_results

EVALUATION_SEED = 777
# one thread: two that wait for each other come to a standstill when anything else wants a core, and the same
# number of threads gives the same bits everywhere
COMMON = "--relative-actions --weights none --hidden 256 256 --train-fraction 0.9 --threads 1"
LAPO = "--discount 0.95 --tau 0.01 --critic-lr 5e-4 --vae-lr 5e-4 --actor-lr 5e-4"


@dataclass(frozen=True)
class Plan:
    """How the demonstration runs in a world: data, encoder and length."""

    demonstrations: int
    sample: str
    model: str
    steps: int
    episodes: int


PLANS = {
    "toy": Plan(1000, "--size 64 --seed 12", "--backbone small", 3000, 100),
    "aloha": Plan(60, "--size 84 --seed 12", "--backbone small", 2000, 20),
}


@dataclass(frozen=True)
class Demo:
    """Sample mixed-quality data, check it, train LAPO and behaviour cloning on it, evaluate both, write the report."""

    world: Literal["toy", "aloha"] = "toy"
    """The simulated world."""
    out: Path = Path("demo")
    """Folder for the data and both runs; a free name beside it is taken when it exists."""
    demonstrations: int | None = None
    """Episodes to sample; None: the world's own number. One of aloha takes 2 s, mostly to draw."""
    steps: int | None = None
    """Gradient steps of each algorithm; None: the world's own number."""
    seed: int = 0
    """Of training; data and evaluation worlds stay the same."""
    episodes: int | None = None
    """Fresh evaluation episodes; None: the world's own number."""


def demo(args: Sequence[str]) -> int:
    """`lapwing demo`"""
    command = parse(Demo, args, "lapwing demo")
    plan = PLANS[command.world]
    steps, episodes = _chosen(command.steps, plan.steps), _chosen(command.episodes, plan.episodes)
    demonstrations = _chosen(command.demonstrations, plan.demonstrations)
    if steps < 1 or episodes < 1 or demonstrations < 2 or command.seed < 0:
        raise ConfigError(
            "demo: --steps and --episodes must be at least 1, --demonstrations at least 2 (one is held out) and --seed "
            "at least 0; change them"
        )
    out = _free(command.out)
    data, lapo, bc = out / "data.hdf5", out / "lapo", out / "bc"
    out.mkdir(parents=True)
    started = time.monotonic()
    trained = f"--steps {steps} --seed {command.seed} {plan.model} {COMMON}"
    judged = f"--world {command.world} --episodes {episodes} --seed {EVALUATION_SEED}"
    for line in (
        f"data sample {_quote(data)} --world {command.world} --quality mixed --episodes {demonstrations} {plan.sample}",
        f"data check {_quote(data)}",
        f"train lapo {_quote(data)} --out {_quote(lapo)} {trained} {LAPO}",
        f"train bc {_quote(data)} --out {_quote(bc)} {trained} --lr 5e-4",
        f"eval {_quote(lapo)} {judged} --controls --video {_quote(out / 'lapo.mp4')}",
        f"eval {_quote(bc)} {judged}",
        f"report {_quote(lapo)} --compare {_quote(bc)}",
    ):
        code = _run(line)
        if code != 0:
            return code
    print(_landing(lapo, bc, command.world, (time.monotonic() - started) / 60))
    return 0


def _chosen(given: int | None, usual: int) -> int:
    return usual if given is None else given


def _free(out: Path) -> Path:
    """`out`, or the first of out-2, out-3, ... that does not exist: nothing is overwritten."""
    number, free = 1, out
    while free.exists():
        number += 1
        free = out.with_name(f"{out.name}-{number}")
    return free


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _run(line: str) -> int:
    from lapwing.cli import main

    print(f"\n$ lapwing {line}", flush=True)
    return main(shlex.split(line))


def _landing(lapo: Path, bc: Path, world: str, minutes: float) -> str:
    """Where this run landed: success of the data, of both policies and of the controls, with intervals."""
    ours, theirs = read_results(lapo), read_results(bc)
    data = json.loads((lapo / "data.json").read_text(encoding="utf-8"))
    rows: list[tuple[str, str]] = [("the data itself", f"{data['success_rate']:.1%}")]
    for results in (theirs, ours):
        found = results.world(world)
        assert found is not None  # evaluated just now
        rows += [(f"{results.algorithm} ({mode})", _rates(one)) for mode, one in found.modes.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    return "\n".join(
        [
            f"\nsuccess in {world}, fresh episodes, 95 % intervals ({minutes:.1f} minutes in all)",
            *lines,
            f"report: {lapo / 'report.html'}    film: {lapo.parent / 'lapo.mp4'}",
        ]
    )


def _rates(one: Any) -> str:
    low, high = one.interval()
    wrong = f"   wrong object {one.rate('wrong_object'):.1%}" if "wrong_object" in one.flags else ""
    return f"{one.success_rate:6.1%} [{low:.1%}, {high:.1%}]{wrong}"
