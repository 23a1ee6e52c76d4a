"""Where to compute: CUDA, then MPS, then the CPU."""

from __future__ import annotations

import torch

from lapwing.run.device import pick_device

DEVICE = torch.device(pick_device("auto").type)
