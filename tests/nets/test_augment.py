"""Random shift against its definition, pixel by pixel; the other augmentation against torchvision, step by step."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import functional

from lapwing.batch import Obs
from lapwing.errors import ConfigError
from lapwing.nets.augment import AugmentConfig, augment, centre, crop_and_turn, jitter, random_shift


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


NOTES = AugmentConfig("notes")
STILL = AugmentConfig("notes", crop=1, rotation_deg=0, brightness=0, contrast=0, saturation=0)


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Pictures without sharp edges, uint8 [B, H, W, 3]: how a resampler rounds matters little."""
    batch, height, width, _ = shape
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 5, 6, generator=random) * 255
    fine = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return fine.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def pixels(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).float()


def varied(image: Tensor, config: AugmentConfig, seed: int = 0) -> Tensor:
    obs = Obs({"left": image}, torch.zeros(len(image), 1))
    return augment(obs, config, torch.Generator().manual_seed(seed)).images["left"]


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    crop=st.floats(0.5, 1),
    y=st.floats(0, 0.999),
    x=st.floats(0, 0.999),
)
def test_an_unturned_window_is_torchvisions_crop_and_resize(
    height: int, width: int, crop: float, y: float, x: float
) -> None:
    image = pixels(smooth(1, height, width, 3))
    rows, columns = int(height * crop), int(width * crop)
    top, left = int(torch.tensor(y) * (height - rows + 1)), int(torch.tensor(x) * (width - columns + 1))
    expected = functional.resized_crop(image, top, left, rows, columns, [height, width], antialias=True)
    found = crop_and_turn(image, crop, torch.tensor([[y, x]]), torch.zeros(1))
    inside = (..., slice(1, -1), slice(1, -1))  # at the frame's own edge a resize repeats it, and a rotation sees black
    torch.testing.assert_close(found[inside], expected[inside], atol=0.02, rtol=0)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(2, 40), width=st.integers(2, 40), degrees=st.floats(-180, 180))
def test_a_whole_frame_is_turned_as_torchvision_turns_it(height: int, width: int, degrees: float) -> None:
    image = pixels(smooth(2, height, width, 3))
    found = crop_and_turn(image, 1.0, torch.zeros(2, 2), torch.deg2rad(torch.tensor([degrees, 0.0])))
    expected = functional.rotate(image[0], degrees, functional.InterpolationMode.BILINEAR)
    torch.testing.assert_close(found[0], expected, atol=0.05, rtol=0)
    torch.testing.assert_close(found[1], image[1], atol=0.01, rtol=0)


def test_one_resampling_is_close_to_two() -> None:
    image = pixels(smooth(1, 60, 80, 3))
    window = functional.resized_crop(image, 1, 3, 57, 76, [60, 80], antialias=True)
    expected = functional.rotate(window, 4.0, functional.InterpolationMode.BILINEAR)
    found = crop_and_turn(image, 0.95, torch.tensor([[0.3, 0.7]]), torch.deg2rad(torch.tensor([4.0])))
    inside = (..., slice(6, -6), slice(6, -6))
    assert (found - expected)[inside].abs().mean() < 0.2  # and 1.9 for an angle of 3 degrees


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("factor", [(0.7, 0.6, 0.5), (1.3, 1.4, 1.5), (1.3, 0.6, 0.0), (1.0, 1.0, 1.0)])
def test_colours_are_jittered_as_torchvision_does_in_any_order(
    order: tuple[int, ...], factor: tuple[float, ...]
) -> None:
    steps = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    image = pixels(noise(3, 9, 11, 3))
    expected = image[1] / 255
    for index in order:
        expected = steps[index](expected, factor[index])
    others = torch.tensor([[0.1, 1.9, 1.2], factor, [1.7, 0.3, 0.9]])
    found = jitter(image, others, torch.tensor([[2, 1, 0], order, [0, 1, 2]]))
    torch.testing.assert_close(found[1] / 255, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [NOTES, STILL, AugmentConfig("none")])
def test_images_stay_what_encoders_take(config: AugmentConfig) -> None:
    obs = Obs({"left": noise(3, 12, 16, 3), "right": noise(3, 9, 8, 3)}, torch.zeros(3, 2))
    before = {name: image.clone() for name, image in obs.images.items()}
    for seen in (augment(obs, config), centre(obs, config)):
        assert seen.state is obs.state
        assert list(seen.images) == ["left", "right"]
        for name, image in seen.images.items():
            assert (image.shape, image.dtype) == (before[name].shape, torch.uint8)
            assert image.is_contiguous()
            assert torch.equal(obs.images[name], before[name])


def test_nothing_is_varied_without_strength_or_cameras() -> None:
    image = noise(4, 15, 20, 3)
    assert torch.equal(varied(image, STILL), image)
    assert torch.equal(centre(Obs({"left": image}, torch.zeros(4, 1)), STILL).images["left"], image)
    plain = Obs({"left": image}, torch.zeros(4, 1))
    assert augment(plain, AugmentConfig()) is plain
    assert centre(plain, AugmentConfig()) is plain
    blind = Obs({}, torch.zeros(4, 1))
    assert augment(blind, NOTES) is blind
    assert centre(blind, NOTES).images == {}


def test_cameras_vary_together_and_samples_apart() -> None:
    image = smooth(1, 24, 32, 3).expand(16, -1, -1, -1)
    seen = augment(Obs({"left": image, "right": image}, torch.zeros(16, 1)), NOTES).images
    assert torch.equal(seen["left"], seen["right"])
    assert len(seen["left"].flatten(1).unique(dim=0)) == 16


def test_the_seed_decides_and_a_generator_leaves_it_alone() -> None:
    obs = Obs({"left": smooth(3, 24, 32, 3)}, torch.zeros(3, 1))
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(augment(obs, NOTES).images["left"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    before = torch.random.get_rng_state()
    drawn = [augment(obs, NOTES, torch.Generator().manual_seed(5)).images["left"] for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], results[0])


COUNT = 3000


def expect_uniform(values: Tensor, low: float, high: float) -> None:
    """All within the range, up to the rounding of bytes, and as many in each fifth of it."""
    margin = 0.02 * (high - low)
    assert low - margin <= values.min() <= low + 2 * margin
    assert high - 2 * margin <= values.max() <= high + margin
    shares = torch.histc(values.float(), 5, low, high) / len(values)
    assert shares.min() > 0.16
    assert shares.max() < 0.24


def test_brightness_is_drawn_evenly_from_its_range() -> None:
    grey = torch.full((COUNT, 2, 2, 3), 150, dtype=torch.uint8)
    seen = varied(grey, replace(STILL, brightness=0.3))
    expect_uniform(seen[:, 0, 0, 0] / 150, 0.7, 1.3)


def test_contrast_is_drawn_evenly_from_its_range() -> None:
    chequered = torch.tensor([[60, 180], [180, 60]]).to(torch.uint8)[None, :, :, None].expand(COUNT, -1, -1, 3)
    seen = varied(chequered, replace(STILL, contrast=0.4)).int()
    expect_uniform((seen[:, 0, 1, 0] - seen[:, 0, 0, 0]) / 120, 0.6, 1.4)


def test_saturation_is_drawn_evenly_from_its_range() -> None:
    orange = torch.tensor([170, 120, 70]).to(torch.uint8).expand(COUNT, 2, 2, 3)
    seen = varied(orange, replace(STILL, saturation=0.5)).int()
    expect_uniform((seen[:, 0, 0, 0] - seen[:, 0, 0, 2]) / 100, 0.5, 1.5)


def test_angles_are_drawn_evenly_from_their_range() -> None:
    right, down = torch.arange(32.0), torch.arange(32.0)[:, None]
    ramp = (5.1 * right + 2.7 * down).to(torch.uint8)[None, :, :, None].expand(COUNT, -1, -1, 3)
    seen = varied(ramp, replace(STILL, rotation_deg=5)).float()[:, 8:24, 8:24, 0]
    place = torch.arange(16) - 7.5
    slope_x, slope_y = (seen.mean(axis) @ place for axis in (1, 2))
    expect_uniform(torch.rad2deg(torch.atan2(slope_y, slope_x)) - math.degrees(math.atan2(2.7, 5.1)), -5, 5)


def test_every_place_of_the_window_is_reached_about_equally_often() -> None:
    down, right = torch.meshgrid(10 * torch.arange(20), 10 * torch.arange(20), indexing="ij")
    ramps = torch.stack([down, right, right], -1).to(torch.uint8).expand(COUNT, -1, -1, -1)
    seen = varied(ramps, replace(STILL, crop=0.8))  # 16 of 20 pixels: 5 places on each side
    middle = seen[:, 9:11, 9:11, :2].float().mean((1, 2))
    places = ((middle - 75) / 10).round().int()
    hits = torch.zeros(5, 5, dtype=torch.int).index_put_(
        tuple(places.long().T), torch.ones(COUNT, dtype=torch.int), True
    )
    assert hits.sum() == COUNT
    assert hits.min() > 70
    assert hits.max() < 170


@pytest.mark.parametrize(("height", "width"), [(480, 640), (84, 84), (35, 51), (7, 20)])
def test_acting_sees_torchvisions_centre_crop(height: int, width: int) -> None:
    image = noise(2, height, width, 3)
    seen = centre(Obs({"left": image}, torch.zeros(2, 1)), NOTES).images["left"]
    window = functional.center_crop(image.permute(0, 3, 1, 2), [int(height * 0.95), int(width * 0.95)])
    expected = functional.resize(window, [height, width], antialias=True).permute(0, 2, 3, 1)
    assert (seen.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 0.0}, "crop is 0.0, expected a share above 0, up to 1"),
        ({"crop": 1.01}, "crop is 1.01, expected a share above 0, up to 1"),
        ({"rotation_deg": -1.0}, "rotation_deg is -1.0, expected 0 to 180 degrees"),
        ({"brightness": -0.1}, "brightness is -0.1, expected 0 or more"),
        ({"contrast": math.nan}, "contrast is nan, expected 0 or more"),
        ({"saturation": math.inf}, "saturation is inf, expected 0 or more"),
    ],
)
def test_strengths_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^augment: {message}$"):
        AugmentConfig("notes", **settings)
