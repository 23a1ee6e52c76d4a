"""The benchmark of LAPO: the plain reference does what it says, a worker measures, the table's ratios are right."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lapwing.errors import ConfigError, LapwingError
from lapwing.run import bench_lapo, bench_process
from lapwing.run.bench_lapo import Row, measure, table
from lapwing.run.bench_process import find_reference, load_reference
from lapwing.run.bench_worker import Footprint, Job, work

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    return load_reference(find_reference("plain_lapo.py"))


@pytest.mark.parametrize(("encode_once", "forwards"), [(False, 7), (True, 2)])
def test_the_reference_encodes_as_often_as_it_says(plain: ModuleType, encode_once: bool, forwards: int) -> None:
    learner = plain.PlainLapo(4, 3, (0.0, 1.0), encode_once).to(CPU)
    calls: list[object] = []
    learner.obs_encoder.register_forward_hook(lambda *_: calls.append(None))
    learner.update(plain.random_batch(2, 32, 4, 3, CPU))
    assert len(calls) == forwards


def test_only_the_critic_moves_the_reference_encoder(plain: ModuleType) -> None:
    torch.manual_seed(0)
    learner = plain.PlainLapo(4, 3, (0.0, 1.0)).to(CPU)
    batch = plain.random_batch(2, 32, 4, 3, CPU)
    before = [p.clone() for p in learner.obs_encoder.parameters()]
    learner._update_vae(batch, torch.ones(2, 1))
    learner._update_actor(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.obs_encoder.parameters(), strict=True))
    learner._update_critic(batch)
    assert not any(torch.equal(a, b) for a, b in zip(before, learner.obs_encoder.parameters(), strict=True))


def test_the_reference_learns_a_repeated_batch(plain: ModuleType) -> None:
    torch.manual_seed(0)
    learner = plain.PlainLapo(4, 3, (0.0, 1.0), encode_once=True).to(CPU)
    batch = plain.random_batch(4, 32, 4, 3, CPU)
    losses = torch.tensor([learner.update(batch) for _ in range(10)])
    assert (losses[-2:, :2].mean(0) < losses[:2, :2].mean(0)).all()


def answers(job: Job) -> tuple[float, Footprint]:
    """What a worker sends for one step and for the end, run here instead of in a process of its own."""
    here, there = multiprocessing.Pipe()
    here.send(1)
    here.send(0)
    work(there, job)
    return here.recv(), here.recv()


@pytest.mark.parametrize("encoder", [None, "stacked"])
def test_a_worker_measures(encoder: str | None) -> None:
    reference = find_reference("plain_lapo.py") if encoder is None else None
    job = Job("one", 2, 48, "cpu", torch.get_num_threads(), encoder, "small", encode_once=True, reference=reference)
    seconds, footprint = answers(job)
    assert seconds > 0
    assert 0 < footprint.convolution_share < 1
    assert footprint.parameters > 1e6


def test_memory_is_that_of_a_process_of_its_own() -> None:
    (row,) = measure([Job("one", 2, 48, "cpu", 1, "stacked", "small")], repeats=1, steps=1)
    assert row.footprint.peak_bytes > 4 * row.footprint.parameters  # this process may find room in what it gave back


def test_a_worker_that_dies_is_named() -> None:
    job = Job("plain", 2, 48, "cpu", 1, reference=Path("absent.py"))
    with pytest.raises(LapwingError, match="process of 'plain' ended early"):
        measure([job], repeats=1, steps=1)


def test_the_table_compares_with_the_first_row_and_stacked_with_separate() -> None:
    rows = [
        Row("plain", 4.0, Footprint(40_000_000, 2_000_000_000, 0.75)),
        Row("ours, stacked", 0.5, Footprint(10_000_000, 500_000_000, 0.5)),
        Row("ours, separate", 1.0, Footprint(40_000_000, 1_000_000_000, 0.25)),
    ]
    lines = [" ".join(line.split()) for line in table(rows).splitlines()]
    assert lines[1] == "plain 40.00 M 4000 ms 2000 MB 75 %"
    assert lines[2] == "ours, stacked 10.00 M -75 % 500 ms 8.00x 500 MB -75 % 50 %"
    assert lines[4] == "stacked for separate -75 % 2.00x -50 %"
    assert lines[5] == "documents' prediction -67 % 1.6-2.2x -63 %"


def test_an_installed_package_has_no_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_process, "BENCHMARKS", tmp_path)
    with pytest.raises(ConfigError, match="no part of the installed package; run it from a checkout"):
        bench_lapo.main()


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch 0"):
        bench_lapo.main(batch=0)
    with pytest.raises(ConfigError, match="threads -1"):
        bench_lapo.main(threads=-1)
