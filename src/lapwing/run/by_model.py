"""Policies valued by playing them in a world that is learned from the recording; without cameras."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from lapwing.data.dataset import Dataset
from lapwing.episode import Array, Observation
from lapwing.errors import DataError
from lapwing.run.candidates import Candidate
from lapwing.run.evidence import Features, gather, spread, start_returns
from lapwing.run.fitted_q import FitOptions
from lapwing.run.imagined import imagine, replay
from lapwing.run.policy import Policy
from lapwing.run.ranking import Values
from lapwing.run.world_model import fit_world
from lapwing.stats import rank_correlation

LONGEST = 1000  # steps that are imagined, at most
PROBES = 5000  # held-out transitions that tell where the world is unknown, at most
LOOKS = 50  # times that what was earned so far is noted, at most
REPLAYED = 50  # held-out episodes whose actions are played again, at most


class ByModel:
    """Keeps the policies it meets, then plays all of them at once, on the CPU."""

    def __init__(
        self,
        train: Dataset,
        held_out: Dataset,
        features: Features,
        start: Observation,
        limit: int,
        discount: float,
        fit: FitOptions,
        cut: Array,
    ) -> None:
        """cut: steps after which the recorded episodes that begin at `start` were cut, infinite where not, [S]."""
        self._cut = cut
        self._train, self._held_out, self._discount, self._fit = train, held_out, discount, fit
        self._start = start.state
        self._evidence = gather(train, features, 1.0, limit)
        going_on = int((self._evidence.discount > 0).sum())
        if going_on < 2:
            raise DataError(
                f"{train.recording.path}: the world goes on after {going_on} of the transitions to learn it from, "
                "expected 2 at least; raise --samples, or record more"
            )
        self._probes = gather(held_out, features, 1.0, PROBES)
        self._met: list[Policy] = []

    def meet(self, candidate: Candidate, mode: str) -> int:
        """Keep a policy, and return how many actions it plays before it looks again."""
        self._met.append(Policy(candidate.agent, candidate.spec, candidate.normalizer, mode, candidate.device))
        return int(getattr(candidate.agent.config, "chunk", 1))

    def values(self) -> Values:
        """Values of all policies met; the courses are what they have earned by each step."""
        with tqdm(total=self._fit.steps, desc="learn the world", unit="step", disable=None) as bar:
            world = fit_world(self._evidence, self._probes, self._fit, lambda step: bar.update(1))
        known = self._held_out.recording.episodes
        episodes = [known[self._held_out.episodes[place]] for place in spread(len(self._held_out.episodes), REPLAYED)]
        horizon = min(LONGEST, max(one.num_steps for one in self._train.recording.episodes))
        normalizer = self._train.normalizer
        with tqdm(total=horizon, desc=f"play {len(self._met)} policies", unit="step", disable=None) as bar:
            found = imagine(
                world, self._met, self._start, normalizer, horizon, self._discount, lambda step: bar.update(1)
            )
        again = np.array([replay(world, one.state[0], one.action, normalizer) for one in episodes])
        fidelity = rank_correlation(again, start_returns(episodes, 1.0))
        looks = spread(horizon, LOOKS)
        course: Array = found.earned.mean((2, 3), dtype=np.float64).cumsum(0)[looks]
        value: Array = found.earned.sum(0, dtype=np.float64)
        before = np.arange(horizon)[:, None, None, None] < self._cut
        meanwhile: Array = found.earned.sum(0, dtype=np.float64, where=before)
        lost = found.lost.mean((1, 2), dtype=np.float64)
        return Values(value, course, looks + 1, meanwhile, lost, fidelity)
