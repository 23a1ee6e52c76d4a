"""What `--augment notes` shows a policy: frames as recorded, four draws, and the centre crop that it acts on.

python examples/augmentation.py OUT.png [WORLD]        (WORLD: toy or aloha)
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from matplotlib.figure import Figure

from lapwing.batch import Obs
from lapwing.envs import sample_world
from lapwing.nets.augment import AugmentConfig, augment, centre

DRAWS = 4
PLACES = (0.1, 0.5)  # of the episode, where its samples are taken


def main(out: str, world: str = "toy", size: int = 128) -> None:
    """Draw two samples of a demonstration: a row a camera, a column a view."""
    episode = next(sample_world(world, quality="expert", size=size, seed=0))
    steps = [int(place * episode.num_steps) for place in PLACES]
    frames = {
        name: torch.from_numpy(np.stack([camera[step] for step in steps])) for name, camera in episode.images.items()
    }
    obs = Obs(frames, torch.zeros(len(steps), 1))  # images uint8 [B, H, W, 3]
    config = AugmentConfig("notes")
    generator = torch.Generator().manual_seed(0)
    views = {"recorded": obs} | {f"draw {k + 1}": augment(obs, config, generator) for k in range(DRAWS)}
    draw(views | {"when acting": centre(obs, config)}, out)


def draw(views: dict[str, Obs], out: str) -> None:
    cameras = list(views["recorded"].images)
    rows = [(sample, camera) for sample in range(len(PLACES)) for camera in cameras]
    figure = Figure((1.5 * len(views), 1.55 * len(rows)), dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), len(views), squeeze=False)
    for (sample, camera), line in zip(rows, panels, strict=True):
        for (title, view), axes in zip(views.items(), line, strict=True):
            axes.imshow(view.images[camera][sample].numpy())
            axes.set(xticks=[], yticks=[], frame_on=False)
            if (sample, camera) == rows[0]:
                axes.set_title(title, fontsize=10)
        line[0].set_ylabel(f"sample {sample + 1}, {camera}", fontsize=9)
    figure.savefig(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
