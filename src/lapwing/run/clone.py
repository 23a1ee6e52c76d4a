"""A small policy cloned from the recording: what its actions can be guessed from, as a yardstick of action errors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lapwing.episode import Array
from lapwing.nets.mlp import mlp
from lapwing.nets.optim import gradient_step
from lapwing.run.fitted_q import FitOptions, seeded

STEPS = 2000
BATCH = 256


def cloned_action(feature: Tensor, action: Tensor, asked: Tensor, options: FitOptions) -> Array:
    """Encoded actions float32 [J, A] at the features `asked` [J, F].

    An MLP fitted by squared error to recorded features [N, F] and actions [N, A]; its learning rate falls to 0.
    """
    with seeded(options.seed, feature.device):
        net = mlp(feature.shape[1], options.hidden, action.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=options.lr, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    random = torch.Generator().manual_seed(options.seed)
    for _ in range(STEPS):
        index = torch.randint(len(action), (BATCH,), generator=random)
        gradient_step(optimizer, F.mse_loss(net(feature[index]), action[index]))
        falling.step()
    with torch.no_grad():
        answer: Array = net(asked).numpy()
    return answer
