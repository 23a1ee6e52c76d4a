"""The weights an image encoder starts from: ImageNet's, those of a file, or none."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from lapwing.errors import ConfigError

Backbone = Literal["resnet18", "resnet10", "small"]
Norm = Literal["auto", "group", "frozen"]


def resolve_weights(backbone: Backbone, weights: str, norm: Norm) -> tuple[Mapping[str, Tensor] | None, str, Norm]:
    """The pretrained tensors, if any, and the words `weights` and `norm` as they were decided.

    Raises ConfigError when the three do not go together, or what was asked for cannot be had.
    """
    pretrained = None
    from_file = weights not in ("none", "auto", "imagenet")
    if backbone == "small" and (from_file or norm == "frozen"):
        raise ConfigError(
            f"backbone 'small' starts from scratch with GroupNorm, got weights {weights!r} and norm "
            f"{norm!r}; use --weights none --norm auto, or another backbone"
        )
    if from_file:
        pretrained = _read_state_dict(Path(weights))
    elif weights != "none":
        pretrained = _imagenet(backbone, required=weights == "imagenet")
    resolved = weights if pretrained is not None else "none"
    if resolved == "auto":
        resolved = "imagenet"
    if norm == "auto":
        norm = "group" if pretrained is None else "frozen"
    # with weights "none" a checkpoint's own may follow
    if norm == "frozen" and pretrained is None and weights != "none":
        raise ConfigError("norm 'frozen' needs pretrained weights and there are none; use --norm auto")
    if norm == "group" and pretrained is not None:
        raise ConfigError(
            "norm 'group' cannot hold pretrained BatchNorm statistics; use --norm auto, or --weights none"
        )
    return pretrained, resolved, norm


def _imagenet(backbone: Backbone, required: bool) -> Mapping[str, Tensor] | None:
    if backbone != "resnet18":
        reason = f"there are no ImageNet weights for backbone {backbone!r}"
    else:
        try:
            from torchvision.models import ResNet18_Weights

            state: Mapping[str, Tensor] = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)
            return state
        except Exception as error:  # the download can fail in many ways; each means the same here
            reason = f"the ImageNet weights of ResNet-18 could not be had ({type(error).__name__}: {error})"
    if required:
        raise ConfigError(f"weights 'imagenet': {reason}; give a file with --weights PATH, or --weights none")
    if backbone == "resnet18":
        print(f"lapwing: warning: {reason}; the image encoder starts from scratch with GroupNorm", file=sys.stderr)
    return None


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ConfigError(f"weights {path}: cannot be read as a state dict ({reason}); or use none|auto") from error
    if not isinstance(state, Mapping):
        raise ConfigError(f"weights {path}: holds a {type(state).__name__}, expected a state dict; or use none|auto")
    return state


def load_resnet(net: nn.Module, pretrained: Mapping[str, Tensor]) -> None:
    """Put a torchvision ResNet state dict into `net`, but for its classifier. Raises ConfigError if parts lack."""
    wanted = net.state_dict()
    fitting = {k: v for k, v in pretrained.items() if k in wanted and v.shape == wanted[k].shape}
    missing = [k for k in wanted if k not in fitting and not k.startswith("fc.") and "num_batches" not in k]
    if missing:
        raise ConfigError(
            f"weights: {len(missing)} tensors are missing or of another shape, the first is {missing[0]!r}; "
            "expected a torchvision ResNet state dict of this backbone"
        )
    net.load_state_dict(fitting, strict=False)
