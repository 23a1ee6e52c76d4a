"""How good a success classifier is on frames that were held out: its errors, its calibration, its threshold.

Temperature and threshold are chosen on one part of the held-out files and measured on the other, so that the figures
are not flattered by the choice. Everything that is about probabilities gives both kinds the same weight, as training
does: a probability of 0.5 means as likely as not where successes and failures are equally frequent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lapwing.episode import Array
from lapwing.stats import wilson_interval

BINS = 10  # of the reliability curve, equally wide
ROC_POINTS = 200
_INVERSE_TEMPERATURES = (1e-3, 1e3)


@dataclass(frozen=True)
class Calibration:
    """What is added to a trained classifier. Success is a logit of at least `threshold`.

    The probability is sigmoid(logit / temperature). by: whether the upper end of the 95 % interval of the
    false-positive rate is within what was allowed, or, where there are too few failures for that, the rate itself.
    """

    temperature: float
    threshold: float
    by: Literal["interval", "rate"]

    @property
    def probability(self) -> float:
        """The threshold as a probability."""
        return float(probabilities(np.array(self.threshold), self.temperature))


@dataclass(frozen=True)
class Bin:
    """Frames with probabilities from one tenth to the next: their number, mean probability, share of success."""

    count: int
    predicted: float
    realised: float


@dataclass(frozen=True)
class Classification:
    """What a classifier makes of `successes` and `failures` frames that nothing was chosen on.

    loss: cross-entropy of the calibrated probabilities; calibration_error: expected |predicted - realised| over the
    bins (ECE); roc: (false-positive rate, true-positive rate) over falling thresholds; auc: the area under it.
    """

    successes: int
    failures: int
    false_positives: int
    false_negatives: int
    threshold: float  # a probability
    threshold_by: str
    max_false_positive_rate: float
    temperature: float
    loss: float
    calibration_error: float
    auc: float
    bins: tuple[Bin, ...]
    roc: tuple[tuple[float, float], ...]

    @property
    def correct(self) -> int:
        return self.successes + self.failures - self.false_positives - self.false_negatives

    @property
    def accuracy(self) -> float:
        return self.correct / (self.successes + self.failures)

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        return wilson_interval(self.correct, self.successes + self.failures)

    @property
    def false_positive_rate(self) -> float:
        return self.false_positives / self.failures

    @property
    def false_positive_interval(self) -> tuple[float, float]:
        return wilson_interval(self.false_positives, self.failures)

    @property
    def false_negative_rate(self) -> float:
        return self.false_negatives / self.successes

    @property
    def false_negative_interval(self) -> tuple[float, float]:
        return wilson_interval(self.false_negatives, self.successes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Classification:
        bins = tuple(Bin(**one) for one in data["bins"])
        roc = tuple((float(x), float(y)) for x, y in data["roc"])
        return Classification(**{**data, "bins": bins, "roc": roc})


def calibrate(logit: Array, label: Array, max_false_positive_rate: float) -> Calibration:
    """Temperature and threshold from logits float [N] and labels int [N] (0, 1), some of both kinds.

    The threshold is the lowest with few enough false positives, but never below a probability of 0.5.
    """
    failures = np.sort(logit[label == 0])[::-1]
    allowed, by = allowed_false_positives(len(failures), max_false_positive_rate)
    lowest = failures[allowed] if allowed < len(failures) else -math.inf
    above = float(np.nextafter(np.float32(lowest), np.float32(math.inf)))
    return Calibration(fit_temperature(logit, label), max(above, 0.0), by)


def allowed_false_positives(failures: int, rate: float) -> tuple[int, Literal["interval", "rate"]]:
    """The most false positives among so many failures whose 95 % interval ends at `rate` or below.

    Where even none at all would not prove it (below 381 failures for 1 %), the most that make at most `rate` of them.
    """
    if wilson_interval(0, failures)[1] > rate:
        return math.floor(rate * failures), "rate"
    low, high = 0, failures  # the upper end grows with the false positives
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if wilson_interval(middle, failures)[1] <= rate else (low, middle - 1)
    return low, "interval"


def fit_temperature(logit: Array, label: Array) -> float:
    """The T at which sigmoid(logit / T) has the smallest cross-entropy (Guo et al. 2017), both kinds weighted alike.

    Targets are Platt's (1999), (n + 1) / (n + 2) and 1 / (n + 2) of n frames of a kind, for otherwise T would be 0
    where the kinds are told apart without error. Bisection on the slope over 1 / T, which only grows.
    """
    weight, z = kind_weights(label), logit.astype(np.float64)
    target = np.where(label == 1, 1 - 1 / ((label == 1).sum() + 2), 1 / ((label == 0).sum() + 2))
    low, high = map(math.log, _INVERSE_TEMPERATURES)
    for _ in range(60):
        middle = (low + high) / 2
        slope = float((weight * (probabilities(z, math.exp(-middle)) - target) * z).sum())
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def kind_weights(label: Array) -> Array:
    """float64 [N], summing to 1: half for the successes, half for the failures."""
    share = np.where(label == 1, 0.5 / max(1, (label == 1).sum()), 0.5 / max(1, (label == 0).sum()))
    weight: Array = share / share.sum()
    return weight


def probabilities(logit: Array, temperature: float) -> Array:
    """sigmoid(logit / temperature), float64."""
    probability: Array = np.exp(-np.logaddexp(0.0, -logit.astype(np.float64) / temperature))
    return probability


def cross_entropy(logit: Array, label: Array, temperature: float) -> float:
    """Mean of -log p(label), both kinds weighted alike."""
    z = logit.astype(np.float64) / temperature
    return float((kind_weights(label) * np.logaddexp(0.0, np.where(label == 1, -z, z))).sum())


def classify(logit: Array, label: Array, calibration: Calibration, max_false_positive_rate: float) -> Classification:
    """Measure a calibrated classifier on logits float [N] of frames labelled int [N] (0, 1), some of both kinds."""
    decided = logit >= np.float32(calibration.threshold)
    probability = probabilities(logit, calibration.temperature)
    bins, error = reliability(probability, label)
    roc, auc = roc_curve(logit, label)
    return Classification(
        successes=int((label == 1).sum()),
        failures=int((label == 0).sum()),
        false_positives=int((decided & (label == 0)).sum()),
        false_negatives=int((~decided & (label == 1)).sum()),
        threshold=calibration.probability,
        threshold_by=calibration.by,
        max_false_positive_rate=max_false_positive_rate,
        temperature=calibration.temperature,
        loss=cross_entropy(logit, label, calibration.temperature),
        calibration_error=error,
        auc=auc,
        bins=bins,
        roc=roc,
    )


def reliability(probability: Array, label: Array) -> tuple[tuple[Bin, ...], float]:
    """The bins that are not empty, and the expected calibration error over them."""
    weight = kind_weights(label)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for index in np.unique(place):
        here = place == index
        share = weight[here].sum()
        predicted = float((weight * probability)[here].sum() / share)
        realised = float((weight * label)[here].sum() / share)
        bins.append(Bin(int(here.sum()), predicted, realised))
        error += float(share) * abs(predicted - realised)
    return tuple(bins), error


def roc_curve(logit: Array, label: Array) -> tuple[tuple[tuple[float, float], ...], float]:
    """Points from (0, 0) to (1, 1), at most some 200, and the area under all of them."""
    order = np.argsort(-logit, kind="stable")
    last_of_equals = np.append(np.flatnonzero(np.diff(logit[order])), len(order) - 1)
    hits = (label[order] == 1).cumsum()[last_of_equals]
    alarms = (label[order] == 0).cumsum()[last_of_equals]
    x, y = np.append(0.0, alarms / max(1, alarms[-1])), np.append(0.0, hits / max(1, hits[-1]))
    area = float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), ROC_POINTS)).round().astype(int))
    return tuple((float(a), float(b)) for a, b in zip(x[kept], y[kept], strict=True)), area
