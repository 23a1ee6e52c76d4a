"""The episode writer: what is sent is what is read, whatever is killed, full or in the way meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.data import spool as spooling
from lapwing.data.formats.aloha import read_aloha
from lapwing.data.record import EpisodeWriter
from lapwing.data.ring import make_ring
from lapwing.data.spool import Spool, recover, row_dtype, spool_path, spools_in
from lapwing.episode import Array, Episode, Observation
from lapwing.errors import DataError, SpecError
from lapwing.spec import Camera, RobotSpec, Sensor, unnamed_axes

SPEC = RobotSpec(
    "tiny",
    (Camera("left", 6, 8), Camera("top", 4, 5)),
    unnamed_axes("state", 3),
    unnamed_axes("action", 2),
    rate_hz=50.0,
    sensors=(
        Sensor("velocity", (3,), "rad/s"),
        Sensor("stamp_left", (), "s", "float64"),
        Sensor("depth_top", (4, 5), "mm", "uint16"),
    ),
)


def observed(number: int, row: int) -> Observation:
    """What is seen in a row of an episode: the same numbers every time."""
    rng = np.random.default_rng((number, row))
    return Observation(
        {one.name: rng.integers(0, 256, (one.height, one.width, 3), np.uint8) for one in SPEC.cameras},
        rng.normal(size=3).astype(np.float32),
        {
            "velocity": rng.normal(size=3).astype(np.float32),
            "stamp_left": np.float64(row / 50 + 1e-3),
            "depth_top": rng.integers(0, 2**16, (4, 5), np.uint16),
        },
    )


def acted(number: int, row: int) -> Array:
    """The action that led to a row."""
    return np.random.default_rng((number, row, 1)).normal(size=2).astype(np.float32)


def send(writer: EpisodeWriter, number: int, steps: int, wait: bool = False) -> int:
    """Begin an episode and send its steps; how many were taken."""
    writer.begin(observed(number, 0), 0.0, {"seed": number})
    rows = range(1, steps + 1)
    return sum(
        writer.step(acted(number, row), observed(number, row), float(row), row / 50, row % 2 == 1, wait) for row in rows
    )


def expect_sent(episode: Episode, number: int) -> None:
    """Every row of an episode is what was sent."""
    for row in range(episode.num_rows):
        sent = observed(number, row)
        assert (episode.state[row] == sent.state).all()
        assert episode.time[row] == row / 50
        for name, frame in sent.images.items():
            assert (episode.images[name][row] == frame).all()
        for name, reading in sent.sensors.items():
            assert (episode.sensors[name][row] == reading).all()
    for row in range(1, episode.num_rows):
        assert (episode.action[row - 1] == acted(number, row)).all()
        assert episode.reward[row - 1] == row
        assert episode.intervened[row - 1] == (row % 2 == 1)


def read(folder: Path) -> list[Episode]:
    return list(read_aloha(folder).episodes)


def writing_process() -> int:
    [process] = [one for one in multiprocessing.active_children() if one.name == "episode writer"]
    assert process.pid is not None
    return process.pid


@contextmanager
def stopped_process() -> Iterator[int]:
    """The writing process sleeps, as it does when a disk keeps it waiting."""
    pid = writing_process()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_is_sent_is_what_is_read(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "eps", SPEC) as writer:
        assert writer.notes == ()
        assert send(writer, 0, 7) == 7
        assert writer.keep(True, True, {"kind": "clean"}) == tmp_path / "eps" / "episode_0.hdf5"
        assert len(read(tmp_path / "eps")) == 1  # whole as soon as it is kept
        send(writer, 1, 3)
        writer.keep(False, False)
        send(writer, 2, 1)
        writer.keep(False)
    recording = read_aloha(tmp_path / "eps")
    assert recording.spec == SPEC
    for number, (episode, steps) in enumerate(zip(recording.episodes, (7, 3, 1), strict=True)):
        assert (episode.num_steps, episode.num_rows) == (steps, steps + 1)
        expect_sent(episode, number)
    first, second, third = recording.episodes
    assert (first.terminated, first.success) == (True, True)
    assert (second.terminated, second.success) == (False, False)
    assert (third.terminated, third.success) == (False, None)
    assert {"seed": 0, "kind": "clean"}.items() <= first.meta.items()
    assert sorted(path.name for path in (tmp_path / "eps").iterdir()) == [f"episode_{n}.hdf5" for n in range(3)]


def test_a_world_without_a_clock_leaves_no_stamps(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        writer.begin(observed(0, 0))
        writer.step(acted(0, 1), observed(0, 1))
        writer.keep(False)
    [episode] = read(tmp_path)
    assert episode.time is None
    assert episode.reward.tolist() == [0.0]


def test_a_robot_without_cameras_or_sensors_is_recorded(tmp_path: Path) -> None:
    spec = replace(SPEC, cameras=(), sensors=())
    with EpisodeWriter(tmp_path, spec) as writer:
        writer.begin(Observation({}, np.zeros(3, np.float32)))
        writer.step(np.ones(2), Observation({}, np.ones(3, np.float32)))
        writer.keep(True, True)
    assert read(tmp_path)[0].state.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_what_is_discarded_leaves_nothing_and_its_number(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 5, 4)
        writer.discard()
        assert list(tmp_path.iterdir()) == []
        send(writer, 6, 2)
        assert writer.keep(False).name == "episode_0.hdf5"
    expect_sent(read(tmp_path)[0], 6)


def test_numpys_flags_are_taken_for_flags(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 2)
        writer.keep(np.True_, np.False_)
    [episode] = read(tmp_path)
    assert (episode.terminated, episode.success) == (True, False)


def test_a_writer_may_be_closed_twice(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 2)
        writer.keep(False)
        writer.close()
    assert len(read(tmp_path)) == 1


def test_a_folder_is_added_to_only_when_asked(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 2)
        writer.keep(False)
    (tmp_path / "episode_0.hdf5").rename(tmp_path / "episode_7.hdf5")
    with pytest.raises(DataError, match=r"already there, with 1 episodes; add to it with --append"):
        EpisodeWriter(tmp_path, SPEC)
    with EpisodeWriter(tmp_path, SPEC, append=True) as writer:
        send(writer, 1, 2)
        assert writer.keep(False).name == "episode_8.hdf5"
    assert len(read(tmp_path)) == 2


def test_another_robots_folder_is_refused(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 2)
        writer.keep(False)
    other = replace(SPEC, cameras=SPEC.cameras[:1])
    with pytest.raises(
        DataError, match=r"episode_0.hdf5: cameras left 6x8, top 4x5, expected left 6x8 as what is rec.*; choose"
    ):
        EpisodeWriter(tmp_path, other, append=True)
    other = replace(SPEC, state=SPEC.state[:1], cameras=tuple(replace(one, width=9) for one in SPEC.cameras))
    message = r"0.hdf5: state axes 3, expected 1 and camera sizes left 6x8, top 4x5, expected left 6x9, top 4x9 as"
    with pytest.raises(DataError, match=message):
        EpisodeWriter(tmp_path, other, append=True)


def test_another_robots_unfinished_episode_is_recovered_but_not_added_to(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 5)
    other = replace(SPEC, state=SPEC.state[:1])
    with pytest.raises(DataError, match=r"episode_0.hdf5: state axes 3, expected 1 as what is recorded"):
        EpisodeWriter(tmp_path, other, append=True)
    [episode] = read(tmp_path)
    expect_sent(episode, 0)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, expected a folder to record into"):
        EpisodeWriter(tmp_path / "file", SPEC)
    with pytest.raises(DataError, match="cannot be made"):
        EpisodeWriter(tmp_path / "file" / "below", SPEC)


def test_two_recorders_in_a_folder_are_refused(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 2)
        with pytest.raises(DataError, match="another process is recording into it"):
            EpisodeWriter(tmp_path, SPEC, append=True)
        writer.keep(False)
    expect_sent(read(tmp_path)[0], 0)


def broken(**changes: object) -> Observation:
    return replace(observed(0, 1), **changes)


MISFITS = (
    (broken(images={}), 2, r"images: cameras \[\], expected \['left', 'top'\]"),
    (
        broken(images={**observed(0, 1).images, "top": np.zeros((4, 5, 3))}),
        2,
        r"camera 'top' is float64 \[4, 5, 3\], expected uint8 \[4, 5, 3\]",
    ),
    (broken(state=np.zeros(1)), 2, r"state: shape \[1\], expected 3 values"),
    (broken(sensors={}), 2, r"sensors: 'velocity' is missing, expected shape \[3\]"),
    (broken(sensors={"velocity": np.zeros(2)}), 2, r"'velocity' is of shape \[2\], expected shape \[3\]"),
    (observed(0, 1), 3, r"action: shape \[3\], expected 2 values"),
)


def test_what_does_not_fit_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        writer.begin(observed(0, 0), 0.0)
        for observation, axes, message in MISFITS:
            with pytest.raises(SpecError, match=message):
                writer.step(np.zeros(axes), observation)
        assert writer.step(acted(0, 1), observed(0, 1), 1.0, 1 / 50, True)
        writer.keep(True)
    [episode] = read(tmp_path)
    assert episode.num_steps == 1
    expect_sent(episode, 0)


def test_a_disk_that_does_not_keep_up_is_told_and_leaves_no_holes(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        with stopped_process():
            taken = send(writer, 0, 300)
            assert 8 <= taken < 300
            assert writer.lost == 300 - taken
        assert not writer.step(acted(0, 301), observed(0, 301))  # there is room again; a hole there must not be
        writer.keep(True, True)
        send(writer, 1, 2)
        assert writer.lost == 0
        writer.keep(True, True)
    cut, whole = read(tmp_path)
    assert (cut.num_steps, cut.terminated, cut.success) == (taken, False, None)
    assert cut.meta["overrun"] == 301 - taken
    expect_sent(cut, 0)
    assert (whole.success, "overrun" in whole.meta) == (True, False)


def test_a_loop_without_hurry_waits_for_the_disk(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        pid = writing_process()
        os.kill(pid, signal.SIGSTOP)
        wake = threading.Timer(0.2, os.kill, (pid, signal.SIGCONT))
        wake.start()
        assert send(writer, 0, 300, wait=True) == 300
        wake.join()
        writer.keep(False)
    expect_sent(read(tmp_path)[0], 0)


def test_an_episode_left_open_is_recovered_by_the_next_writer(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 5)
    assert spools_in(tmp_path) == [spool_path(tmp_path, 0)]
    with pytest.raises(DataError, match=r"already there, with 0 episodes and 1 unfinished; add to it with --append"):
        EpisodeWriter(tmp_path, SPEC)
    with EpisodeWriter(tmp_path, SPEC, append=True) as writer:
        assert writer.notes == (
            f"{tmp_path}/episode_0.hdf5: recovered the 5 whole steps of an unfinished recording; whether it succeeds "
            "is unknown",
        )
        send(writer, 1, 2)
        assert writer.keep(True, True).name == "episode_1.hdf5"
    first, second = read(tmp_path)
    expect_sent(first, 0)
    assert (first.num_steps, first.terminated, first.success, first.meta["recovered"]) == (5, False, None, True)
    expect_sent(second, 1)


def test_an_unfinished_episode_is_discarded_on_demand(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 5)
    with EpisodeWriter(tmp_path, SPEC, append=True, unfinished="discard") as writer:
        assert writer.notes == (f"{tmp_path}/episode_0.hdf5: an unfinished recording, discarded",)
    assert list(tmp_path.iterdir()) == []


def test_an_episode_left_before_its_first_step_is_nothing(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        writer.begin(observed(0, 0))
    assert list(tmp_path.iterdir()) == []


def test_an_episode_kept_before_its_first_step_does_not_block_the_folder(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        writer.begin(observed(0, 0))
        with pytest.raises(DataError, match="1 states for 0 actions"):
            writer.keep(True, True)
    with EpisodeWriter(tmp_path, SPEC, append=True) as writer:
        assert writer.notes == (f"{tmp_path}/episode_0.hdf5: an unfinished recording, discarded",)
    assert list(tmp_path.iterdir()) == []


def test_the_death_of_the_writing_process_is_noticed(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 3)
        writer.keep(True, True)
        send(writer, 1, 4, wait=True)
        while not (spool_path(tmp_path, 1) / "rows.bin").exists() or rows_in(tmp_path, 1) < 5:
            pass
        os.kill(writing_process(), signal.SIGKILL)
        with pytest.raises(DataError, match=r"the process that writes ended with code -9.*--append"):
            send_on(writer, 1, 5)
        with pytest.raises(DataError, match="ended with code -9"):
            writer.keep(True, True)
    assert recover(tmp_path)
    for number, episode in enumerate(read(tmp_path)):
        expect_sent(episode, number)
    assert [episode.num_steps for episode in read(tmp_path)] == [3, 4]


def send_on(writer: EpisodeWriter, number: int, row: int) -> None:
    """More steps, without end."""
    while True:
        writer.step(acted(number, row), observed(number, row), wait=True)
        row += 1


def rows_in(folder: Path, number: int) -> int:
    return (spool_path(folder, number) / "rows.bin").stat().st_size // row_dtype(SPEC).itemsize


def test_a_full_disk_is_one_clear_error_and_costs_no_episode(tmp_path: Path) -> None:
    row = row_dtype(SPEC).itemsize
    with EpisodeWriter(tmp_path, SPEC) as writer:
        send(writer, 0, 5)
        writer.keep(True, True)
        resource.prlimit(writing_process(), resource.RLIMIT_FSIZE, (12 * row + row // 2, resource.RLIM_INFINITY))
        with pytest.raises(DataError, match=r"cannot be written \(File too large\); free some space; .*--append"):  # noqa: PT012
            send(writer, 1, 20, wait=True)
            writer.keep(True, True)
    assert rows_in(tmp_path, 1) == 12
    [note] = recover(tmp_path)
    assert "recovered the 11 whole steps" in note
    for number, episode in enumerate(read(tmp_path)):
        expect_sent(episode, number)


def test_a_disk_too_full_for_the_file_keeps_the_label(tmp_path: Path) -> None:
    row = row_dtype(SPEC).itemsize
    with EpisodeWriter(tmp_path, SPEC) as writer:
        assert send(writer, 0, 4) == 4
        resource.prlimit(writing_process(), resource.RLIMIT_FSIZE, (5 * row, resource.RLIM_INFINITY))
        with pytest.raises(DataError, match=r"--append"):  # HDF5 may have taken the process down
            writer.keep(True, True, {"kind": "clean"})
    assert spools_in(tmp_path)
    assert not list(tmp_path.glob("episode_*.hdf5"))
    assert "finished, 4 steps" in recover(tmp_path, "discard")[0]  # its end was known: it is not an unfinished one
    [episode] = read(tmp_path)
    expect_sent(episode, 0)
    assert (episode.success, episode.terminated, episode.meta["kind"]) == (True, True, "clean")
    assert "recovered" not in episode.meta


def test_room_for_the_file_is_looked_for_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spooled(tmp_path, 0, 3)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
        with pytest.raises(DataError, match=r"episode_0\.hdf5: cannot be written, 5 MB are free, expected 17 MB"):
            spool.finish(True, True, {})
    recover(tmp_path)
    assert read(tmp_path)[0].success


def spooled(folder: Path, number: int, steps: int) -> Spool:
    """A spool of an episode, written without a process beside."""
    spool = Spool(folder, SPEC, "aloha", {"seed": number})
    for index in range(steps + 1):
        row = np.zeros(1, row_dtype(SPEC))
        sent = observed(number, index)
        row["time"], row["state"], row["reward"], row["intervened"] = index / 50, sent.state, index, index % 2
        row["action"] = acted(number, index) if index else 0
        for name, frame in sent.images.items():
            row["images"][name][0] = frame
        for name, reading in sent.sensors.items():
            row["sensors"][name][0] = reading
        spool.append(row.view(np.uint8))
    return spool


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_whatever_is_torn_the_whole_rows_before_it_are_recovered(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    spooled(folder, 0, 6).leave()
    rows = spool_path(folder, 0) / "rows.bin"
    content, size = bytearray(rows.read_bytes()), row_dtype(SPEC).itemsize
    place = data.draw(st.integers(0, len(content) - 1), label="torn at")
    if data.draw(st.booleans(), label="cut"):
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255), label="flipped")
    rows.write_bytes(content)
    steps = place // size - 1  # whole rows before it, less the first
    assert len(recover(folder)) == 1
    if steps < 1:
        assert list(folder.iterdir()) == []
    else:
        [episode] = read(folder)
        assert episode.num_steps == steps
        expect_sent(episode, 0)


@pytest.mark.parametrize("instant", ["file made", "half removed", "verdict known", "drafting", "header missing"])
def test_each_instant_of_the_end_is_recovered_from(
    tmp_path: Path, instant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spooled(tmp_path, 0, 3)
    if instant == "header missing":
        (spool.path / "header.json").unlink()
        spool.leave()
    else:
        with monkeypatch.context() as patch:
            if instant in ("verdict known", "drafting"):
                patch.setattr(spooling, "write_aloha_episode", killed)
            else:
                patch.setattr(spooling, "remove", killed)
            with pytest.raises(KeyboardInterrupt):
                spool.finish(True, True, {})
        if instant == "half removed":
            (spool.path / "header.json").unlink()
        if instant == "drafting":
            (tmp_path / ".episode_0.hdf5.0123.partial").write_bytes(b"half a file")
    recover(tmp_path, "discard")
    names = [path.name for path in tmp_path.iterdir()]
    assert names == ([] if instant == "header missing" else ["episode_0.hdf5"])
    if names:
        [episode] = read(tmp_path)
        expect_sent(episode, 0)
        assert episode.success
        assert episode.num_steps == 3


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_spool_of_another_version_is_left_alone(tmp_path: Path) -> None:
    spooled(tmp_path, 0, 3).leave()
    header = spool_path(tmp_path, 0) / "header.json"
    header.write_text(header.read_text().replace('"row_bytes": ', '"row_bytes": 9'))
    with pytest.raises(DataError, match=r"rows of 9\d+ bytes, expected \d+; another version"):
        recover(tmp_path)
    assert spools_in(tmp_path)


def test_what_cannot_be_recovered_is_not_promised(tmp_path: Path) -> None:
    spooled(tmp_path, 0, 3).leave()
    header = spool_path(tmp_path, 0) / "header.json"
    header.write_text(header.read_text().replace('"row_bytes": ', '"row_bytes": 9'))
    with pytest.raises(DataError, match=r"another version of .* or delete the folder$"):
        EpisodeWriter(tmp_path, SPEC, append=True)


@pytest.mark.parametrize(("name", "episodes"), [("header.json", 0), ("verdict.json", 1)])
def test_what_is_no_json_in_a_spool_is_named_and_can_be_deleted(
    tmp_path: Path, name: str, episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses power may leave a file that has its name and no content yet."""
    spool = spooled(tmp_path, 0, 3)
    with monkeypatch.context() as patch:
        patch.setattr(spooling, "write_aloha_episode", killed)
        with pytest.raises(KeyboardInterrupt):
            spool.finish(True, True, {})
    (spool.path / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name}: .*, expected JSON; delete it"):
        EpisodeWriter(tmp_path, SPEC, append=True)
    (spool.path / name).unlink()
    recover(tmp_path)
    assert len(list(tmp_path.iterdir())) == episodes


LIBRARY = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_record import EpisodeWriter, SPEC, send
"""
KILLED_FIFTY_TIMES = """
from lapwing.data import record
def endless(folder):
    with EpisodeWriter(folder, SPEC) as writer:
        for number in range(10**6):
            send(writer, number, 3 + number % 4, wait=True)
            if number % 5 == 4:
                writer.discard()
                send(writer, number, 3, wait=True)
            writer.keep(number % 2 == 0, number % 2 == 0, {"number": number})
record.START_METHOD = "fork"  # fifty processes that start in no time
random.seed(0)
for trial in range(50):
    folder = Path(sys.argv[2]) / str(trial)
    folder.mkdir()
    pid = os.fork()
    os.setpgid(pid, pid)
    if pid == 0:
        endless(folder)
    while trial % 5 and not list(folder.glob("episode_*.hdf5")):  # the others may be killed before the first
        time.sleep(0.001)
    time.sleep(0.08 * random.random())
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
KILLED_IN_THE_MIDDLE = """
if __name__ == "__main__":
    with EpisodeWriter(Path(sys.argv[2]), SPEC) as writer:
        send(writer, 0, 40, wait=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def suppress_busy() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if "another process" not in str(error):
            raise


def test_killed_at_fifty_random_times_nothing_whole_is_lost(tmp_path: Path) -> None:
    program = [sys.executable, "-c", LIBRARY + KILLED_FIFTY_TIMES, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(program, check=True, timeout=120)
    finished = unfinished = 0
    for trial in range(50):
        folder = tmp_path / str(trial)
        whole = len(read(folder)) if list(folder.glob("episode_*.hdf5")) else 0
        finished += whole
        unfinished += len(recover(folder))
        assert spools_in(folder) == []
        assert not list(folder.glob(".*"))
        episodes = read(folder) if list(folder.glob("episode_*.hdf5")) else []
        assert len(episodes) in (whole, whole + 1)
        for number, episode in enumerate(episodes):
            expect_sent(episode, number)
            if episode.meta.get("recovered"):
                assert number == whole
                assert (episode.terminated, episode.success) == (False, None)
            else:
                assert episode.meta["number"] == number
                assert episode.success == episode.terminated == (number % 2 == 0)
    assert finished >= 40
    assert unfinished > 0


def test_what_was_handed_over_is_written_though_the_loop_is_killed(tmp_path: Path) -> None:
    """The usual start of the process; the loop alone is killed, in the middle of an episode."""
    script, folder = tmp_path / "loop.py", tmp_path / "eps"
    script.write_text(LIBRARY + KILLED_IN_THE_MIDDLE)
    done = subprocess.run([sys.executable, str(script), str(Path(__file__).parent), str(folder)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    writer = None
    while writer is None:  # the writing process may still be at it
        with suppress_busy():
            writer = EpisodeWriter(folder, SPEC, append=True)
    writer.close()
    [episode] = read(folder)
    assert episode.num_steps == 40
    expect_sent(episode, 0)


def test_a_ring_keeps_order_around_its_end() -> None:
    ring = make_ring(np.dtype([("crc", "<u4"), ("value", "<i8", (3,))]))
    sent = taken = 0
    rng = np.random.default_rng(0)
    while taken < 5 * ring.slots:
        for _ in range(rng.integers(0, ring.free + 1)):
            ring.fill()["value"] = sent
            sent += 1
        assert ring.free == ring.slots - (sent - taken)
        for _ in range(rng.integers(0, sent - taken + 1)):
            assert (ring.oldest().view([("crc", "<u4"), ("value", "<i8", (3,))])["value"] == taken).all()
            ring.release()
            taken += 1
    ring.close()


@pytest.mark.skipif(sys.platform == "darwin", reason="memory cannot be claimed there")
def test_little_shared_memory_makes_a_smaller_ring_and_none_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.dtype([("crc", "<u4"), ("value", "<i8", (3,))])
    claim = os.posix_fallocate
    limit = 40 * row.itemsize

    def little(descriptor: int, offset: int, size: int) -> None:
        if size > limit:
            raise OSError(28, "No space left on device")
        claim(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", little)
    ring = make_ring(row)
    assert 8 <= ring.slots < 40
    ring.close()
    limit = 0
    with pytest.raises(DataError, match=r"too little shared memory, expected room for 8 rows .*--shm-size"):
        make_ring(row)
