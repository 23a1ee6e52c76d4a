"""Chunks played out, and the mean of all predictions for a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.errors import ConfigError, SpecError
from lapwing.run.execution import Ensemble, Execution, Queue, make_player


def chunks(steps: int, batch: int = 2, length: int = 4, axes: int = 3, seed: int = 0) -> np.ndarray:
    """What is predicted at each step: [T, B, K, A]."""
    return np.random.default_rng(seed).normal(size=(steps, batch, length, axes)).astype(np.float32)


def ensemble_as_the_paper_has_it(predicted: np.ndarray, coefficient: float, oldest_first: bool) -> np.ndarray:
    """The table of all predictions for all steps that the original fills, and its weighted rows: [T, B, A]."""
    steps, _, length, _ = predicted.shape
    actions = []
    for now in range(steps):
        made = [predicted[then][:, now - then] for then in range(max(0, now - length + 1), now + 1)]
        if not oldest_first:
            made = made[::-1]
        weights = np.exp(-coefficient * np.arange(len(made)))
        actions.append(np.einsum("i,iba->ba", weights / weights.sum(), np.stack(made)))
    return np.stack(actions)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.floats(-0.5, 0.5),
    st.sampled_from(["oldest", "newest"]),
    st.integers(0, 99),
)
def test_the_running_mean_is_the_papers_table(
    steps: int, length: int, coefficient: float, first: Any, seed: int
) -> None:
    predicted = chunks(steps, length=length, seed=seed)
    player = make_player(Execution(ensemble=True, coefficient=coefficient, first=first))
    played = [player.next(2, lambda now=now: predicted[now]) for now in range(steps)]
    expected = ensemble_as_the_paper_has_it(predicted, coefficient, first == "oldest")
    np.testing.assert_allclose(np.stack(played), expected, rtol=1e-5, atol=1e-5)


def test_weights_by_hand() -> None:
    """Two predictions for the second step, 0 by the older and 1 by the newer."""
    predicted = np.array([[[[9.0], [0.0]]], [[[1.0], [9.0]]]])
    for first, newer in (("oldest", np.exp(-0.7)), ("newest", 1.0)):
        older = 1.0 if first == "oldest" else np.exp(-0.7)
        player = Ensemble(Execution(ensemble=True, coefficient=0.7, first=first))
        player.next(1, lambda: predicted[0])
        assert player.next(1, lambda: predicted[1]).item() == pytest.approx(newer / (newer + older))


def test_an_exact_zero_is_a_prediction_like_any_other() -> None:
    player = Ensemble(Execution(ensemble=True, coefficient=0.0))
    zeros, twos = np.zeros((1, 2, 1)), np.full((1, 2, 1), 2.0)
    player.next(1, lambda: zeros)
    assert player.next(1, lambda: twos).item() == 1.0


def test_memory_is_one_chunk_however_long_the_episode() -> None:
    player = Ensemble(Execution(ensemble=True))
    one = chunks(1)[0]
    for _ in range(500):
        player.next(2, lambda: one)
    held = [value for value in vars(player).values() if isinstance(value, np.ndarray)]
    assert sum(value.size for value in held) <= one.size + 2 * one.shape[1]


def test_reset_forgets() -> None:
    predicted = chunks(3)
    for player in (Queue(), Ensemble(Execution(ensemble=True))):
        fresh = player.next(2, lambda: predicted[2])
        player.next(2, lambda: predicted[0])
        player.reset()
        np.testing.assert_array_equal(player.next(2, lambda: predicted[2]), fresh)


@pytest.mark.parametrize(("steps", "asked"), [(None, [0, 0, 0, 0, 4]), (1, [0, 1, 2, 3, 4]), (3, [0, 0, 0, 3, 3])])
def test_a_chunk_is_asked_for_when_its_part_is_played(steps: int | None, asked: list[int]) -> None:
    predicted, player, times = chunks(5), Queue(steps), []
    for now in range(5):
        then = [now]

        def ask(now: int = now, then: list[int] = then) -> np.ndarray:
            times.append(now)
            return predicted[then[0]]

        action = player.next(2, ask)
        np.testing.assert_array_equal(action, predicted[times[-1]][:, now - times[-1]])
    assert times == sorted(set(asked))


@pytest.mark.parametrize("player", [Queue(), Ensemble(Execution(ensemble=True))])
def test_another_batch_amid_an_episode_is_refused(player: Any) -> None:
    player.next(2, lambda: chunks(1)[0])
    with pytest.raises(SpecError, match=r"batch of 3 amid a chunk for 2; call reset\(\) first"):
        player.next(3, lambda: chunks(1, batch=3)[0])


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="0 steps of a chunk, expected at least 1"):
        Execution(steps=0)
    with pytest.raises(ConfigError, match="an ensemble asks at every step"):
        Execution(steps=3, ensemble=True)
    for coefficient in (float("nan"), float("inf"), -1000.0):
        with pytest.raises(ConfigError, match=f"coefficient is {coefficient}, expected -1 or more"):
            Execution(ensemble=True, coefficient=coefficient)
    queue = Queue(9)
    for _ in range(2):  # asking again does not play the chunk after all
        with pytest.raises(ConfigError, match="9 steps of a chunk, which has 4"):
            queue.next(2, lambda: chunks(1)[0])
