"""How good a policy is in a simulated world: success over fresh episodes, with an interval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from lapwing.env import BatchEnv
from lapwing.episode import Array, Observation
from lapwing.errors import ConfigError
from lapwing.run.video import filmstrip, png_bytes, side_by_side, stack_strips
from lapwing.stats import wilson_interval

FRESH = 0x1A9  # keeps the worlds of an evaluation apart from those that data was sampled in
STRIPS = 3  # episodes shown in a filmstrip
FIGURES = {
    "score": "D4RL's normalised score of the mean return: 0 random, 100 their expert",
    "off_data": "share of the visited states further from the training states than 99 of 100 held-out ones",
    "start_value": "what the policy's critic expects of the starts, discounted",
    "discounted_return": "what was earned from there, discounted, until the episodes ended or were cut",
}
"""What figures an evaluation may have, and what they say."""


class Actor(Protocol):
    """Whatever can be evaluated: observations with a leading axis [B] in, physical actions [B, A] out."""

    def reset(self) -> None: ...

    def __call__(self, observation: Observation, /) -> Array: ...


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy in one world, in the order of their seeds.

    returns: undiscounted sums of rewards; lengths: in steps; flags: what the world said at the end of each
    episode ("success", ...); frames: of the first episodes, uint8 [T, H, C * W, 3], cameras side by side; figures:
    further numbers on all of them together (`FIGURES`).
    """

    seeds: tuple[int, ...]
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    flags: Mapping[str, tuple[bool, ...]]
    cameras: tuple[str, ...] = ()
    frames: tuple[Array, ...] = field(default=(), repr=False, compare=False)
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def episodes(self) -> int:
        return len(self.seeds)

    @property
    def success_rate(self) -> float:
        return self.rate("success")

    def rate(self, flag: str) -> float:
        """Share of the episodes that ended with `flag` up."""
        return sum(self.flags[flag]) / self.episodes

    def interval(self, flag: str = "success") -> tuple[float, float]:
        """95 % Wilson interval of a rate."""
        return wilson_interval(sum(self.flags[flag]), self.episodes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: a summary to read, and what `from_dict` needs."""
        rates = {flag: {"rate": self.rate(flag), "interval": list(self.interval(flag))} for flag in self.flags}
        return {
            "episodes": self.episodes,
            "cameras": list(self.cameras),
            "rates": rates,
            "return_mean": float(np.mean(self.returns)),
            "length_mean": float(np.mean(self.lengths)),
            "figures": dict(self.figures),
            "seeds": list(self.seeds),
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "flags": {flag: list(values) for flag, values in self.flags.items()},
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Evaluation:
        """The evaluation that `to_dict` described, without its frames."""
        return Evaluation(
            seeds=tuple(data["seeds"]),
            returns=tuple(data["returns"]),
            lengths=tuple(data["lengths"]),
            flags={flag: tuple(values) for flag, values in data["flags"].items()},
            cameras=tuple(data["cameras"]),
            figures=dict(data.get("figures", {})),
        )


def figure_text(name: str, value: float) -> str:
    """One of an evaluation's `FIGURES` as it is shown."""
    return {"off_data": f"{value:.1%}", "score": f"{value:.1f}"}.get(name, f"{value:.3g}")


def episode_seeds(seed: int, episodes: int) -> tuple[int, ...]:
    """World seeds of an evaluation: the first `episodes` words of numpy's SeedSequence (FRESH, seed).

    More episodes extend the list, and no small number that data was sampled with comes up but by chance.
    """
    words = np.random.SeedSequence((FRESH, seed)).generate_state(episodes)
    return tuple(int(word) >> 1 for word in words)


def evaluate(policy: Actor, world: BatchEnv, episodes: int, seed: int, record: int = 0) -> Evaluation:
    """Run `policy` in `episodes` fresh episodes, `world.num` at a time, and keep frames of the first `record`.

    The episodes depend on `seed` alone, not on `world.num` (save for rounding in a network that is given
    batches of another size). Raises ConfigError when there is nothing to run.
    """
    if episodes < 1:
        raise ConfigError(f"episodes: got {episodes}, expected at least 1")
    seeds = episode_seeds(seed, episodes)
    rounds = []
    with tqdm(total=episodes, desc="evaluate", unit=" episodes", leave=False, disable=None) as bar:
        for start in range(0, episodes, world.num):
            rounds.append(_run_round(policy, world, seeds[start : start + world.num], record - start, bar))
    return _join(rounds)


def _run_round(policy: Actor, world: BatchEnv, seeds: Sequence[int], record: int, bar: Any) -> Evaluation:
    count = len(seeds)
    running = np.ones(count, bool)
    returns, lengths = np.zeros(count), np.zeros(count, int)
    flags: dict[str, Array] = {}
    policy.reset()
    observation = world.reset(seeds)
    filmed = min(max(record, 0), count) if observation.images else 0
    films = [[_picture(observation, index)] for index in range(filmed)]
    while running.any():
        observation, reward, terminated, truncated, info = world.step(policy(observation))
        returns[running] += reward[:count][running]
        lengths[running] += 1
        for index, film in enumerate(films):
            if running[index]:
                film.append(_picture(observation, index))
        ended = running & (terminated | truncated)[:count]
        for flag, values in info.items():
            if values.dtype != bool:
                continue  # the penalty of working a gripper tells nothing of how an episode ended
            flags.setdefault(flag, np.zeros(count, bool))[ended] = values[:count][ended]
        running &= ~ended
        bar.update(int(ended.sum()))
    return Evaluation(
        seeds=tuple(seeds),
        returns=tuple(returns.tolist()),
        lengths=tuple(lengths.tolist()),
        flags={flag: tuple(values.tolist()) for flag, values in flags.items()},
        cameras=tuple(observation.images),
        frames=tuple(np.stack(film) for film in films),
    )


def _picture(observation: Observation, index: int) -> Array:
    return side_by_side({name: frames[index] for name, frames in observation.images.items()})


def _join(rounds: Sequence[Evaluation]) -> Evaluation:
    names = sorted({flag for part in rounds for flag in part.flags})
    return Evaluation(
        seeds=tuple(seed for part in rounds for seed in part.seeds),
        returns=tuple(value for part in rounds for value in part.returns),
        lengths=tuple(value for part in rounds for value in part.lengths),
        flags={
            name: tuple(up for part in rounds for up in part.flags.get(name, (False,) * part.episodes))
            for name in names
        },
        cameras=rounds[0].cameras,
        frames=tuple(film for part in rounds for film in part.frames),
    )


def save_evaluation(
    run: Path, world_name: str, seed: int, results: Mapping[str, Evaluation], checkpoint: str | None = None
) -> Path:
    """Write RUN/eval/<world>-<seed>.json, and the filmstrip beside it, for the report to show.

    `results`: mode -> evaluation, the deployed mode first; the first with frames gives the filmstrip. `checkpoint`:
    the name of what was judged.
    """
    folder = run / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{world_name}-{seed}.json"
    filmed = next(((mode, one) for mode, one in results.items() if one.frames), None)
    record: dict[str, Any] = {"world": world_name, "seed": seed, "checkpoint": checkpoint, "filmed": None}
    picture = path.with_suffix(".png")
    if filmed is not None:
        mode, evaluation = filmed
        record["filmed"] = {"mode": mode, "episodes": min(STRIPS, len(evaluation.frames))}
        strips = [filmstrip(film, len(evaluation.cameras)) for film in evaluation.frames[:STRIPS]]
        _replace(picture, png_bytes(stack_strips(strips)))
    else:
        picture.unlink(missing_ok=True)
    record["modes"] = {mode: evaluation.to_dict() for mode, evaluation in results.items()}
    _replace(path, json.dumps(record, indent=1).encode())
    return path


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)
