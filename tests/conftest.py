"""Small recordings that many tests share. Frames and states carry their episode and row, so that a test can see
where a sample came from: pixel (0, 0) is (episode, row, camera) and the state begins with (episode, row)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import Lapwing, Said

from lapwing import cli
from lapwing.data.formats.flat import FlatWriter
from lapwing.episode import Episode, Recording
from lapwing.spec import Axis, Camera, RobotSpec


@pytest.fixture(scope="session")
def tiny_spec() -> RobotSpec:
    """Two arm axes and a gripper; the state has one axis more than the action."""
    arm = (Axis("shoulder", "rad", "arm", -3.0, 3.0), Axis("elbow", "rad", "arm"))
    return RobotSpec(
        name="tiny",
        cameras=(Camera("left", 8, 6), Camera("right", 8, 6), Camera("global", 8, 6)),
        state=(Axis("episode"), Axis("row"), *arm, Axis("grip", "m", "gripper")),
        action=(*arm, Axis("grip", "m", "gripper")),
        rate_hz=10.0,
    )


@pytest.fixture(scope="session")
def tiny_episodes(tiny_spec: RobotSpec) -> tuple[Episode, ...]:
    """Six episodes of 4 to 9 steps, every third one cut."""
    return _episodes(tiny_spec, [(4 + index, index % 3 != 2, False) for index in range(6)])


@pytest.fixture(scope="session")
def tiny_recording(tiny_spec: RobotSpec, tiny_episodes: tuple[Episode, ...]) -> Recording:
    """The six episodes in memory."""
    return Recording(Path("memory"), "memory", tiny_spec, tiny_episodes)


@pytest.fixture(scope="session")
def make_recording(tiny_spec: RobotSpec):
    """A recording in memory out of (steps, terminated, whether the observation after the end was kept)."""

    def make(kinds: Sequence[tuple[int, bool, bool]], seed: int = 0) -> Recording:
        return Recording(Path("memory"), "memory", tiny_spec, _episodes(tiny_spec, kinds, seed))

    return make


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory, tiny_recording: Recording) -> Path:
    """The six episodes in a flat file that nobody changes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.hdf5"
    with FlatWriter(path, tiny_recording.spec) as writer:
        for episode in tiny_recording.episodes:
            writer.add(episode)
    return path


@pytest.fixture
def tiny_flat(tiny_file: Path, tmp_path: Path) -> Path:
    """The six episodes in a flat file of the test's own."""
    path = tmp_path / "tiny.hdf5"
    path.write_bytes(tiny_file.read_bytes())
    return path


def _episodes(spec: RobotSpec, kinds: Sequence[tuple[int, bool, bool]], seed: int = 0) -> tuple[Episode, ...]:
    rng = np.random.default_rng(seed)
    rows = [steps + observed_end for steps, _, observed_end in kinds]
    starts = np.cumsum([0, *rows])
    frames = {
        camera.name: rng.integers(0, 256, (starts[-1], camera.height, camera.width, 3), np.uint8)
        for camera in spec.cameras
    }
    state = rng.normal(size=(starts[-1], spec.state_dim)).astype(np.float32)
    episodes = []
    for index, ((steps, terminated, _), start, stop) in enumerate(zip(kinds, starts, starts[1:], strict=False)):
        state[start:stop, :2] = np.stack([np.full(stop - start, index), np.arange(stop - start)], 1)
        for number, images in enumerate(frames.values()):
            images[start:stop, 0, 0] = [(index % 256, row % 256, number) for row in range(stop - start)]
        episodes.append(
            Episode(
                images={name: images[start:stop] for name, images in frames.items()},
                state=state[start:stop],
                action=rng.normal(size=(steps, spec.action_dim)).astype(np.float32),
                reward=rng.normal(size=steps).astype(np.float32),
                terminated=terminated,
                success=terminated,
                meta={"seed": index, "kind": "random"},
            )
        )
    return tuple(episodes)


@pytest.fixture
def lapwing(capsys: pytest.CaptureFixture[str]) -> Lapwing:
    """lapwing("data check", path, json=True) runs a command line in this process."""

    def run(command: str, *words: object, **flags: object) -> Said:
        args = [*command.split(), *map(str, words)]
        for name, value in flags.items():
            args += [f"--{name.replace('_', '-')}"] + ([] if value is True else str(value).split())
        capsys.readouterr()
        return Said(cli.main(args), *capsys.readouterr())

    return run
