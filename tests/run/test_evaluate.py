"""Evaluation in a world small enough to know every outcome."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from matplotlib.image import imread

from lapwing.data.normalize import Normalizer
from lapwing.env import BatchEnv, Info, Sequential
from lapwing.episode import Array, Observation
from lapwing.errors import ConfigError
from lapwing.run.controls import Blind, Hold
from lapwing.run.evaluate import Evaluation, episode_seeds, evaluate, save_evaluation
from lapwing.run.video import filmstrip, side_by_side, write_video
from lapwing.spec import Axis, Camera, RobotSpec
from lapwing.stats import wilson_interval

SPEC = RobotSpec(
    "tiny",
    (Camera("near", 6, 8), Camera("far", 4, 4)),
    (Axis("reach", "m", "arm"), Axis("clock", "steps")),
    (Axis("reach", "m", "arm"), Axis("grip", "open", "gripper")),
)


class Guess:
    """Answer the brightness of the near camera: right ends with success, "lucky" where the seed is even.

    A wrong answer goes on for as many steps as the last digit of the seed says, then time is up.
    """

    spec, max_steps = SPEC, 10

    def reset(self, seed: int) -> Observation:
        self.seed, self.steps = seed, 0
        return self._look()

    def step(self, action: Array) -> tuple[Observation, float, bool, bool, Info]:
        self.steps += 1
        right = bool(action[0] == self.seed % 251 and self.steps >= 2)
        late = not right and self.steps > self.seed % 10
        info = {"success": right, "lucky": self.seed % 2 == 0} if right or late else {}
        return self._look(), 0.5 + right, right, late, info

    def _look(self) -> Observation:
        images = {"near": np.full((6, 8, 3), self.seed % 251, np.uint8), "far": np.full((4, 4, 3), 9, np.uint8)}
        return Observation(images, np.array([self.seed % 251, self.steps], np.float32))

    def close(self) -> None: ...


class Looking:
    """Answers with what it sees, in two of three episodes: not where the picture is darkest."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def __call__(self, observation: Observation, /) -> Array:
        seen = observation.images["near"][:, 0, 0, 0].astype(np.float32)
        return np.stack([np.where(seen > 83, seen, -1), 0 * seen], 1)


def guesses(num: int) -> BatchEnv:
    return Sequential([Guess() for _ in range(num)])


def expected_success(seeds: Sequence[int]) -> list[bool]:
    return [seed % 251 > 83 and seed % 10 >= 1 for seed in seeds]


def test_outcomes_are_counted_as_the_world_says() -> None:
    result = evaluate(Looking(), guesses(4), episodes=30, seed=7)
    seeds = episode_seeds(7, 30)
    wins = expected_success(seeds)
    assert 5 < sum(wins) < 25
    assert result.seeds == seeds
    assert list(result.flags["success"]) == wins
    assert list(result.flags["lucky"]) == [seed % 2 == 0 for seed in seeds]
    lengths = [2 if win else seed % 10 + 1 for seed, win in zip(seeds, wins, strict=True)]
    assert list(result.lengths) == lengths
    returns = [0.5 * length + win for length, win in zip(lengths, wins, strict=True)]
    assert result.returns == pytest.approx(returns)
    assert result.success_rate == pytest.approx(sum(wins) / 30)
    assert result.interval() == wilson_interval(sum(wins), 30)
    assert result.interval("lucky") == wilson_interval(sum(result.flags["lucky"]), 30)


@pytest.mark.parametrize("num", [1, 3, 20])
def test_copies_side_by_side_change_nothing(num: int) -> None:
    policy = Looking()
    assert evaluate(policy, guesses(num), 13, seed=1) == evaluate(Looking(), guesses(5), 13, seed=1)
    assert policy.resets == -(-13 // num)


def test_seeds_are_fresh_and_extend() -> None:
    assert episode_seeds(0, 5) == episode_seeds(0, 50)[:5]
    many = [seed for start in range(20) for seed in episode_seeds(start, 100)]
    assert len(set(many)) == len(many)
    assert min(many) > 1000
    assert max(many) < 2**31


def test_nothing_to_run_is_an_error() -> None:
    with pytest.raises(ConfigError, match="episodes: got 0, expected at least 1"):
        evaluate(Looking(), guesses(1), 0, seed=0)


def test_a_world_that_never_judges_has_no_success() -> None:
    result = evaluate(Still(), guesses(2), 3, seed=0)
    assert result.flags["success"] == (False, False, False)


class Still:
    def reset(self) -> None: ...

    def __call__(self, observation: Observation, /) -> Array:
        return np.full((len(observation.state), 2), -1.0)


def test_the_first_episodes_are_filmed_to_their_end() -> None:
    result = evaluate(Looking(), guesses(3), 8, seed=2, record=5)
    assert len(result.frames) == 5
    assert [len(film) for film in result.frames] == [length + 1 for length in result.lengths[:5]]
    film = result.frames[4]
    assert film.shape[1:] == (6, 16, 3)
    assert (film[:, :, :8] == result.seeds[4] % 251).all()
    assert (film[:, :4, 8:12] == 9).all()
    assert not film[:, 4:, 8:].any()
    assert result.cameras == ("near", "far")


def test_a_blind_policy_sees_black() -> None:
    result = evaluate(Blind(Looking()), guesses(3), 9, seed=7)
    assert result.success_rate == 0


def test_hold_stays_where_it_is() -> None:
    one = np.ones(2, np.float32)
    normalizer = Normalizer(one, one, one, one, np.array([5, 0.25], np.float32), one, -one, one, np.array([-1, -1]))
    action = Hold(SPEC, normalizer)(Observation({}, np.array([[3, 1], [4, 1]], np.float32)))
    assert action.tolist() == [[3, 0.25], [4, 0.25]]


def test_an_evaluation_survives_json() -> None:
    result = evaluate(Looking(), guesses(4), 6, seed=7, record=1)
    data = json.loads(json.dumps(result.to_dict()))
    assert Evaluation.from_dict(data) == result
    assert data["rates"]["success"] == {"rate": result.success_rate, "interval": list(result.interval())}
    assert data["length_mean"] == pytest.approx(np.mean(result.lengths))


def test_evaluations_are_saved_with_a_filmstrip(tmp_path: Path) -> None:
    deployed = evaluate(Looking(), guesses(4), 6, seed=7, record=2)
    blind = evaluate(Blind(Looking()), guesses(4), 6, seed=7)
    path = save_evaluation(tmp_path, "guess", 7, {"pi": deployed, "blind": blind}, "step-00000500")
    record = json.loads(path.read_text())
    assert path == tmp_path / "eval" / "guess-7.json"
    assert list(record["modes"]) == ["pi", "blind"]
    assert record["checkpoint"] == "step-00000500"
    assert record["filmed"] == {"mode": "pi", "episodes": 2}
    strip = imread(path.with_suffix(".png"))
    assert strip.shape[2] == 4
    save_evaluation(tmp_path, "guess", 7, {"blind": blind})
    assert sorted(file.name for file in path.parent.iterdir()) == ["guess-7.json"]


def test_a_filmstrip_runs_from_the_first_frame_to_the_last() -> None:
    frames = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 16, 3), np.uint8)
    strip = filmstrip(frames, cameras=2, columns=5)
    assert strip.shape == (2 * 6 + 4, 5 * 8 + 4 * 4, 4)
    assert strip[0, ::12, 0].tolist() == [0, 12, 24, 37, 49]
    assert strip[6, 0, 3] == 0
    assert (strip[:6] == strip[10:]).all()
    short = filmstrip(frames[:2], cameras=2, columns=5)
    assert short.shape == strip.shape
    assert not short[:, 24:].any()


def test_cameras_of_other_sizes_stand_on_black() -> None:
    picture = side_by_side({"a": np.full((2, 3, 3), 7, np.uint8), "b": np.full((4, 2, 3), 8, np.uint8)})
    assert picture.shape == (4, 6, 3)
    assert (picture[:2, :3] == 7).all()
    assert (picture[:, 3:5] == 8).all()
    assert picture.sum() == 7 * 18 + 8 * 24


def read_video(path: Path) -> tuple[list[Any], Any]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], stream.average_rate


def test_a_video_plays_back(tmp_path: Path) -> None:
    frames = np.zeros((7, 21, 33, 3), np.uint8)
    frames[3:, :, :16] = 200
    path = tmp_path / "films" / "out.mp4"
    write_video(path, frames, fps=12)
    played, rate = read_video(path)
    assert rate == 12
    assert len(played) == 7
    assert played[0].shape == (336, 528, 3)
    assert played[0].max() < 20
    assert abs(int(played[5][100, 100, 0]) - 200) < 12
    assert played[5][100, 500].max() < 20
    assert [file.name for file in path.parent.iterdir()] == ["out.mp4"]


def test_an_odd_size_is_padded(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", np.zeros((2, 401, 401, 3), np.uint8), fps=30)
    assert read_video(tmp_path / "odd.mp4")[0][0].shape == (402, 402, 3)


def test_a_video_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/out\.mp4: cannot write the video: .*; choose another place"):
        write_video(tmp_path / "file" / "out.mp4", np.zeros((1, 8, 8, 3), np.uint8), fps=10)
