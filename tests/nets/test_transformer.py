"""Transformer layers beside PyTorch's own, positions by hand, and maps of every camera."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lapwing.batch import Obs
from lapwing.errors import ConfigError
from lapwing.nets.action_transformer import ActionTransformer, ChunkEncoder, TransformerConfig
from lapwing.nets.backbone import BackboneConfig, ImageMaps
from lapwing.nets.transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    attend,
    sine_image_positions,
    sine_positions,
)
from lapwing.spec import Camera, RobotSpec, unnamed_axes

WIDTH, HEADS, FEEDFORWARD = 16, 2, 24


@pytest.mark.parametrize("pre_norm", [False, True])
def test_an_encoder_layer_without_positions_is_pytorchs(pre_norm: bool) -> None:
    ours = EncoderLayer(WIDTH, HEADS, FEEDFORWARD, 0.1, pre_norm).eval()
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, FEEDFORWARD, batch_first=True, norm_first=pre_norm).eval()
    theirs.load_state_dict(ours.state_dict())
    x, is_pad = torch.randn(3, 5, WIDTH), torch.arange(5) > torch.tensor([[4], [2], [0]])
    expected = theirs(x, src_key_padding_mask=is_pad)
    torch.testing.assert_close(ours(x, torch.zeros_like(x), is_pad)[~is_pad], expected[~is_pad])


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # with so little nothing is dropped, but the formula is written out
def test_attention_in_training_is_pytorchs(dropout: float) -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, dropout, batch_first=True)
    query, key, value = (torch.randn(3, tokens, WIDTH, requires_grad=True) for tokens in (4, 5, 5))
    is_pad = torch.arange(5) > torch.tensor([[4], [2], [0]])
    ours = attend(attention, query, key, value, is_pad)
    theirs, _ = attention(query, key, value, key_padding_mask=is_pad)
    torch.testing.assert_close(ours, theirs)
    given = [query, key, value, *attention.parameters()]
    gradients = (torch.autograd.grad(said.square().sum(), given) for said in (ours, theirs))
    torch.testing.assert_close(*gradients)


def test_attention_drops_shares_in_training_alone() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, 0.5, batch_first=True)
    x = torch.randn(2, 6, WIDTH)
    torch.manual_seed(0)
    drawn = torch.stack([attend(attention, x, x, x) for _ in range(4000)])
    undropped = attend(attention.eval(), x, x, x)
    assert drawn.std(0).min() > 0.01
    torch.testing.assert_close(drawn.mean(0), undropped, rtol=0, atol=0.03)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_decoder_layer_without_positions_is_pytorchs(pre_norm: bool) -> None:
    ours = DecoderLayer(WIDTH, HEADS, FEEDFORWARD, 0.1, pre_norm).eval()
    theirs = nn.TransformerDecoderLayer(WIDTH, HEADS, FEEDFORWARD, batch_first=True, norm_first=pre_norm).eval()
    theirs.load_state_dict(ours.state_dict())
    x, memory = torch.randn(3, 4, WIDTH), torch.randn(3, 7, WIDTH)
    torch.testing.assert_close(ours(x, torch.zeros_like(x), memory, torch.zeros_like(memory)), theirs(x, memory))


def test_positions_join_queries_and_keys_but_never_values() -> None:
    """With one token there is nothing to choose between: a position cannot change what is read."""
    layer = EncoderLayer(WIDTH, HEADS, FEEDFORWARD, 0.0, pre_norm=False)
    x = torch.randn(2, 1, WIDTH)
    torch.testing.assert_close(layer(x, torch.randn(2, 1, WIDTH)), layer(x, torch.zeros(2, 1, WIDTH)))
    several = torch.randn(2, 3, WIDTH)
    assert not torch.allclose(layer(several, torch.randn(2, 3, WIDTH)), layer(several, torch.zeros(2, 3, WIDTH)))


def test_tokens_behind_the_mask_do_not_matter() -> None:
    encoder = Encoder(2, WIDTH, HEADS, FEEDFORWARD, 0.0, pre_norm=False)
    x, position = torch.randn(2, 5, WIDTH), torch.randn(1, 5, WIDTH)
    is_pad = torch.tensor([[False, False, False, True, True]] * 2)
    other = torch.where(is_pad[..., None], 1e3, x)
    assert torch.equal(encoder(x, position, is_pad)[:, :3], encoder(other, position, is_pad)[:, :3])


def test_the_first_decoder_layer_cannot_let_queries_exchange_anything() -> None:
    """Why reading actions off the first layer makes them independent of each other: its content is all zeros."""
    memory, position = torch.randn(1, 6, WIDTH), torch.randn(1, 6, WIDTH)
    query = torch.randn(1, 3, WIDTH)
    changed = query.clone()
    changed[:, 2] += 1
    for output, exchanged in (("first", False), ("last", True)):
        torch.manual_seed(0)
        decoder = Decoder(2, WIDTH, HEADS, FEEDFORWARD, 0.0, False, output)  # type: ignore[arg-type]
        moved = decoder(query, memory, position)[:, 0] - decoder(changed, memory, position)[:, 0]
        assert bool(moved.abs().max() > 1e-6) is exchanged


def test_sine_positions_by_hand() -> None:
    table = sine_positions(3, 4)[0]
    for place in range(3):
        slow = place / 10_000**0.5
        expected = [math.sin(place), math.cos(place), math.sin(slow), math.cos(slow)]
        torch.testing.assert_close(table[place], torch.tensor(expected))


def test_image_positions_by_hand() -> None:
    codes = sine_image_positions(2, 3, 8)[0].view(2, 3, 8)
    for row in range(2):
        for column in range(3):
            y, x = (row + 1) / 2 * 2 * math.pi, (column + 1) / 3 * 2 * math.pi
            expected = [f(v / r) for v in (y, x) for r in (1.0, 100.0) for f in (math.sin, math.cos)]
            torch.testing.assert_close(codes[row, column], torch.tensor(expected), atol=1e-4, rtol=1e-4)


def cameras(*sizes: tuple[int, int]) -> tuple[Camera, ...]:
    return tuple(Camera(f"camera_{index}", *size) for index, size in enumerate(sizes))


def picture(camera: Camera, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (batch, camera.height, camera.width, 3), dtype=torch.uint8)


def test_a_480x640_frame_gives_the_originals_300_cells() -> None:
    maps = ImageMaps(cameras((480, 640), (224, 224)), BackboneConfig("resnet18", "none"), shared=True)
    assert (maps.channels, maps.sizes) == (512, ((15, 20), (7, 7)))


def test_dilation_keeps_the_meaning_of_the_weights() -> None:
    """Every second cell of the dilated map is a cell of the plain one."""
    camera = cameras((128, 128))
    plain = ImageMaps(camera, BackboneConfig("resnet10", "none"), shared=True).eval()
    dilated = ImageMaps(camera, BackboneConfig("resnet10", "none", dilation=True), shared=True).eval()
    dilated.load_state_dict(plain.state_dict())
    assert (plain.sizes, dilated.sizes) == (((4, 4),), ((8, 8),))
    for maps in (plain, dilated):  # statistics over another number of cells would differ
        for name, module in list(maps.named_modules()):
            if isinstance(module, nn.GroupNorm):
                parent, _, child = name.rpartition(".")
                setattr(maps.get_submodule(parent), child, nn.Identity())
    frame = picture(camera[0])
    torch.testing.assert_close(dilated([frame])[0][:, :, ::2, ::2], plain([frame])[0], rtol=1e-3, atol=1e-4)


def test_small_backbones_have_no_dilation() -> None:
    with pytest.raises(ConfigError, match="dilation belongs to a ResNet, got backbone 'small'"):
        BackboneConfig("small", dilation=True)


@pytest.mark.parametrize("sizes", [((32, 32), (32, 32)), ((32, 32), (48, 64))])
@pytest.mark.parametrize("shared", [True, False])
def test_backbones_are_shared_or_one_each(sizes: tuple[tuple[int, int], ...], shared: bool) -> None:
    maps = ImageMaps(cameras(*sizes), BackboneConfig("small", "none"), shared)
    assert len(maps.bodies) == (1 if shared else 2)
    frames = [picture(camera) for camera in cameras(*sizes)]
    together = maps(frames)
    assert tuple(tuple(one.shape[2:]) for one in together) == maps.sizes
    for index, frame in enumerate(frames):
        alone = maps.body(index)(maps.pixels[index](frame))
        torch.testing.assert_close(together[index], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("patch", "tokens"), [(1, 16 + 48), (2, 9 + 20), (4, 4 + 6)])
def test_a_patch_of_cells_is_one_token_and_the_edges_stay(patch: int, tokens: int) -> None:
    spec = RobotSpec("two", cameras((32, 32), (48, 64)), unnamed_axes("s", 5), unnamed_axes("a", 3))
    sizes = TransformerConfig(16, 2, 16, 1, 1, 0.0, patch=patch)
    model = ActionTransformer(spec, 4, 6, sizes, BackboneConfig("small", "none"), True)
    obs = Obs({camera.name: picture(camera) for camera in spec.cameras}, torch.randn(2, 5))
    assert model.see(obs).shape == (2, tokens, 16)
    assert model(obs, torch.zeros(2, 6)).shape == (2, 4, 3)


def test_each_camera_adds_its_vector_to_its_own_cells_without_waiting_for_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = RobotSpec("two", cameras((32, 32), (48, 64)), unnamed_axes("s", 5), unnamed_axes("a", 3))
    model = ActionTransformer(
        spec, 4, 6, TransformerConfig(16, 2, 16, 1, 1, 0.0), BackboneConfig("small", "none"), True
    ).eval()
    given: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    obs = Obs({camera.name: picture(camera) for camera in spec.cameras}, torch.randn(2, 5))
    model(obs, torch.zeros(2, 6))
    assert model.camera_embedding is not None
    added = given[0][0, 2:] - model.image_position[0]
    first, second = model.camera_embedding.weight
    torch.testing.assert_close(added, torch.cat([first.expand(16, -1), second.expand(48, -1)]))
    meta = torch.device("meta")  # has no values, so that a shape that depends on one fails there
    monkeypatch.setattr(model, "see", lambda obs: obs.state.new_empty(2, 64, 16))
    assert model.to(meta)(obs.to(meta), torch.zeros(2, 6, device=meta)).shape == (2, 4, 3)


def test_the_chunk_encoder_does_not_look_at_padding() -> None:
    spec = RobotSpec("blind", (), unnamed_axes("s", 5), unnamed_axes("a", 3))
    encoder = ChunkEncoder(spec, 4, 6, TransformerConfig(16, 2, 16, 2, 1, 0.0))
    state, action = torch.randn(2, 5), torch.randn(2, 4, 3)
    is_pad = torch.tensor([[False, False, True, True], [False, False, False, False]])
    other = torch.where(is_pad[..., None], 99.0, action)
    assert torch.equal(encoder(state, action, is_pad), encoder(state, other, is_pad))
    assert not torch.equal(encoder(state, action, is_pad), encoder(state, action + 1, is_pad))


@pytest.mark.parametrize("position_values", [True, False])
def test_tokens_carry_their_positions_or_leave_them_to_queries_and_keys(position_values: bool) -> None:
    spec = RobotSpec("one", cameras((32, 32)), unnamed_axes("s", 5), unnamed_axes("a", 3))
    sizes = TransformerConfig(16, 2, 16, 1, 1, 0.0, position_values=position_values)
    model = ActionTransformer(spec, 4, 6, sizes, BackboneConfig("small", "none"), True)
    given: list[tuple[torch.Tensor, ...]] = []
    model.encoder.register_forward_hook(lambda _, inputs, __: given.append(inputs))
    obs = Obs({camera.name: picture(camera) for camera in spec.cameras}, torch.randn(2, 5))
    model(obs, torch.zeros(2, 6))
    tokens, position = given[0]
    expected = model.see(obs) + (position[:, 2:] if position_values else 0)
    torch.testing.assert_close(tokens[:, 2:], expected)
