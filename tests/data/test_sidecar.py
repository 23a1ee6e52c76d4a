"""Labels beside a recording: both notations say the same, and what they cannot mean is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data.sidecar import Label, expect_known, labelled, read_sidecar
from lapwing.episode import Episode
from lapwing.errors import DataError


@pytest.fixture
def file(tmp_path: Path):
    """file("csv", text) -> the path of a file of labels."""

    def write(suffix: str, text: str) -> Path:
        path = tmp_path / f"labels.{suffix}"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def episode() -> Episode:
    return Episode({}, np.zeros((4, 2)), np.zeros((4, 2)), np.full(4, 7, np.float32), terminated=False, success=None)


LABELS = {
    "episode_0": Label(success=True, reward="last-step"),
    "episode_1": Label(success=False, reward=(0.0, 0.5, -1.0), terminated=False),
    "mirror_episode_12": Label(terminated=True),
}


def test_json_and_csv_say_the_same(file):
    as_json = file(
        "json",
        """{"0": {"success": true, "reward": "last-step"},
            "episode_1.hdf5": {"success": false, "reward": [0, 0.5, -1], "terminated": false},
            "mirror_episode_12": {"terminated": true}}""",
    )
    as_csv = file(
        "csv",
        "\ufeffepisode,success,reward,terminated\n0,true,last-step,\nepisode_1,No,0 0.5 -1,0\n"
        "mirror_episode_12.hdf5,,,yes\n",
    )
    assert read_sidecar(as_json) == read_sidecar(as_csv) == LABELS


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.integers(0, 99),
        st.tuples(st.booleans(), st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5)),
        min_size=1,
        max_size=5,
    )
)
def test_any_labels_come_back_from_both(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("labels")
    (folder / "l.json").write_text(
        json.dumps({str(number): {"success": ok, "reward": reward} for number, (ok, reward) in labels.items()})
    )
    rows = [f"{number},{ok},{' '.join(map(repr, reward))}" for number, (ok, reward) in labels.items()]
    (folder / "l.csv").write_text("\n".join(["episode,success,reward", *rows]))
    expected = {f"episode_{number}": Label(ok, tuple(reward)) for number, (ok, reward) in labels.items()}
    assert read_sidecar(folder / "l.json") == expected
    assert read_sidecar(folder / "l.csv") == expected


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        ("json", "{", r"labels\.json: not JSON \(.*\), expected \{EPISODE: LABEL"),
        ("json", "[1, 2]", r"labels\.json: expected one JSON object \{EPISODE: LABEL"),
        ("json", '{"0": true}', r"labels\.json: 0: expected an object of success, reward, terminated"),
        ("json", "{}", r"labels\.json: no label in it, expected one an episode"),
        ("json", '{"first": {}}', r"labels\.json: 'first' is no episode, expected a number or episode_N"),
        (
            "json",
            '{"0": {"sucess": true}}',
            r"labels\.json: episode_0: field 'sucess', expected some of success, reward",
        ),
        ("json", '{"0": {"success": 1}}', r"episode_0: success is 1, expected true or false"),
        (
            "json",
            '{"0": {"reward": "first-step"}}',
            r"episode_0: reward is 'first-step', expected 'last-step' or finite",
        ),
        ("json", '{"0": {"reward": [1, "a"]}}', r"episode_0: reward is \"\[1, 'a'\]\", expected 'last-step' or finite"),
        ("json", '{"0": {"reward": [1, NaN]}}', r"episode_0: reward is '\[1, nan\]', expected 'last-step' or finite"),
        ("json", '{"0": {"reward": [1e39]}}', r"episode_0: reward is '\[1e\+39\]', expected 'last-step' or finite"),
        ("json", '{"0": {}, "episode_0": {}}', r"labels\.json: episode_0 is there twice, expected each episode once"),
        ("json", '{"0": {}, "0": {}}', r"labels\.json: episode_0 is there twice, expected each episode once"),
        (
            "json",
            '{"0": {"success": true, "success": false}}',
            r"labels\.json: 0: success is there twice, expected each",
        ),
        ("json", '{"0": ' + "[" * 100_000, r"labels\.json: not JSON \(maximum recursion depth"),
        ("json", f'{{"{"1" * 5000}": {{}}}}', r"labels\.json: '1+' is no episode, expected a number or episode_N"),
        ("csv", "episode,success,success\n0,true,false\n", r"labels\.csv: success is there twice, expected each field"),
        ("csv", "number,success\n0,true\n", r"labels\.csv: columns are number, success, expected episode and some of"),
        ("csv", "", r"labels\.csv: columns are nothing, expected episode"),
        ("csv", "episode,success\n0,true\n1\n", r"labels\.csv: line 3 has not one value a column, expected 2"),
        ("csv", "episode,success\n0,true,1\n", r"labels\.csv: line 2 has not one value a column, expected 2"),
        ("csv", "episode,success\n0,maybe\n", r"episode_0: success is 'maybe', expected true or false"),
        ("csv", "episode,reward\n0,1 two\n", r"episode_0: reward is '1 two', expected 'last-step' or finite numbers"),
        ("csv", "episode,colour\n0,red\n", r"episode_0: field 'colour', expected some of success, reward, terminated"),
        ("csv", "episode,success\n,true\n", r"labels\.csv: '' is no episode, expected a number or episode_N"),
    ],
)
def test_what_cannot_be_meant_is_refused(file, suffix, text, message):
    with pytest.raises(DataError, match=message):
        read_sidecar(file(suffix, text))


def test_rewards_of_a_long_episode_fit_in_one_field(file):
    labels = read_sidecar(file("csv", "episode,reward\n0," + "0.25 " * 50_000 + "\n"))
    assert labels == {"episode_0": Label(reward=(0.25,) * 50_000)}


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json: no such file, expected labels as JSON or CSV"):
        read_sidecar(tmp_path / "gone.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.json: not UTF-8 text"):
        read_sidecar(tmp_path / "binary.json")


def test_what_a_label_leaves_out_stays(episode):
    assert labelled(episode, Label(), "here") is episode
    failed = labelled(episode, Label(success=False), "here")
    assert (failed.success, failed.terminated) == (False, False)
    np.testing.assert_array_equal(failed.reward, episode.reward)
    assert labelled(episode, Label(terminated=True), "here").terminated


@pytest.mark.parametrize(
    ("success", "label", "reward", "terminated"),
    [
        (None, Label(reward="last-step"), [0, 0, 0, 1], True),
        (False, Label(reward="last-step"), [0, 0, 0, 0], False),
        (False, Label(success=True, reward="last-step"), [0, 0, 0, 1], True),
        (True, Label(success=False, reward="last-step"), [0, 0, 0, 0], False),
        (None, Label(reward="last-step", terminated=False), [0, 0, 0, 1], False),
        (None, Label(reward=(1.0, 2.0, 3.0, 4.0)), [1, 2, 3, 4], False),
    ],
)
def test_rewards_follow_the_label(episode, success, label, reward, terminated):
    result = labelled(replace(episode, success=success), label, "here")
    assert result.reward.tolist() == reward
    assert result.reward.dtype == np.float32
    assert result.terminated == terminated


def test_rewards_of_another_length_are_refused(episode):
    with pytest.raises(DataError, match="here: reward has 3 numbers, expected 4, one a step"):
        labelled(episode, Label(reward=(1.0, 2.0, 3.0)), "here")


def test_labels_of_no_episode_are_refused():
    expect_known(Path("l.json"), LABELS, list(LABELS))
    with pytest.raises(
        DataError, match=r"l\.json: labels of mirror_episode_12, expected some of episode_0, episode_1;"
    ):
        expect_known(Path("l.json"), LABELS, ["episode_0", "episode_1"])
