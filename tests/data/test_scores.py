"""Normalised scores by D4RL's reference returns."""

from __future__ import annotations

import json

import pytest
from offline_files import REAL

from lapwing.data.scores import _table, normalised_score, reference_returns
from lapwing.errors import ConfigError


def test_a_random_policy_scores_0_and_an_expert_100():
    low, high = reference_returns("maze2d-umaze-v1")
    assert (low, high) == (23.85, 161.86)
    assert normalised_score("maze2d-umaze-v1", low) == 0
    assert normalised_score("maze2d-umaze-v1", high) == 100
    assert normalised_score("maze2d-umaze-v1", (low + high) / 2) == pytest.approx(50)


@pytest.mark.parametrize(
    ("later", "earlier"),
    [
        ("hopper-medium-v2", "hopper-medium-v0"),
        ("door-human-v1", "door-human-v0"),
        ("antmaze-umaze-diverse-v1", "antmaze-umaze-diverse-v0"),
    ],
)
def test_a_later_version_has_the_references_of_the_one_before(later, earlier):
    assert reference_returns(later) == reference_returns(earlier)


@pytest.mark.parametrize("name", ["maze2d-umaze-v0", "maze2d-tiny-v1", "umaze"])
def test_an_unknown_data_set_is_an_error_that_names_others(name):
    with pytest.raises(ConfigError, match=rf"data set '{name}' has no reference returns, expected .* such as \S+-v\d"):
        reference_returns(name)


def test_the_table_is_that_of_d4rl():
    assert len(_table()) == 87
    path = REAL / "d4rl_reference_scores" / "ref_scores.json"
    if not path.exists():
        pytest.skip(f"{path} does not stand beside the checkout")
    theirs = json.loads(path.read_text())
    assert {name: low for name, (low, _) in _table().items()} == theirs["REF_MIN_SCORE"]
    assert {name: high for name, (_, high) in _table().items()} == theirs["REF_MAX_SCORE"]
