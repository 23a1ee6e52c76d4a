"""Runs small enough to train in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lapwing.agents.act import ActConfig
from lapwing.agents.bc import BcConfig
from lapwing.agents.lapo_config import LapoConfig
from lapwing.nets.action_transformer import TransformerConfig
from lapwing.nets.backbone import BackboneConfig
from lapwing.nets.vision import VisionConfig
from lapwing.run.options import TrainOptions
from lapwing.run.train import train

VISION = VisionConfig(backbone="small", weights="none", image_feature_dim=16)
SMALL: dict[str, Any] = {
    "lapo": LapoConfig(hidden=(16,), obs_feature_dim=16, random_shift=1, vision=VISION),
    "act": ActConfig(
        chunk=3,
        random_shift=1,
        transformer=TransformerConfig(16, 2, 16, encoder_layers=1, decoder_layers=2),
        vision=BackboneConfig("small", "none"),
    ),
    "bc": BcConfig(hidden=(16,), obs_feature_dim=16, random_shift=1, vision=VISION),
}
OPTIONS = TrainOptions(
    steps=6, batch_size=8, eval_every=3, save_every=100, log_every=2, eval_samples=8, device="cpu", precision="fp32"
)
Train = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Nets this small lose time to a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train_small(tiny_flat: Path, tmp_path: Path) -> Train:
    """train_small("name", algorithm="lapo", resume=False, data=..., config=..., **options) -> run directory."""

    def run(
        name: str,
        algorithm: str = "lapo",
        resume: bool = False,
        data: Path = tiny_flat,
        config: Any = None,
        **options: Any,
    ) -> Path:
        chosen = SMALL[algorithm] if config is None else config
        return train(data, tmp_path / name, algorithm, chosen, replace(OPTIONS, **options), resume)

    return run


@pytest.fixture(scope="session")
def small_config() -> Callable[..., Any]:
    """small_config("lapo", tau=0.1): the small settings of an algorithm, with changes."""
    return lambda algorithm, **changes: replace(SMALL[algorithm], **changes)
