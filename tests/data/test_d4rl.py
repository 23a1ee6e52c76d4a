"""D4RL-layout files: where episodes end, D4RL's rule for time limits, and files that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_files import REAL, d4rl_arrays, write_d4rl

from lapwing.agent import RewardFacts, Scaling, Transitions
from lapwing.data.check import check
from lapwing.data.convert import ConvertOptions, convert
from lapwing.data.dataset import Dataset
from lapwing.data.formats import read_recording
from lapwing.data.formats.d4rl import Steps, episodes_of
from lapwing.data.frames import FrameStore
from lapwing.data.normalize import Normalizer
from lapwing.errors import DataError
from lapwing.run.options import TrainOptions
from lapwing.run.training_data import open_training_data
from lapwing.spec import Axis, RobotSpec


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A terminated episode of 3 steps, one cut after 4, and 2 steps at the end of the file."""
    arrays = d4rl_arrays([3, 4, 2])
    arrays["terminals"][2] = True
    arrays["timeouts"][6] = True
    return arrays


def lengths_and_ends(recording) -> list[tuple[int, int, bool]]:
    return [(one.num_steps, one.num_rows, one.terminated) for one in recording.episodes]


def test_timeouts_and_terminals_divide_and_the_observation_after_a_cut_is_kept(tmp_path, arrays):
    recording = read_recording(write_d4rl(tmp_path / "a.hdf5", arrays, env_name="maze2d-umaze-v1"))
    assert (recording.layout, recording.spec.name) == ("d4rl", "maze2d-umaze-v1")
    assert (recording.spec.state_dim, recording.spec.action_dim, recording.spec.cameras) == (3, 2, ())
    assert lengths_and_ends(recording) == [(3, 4, True), (4, 5, False), (2, 3, False)]
    assert recording.episodes[1].state[-1].tolist() == [1, 4, 0]
    assert recording.episodes[1].reward.tolist() == [4, 5, 6, 7]
    assert recording.notes == ("the last 2 rows follow the final boundary: read as a truncated episode",)


def test_the_spec_that_our_writer_stores_is_read(tmp_path, arrays):
    spec = RobotSpec("maze", (), (Axis("x", "m"), Axis("y", "m"), Axis("v")), (Axis("f"), Axis("g")))
    path = write_d4rl(tmp_path / "a.hdf5", arrays, lapwing=json.dumps({"spec": spec.to_dict()}))
    assert read_recording(path).spec == spec
    path = write_d4rl(tmp_path / "b.hdf5", arrays, lapwing=json.dumps({"spec": {**spec.to_dict(), "state": []}}))
    with pytest.raises(DataError, match="names 0 state and 2 action axes, expected 3 and 2 as in the datasets"):
        read_recording(path)
    with pytest.raises(DataError, match="attribute 'lapwing' is not the JSON our writer makes"):
        read_recording(write_d4rl(tmp_path / "c.hdf5", arrays, lapwing="spec"))


def transitions(path: Path) -> list[tuple[list[float], float, float]]:
    """(state, reward, discount) of every transition that offline RL is given."""
    recording = read_recording(path)
    normalizer = Normalizer.fit(recording.episodes, recording.spec)
    dataset = Dataset(recording, FrameStore.open(recording), range(len(recording.episodes)), normalizer)
    batch, rows = next(dataset.ordered(Transitions(gamma=0.5), 64))
    states, _ = dataset.raw(rows)
    return list(zip(states[:, :2].tolist(), batch.reward.tolist(), batch.discount.tolist(), strict=True))


def test_d4rls_rule_drops_the_last_transition_of_a_time_limit_and_keeps_a_terminal(tmp_path, arrays):
    del arrays["next_observations"]
    assert transitions(write_d4rl(tmp_path / "a.hdf5", arrays)) == [
        ([0, 0], 1, 0.5), ([0, 1], 2, 0.5), ([0, 2], 3, 0.0),
        ([1, 0], 4, 0.5), ([1, 1], 5, 0.5), ([1, 2], 6, 0.5),
        ([2, 0], 8, 0.5),
    ]  # fmt: skip


def test_with_next_observations_no_transition_is_lost(tmp_path, arrays):
    found = transitions(write_d4rl(tmp_path / "a.hdf5", arrays))
    assert [reward for _, reward, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [discount for *_, discount in found] == [0.5, 0.5, 0, *[0.5] * 6]


def test_without_timeouts_next_observations_show_where_episodes_are_cut(tmp_path, arrays):
    del arrays["timeouts"]
    arrays["terminals"][:] = False
    recording = read_recording(write_d4rl(tmp_path / "a.hdf5", arrays))
    assert lengths_and_ends(recording) == [(3, 4, False), (4, 5, False), (2, 3, False)]
    assert "2 of 9 steps are not followed by the next row" in recording.notes[0]


def test_copies_that_differ_by_rounding_are_no_gap(tmp_path):
    arrays = d4rl_arrays([5])
    arrays["next_observations"] *= np.float32(1 + 3e-7)
    del arrays["timeouts"]
    assert lengths_and_ends(read_recording(write_d4rl(tmp_path / "a.hdf5", arrays))) == [(5, 6, False)]


def test_a_row_that_is_terminal_and_timeout_is_cut(tmp_path, arrays):
    arrays["timeouts"][2] = True
    recording = read_recording(write_d4rl(tmp_path / "a.hdf5", arrays))
    assert [one.terminated for one in recording.episodes] == [False, False, False]
    assert recording.notes[0] == "1 rows are flagged terminal and timeout: taken as cut by the time limit"


def test_terminals_alone_divide_with_a_note(tmp_path, arrays):
    del arrays["timeouts"], arrays["next_observations"]
    arrays["infos/goal"] = np.zeros((9, 2))
    recording = read_recording(write_d4rl(tmp_path / "a.hdf5", arrays))
    assert lengths_and_ends(recording) == [(3, 3, True), (6, 6, False)]
    assert recording.notes[0].startswith("no 'timeouts': where a time limit cut an episode is not known")
    assert recording.notes[-1] == "not read: infos"


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    terminal=st.lists(st.booleans(), min_size=6, max_size=6),
    told=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_every_step_is_in_one_episode_and_ends_are_where_they_were(lengths, terminal, told):
    arrays = d4rl_arrays(lengths)
    stops = np.cumsum(lengths)
    arrays["terminals"][stops - 1] = terminal[: len(lengths)]
    arrays["timeouts"][stops - 1] = ~arrays["terminals"][stops - 1]
    episodes, notes = episodes_of(
        Steps(
            state=arrays["observations"],
            action=arrays["actions"],
            reward=arrays["rewards"],
            following=arrays["next_observations"],
            terminal=arrays["terminals"],
            timeout=arrays["timeouts"] if told else None,
        ),
        Path("a.hdf5"),
    )
    assert [one.num_steps for one in episodes] == lengths
    assert [one.terminated for one in episodes] == terminal[: len(lengths)]
    assert np.concatenate([one.reward for one in episodes]).tolist() == arrays["rewards"].tolist()
    assert told <= (notes == [])


def never_fires(arrays):
    del arrays["timeouts"], arrays["next_observations"]
    arrays["terminals"][:] = False


def shorten(key, rows=8):
    def spoil(arrays):
        arrays[key] = arrays[key][:rows]

    return spoil


def never_marks(arrays):
    arrays["next_observations"] = None
    arrays["terminals"][:] = arrays["timeouts"][:] = False


def put(key, values):
    return lambda arrays: arrays.__setitem__(key, values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shorten("rewards"), r"'rewards' has 8 rows, expected 9 as 'actions' has; cut all datasets to one length"),
        (shorten("observations"), r"'observations' has 8 rows, expected 9"),
        (shorten("next_observations"), r"'next_observations' has 8 rows, expected 9"),
        (shorten("terminals"), r"'terminals' has 8 rows, expected 9"),
        (shorten("timeouts"), r"'timeouts' has 8 rows, expected 9"),
        (shorten("actions", 0), r"'actions' has 0 rows, expected at least one step"),
        (put("actions", None), r"no dataset 'actions' \(found .*\); the D4RL layout needs it"),
        (put("terminals", None), r"no dataset 'terminals' \(found .*\); the D4RL layout needs it"),
        (put("terminals", np.full(9, 2)), r"'terminals' holds values other than 0 and 1"),
        (put("observations", np.zeros((9, 4, 4, 3), np.uint8)), r"'observations' has shape .* expected two dimensions"),
        (put("next_observations", np.zeros((9, 2))), r"'next_observations' has 2 axes, expected 3"),
        (
            never_fires,
            r"'terminals' never fire and there are no 'timeouts' or 'next_observations', expected one of them",
        ),
        (
            never_marks,
            r"'terminals' and 'timeouts' never fire and there are no 'next_observations', expected one of them",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path, arrays, spoil, message):
    spoil(arrays)
    path = write_d4rl(tmp_path / "a.hdf5", arrays)
    with pytest.raises(DataError, match=f"a.hdf5: {message}"):
        read_recording(path)
    (problem,) = [one for one in check(path, progress=False).problems if one.severity == "error"]
    assert str(path) in str(problem)


def test_rewards_that_no_transition_holds_are_no_rewards(tmp_path, arrays):
    arrays["next_observations"] = None  # so that the last step of a cut episode is in no transition
    arrays["terminals"][:] = False
    arrays["timeouts"][2] = True
    arrays["rewards"][:] = [0, 0, 1, 0, 0, 0, 1, 0, 5]
    path = write_d4rl(tmp_path / "a.hdf5", arrays)
    result = check(path, progress=False)
    assert (result.trainable, result.imitable) == (False, True)
    (problem,) = [one for one in result.problems if one.severity == "error"]
    assert "all 0 but for the last step of episodes that were cut" in str(problem)
    options = TrainOptions(steps=1, train_fraction=1.0)
    with pytest.raises(DataError, match="'rewards' are 0 in the training split but for the last step of episodes"):
        open_training_data(path, options, Scaling(), False).expect_fit(Transitions())
    arrays["rewards"][7] = 2
    data = open_training_data(write_d4rl(tmp_path / "b.hdf5", arrays), options, Scaling(), False)
    data.expect_fit(Transitions())
    assert data.reward_facts(0.5) == RewardFacts((0, 2), (0, 4))  # 2 / (1 - 0.5): neither 1 nor 5 is in a transition


def test_check_tells_of_ends_and_returns(tmp_path, arrays):
    result = check(write_d4rl(tmp_path / "a.hdf5", arrays), progress=False)
    assert result.trainable
    assert any("next_observations: float32, shape=(9, 3)" in line for line in result.tree)
    assert {"3 episodes: the task ended 1, the others were cut", "returns: 6 to 22, mean 15"} <= set(result.notes)


def test_check_finds_what_cannot_be_learned_from(tmp_path, arrays):
    arrays["rewards"] = -arrays["rewards"]
    arrays["actions"][4, 1] = np.nan
    result = check(write_d4rl(tmp_path / "a.hdf5", arrays), progress=False)
    assert [(one.severity, one.field) for one in result.problems if one.field != "observations"] == [
        ("error", "actions"),
        ("warning", "rewards"),
    ]
    assert "the largest is -1, expected one above 0" in str(result.problems[-1])
    arrays["rewards"] = None
    result = check(write_d4rl(tmp_path / "b.hdf5", arrays), progress=False)
    assert not result.trainable
    assert any(one.field == "rewards" and one.got == "missing" for one in result.problems)


def test_conversion_to_transitions_loses_nothing(tmp_path, arrays):
    source, out = write_d4rl(tmp_path / "a.hdf5", arrays), tmp_path / "a.npz"
    convert(source, out, ConvertOptions(to="npz"), progress=False)
    before, after = read_recording(source), read_recording(out)
    for one, other in zip(before.episodes, after.episodes, strict=True):
        assert np.array_equal(one.state, other.state)
        assert np.array_equal(one.action, other.action)
        assert np.array_equal(one.reward, other.reward)
        assert one.terminated == other.terminated


@pytest.mark.parametrize(
    ("name", "episodes", "terminated", "rows", "total"),
    [("expert_no_aug_50k", 100, 100, 50_100, 18159.96), ("random_50000", 238, 237, 50_238, -12536.72)],
)
def test_the_real_files(name, episodes, terminated, rows, total):
    path = REAL / "d4rl_layout" / f"{name}.hdf5"
    if not path.exists():
        pytest.skip(f"{path} does not stand beside the checkout")
    recording = read_recording(path)
    assert (len(recording.episodes), recording.num_steps) == (episodes, 50_000)
    assert sum(one.terminated for one in recording.episodes) == terminated
    assert sum(one.num_rows for one in recording.episodes) == rows
    assert sum(float(one.reward.sum()) for one in recording.episodes) == pytest.approx(total, abs=0.05)
