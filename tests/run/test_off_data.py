"""The share of states off the data, what a rollout earned discounted, and what was expected of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lapwing.batch import Batch, Obs
from lapwing.data.dataset import Dataset, split_episodes
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.env import Info, Sequential
from lapwing.episode import Array, Observation, Recording
from lapwing.errors import CheckpointError
from lapwing.run.evaluate import FIGURES, Evaluation, evaluate, figure_text
from lapwing.run.off_data import STATES, KnownStates, Traced, load_known_states, start_value
from lapwing.run.training_data import TrainingData
from lapwing.spec import RobotSpec, unnamed_axes

LINE = np.linspace(0, 1, 101, dtype=np.float32)[:, None]


def test_a_state_is_off_where_99_of_100_held_out_ones_are_nearer() -> None:
    held_out = np.full((200, 1), 1.25, np.float32)  # 0.25 from the nearest
    held_out[:2] = 1.5
    known = KnownStates.of(LINE, held_out)
    assert known.far == pytest.approx(0.25, abs=0.01)
    states = np.array([[0.5], [1.24], [-0.2], [1.4], [-0.4]], np.float32)
    assert known.share_off(states) == pytest.approx(2 / 5)


def test_without_held_out_states_some_training_states_are_measured_against_the_others(
    make_recording: Callable[..., Recording],
) -> None:
    assert _data(make_recording([(4, False, True)])).known_states() is None  # one episode tells nothing of another
    data = _data(make_recording([(4, False, True)] * 6))
    known = data.known_states()
    assert known is not None
    assert data.valid is None
    episodes = [data.normalizer.encode_state(one.state) for one in data.recording.episodes]
    assert len(known.state) == sum(map(len, episodes))
    others = np.concatenate([episodes[place] for place in (1, 2, 3, 4)])
    nearest = np.linalg.norm(np.concatenate([episodes[0], episodes[5]])[:, None] - others, axis=-1).min(1)
    assert known.far == pytest.approx(np.quantile(nearest, 0.99), rel=1e-5)


def _data(recording: Recording) -> TrainingData:
    recording = replace(recording, spec=replace(recording.spec, cameras=()), episodes=[
        replace(one, images={}) for one in recording.episodes
    ])  # fmt: skip
    split = split_episodes(len(recording.episodes), 1.0)
    normalizer = Normalizer.fit(recording.episodes, recording.spec)
    train = Dataset(recording, FrameStore.open(recording), split.train, normalizer)
    return TrainingData(recording, split, train, None)


def test_distance_is_to_the_nearest_row_over_all_axes() -> None:
    known = KnownStates(np.array([[0, 0], [3, 4]], np.float32), 1.5)
    assert known.share_off(np.array([[1, 1], [2, 2], [3, 5]], np.float32)) == pytest.approx(1 / 3)


def test_large_data_are_thinned_alike() -> None:
    rows = np.random.default_rng(0).normal(size=(30_000, 2)).astype(np.float32)
    first, second = (KnownStates.of(rows[:25_000], rows[25_000:]) for _ in range(2))
    assert first.state.shape == (20_000, 2)
    assert first.far == second.far
    assert first.share_off(rows[25_000:]) == pytest.approx(0.01, abs=0.005)
    assert first.share_off(rows[25_000:] + 20) == 1


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    assert load_known_states(tmp_path) is None
    known = KnownStates.of(LINE, LINE + 0.003)
    np.savez(tmp_path / STATES, **known.arrays())
    again = load_known_states(tmp_path)
    assert again is not None
    assert again.far == known.far
    assert np.array_equal(again.state, known.state)
    (tmp_path / STATES).write_bytes(b"PK damaged")
    with pytest.raises(CheckpointError, match=r"states.npz: damaged: .*; delete it"):
        load_known_states(tmp_path)


SPEC = RobotSpec("counter", (), unnamed_axes("state", 1), unnamed_axes("action", 1))


class Counter:
    """The state counts steps; step n earns n; an episode of seed s has s steps."""

    spec, max_steps = SPEC, 9

    def reset(self, seed: int) -> Observation:
        self.length, self.steps = seed % 4 + 1, 0
        return self._look()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        self.steps += 1
        return self._look(), float(self.steps), False, self.steps == self.length, {}

    def _look(self) -> Observation:
        return Observation({}, np.array([self.steps], np.float32))

    def close(self) -> None: ...


class Still:
    def reset(self) -> None: ...

    def __call__(self, observation: Observation, /) -> Array:
        return np.zeros((len(observation.state), 1), np.float32)


def test_a_traced_world_notes_what_a_policy_met() -> None:
    traced = Traced(Sequential([Counter() for _ in range(3)]), 0.5)
    result = evaluate(Still(), traced, 5, seed=0)
    lengths = [seed % 4 + 1 for seed in result.seeds]
    assert list(result.lengths) == lengths
    assert [float(start[0]) for start in traced.starts] == [0.0] * 5
    visited = np.concatenate(traced.visited)[:, 0]
    assert sorted(visited.tolist()) == sorted(float(step) for length in lengths for step in range(length))
    earned = [sum(0.5**step * (step + 1) for step in range(length)) for length in lengths]
    assert sorted(traced.discounted) == pytest.approx(sorted(earned))
    assert list(result.returns) == [length * (length + 1) / 2 for length in lengths]
    assert result.flags == {}
    traced.close()


class Judging:
    """Expects as much as the normalised state says."""

    modes = ("pi",)

    def act(self, obs: Obs, mode: str | None = None) -> Tensor:
        return torch.zeros(len(obs.state), 4, 1)

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.action.shape == (3, 4, 1)
        assert batch.next_obs is not None
        return {"q_pi": batch.obs.state[:, 0]}


def normalizer() -> Normalizer:
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    return Normalizer(one, 2 * one, zero, one, zero, one, -one, one, np.array([-1]))


def test_the_start_value_is_the_critics() -> None:
    starts = np.array([[1.0], [3.0], [5.0]], np.float32)  # 0, 1, 2 normalised
    cpu = torch.device("cpu")
    agent = Judging()
    assert start_value(agent, agent, normalizer(), starts, cpu) == pytest.approx(1.0)


def test_figures_are_kept_and_shown() -> None:
    figures = {"score": 86.31, "off_data": 0.123, "start_value": 12.3456, "discounted_return": 9.0}
    assert list(figures) == list(FIGURES)
    one = Evaluation((1,), (2.0,), (3,), {}, figures=figures)
    assert Evaluation.from_dict(one.to_dict()).figures == figures
    shown: Sequence[str] = [figure_text(name, value) for name, value in figures.items()]
    assert shown == ["86.3", "12.3%", "12.3", "9"]
