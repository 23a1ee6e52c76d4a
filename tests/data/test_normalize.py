"""The gate between physical units and the networks."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.agent import Scaling
from lapwing.data.axes import corresponding_axes
from lapwing.data.dataset import split_episodes
from lapwing.data.normalize import RANGE_MARGIN, Normalizer
from lapwing.episode import Episode
from lapwing.errors import CheckpointError, ConfigError, DataError
from lapwing.spec import Axis, RobotSpec, unnamed_axes

SCALINGS = [Scaling(), Scaling("min-max", "min-max"), Scaling("mean-std", "min-max"), Scaling("min-max", "mean-std")]


def equal(first: Normalizer, second: Normalizer) -> bool:
    return all(np.array_equal(getattr(first, one.name), getattr(second, one.name)) for one in fields(Normalizer))


def test_statistics_are_those_of_the_episodes(tiny_episodes, tiny_spec):
    normalizer = Normalizer.fit(tiny_episodes, tiny_spec)
    action = np.concatenate([one.action for one in tiny_episodes])
    np.testing.assert_allclose(normalizer.action_mean, action.mean(0), rtol=1e-4)
    np.testing.assert_allclose(normalizer.action_std, action.std(0), rtol=1e-4)
    np.testing.assert_array_equal(normalizer.action_low, action.min(0))
    np.testing.assert_array_equal(normalizer.action_high, action.max(0))
    encoded = normalizer.encode_state(np.concatenate([one.state for one in tiny_episodes]))
    np.testing.assert_allclose(encoded.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(encoded.std(0), 1, atol=1e-5)
    assert encoded.dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 9), scale=st.floats(-1e3, 1e3), relative=st.booleans(), scaling=st.sampled_from(SCALINGS))
def test_held_out_episodes_leave_the_statistics_alone(tiny_recording, seed, scale, relative, scaling):
    split = split_episodes(len(tiny_recording.episodes), 0.5, seed)
    train = [tiny_recording.episodes[index] for index in split.train]
    before = Normalizer.fit(train, tiny_recording.spec, relative, scaling)
    changed = list(tiny_recording.episodes)
    for index in split.valid:
        one = changed[index]
        changed[index] = replace(one, state=one.state * np.float32(scale), action=one.action + np.float32(scale))
    after = Normalizer.fit([changed[index] for index in split.train], tiny_recording.spec, relative, scaling)
    assert equal(before, after)


@settings(deadline=None, max_examples=40)
@given(relative=st.booleans(), chunk=st.integers(1, 4), seed=st.integers(0, 99), scaling=st.sampled_from(SCALINGS))
def test_decoding_undoes_encoding_within_the_range_in_training(
    tiny_episodes, tiny_spec, relative, chunk, seed, scaling
):
    normalizer = Normalizer.fit(tiny_episodes, tiny_spec, relative, scaling)
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(3, 5)).astype(np.float32)
    action = rng.uniform(normalizer.action_low, normalizer.action_high, (3, chunk, 3)).astype(np.float32)
    encoded = normalizer.encode_action(action, state)
    assert encoded.shape == action.shape
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(normalizer.decode_action(encoded, state), action, atol=1e-5)
    np.testing.assert_allclose(normalizer.decode_action(encoded[0], state[0]), action[0], atol=1e-5)


def test_decoded_actions_stay_within_the_range_in_training(tiny_episodes, tiny_spec):
    normalizer = Normalizer.fit(tiny_episodes, tiny_spec)
    far = np.array([[1e6, -1e6, 0.0]], np.float32)
    decoded = normalizer.decode_action(far, tiny_episodes[0].state[0])[0]
    assert decoded[0] == normalizer.action_high[0]
    assert decoded[1] == normalizer.action_low[1]


def test_a_constant_axis_does_not_explode(tiny_episodes, tiny_spec):
    action = tiny_episodes[0].action.copy()
    action[:, 2] = 0.25
    normalizer = Normalizer.fit([replace(tiny_episodes[0], action=action)], tiny_spec)
    assert normalizer.action_std[2] == np.float32(1e-3)
    np.testing.assert_allclose(normalizer.encode_action(action, tiny_episodes[0].state[:4])[..., 2], 0, atol=1e-4)


@pytest.mark.parametrize("relative", [False, True])
def test_a_range_becomes_minus_one_to_one(tiny_episodes, tiny_spec, relative):
    normalizer = Normalizer.fit(tiny_episodes, tiny_spec, relative, Scaling("min-max", "min-max"))
    state = np.concatenate([one.state[: one.num_steps] for one in tiny_episodes])
    action = np.concatenate([one.action for one in tiny_episodes])
    encoded = {
        "state": (normalizer.encode_state(state), normalizer.state_scale),
        "action": (normalizer.encode_action(action[:, None], state)[:, 0], normalizer.action_scale),
    }
    for values, scale in encoded.values():
        np.testing.assert_allclose(values.max(0), 1 - RANGE_MARGIN / scale, atol=1e-5)
        np.testing.assert_allclose(values.min(0), RANGE_MARGIN / scale - 1, atol=1e-5)
        assert np.abs(values).max() < 1


def test_the_floor_holds_constant_axes_of_either_scaling(tiny_episodes, tiny_spec):
    state, action = tiny_episodes[0].state.copy(), tiny_episodes[0].action.copy()
    state[:, 1], action[:, 2] = -7.5, 0.25
    for kind in ("mean-std", "min-max"):
        normalizer = Normalizer.fit(
            [replace(tiny_episodes[0], state=state, action=action)], tiny_spec, scaling=Scaling(kind, kind, 0.01)
        )
        assert normalizer.state_scale[1] == normalizer.action_scale[2] == np.float32(0.01)
        assert normalizer.encode_state(state)[:, 1].tolist() == [0] * len(state)
        np.testing.assert_allclose(normalizer.encode_state(state + np.float32(0.01))[:, 1], 1, rtol=1e-4)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("relative", [False, True])
def test_errors_are_counted_in_standard_deviations_whatever_the_scaling(tiny_episodes, tiny_spec, relative, scaling):
    normalizer = Normalizer.fit(tiny_episodes, tiny_spec, relative, scaling)
    state = np.concatenate([one.state[: one.num_steps] for one in tiny_episodes])
    encoded = normalizer.encode_action(np.concatenate([one.action for one in tiny_episodes])[:, None], state)[:, 0]
    np.testing.assert_allclose(normalizer.encoded_mean, encoded.mean(0), atol=1e-5)
    deviations = (encoded - normalizer.encoded_mean) * normalizer.error_unit
    np.testing.assert_allclose(deviations.std(0), 1, rtol=1e-4)


def test_relative_actions_are_offsets_from_the_state(tiny_episodes, tiny_spec):
    normalizer = Normalizer.fit(tiny_episodes, tiny_spec, relative=True)
    assert normalizer.relative_to.tolist() == [2, 3, -1]
    state = tiny_episodes[0].state[0]
    holding = np.array([[state[2], state[3], 0.0]], np.float32)
    encoded = normalizer.encode_action(holding, state)[0]
    np.testing.assert_allclose(encoded[:2], -normalizer.action_mean[:2] / normalizer.action_std[:2], rtol=1e-5)
    assert Normalizer.fit(tiny_episodes, tiny_spec).relative_to.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("state", "action", "expected"),
    [
        (unnamed_axes("state", 3), unnamed_axes("action", 3), [0, 1, 2]),
        (unnamed_axes("state", 4), unnamed_axes("action", 3), [-1, -1, -1]),
        ((Axis("a"), Axis("b")), (Axis("b", kind="arm"), Axis("a", kind="arm")), [1, 0]),
        ((Axis("a"), Axis("b")), (Axis("a", kind="gripper"), Axis("b", kind="base")), [-1, -1]),
        ((Axis("a"),), (Axis("a", kind="arm"), Axis("x", kind="arm")), [0, -1]),
    ],
)
def test_which_state_axis_an_action_axis_commands(state, action, expected):
    assert corresponding_axes(RobotSpec("r", (), state, action)).tolist() == expected


def test_relative_chunks_are_measured_along_the_chunk(tiny_spec):
    """An arm that moves by 1 a step is up to K away from where its chunk of K was predicted."""
    names = [axis.name for axis in tiny_spec.action]
    path = np.arange(40, dtype=np.float32)[:, None]
    state = np.tile(path, (1, tiny_spec.state_dim))
    episode = Episode({}, state, np.tile(path, (1, len(names))), None, terminated=False)
    spec = replace(tiny_spec, cameras=())
    for horizon in (1, 8):
        normalizer = Normalizer.fit([episode], spec, True, Scaling(horizon=horizon))
        ahead = np.concatenate([np.full(40 - k, k) for k in range(horizon)])
        matched = normalizer.relative_to >= 0
        np.testing.assert_allclose(normalizer.action_mean[matched], ahead.mean(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(normalizer.action_std[matched], max(ahead.std(), 1e-3), rtol=1e-5)


def test_relative_actions_need_an_axis_to_be_relative_to(tiny_episodes, tiny_spec):
    spec = replace(tiny_spec, action=unnamed_axes("action", 3))
    with pytest.raises(ConfigError, match="relative actions: no action axis has a state axis"):
        Normalizer.fit(tiny_episodes, spec, relative=True)


def test_statistics_survive_json(tiny_episodes, tiny_spec):
    normalizer = Normalizer.fit(tiny_episodes, tiny_spec, relative=True, scaling=Scaling("min-max", "mean-std"))
    again = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert equal(normalizer, again)
    assert again.relative_to.dtype == np.int64


def test_statistics_from_before_there_were_scalings_are_read(tiny_episodes, tiny_spec):
    now = Normalizer.fit(tiny_episodes, tiny_spec, relative=True)
    data = now.to_dict()
    for part in ("state", "action"):
        data[f"{part}_mean"], data[f"{part}_std"] = data.pop(f"{part}_offset"), data.pop(f"{part}_scale")
    assert set(data) == {
        "state_mean", "state_std", "action_mean", "action_std", "action_low", "action_high", "relative_to"
    }  # fmt: skip
    assert equal(Normalizer.from_dict(data), now)


def test_damaged_statistics_are_refused(tiny_episodes, tiny_spec):
    data = Normalizer.fit(tiny_episodes, tiny_spec).to_dict()
    with pytest.raises(CheckpointError, match=r"stats.json: not a normaliser .'action_std'"):
        Normalizer.from_dict({key: value for key, value in data.items() if key != "action_std"}, "stats.json")
    with pytest.raises(CheckpointError, match=r"stats.json: not a normaliser"):
        Normalizer.from_dict(None, "stats.json")
    with pytest.raises(CheckpointError, match=r"stats.json: lengths do not agree"):
        Normalizer.from_dict({**data, "action_std": [1.0]}, "stats.json")


def test_values_that_are_not_finite_are_named(tiny_episodes, tiny_spec):
    state = tiny_episodes[0].state.copy()
    state[2, 3] = np.nan
    with pytest.raises(DataError, match=r"state axis 'elbow' is nan at training step 2 .1 such values"):
        Normalizer.fit([replace(tiny_episodes[0], state=state)], tiny_spec)
