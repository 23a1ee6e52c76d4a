"""The measures of a classifier, checked by hand, and the threshold that is chosen by them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.run.classification import (
    Calibration,
    Classification,
    allowed_false_positives,
    calibrate,
    classify,
    cross_entropy,
    fit_temperature,
    kind_weights,
    probabilities,
    reliability,
    roc_curve,
)
from lapwing.run.classifier_report import failures_to_prove
from lapwing.stats import wilson_interval


def logit_of(*probability: float) -> np.ndarray:
    p = np.array(probability)
    return np.log(p / (1 - p)).astype(np.float32)


def test_rates_by_hand():
    logit = np.array([2, 1, -1, 3, -2, -3, -4], np.float32)
    label = np.array([1, 1, 1, 0, 0, 0, 0])
    found = classify(logit, label, Calibration(1.0, 0.0, "rate"), 0.25)
    assert (found.successes, found.failures) == (3, 4)
    assert (found.false_positives, found.false_negatives) == (1, 1)
    assert found.accuracy == pytest.approx(5 / 7)
    assert found.false_positive_rate == 0.25
    assert found.false_negative_rate == pytest.approx(1 / 3)
    assert found.false_positive_interval == wilson_interval(1, 4)
    assert found.accuracy_interval == wilson_interval(5, 7)
    assert found.threshold == 0.5


def test_a_logit_at_the_threshold_is_success():
    found = classify(np.array([0.5, 0.25], np.float32), np.array([1, 0]), Calibration(1.0, 0.5, "rate"), 0.01)
    assert (found.false_positives, found.false_negatives) == (0, 0)


def test_both_kinds_weigh_half():
    label = np.array([1, 0, 0, 0, 0])
    assert kind_weights(label).tolist() == [0.5, 0.125, 0.125, 0.125, 0.125]
    logit = logit_of(0.8, 0.1, 0.1, 0.1, 0.1)
    assert cross_entropy(logit, label, 1.0) == pytest.approx(-(math.log(0.8) + math.log(0.9)) / 2, rel=1e-6)


def test_reliability_by_hand():
    """Two bins: 0.85 of a success and a failure (weights 0.25 each), 0.15 of the same."""
    bins, error = reliability(np.array([0.82, 0.88, 0.12, 0.18]), np.array([1, 0, 1, 0]))
    assert [(one.count, one.predicted, one.realised) for one in bins] == [
        (2, pytest.approx(0.15), pytest.approx(0.5)),
        (2, pytest.approx(0.85), pytest.approx(0.5)),
    ]
    assert error == pytest.approx(0.35)


def test_a_probability_of_one_falls_into_the_last_bin():
    bins, error = reliability(np.array([1.0, 0.0]), np.array([1, 0]))
    assert ([one.count for one in bins], error) == ([1, 1], 0.0)


def test_roc_by_hand():
    """Thresholds fall past 4 (hit), 3 (alarm), 2 and 2 (a hit and an alarm at once)."""
    points, area = roc_curve(np.array([4.0, 3.0, 2.0, 2.0]), np.array([1, 0, 1, 0]))
    assert points == ((0.0, 0.0), (0.0, 0.5), (0.5, 0.5), (1.0, 1.0))
    assert area == pytest.approx(0.5 * 0.5 + 0.5 * 0.75)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=40))
def test_the_area_is_the_chance_that_a_success_ranks_higher(frames):
    logit = np.array([5.0, 0.0, *(z for z, _ in frames)])
    label = np.array([1, 0, *(int(kind) for _, kind in frames)])
    pairs = logit[label == 1][:, None] - logit[label == 0]
    assert roc_curve(logit, label)[1] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_a_long_roc_is_thinned_and_keeps_its_ends():
    points, area = roc_curve(np.arange(1000.0), np.arange(1000) % 2)
    assert len(points) == 200
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert area == pytest.approx(0.501)


@settings(deadline=None, max_examples=50)
@given(failures=st.integers(1, 3000), rate=st.sampled_from([0.0, 0.005, 0.01, 0.05, 0.3]))
def test_as_many_false_positives_are_allowed_as_keep_the_interval_within_the_rate(failures, rate):
    allowed, by = allowed_false_positives(failures, rate)
    if by == "interval":
        assert wilson_interval(allowed, failures)[1] <= rate < wilson_interval(allowed + 1, failures)[1]
    else:
        assert wilson_interval(0, failures)[1] > rate
        assert allowed / failures <= rate < (allowed + 1) / failures


@pytest.mark.parametrize(("rate", "failures"), [(0.01, 381), (0.05, 73)])
def test_so_many_failures_prove_a_rate(rate, failures):
    assert failures_to_prove(rate) == failures
    assert allowed_false_positives(failures, rate) == (0, "interval")
    assert allowed_false_positives(failures - 1, rate)[1] == "rate"


def test_the_threshold_is_the_lowest_that_lets_few_enough_failures_pass():
    failures = np.linspace(-5, 3, 100).astype(np.float32)
    logit, label = np.append(failures, np.float32(4)), np.append(np.zeros(100, int), 1)
    chosen = calibrate(logit, label, 0.02)
    assert chosen.by == "rate"
    assert (failures >= np.float32(chosen.threshold)).sum() == 2
    assert (failures >= np.nextafter(np.float32(chosen.threshold), np.float32(-9))).sum() == 3


def test_the_threshold_never_falls_below_one_half():
    logit = np.append(np.full(50, -3, np.float32), np.full(50, 3, np.float32))
    chosen = calibrate(logit, np.repeat([0, 1], 50), 0.01)
    assert (chosen.threshold, chosen.probability) == (0.0, 0.5)


def test_with_enough_failures_the_interval_decides():
    logit = np.concatenate([np.linspace(-5, 5, 2000), [6.0]]).astype(np.float32)
    chosen = calibrate(logit, np.append(np.zeros(2000, int), 1), 0.01)
    passed = int((logit[:-1] >= np.float32(chosen.threshold)).sum())
    assert chosen.by == "interval"
    assert wilson_interval(passed, 2000)[1] <= 0.01 < wilson_interval(passed + 1, 2000)[1]


def test_saturated_probabilities_are_still_told_apart():
    """Both sigmoids are 1 in float64; the logits are not."""
    logit, label = np.array([50, 60, -1, -1], np.float32), np.array([0, 1, 0, 0])
    found = classify(logit, label, calibrate(logit, label, 0.01), 0.01)
    assert (found.false_positives, found.false_negatives) == (0, 0)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_drawn_labels_is_found(true_temperature):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 40_000)
    label = (rng.random(40_000) < probabilities(z, 1.0)).astype(int)
    assert fit_temperature(z * true_temperature, label) == pytest.approx(true_temperature, rel=0.05)


def test_kinds_that_are_told_apart_do_not_make_it_certain():
    """n frames of a kind are believed to be right (n + 1) / (n + 2) of the time."""
    logit = np.repeat(np.array([-8, 8], np.float32), 10)
    temperature = fit_temperature(logit, np.repeat([0, 1], 10))
    assert probabilities(np.array(8.0), temperature) == pytest.approx(11 / 12)


def test_a_calibrated_classifier_has_a_small_error_and_a_sharpened_one_has_not():
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, 20_000)
    label = (rng.random(20_000) < probabilities(z, 1.0)).astype(int)
    assert reliability(probabilities(z, 1.0), label)[1] < 0.02
    assert reliability(probabilities(z, 0.2), label)[1] > 0.1


def test_the_record_survives_json():
    found = classify(np.array([1, -1, 0.3], np.float32), np.array([1, 0, 0]), Calibration(1.5, 0.5, "rate"), 0.01)
    assert Classification.from_dict(json.loads(json.dumps(found.to_dict()))) == found
