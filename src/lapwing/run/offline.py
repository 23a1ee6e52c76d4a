"""How good an agent is without a simulator: its actions and values on held-out episodes, beside plain baselines.

Action errors alone do not make a good policy, and offline RL is meant to leave bad data; so every error stands
beside what holding still, the mean action and the agent's other modes reach, and is repeated on the part of the
data that the agent judges better than usual.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from lapwing.agent import Agent, Judge, Labelled, Reconstructor
from lapwing.batch import Batch, Obs
from lapwing.data.dataset import Dataset
from lapwing.episode import Array
from lapwing.errors import DataError
from lapwing.run.controls import hold_action
from lapwing.run.held_out import BASELINES, ActionError, Calibration, HeldOut, ImageTest
from lapwing.stats import bootstrap_interval, rank_correlation

PROBES = 256  # samples whose images are swapped
BINS = 10  # of the calibration curve


def held_out(
    agent: Agent,
    dataset: Dataset,
    *,
    device: torch.device,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> HeldOut:
    """Judge `agent` on all samples of `dataset`, or on `limit`, evenly spread. `seed` picks whose images are swapped.

    Agents act without noise here, so no random state is touched. Raises DataError when there is nothing to judge.
    """
    sampling = agent.sampling
    assert not isinstance(sampling, Labelled)  # a classifier is judged by its own measure
    available = dataset.num_samples(sampling)
    total = available if limit is None else min(limit, available)
    if total == 0:
        raise DataError(f"{dataset.recording.path}: no held-out samples; keep at least one episode out of training")
    rng = np.random.default_rng(seed)
    probed = np.zeros(total, bool)
    probed[rng.permutation(total)[:PROBES]] = True
    kinds = tuple(axis.kind for axis in dataset.spec.action)
    ledgers = {name: _Ledger(kinds) for name in (*agent.modes, *BASELINES)}
    reconstructed = _Ledger(kinds)
    values: list[dict[str, Array]] = []
    probes: list[_Probes] = []
    seen = 0
    with torch.no_grad():
        for batch, rows in dataset.ordered(sampling, batch_size, limit):
            probes.append(_Probes.of(batch, np.flatnonzero(probed[seen : seen + batch.size])))
            seen += batch.size
            on_device = batch.to(device)
            truth = _Truth.of(batch, rows, dataset)
            for name, action in _predictions(agent, on_device, truth, dataset):
                ledgers[name].add(action, truth, dataset)
            if (predicted := _reconstruction(agent, on_device)) is not None:
                reconstructed.add(predicted, truth, dataset)
            if hasattr(agent, "judge"):
                values.append(_judged(cast(Judge, agent), on_device))
        image_test = _test_images(agent, _Probes.join(probes), dataset.normalizer.error_unit, device, batch_size, rng)
    judged = {key: np.concatenate([one[key] for one in values]) for key in (values[0] if values else ())}
    positive = judged["advantage"] > 0 if judged else None
    return HeldOut(
        episodes=len(dataset.episodes),
        samples=total,
        modes=tuple(agent.modes),
        axes=tuple((axis.name, axis.unit, axis.kind) for axis in dataset.spec.action),
        errors={name: one.total() for name, one in ledgers.items()},
        errors_positive={} if positive is None else {name: one.total(positive) for name, one in ledgers.items()},
        calibration=calibrate(judged) if judged else None,
        image_test=image_test,
        reconstruction=reconstructed.total() if reconstructed.filled else None,
    )


@dataclass(frozen=True)
class _Truth:
    """The recorded side of a batch: physical state [b, S] and action [b, K, A], encoded action [b, K, A], and which
    steps are valid, bool [b, K]."""

    state: Array
    action: Array
    encoded: Array
    valid: Array

    @staticmethod
    def of(batch: Batch, rows: Array, dataset: Dataset) -> _Truth:
        valid = ~batch.is_pad.numpy()
        ahead = np.minimum(np.arange(valid.shape[1]), valid.sum(1, keepdims=True) - 1)
        state, _ = dataset.raw(rows)
        _, action = dataset.raw((rows[:, None] + ahead).ravel())
        return _Truth(state, action.reshape(*valid.shape, -1), _numpy(batch.action), valid)


def _predictions(agent: Agent, batch: Batch, truth: _Truth, dataset: Dataset) -> Iterator[tuple[str, Array]]:
    """Encoded actions [b, K, A] of every mode and baseline."""
    for mode in agent.modes:
        yield mode, _numpy(agent.act(batch.obs, mode))
    held = hold_action(truth.state, dataset.spec, dataset.normalizer)
    held = np.broadcast_to(held[:, None], truth.action.shape)
    yield "hold", dataset.normalizer.encode_action(held, truth.state)
    yield "mean", np.broadcast_to(dataset.normalizer.encoded_mean, truth.encoded.shape)


def _reconstruction(agent: Agent, batch: Batch) -> Array | None:
    """The batch's own actions through the agent's latent, encoded [b, K, A]; None without one."""
    if not hasattr(agent, "reconstruct"):
        return None
    predicted = cast(Reconstructor, agent).reconstruct(batch)
    return None if predicted is None else _numpy(predicted)


class _Ledger:
    """Errors of one way to act, summed over the valid steps of each sample."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._square: list[Array] = []
        self._absolute: list[Array] = []
        self._steps: list[Array] = []

    def add(self, encoded: Array, truth: _Truth, dataset: Dataset) -> None:
        physical = dataset.normalizer.decode_action(encoded, truth.state)
        valid = truth.valid[..., None]
        difference = (encoded - truth.encoded) * dataset.normalizer.error_unit
        self._square.append((np.square(difference, dtype=np.float64) * valid).sum(1))
        self._absolute.append((np.abs(physical - truth.action, dtype=np.float64) * valid).sum(1))
        self._steps.append(truth.valid.sum(1))

    @property
    def filled(self) -> bool:
        return bool(self._steps)

    def total(self, chosen: Array | None = None) -> ActionError:
        """The error over all samples, or over those `chosen` by a bool [n]; NaN over none."""
        square, absolute, steps = (np.concatenate(x) for x in (self._square, self._absolute, self._steps))
        chosen = np.ones(len(steps), bool) if chosen is None else chosen
        count = steps[chosen].sum() or math.nan
        per_axis = square[chosen].sum(0) / count
        kinds = np.array(self._kinds)
        return ActionError(
            samples=int(chosen.sum()),
            mse=float(per_axis.mean()),
            mse_by_kind={kind: float(per_axis[kinds == kind].mean()) for kind in dict.fromkeys(self._kinds)},
            mae=tuple((absolute[chosen].sum(0) / count).tolist()),
        )


def _judged(agent: Judge, batch: Batch) -> dict[str, Array]:
    values = {key: _numpy(value) for key, value in agent.judge(batch).items()}
    return values | {"return": _numpy(batch.mc_return)}


def calibrate(judged: Mapping[str, Array]) -> Calibration:
    """Compare "q" with "return", and look at "q_pi" and "advantage"; float [n] each."""
    q, returns = judged["q"].astype(np.float64), judged["return"].astype(np.float64)
    parts = np.array_split(np.argsort(q, kind="stable"), min(BINS, len(q)))
    return Calibration(
        spearman=rank_correlation(q, returns),
        bias=float((q - returns).mean()),
        gap=float((judged["q_pi"] - q).mean()),
        positive_advantage=float((judged["advantage"] > 0).mean()),
        returns=(float(returns.min()), float(returns.max())),
        q=(float(q.min()), float(q.max())),
        predicted=tuple(float(q[part].mean()) for part in parts),
        realised=tuple(float(returns[part].mean()) for part in parts),
    )


def _test_images(
    agent: Agent, probe: _Probes, unit: Array, device: torch.device, batch_size: int, rng: np.random.Generator
) -> ImageTest | None:
    """Act on the probes with their own images, and with those of another one each.

    None without cameras or with a single sample.
    """
    size = len(probe.action)
    if not probe.obs.images or size < 2:
        return None
    order = rng.permutation(size)
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)
    swapped_images = {name: frames[partner] for name, frames in probe.obs.images.items()}
    matched = _sample_errors(agent, probe, probe.obs, unit, device, batch_size)
    swapped = _sample_errors(agent, probe, Obs(swapped_images, probe.obs.state), unit, device, batch_size)
    increase = bootstrap_interval(swapped - matched)
    return ImageTest(size, float(matched.mean()), float(swapped.mean()), increase)


def _sample_errors(agent: Agent, probe: _Probes, obs: Obs, unit: Array, device: torch.device, batch_size: int) -> Array:
    """Squared error of the deployed mode in units of the variance, mean over the valid steps of each sample, [n]."""
    parts = [
        Obs(
            {name: x[start : start + batch_size] for name, x in obs.images.items()},
            obs.state[start : start + batch_size],
        )
        for start in range(0, len(probe.action), batch_size)
    ]
    predicted = torch.cat([agent.act(part.to(device)).cpu().float() for part in parts])
    valid = (~probe.is_pad).float()
    square = ((predicted - probe.action) * torch.from_numpy(unit)).square().mean(-1)
    return _numpy((square * valid).sum(1) / valid.sum(1))


@dataclass(frozen=True)
class _Probes:
    """Samples whose images will be swapped."""

    obs: Obs
    action: Tensor
    is_pad: Tensor

    @staticmethod
    def of(batch: Batch, index: Array) -> _Probes:
        """The samples at `index` of a batch."""
        images = {name: frames[index] for name, frames in batch.obs.images.items()}
        return _Probes(Obs(images, batch.obs.state[index]), batch.action[index], batch.is_pad[index])

    @staticmethod
    def join(parts: Sequence[_Probes]) -> _Probes:
        images = {name: torch.cat([part.obs.images[name] for part in parts]) for name in parts[0].obs.images}
        return _Probes(
            Obs(images, torch.cat([part.obs.state for part in parts])),
            torch.cat([part.action for part in parts]),
            torch.cat([part.is_pad for part in parts]),
        )


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().float().numpy()
    return array
