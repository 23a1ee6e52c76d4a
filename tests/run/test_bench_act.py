"""The benchmark of ACT: the plain reference says what ours says, a worker measures, the tables' ratios are right."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lapwing.agent import RewardFacts
from lapwing.agents.act import ActAgent
from lapwing.agents.act_weights import load_published, published_settings
from lapwing.batch import Obs
from lapwing.errors import ConfigError, LapwingError
from lapwing.run import bench_act, bench_process
from lapwing.run.bench_act import DataRow, Row, data_table, measure, table, variants
from lapwing.run.bench_act_worker import CAMERAS, Footprint, Job, Reading, robot, work
from lapwing.run.bench_process import find_reference, load_reference
from lapwing.run.execution import Ensemble, Execution

CPU = torch.device("cpu")
PLAIN = Job("plain", 2, 32, 48, 4, "cpu", 1, 16, reference=Path("absent.py"))


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    return load_reference(find_reference("plain_act.py"))


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    bench_act._write(tmp_path, PLAIN, 1)
    return tmp_path


def test_the_reference_says_what_ours_says(plain: ModuleType) -> None:
    torch.manual_seed(0)
    learner = plain.PlainAct(14, 14, 4, 16).start(CPU)
    settings = published_settings(learner.state_dict())
    agent = ActAgent(settings, robot(PLAIN), RewardFacts((0.0, 0.0), (0.0, 0.0)))
    load_published(agent, learner.state_dict())
    frames = torch.randint(0, 256, (3, 32, 48, 3), dtype=torch.uint8)
    state = torch.randn(14)
    said = learner.act(*plain.observed(list(frames.numpy()), state.numpy(), CPU))
    obs = Obs({name: frame[None] for name, frame in zip(CAMERAS, frames, strict=True)}, state[None])
    torch.testing.assert_close(agent.act(obs), said, atol=1e-4, rtol=1e-4)


def test_the_reference_learns_a_repeated_batch(plain: ModuleType) -> None:
    torch.manual_seed(0)
    learner = plain.PlainAct(14, 14, 4, 16).start(CPU)
    learner.optimizer.param_groups[0]["lr"] = 1e-3
    batch = plain.random_batch(2, (32, 32), 3, (14, 14), 4, CPU)
    losses = [float(learner.update(batch)) for _ in range(12)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    dead = learner.model.transformer.decoder.layers[1]
    assert all(p.grad is None or not p.grad.any() for p in dead.parameters())


def test_the_reference_ensembles_as_ours_does(plain: ModuleType) -> None:
    chunks = torch.randn(6, 4, 3)

    class Said:
        def __init__(self) -> None:
            self._chunks = iter(chunks)

        def act(self, images: None, state: None) -> torch.Tensor:
            return next(self._chunks)[None]

    theirs, ours = plain.PlainEnsemble(Said(), 6, 4, 3, CPU), Ensemble(Execution(ensemble=True))
    for chunk in chunks:
        expected = ours.next(1, lambda chunk=chunk: chunk[None].numpy())[0]
        np.testing.assert_allclose(theirs.act(None, None), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the loader's worker, as in the original
def test_the_reference_reads_what_was_written(plain: ModuleType, episodes: Path) -> None:
    source = plain.PlainEpisodes(sorted(episodes.glob("*.hdf5")), CAMERAS, 4)
    [images, state, action, is_pad] = next(iter(plain.loader(source, 2, False)))
    assert images.shape == (2, 3, 3, 32, 48)
    assert 0.2 < images.mean() < 0.8
    assert (state.shape, action.shape, is_pad.shape) == ((2, 14), (2, 4, 14), (2, 4))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("preset", [None, "product"])
def test_a_worker_steps_acts_and_reads(preset: str | None, episodes: Path) -> None:
    reference = find_reference("plain_act.py") if preset is None else None
    here, there = multiprocessing.Pipe()
    for question in (("warm", 1), ("step", 1), ("ask", 1), ("play", 1), ("read", 1), ("train", 0.1), None):
        here.send(question)
    work(there, replace(PLAIN, preset=preset, reference=reference, folder=episodes))
    *seconds, reading, footprint = list(_received(here))
    assert len(seconds) == 5
    assert min(seconds) > 0
    assert reading.step > reading.waited > 0
    assert footprint.parameters > 11e6
    assert footprint.peak_bytes > 0


def _received(pipe: multiprocessing.connection.Connection) -> Iterator[object]:
    while pipe.poll():
        yield pipe.recv()


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(LapwingError, match="process of 'plain' ended early"):
        measure([PLAIN], repeats=1, seconds=1.0)


def test_variants_share_all_but_what_their_names_say() -> None:
    jobs = {job.name: job for job in variants(PLAIN, "bf16")}
    assert list(jobs) == [
        "plain", "original, fp32", "original, bf16", "product, bf16", "product, bf16, backbone a camera"
    ]  # fmt: skip
    assert jobs["original, fp32"].precision == "fp32"
    assert not jobs["product, bf16, backbone a camera"].share_backbone
    assert [job.name for job in variants(PLAIN, "fp32")][1:3] == ["original, fp32", "product, fp32"]


def test_the_table_compares_with_the_first_row() -> None:
    rows = [
        Row("plain", (4.0, 5.0, 4.5), 1.0, 0.01, Footprint(84_000_000, 2_000_000_000)),
        Row("ours", (0.5, 0.04, 0.45), 0.25, 0.0025, Footprint(42_000_000, 500_000_000)),
    ]
    lines = [" ".join(line.split()) for line in table(rows, "32x48").splitlines()]
    assert lines[1] == "plain 84.0 M 4500 ms (4000-5000) 1000 ms 10.0 ms 2000 MB"
    assert lines[2] == "ours 42.0 M 450 ms (40.0-500) 10.00x 250 ms 4.00x 2.50 ms 500 MB -75 %"
    assert lines[3] == "rounds: 3"


def test_the_data_table_gives_the_share_of_waiting() -> None:
    [_, line] = data_table([DataRow("ours", 0.2, 0.1, Reading(0.5, 0.05))], "files").splitlines()
    assert line.split("  ")[0] == "ours"
    assert " ".join(line.split()) == "ours 200 ms 100 ms 500 ms 50.0 ms 10.0 %"


def test_an_installed_package_has_no_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_process, "BENCHMARKS", tmp_path)
    with pytest.raises(ConfigError, match=r"benchmarks/plain_act.py, is no part of the installed package"):
        bench_act.main()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"batch": 0}, "batch 0"),
        ({"token": 20}, "token 20"),
        ({"sizes": ("480",)}, "size '480', expected height x"),
        ({"sizes": ()}, "no --sizes, expected at least one"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench_act.main(**flags)


@pytest.mark.slow
def test_the_whole_command_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    bench_act.main(("32x32",), batch=2, chunk=4, repeats=1, threads=1, seconds=10.0, data_mb=1, token=16)
    out = capsys.readouterr().out
    for line in ("plain  ", "original, fp32  ", "product, ", "32x32 from files", "share of time waiting"):
        assert line in out
