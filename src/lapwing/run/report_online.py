"""The part of a report on acting while learning: how success grew with the steps made in the world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lapwing.episode import Array
from lapwing.run.episode_log import read_episodes
from lapwing.run.intake import Collected
from lapwing.run.page import absent, figure, section, table
from lapwing.run.plots import curves
from lapwing.run.results import RunResults
from lapwing.run.train import EPISODES
from lapwing.run.verdict import percent
from lapwing.stats import wilson_interval

_WINDOW = 20  # episodes that a point of the curve is the mean of
_TENTHS = 10


def online_sections(run: RunResults) -> Iterator[str]:
    """Of a run that acted, one section; of others none. Raises CheckpointError where its log is damaged."""
    if "online" not in run.config:
        return
    episodes = read_episodes(run.path / EPISODES)
    title, lead = "Success while learning", "Episodes of the policy as it tried things out, in the order they ended."
    if not episodes:
        yield section(title, lead, absent("No episode has ended yet.", "lapwing hybrid ... --resume --steps MORE"))
        return
    steps = np.array([one.env_step for one in episodes], np.float64)
    chosen = np.array([one.intervened / max(1, one.length) for one in episodes])
    series = {"share of steps that others took": (steps, _running_mean(chosen))}
    series = {**_successes(episodes), **series}
    picture = curves(series, f"mean of {_WINDOW} episodes", wide=True, steps_are="environment steps")
    caption = "They count random tries and whoever took over; how good the policy is alone, only an evaluation tells."
    yield section(title, lead, figure(picture, caption), table(*_tenths(episodes)))


def _successes(episodes: Sequence[Collected]) -> dict[str, tuple[Array, Array]]:
    """How often episodes succeeded, over environment steps: by whoever gives the reward, and by the world beside it."""
    judged = any(one.true_success is not None for one in episodes)
    told = {
        "episodes that succeed by the classifier" if judged else "episodes that succeed": [
            (one.env_step, one.success) for one in episodes if one.success is not None
        ],
        "by the world": [(one.env_step, one.true_success) for one in episodes if one.true_success is not None],
    }
    return {
        name: (
            np.array([step for step, _ in some], np.float64),
            _running_mean(np.array([float(one) for _, one in some])),
        )
        for name, some in told.items()
        if some
    }


def _running_mean(values: Array) -> Array:
    """Of each value and those before it, `_WINDOW` at most."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - _WINDOW)
    means: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _tenths(episodes: Sequence[Collected]) -> tuple[list[str], list[list[str]]]:
    """The episodes in up to ten equal parts, in numbers: the head of a table and its rows."""
    judged = any(one.true_success is not None for one in episodes)
    head = ["environment steps", "episodes", "success", "95 % interval"] + ["success by the world"] * judged
    head += ["return", "steps", "intervened steps"]
    rows = []
    for part in np.array_split(np.arange(len(episodes)), min(_TENTHS, len(episodes))):
        some = [episodes[index] for index in part]
        told = [one.success for one in some if one.success is not None]
        true = [one.true_success for one in some if one.true_success is not None]
        low, high = wilson_interval(sum(told), len(told)) if told else (0.0, 0.0)
        rows.append(
            [
                f"to {some[-1].env_step:,}",
                f"{len(some):,}",
                _share(told),
                f"{percent(low)} to {percent(high)}" if told else "",
                *[_share(true)] * judged,
                f"{np.mean([one.reward for one in some]):.3g}",
                f"{np.mean([one.length for one in some]):.1f}",
                f"{sum(one.intervened for one in some):,}",
            ]
        )
    return head, rows


def _share(told: Sequence[bool]) -> str:
    return percent(sum(told) / len(told)) if told else "not told"
