"""A tiny LeRobot v2.1 data set, made here: two cameras in H.264, three axes, three episodes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lapwing.episode import Array

FPS = 20
CAMERAS = {"front": "observation.images.front", "wrist": "observation.images.wrist"}


@dataclass(frozen=True)
class LeRobotFiles:
    """A data set in files, with what went into them, for tests to read and to damage."""

    root: Path
    lengths: tuple[int, ...] = (12, 9, 15)
    names: tuple[str, ...] = ("left_shoulder", "left_gripper", "lift")
    height: int = 48
    width: int = 64

    def rows_file(self, episode: int) -> Path:
        return self.root / f"data/chunk-{episode // 2:03d}/episode_{episode:06d}.parquet"

    def video_file(self, episode: int, camera: str = "front") -> Path:
        return self.root / f"videos/chunk-{episode // 2:03d}/{CAMERAS[camera]}/episode_{episode:06d}.mp4"

    def state_and_action(self, episode: int) -> tuple[Array, Array]:
        state, action = np.random.default_rng(episode).normal(size=(2, self.lengths[episode], 3))
        return state.astype(np.float32), action.astype(np.float32)

    def frames(self, episode: int, length: int | None = None) -> Array:
        """Grey that grows by 8 a frame, left half darker by 20, from a start of the episode's own."""
        levels = 40 + 30 * episode + 8 * np.arange(self.lengths[episode] if length is None else length)
        halves = np.repeat([-20, 0], self.width // 2)
        pixels = np.broadcast_to(
            (levels[:, None] + halves)[:, None, :, None], (len(levels), self.height, self.width, 3)
        )
        return pixels.astype(np.uint8)

    def write_video(self, episode: int, frames: Array, camera: str = "front", options: Any = None) -> None:
        av = pytest.importorskip("av")
        path = self.video_file(episode, camera)
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=options or {}) as container:
            stream = container.add_stream("libx264", rate=Fraction(FPS))
            stream.height, stream.width, stream.pix_fmt = self.height, self.width, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
            container.mux(stream.encode())

    def write_rows(self, episode: int, **changed: Any) -> None:
        """The parquet file, with columns replaced or, where None, left out."""
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        state, action = self.state_and_action(episode)
        columns = {"state": state, "action": action, "timestamp": np.arange(len(state), dtype=np.float32) / FPS}
        columns |= changed
        named = {"observation.state" if name == "state" else name: value for name, value in columns.items()}
        table = pyarrow.table({name: list(value) for name, value in named.items() if value is not None})
        path = self.rows_file(episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)

    def edit_info(self, **changed: Any) -> None:
        """Replace fields of meta/info.json."""
        file = self.root / "meta/info.json"
        info = json.loads(file.read_text())
        info.update(changed)
        file.write_text(json.dumps(info))

    def edit_feature(self, key: str, **changed: Any) -> None:
        """Replace fields of a feature in meta/info.json, or add the feature."""
        features = json.loads((self.root / "meta/info.json").read_text())["features"]
        features[key] = {**features.get(key, {}), **changed}
        self.edit_info(features=features)


@pytest.fixture(scope="session")
def lerobot_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = LeRobotFiles(tmp_path_factory.mktemp("lerobot") / "twig")
    vector = {"dtype": "float32", "shape": [3], "names": {"motors": list(files.names)}}
    video = {"dtype": "video", "shape": [files.height, files.width, 3], "names": ["height", "width", "channels"]}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "twig",
        "fps": FPS,
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {"observation.state": vector, "action": vector, **dict.fromkeys(CAMERAS.values(), video)},
    }
    (files.root / "meta").mkdir(parents=True)
    (files.root / "meta/info.json").write_text(json.dumps(info))
    entries = [{"episode_index": i, "tasks": ["pick it up"], "length": n} for i, n in enumerate(files.lengths)]
    (files.root / "meta/episodes.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    for episode in range(len(files.lengths)):
        files.write_rows(episode)
        for camera in CAMERAS:
            files.write_video(episode, files.frames(episode), camera)
    return files.root


@pytest.fixture
def lerobot(lerobot_template: Path, tmp_path: Path) -> LeRobotFiles:
    """A sound data set of the test's own."""
    return LeRobotFiles(Path(shutil.copytree(lerobot_template, tmp_path / "twig")))


@pytest.fixture
def g1_inspire() -> Path:
    """The real recording beside the checkout."""
    path = Path(__file__).parents[3] / "shared" / "data" / "g1_inspire"
    if not path.is_dir():
        pytest.skip("../shared/data/g1_inspire is not there")
    return path
