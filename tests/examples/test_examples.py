"""Each example runs."""

import runpy
from itertools import islice
from pathlib import Path

import pytest
from matplotlib import image

from lapwing.cli import main
from lapwing.data.formats.flat_writer import FlatWriter
from lapwing.envs import sample_world, world_spec

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    with FlatWriter(folder / "toy.hdf5", world_spec("toy", 32)) as writer:
        for episode in islice(sample_world("toy", quality="mixed", size=32, seed=0), 12):
            writer.add(episode)
    flags = "--steps 2 --batch-size 8 --backbone small --weights none --threads 1"
    assert main(["train", "bc", str(folder / "toy.hdf5"), "--out", str(folder / "run"), *flags.split()]) == 0
    return folder / "run"


def test_act_runs_an_episode_to_its_end(toy_run: Path) -> None:
    example = runpy.run_path(str(EXAMPLES / "act.py"))

    assert example["main"](str(toy_run)) in (0.0, 1.0)


def test_augmentation_draws_its_picture(tmp_path: Path) -> None:
    example = runpy.run_path(str(EXAMPLES / "augmentation.py"))

    example["main"](str(tmp_path / "views.png"), size=32)
    picture = image.imread(tmp_path / "views.png")[..., :3]
    assert picture.shape[0] > 500
    assert picture.std() > 0.1
