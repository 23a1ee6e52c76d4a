"""Policies valued by fitted Q evaluation: all that play chunks of one length together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from lapwing.agent import Transitions
from lapwing.data.dataset import Dataset
from lapwing.episode import Array, Observation
from lapwing.errors import DataError
from lapwing.run.answers import played
from lapwing.run.candidates import Candidate
from lapwing.run.evidence import BLOCK, Features, gather, observation
from lapwing.run.execution import Execution
from lapwing.run.fitted_q import Fit, FitOptions, fit_values
from lapwing.run.policy import Policy
from lapwing.run.ranking import Values

LONGEST = 10  # actions of a chunk that are judged as one: longer ones leave too few windows, and too wide ones


@dataclass(frozen=True)
class _Answers:
    """What a policy does in the units of the values, float32.

    chunk: how many actions it plays before it looks again, K. next_action: [N, K * A] after the transitions of so many
    steps; start_action: [S, K * A] at the starts.
    """

    chunk: int
    next_action: Array
    start_action: Array


class ByFittedQ:
    """Asks the policies one after the other, which needs one in memory at a time, then fits the values of all."""

    def __init__(
        self,
        train: Dataset,
        features: Features,
        start: Observation,
        limit: int,
        discount: float,
        fit: FitOptions,
        device: torch.device,
    ) -> None:
        self._train, self._features, self._start = train, features, start
        self._limit, self._discount, self._fit, self._device = limit, discount, fit, device
        self._met: list[_Answers] = []

    def meet(self, candidate: Candidate, mode: str) -> int:
        """Ask a policy, and return how many actions of a chunk count.

        Raises DataError where no episode is as long.
        """
        agent, train = candidate.agent, self._train
        chunk = min(int(getattr(agent.config, "chunk", 1)), LONGEST)
        execution = Execution(steps=chunk)
        policy = Policy(agent, candidate.spec, candidate.normalizer, mode, candidate.device, execution)
        after: list[Array] = []
        for batch, _ in train.ordered(Transitions(chunk, horizon=chunk), BLOCK, self._limit):
            assert batch.next_obs is not None  # promised by Transitions
            after.append(played(policy, observation(batch.next_obs, train.normalizer), train.normalizer, chunk))
        if not after:
            raise DataError(
                f"{train.recording.path}: no episode is as long as the {chunk} actions that "
                f"{candidate.checkpoint.label} plays at once, expected some to value it by; record longer ones, or "
                "leave it out"
            )
        at_start = played(policy, self._start, train.normalizer, chunk)
        self._met.append(_Answers(chunk, np.concatenate(after), at_start))
        return chunk

    def values(self) -> Values:
        """Values of all policies met."""
        chunks = np.array([one.chunk for one in self._met])
        groups = [np.flatnonzero(chunks == chunk) for chunk in sorted(set(chunks.tolist()))]
        total = len(groups) * self._fit.steps
        with tqdm(total=total, desc=f"fit values of {len(chunks)} policies", unit="step", disable=None) as bar:
            fits = [self._fitted([self._met[int(place)] for place in group], bar) for group in groups]
        back = np.argsort(np.concatenate(groups))
        value = np.concatenate([one.value for one in fits])[back]
        return Values(value, np.concatenate([one.course for one in fits], 1)[:, back], fits[0].steps)

    def _fitted(self, group: list[_Answers], bar: tqdm[None]) -> Fit:
        evidence = gather(self._train, self._features, self._discount, self._limit, group[0].chunk)
        return fit_values(
            evidence.to(self._device),
            torch.from_numpy(np.stack([one.next_action for one in group], 1)).to(self._device),
            self._features.at(self._start).to(self._device),
            torch.from_numpy(np.stack([one.start_action for one in group], 1)).to(self._device),
            self._fit,
            lambda step: bar.update(1),
        )
