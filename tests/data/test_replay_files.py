"""Saving and loading a replay buffer: exactly, only what is new, and never less than the last whole save."""

from __future__ import annotations

import io
import json
import pickle
import resource
import zlib
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay_world import SPEC, buffer, fill, observation, plain_normalizer
from test_replay import all_equal

from lapwing.agent import Transitions
from lapwing.data.replay import ReplayBuffer
from lapwing.errors import DataError, SpecError

THREE = Transitions(3, 0.9)


def loaded(folder, capacity=40):
    replay = buffer(capacity)
    replay.load(folder)
    return replay


def same(first, second):
    """Whether two buffers draw the same from now on."""
    batches = [islice(replay.stream(THREE, 24, seed=9), 4) for replay in (first, second)]
    return len(first) == len(second) and all(map(all_equal, *batches))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def largest_file(size):
    """No file may grow beyond `size` bytes: a write beyond is cut short and then fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def replay():
    """Wrapped around, two actors, one amid an episode."""
    replay = buffer(40)
    for first in (0, 30, 60):
        fill(replay, 16, first=first, actor=0)
        fill(replay, 9, first=first + 20, actor=1)
    return replay


def test_it_is_restored_exactly(replay, tmp_path):
    replay.save(tmp_path / "replay")
    again = loaded(tmp_path / "replay")
    assert same(replay, again)
    for one in (replay, again):
        fill(one, 25, first=200)
    assert same(replay, again)


def test_what_was_running_has_ended_once_it_is_loaded(tmp_path):
    replay = buffer(40)
    fill(replay, 4)
    assert not list(replay.to_episodes())
    replay.save(tmp_path)
    again = loaded(tmp_path)
    (episode,) = again.to_episodes()
    assert (episode.num_steps, episode.terminated) == (4, False)
    with pytest.raises(DataError, match="actor 0 is in no episode"):
        again.add(np.zeros(2), 0.0, False, False, observation(5))


def test_a_second_save_writes_only_what_is_new(replay, tmp_path):
    replay.save(tmp_path)
    first = files(tmp_path)
    fill(replay, 5, first=300)
    replay.save(tmp_path)
    second = files(tmp_path)
    fresh = second.keys() - first.keys()
    assert {name for name in second if second[name] == first.get(name)} == first.keys() - {"index.json"}
    assert sum(len(np.load(tmp_path / name)["reward"]) for name in fresh) == 6
    assert same(replay, loaded(tmp_path))
    replay.save(tmp_path)
    assert files(tmp_path) == second


def test_a_loaded_buffer_goes_on_where_the_other_stopped(replay, tmp_path):
    replay.save(tmp_path)
    first = files(tmp_path)
    again = loaded(tmp_path)
    fill(again, 3, first=300)
    again.save(tmp_path)
    assert first.keys() < files(tmp_path).keys()
    assert same(again, loaded(tmp_path))


def test_files_go_when_all_their_rows_are_overwritten(tmp_path):
    replay = buffer(40)
    for first in range(0, 1000, 20):
        fill(replay, 9, first=first)
        replay.save(tmp_path)
        assert same(replay, loaded(tmp_path))
    assert len(list(tmp_path.glob("rows_*.npz"))) <= 5


def test_a_folder_that_another_buffer_has_taken_is_written_anew(replay, tmp_path):
    other = buffer(40)
    fill(other, 12)
    replay.save(tmp_path)
    other.save(tmp_path)
    assert same(other, loaded(tmp_path))
    replay.save(tmp_path)
    assert same(replay, loaded(tmp_path))
    assert len(files(tmp_path)) == 2


def test_the_capacity_may_change(replay, tmp_path):
    replay.save(tmp_path)
    assert same(replay, loaded(tmp_path, capacity=55))
    fewer = loaded(tmp_path, capacity=15)
    assert 0 < len(fewer) < 15


def test_an_empty_buffer_is_saved_too(tmp_path):
    buffer(40).save(tmp_path)
    assert len(loaded(tmp_path)) == 0


@pytest.mark.parametrize("size", [100, 3000])
def test_a_full_disk_is_one_error_and_the_last_save_survives(replay, tmp_path, size):
    replay.save(tmp_path)
    before, saved = files(tmp_path), loaded(tmp_path)
    fill(replay, 30, first=300)
    with (
        largest_file(size),
        pytest.raises(DataError, match=r"cannot be saved \(File too large\); free some space; what"),
    ):
        replay.save(tmp_path)
    assert files(tmp_path) == before
    assert same(saved, loaded(tmp_path))
    replay.save(tmp_path)
    assert same(replay, loaded(tmp_path))


def test_a_save_that_was_killed_leaves_the_one_before(replay, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **more):
        raise Killed

    replay.save(tmp_path)
    saved = loaded(tmp_path)
    fill(replay, 5, first=300)
    with monkeypatch.context() as patch:
        patch.setattr("json.dumps", killed)
        with pytest.raises(Killed):
            replay.save(tmp_path)
    assert len(files(tmp_path)) == 3  # what was new, which nothing speaks of
    assert same(saved, loaded(tmp_path))
    replay.save(tmp_path)
    assert len(files(tmp_path)) == 3
    assert same(replay, loaded(tmp_path))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_one_error(replay, tmp_path, data):
    """Any byte of any file changed, or any end of it lost."""
    folder = tmp_path / "replay"
    replay.save(folder)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes(whole[:place] if data.draw(st.booleans()) else cut)
    again = buffer(40)
    fill(again, 5)
    if json_says_the_same(path, whole):
        return
    with pytest.raises(DataError, match=r"damaged|no replay buffer|version"):
        again.load(folder)
    path.write_bytes(whole)
    again.load(folder)
    assert same(replay, again)


def json_says_the_same(path, whole):
    """Whether only white space was damaged."""
    try:
        return path.suffix == ".json" and json.loads(path.read_bytes()) == json.loads(whole)
    except ValueError:
        return False


def test_what_cannot_be_loaded_leaves_an_empty_buffer(replay, tmp_path):
    replay.save(tmp_path)
    next(tmp_path.glob("rows_*")).unlink()
    again = buffer(40)
    fill(again, 5)
    with pytest.raises(DataError, match=r"rows_\w+\.npz: damaged \(.*No such file.*\); restore it, or collect again"):
        again.load(tmp_path)
    assert len(again) == 0
    fill(again, 5)
    assert len(again) == 5


def test_missing_and_foreign_saves_are_refused(replay, tmp_path):
    with pytest.raises(DataError, match=r"nothing: no replay buffer, index\.json is missing"):
        replay.load(tmp_path / "nothing")
    replay.save(tmp_path)
    spec = replace(SPEC, cameras=SPEC.cameras[:1])
    with pytest.raises(SpecError, match=r"cameras \['wrist 4x6', 'front 6x4'\], expected \['wrist 4x6'\]; choose"):
        ReplayBuffer(spec, plain_normalizer(spec), 40).load(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "version": 7}))
    with pytest.raises(DataError, match=r"index\.json: version 7, expected 1; load it with the Lapwing it is of"):
        replay.load(tmp_path)


def test_nothing_runs_that_is_hidden_in_a_save(replay, tmp_path):
    class Exploit:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    assert pickle.loads(pickle.dumps(Exploit())) is None
    (tmp_path / "ran").unlink()
    folder = tmp_path / "replay"
    replay.save(folder)
    index = json.loads((folder / "index.json").read_text())
    content = io.BytesIO()
    np.savez(content, previous=np.array([Exploit()]))
    (folder / index["files"][0]["name"]).write_bytes(content.getvalue())
    index["files"][0]["crc"] = zlib.crc32(content.getvalue())
    rest = {name: value for name, value in index.items() if name != "crc"}
    index["crc"] = zlib.crc32(json.dumps(rest, sort_keys=True).encode())
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"damaged \(Object arrays cannot be loaded"):
        replay.load(folder)
    assert not (tmp_path / "ran").exists()
