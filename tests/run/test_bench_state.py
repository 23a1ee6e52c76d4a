"""The benchmark without images: the plain references learn as ours do, workers measure, the table is right."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from lapwing.batch import Batch, Obs
from lapwing.errors import ConfigError, LapwingError
from lapwing.run import bench_process, bench_state
from lapwing.run.bench_process import ask, find_reference, load_reference
from lapwing.run.bench_state import (
    Row,
    StateBenchOptions,
    comparisons,
    foreign,
    jobs,
    measure,
    table,
    usable,
)
from lapwing.run.bench_state_worker import Job, Sizes, foreign_process, make_agent, work

CPU = torch.device("cpu")
SMALL = Sizes(batch=4, state=3, action=2, hidden=(8, 8), device="cpu", threads=1)
FOREIGN = """
import json, sys
for line in sys.stdin:
    question = json.loads(line)
    print(json.dumps(0.5 * question["count"] if question["what"] == "update" else 0.25), flush=True)
"""


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    return load_reference(find_reference("plain_state.py"))


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)


def batches(plain: ModuleType) -> tuple[Batch, Any]:
    """One batch in our form and in the reference's."""
    theirs = plain.PlainData(16, SMALL.state, SMALL.action, CPU).sample(8)
    theirs = replace(theirs, mask=(torch.arange(8) % 3 > 0).float()[:, None])
    ours = Batch(
        obs=Obs({}, theirs.state),
        action=theirs.action[:, None],
        is_pad=torch.zeros(8, 1, dtype=torch.bool),
        reward=theirs.reward[:, 0],
        discount=plain.DISCOUNT * theirs.mask[:, 0],
        mc_return=torch.zeros(8),
        next_obs=Obs({}, theirs.next_state),
    )
    return ours, theirs


def copy_weights(pairs: Mapping[nn.Module, nn.Module]) -> None:
    """theirs: ours."""
    for theirs, ours in pairs.items():
        values = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
        theirs.load_state_dict(values)


def both(plain: ModuleType, algorithm: str) -> tuple[Any, Any, dict[nn.Module, nn.Module]]:
    """Ours, the reference with the same weights, and which network of it is which of ours."""
    torch.manual_seed(0)
    agent: Any = make_agent(Job("ours", algorithm, SMALL))
    sizes = SMALL.state, SMALL.action, SMALL.hidden, CPU
    if algorithm == "bc":
        theirs = plain.PlainBc(*sizes)
        return agent, theirs, {theirs.actor: agent.head}
    if algorithm == "iql":
        theirs = plain.PlainIql(*sizes)
        pairs = {theirs.q1: agent.critic.q1, theirs.q2: agent.critic.q2, theirs.value: agent.value}
        pairs |= {theirs.q1_target: agent.target_critic.q1, theirs.q2_target: agent.target_critic.q2}
        return agent, theirs, pairs | {theirs.actor: agent.actor.net}
    theirs = plain.PlainLapo(*sizes)
    pairs = {theirs.actor: agent.actor, theirs.actor_target: agent.target_actor}
    for one, other in ((theirs.critic, agent.critic), (theirs.critic_target, agent.target_critic)):
        pairs |= {one.q1: other.q1, one.q2: other.q2, one.v: other.value}
    for one, other in ((theirs.vae, agent.vae), (theirs.vae_target, agent.target_vae)):
        pairs |= {one.encoder: other.posterior, one.decoder: other.decoder}
    return agent, theirs, pairs


@pytest.mark.usefixtures("no_noise")
@pytest.mark.parametrize(
    ("algorithm", "losses"),
    [
        ("lapo", ["critic_loss", "vae_loss", "actor_loss"]),
        ("iql", ["value_loss", "critic_loss", "actor_loss"]),
        ("bc", ["bc_loss"]),
    ],
)
def test_the_reference_learns_as_ours_does(plain: ModuleType, algorithm: str, losses: list[str]) -> None:
    """Losses of three updates, and all weights after them."""
    agent, reference, pairs = both(plain, algorithm)
    copy_weights(pairs)
    before = [p.clone() for net in pairs for p in net.parameters()]
    for _ in range(3):
        ours, theirs = batches(plain)
        metrics = agent.update(ours)
        expected = torch.stack(reference.update(theirs))
        torch.testing.assert_close(torch.stack([metrics[name] for name in losses]), expected, atol=1e-5, rtol=1e-4)
    after = [p for net in pairs for p in net.parameters()]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    same = [p for net in pairs.values() for p in net.parameters()]
    for one, other in zip(after, same, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


class Ended(Exception):
    """Raised where a worker would wait for another question."""


class Asked:
    """A pipe's end with two questions in it, which keeps the answers."""

    def __init__(self) -> None:
        self.questions = iter([("update", 2), ("draw", 1)])
        self.answers: list[float] = []

    def recv(self) -> tuple[str, int]:
        for question in self.questions:
            return question
        raise Ended

    def send(self, answer: float) -> None:
        self.answers.append(answer)


@pytest.mark.parametrize("algorithm", ["lapo", "iql", "bc"])
@pytest.mark.parametrize("reference", [None, "plain_state.py"])
def test_a_worker_updates_and_draws(algorithm: str, reference: str | None) -> None:
    sizes = replace(SMALL, threads=torch.get_num_threads())
    asked: Any = Asked()
    with pytest.raises(Ended):
        work(asked, Job("one", algorithm, sizes, reference=reference and find_reference(reference)))
    assert len(asked.answers) == 2
    assert min(asked.answers) > 0


def test_processes_take_turns_with_a_foreign_one() -> None:
    options = StateBenchOptions(repeats=2, seconds=1.5)
    rows = measure([], {"theirs": [sys.executable, "-c", FOREIGN]}, options)
    assert rows == [Row("theirs", (0.5, 0.5), (0.25, 0.25))]  # 1.5 s an update of three: one update a turn


def test_a_foreign_process_that_dies_is_named() -> None:
    with foreign_process([sys.executable, "-c", "pass"]) as line, pytest.raises(LapwingError, match="process of 'th"):
        ask("theirs", line, ("update", 1))


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(LapwingError, match="process of 'plain' ended early"):
        measure([Job("plain", "bc", SMALL, reference=Path("absent.py"))], {}, StateBenchOptions())


def test_each_algorithm_has_a_plain_line_first() -> None:
    lines = jobs(["iql", "bc"], ["fp32", "compiled"], SMALL)
    names = ["iql, plain", "iql, fp32", "iql, compiled", "bc, plain", "bc, fp32", "bc, compiled"]
    assert [one.name for one in lines] == names
    assert [one.reference is not None for one in lines] == 2 * [True, False, False]


def test_d3rlpy_gets_the_same_sizes() -> None:
    options = StateBenchOptions(batch=7, state=5, action=6, hidden=(8, 9), threads=3, d3rlpy=Path(sys.executable))
    commands = foreign(options, CPU)
    assert list(commands) == ["d3rlpy IQL", "d3rlpy PLAS, VAE", "d3rlpy PLAS, RL"]
    said = " ".join(commands["d3rlpy PLAS, RL"])
    assert "d3rlpy_state.py --serve --batch 7 --state 5 --action 6 --hidden 8 9 --threads 3 --device cpu:0" in said
    assert said.endswith("--algorithm plas-rl")
    assert foreign(StateBenchOptions(), CPU) == {}


@pytest.mark.parametrize(("can", "left"), [(True, ["fp32", "bf16"]), (False, ["fp32"])])
def test_bf16_is_left_out_where_it_only_slows(monkeypatch: pytest.MonkeyPatch, can: bool, left: list[str]) -> None:
    monkeypatch.setattr("lapwing.run.device.cpu_multiplies_bf16", lambda: can)
    assert usable(["fp32", "bf16"], CPU) == left


ROWS = {
    row.name: row
    for row in (
        Row("lapo, plain", (0.04, 0.08), (0.01, 0.01)),
        Row("lapo, fp32", (0.02, 0.04), (0.01, 0.01)),
        Row("lapo, bf16", (0.01, 0.01), (0.01, 0.01)),
        Row("iql, fp32", (0.02, 0.02), (0.02, 0.02)),
        Row("d3rlpy IQL", (0.03, 0.05), (0.01, 0.03)),
        Row("d3rlpy PLAS, VAE", (0.01, 0.01), (0.02, 0.02)),
        Row("d3rlpy PLAS, RL", (0.02, 0.04), (0.02, 0.02)),
    )
}


def test_the_table_compares_with_plain_round_by_round() -> None:
    lines = [" ".join(line.split()) for line in table(list(ROWS.values())).splitlines()]
    assert lines[1] == "lapo, plain 18.8 (12.5-25.0) 15.6"
    assert lines[2] == "lapo, fp32 37.5 (25.0-50.0) 2.00x (2.00-2.00) 26.7"
    assert lines[3] == "lapo, bf16 100 (100-100) 6.00x (4.00-8.00) 50.0"
    assert lines[5] == "d3rlpy IQL 26.7 (20.0-33.3) 18.8"
    assert lines[-1] == "rounds: 2"


def test_targets_are_compared_round_by_round() -> None:
    assert comparisons(ROWS, ["fp32", "bf16"]) == [
        "IQL, fp32: 2.00 times the updates of d3rlpy's, with drawing 1.50 times",
        "LAPO, fp32: 1.38 times the updates of a PLAS VAE step and RL step, with drawing 2.07 times",
        "LAPO, bf16: 4.00 times the updates of a PLAS VAE step and RL step, with drawing 4.00 times",
        "LAPO, bf16: 3.00 times the updates of fp32",
    ]
    assert comparisons({name: row for name, row in ROWS.items() if "d3rlpy" not in name}, ["fp32"]) == []


def test_an_installed_package_has_no_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_process, "BENCHMARKS", tmp_path)
    with pytest.raises(ConfigError, match=r"benchmarks/plain_state.py, is no part of the installed package"):
        bench_state.run(StateBenchOptions())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch 0"),
        ({"hidden": (8, 0)}, r"hidden \[8, 0\]"),
        ({"hidden": ()}, r"hidden \[\]"),
        ({"seconds": float("nan")}, "seconds nan"),
        ({"d3rlpy": Path("nowhere/python")}, "--d3rlpy nowhere/python is no file"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StateBenchOptions(**settings)


@pytest.mark.slow
def test_the_whole_command_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    bench_state.run(StateBenchOptions(batch=4, hidden=(8,), variants=("fp32",), repeats=1, seconds=0.01))
    out = capsys.readouterr().out
    for line in (
        "lapo, plain  ",
        "lapo, fp32  ",
        "iql, plain  ",
        "iql, fp32  ",
        "bc, plain  ",
        "bc, fp32  ",
        "rounds: 1",
    ):
        assert line in out
