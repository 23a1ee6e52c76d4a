"""Random shift against its definition, pixel by pixel."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapwing.batch import Obs
from lapwing.nets.augment import random_shift


def noise(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=random).to(torch.uint8)


def shifted_by_definition(image: Tensor, down: int, right: int) -> Tensor:
    """Pixel (y, x) is what was at (y + down, x + right), or at the nearest pixel of the image. image: [H, W, 3]."""
    height, width, _ = image.shape
    result = torch.empty_like(image)
    for y, x in itertools.product(range(height), range(width)):
        result[y, x] = image[min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
    return result


def shift_of(image: Tensor, shifted: Tensor, pixels: int) -> tuple[int, int] | None:
    """The (down, right) within `pixels` that makes `shifted` of `image`, None when there is none."""
    for offset in itertools.product(range(-pixels, pixels + 1), repeat=2):
        if torch.equal(shifted_by_definition(image, *offset), shifted):
            return offset
    return None


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pixels=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
def test_random_shift_equals_its_definition(batch: int, height: int, width: int, pixels: int, seed: int) -> None:
    obs = Obs({"left": noise(batch, height, width, 3, seed=seed)}, torch.zeros(batch, 2))
    before = obs.images["left"].clone()
    torch.manual_seed(seed)
    shifted = random_shift(obs, pixels)
    assert torch.equal(obs.images["left"], before)
    assert shifted.state is obs.state
    image = shifted.images["left"]
    assert (image.shape, image.dtype) == (before.shape, torch.uint8)
    for one, original in zip(image, before, strict=True):
        assert shift_of(original, one, pixels) is not None


def test_no_shift_is_the_identity() -> None:
    obs = Obs({"left": noise(2, 8, 8, 3)}, torch.zeros(2, 1))
    assert random_shift(obs, 0) is obs


@pytest.mark.parametrize("pixels", [1, 2])
def test_every_shift_is_reached_about_equally_often(pixels: int) -> None:
    torch.manual_seed(0)
    image = noise(7, 7, 3)
    count = 100 * (2 * pixels + 1) ** 2
    shifted = random_shift(Obs({"left": image.expand(count, -1, -1, -1)}, torch.zeros(count, 1)), pixels)
    offsets = itertools.product(range(-pixels, pixels + 1), repeat=2)
    possible = torch.stack([shifted_by_definition(image, *offset) for offset in offsets])
    hits = (shifted.images["left"][:, None] == possible).flatten(2).all(2).sum(0)
    assert hits.sum() == count
    assert hits.min() > 60
    assert hits.max() < 140


def test_cameras_and_samples_move_apart() -> None:
    torch.manual_seed(0)
    image = noise(9, 9, 3).expand(32, -1, -1, -1)
    shifted = random_shift(Obs({"left": image, "right": image}, torch.zeros(32, 1)), 4)
    assert list(shifted.images) == ["left", "right"]
    assert not torch.equal(shifted.images["left"], shifted.images["right"])
    assert len(shifted.images["left"].flatten(1).unique(dim=0)) > 10


def test_same_random_numbers_give_the_same_shift() -> None:
    obs = Obs({"left": noise(4, 8, 8, 3)}, torch.zeros(4, 1))
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(random_shift(obs, 3).images["left"])
    assert torch.equal(results[0], results[1])
