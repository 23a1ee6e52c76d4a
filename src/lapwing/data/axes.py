"""Which state axis measures what an action axis commands."""

from __future__ import annotations

import numpy as np

from lapwing.episode import Array
from lapwing.spec import RobotSpec


def corresponding_axes(spec: RobotSpec) -> Array:
    """The state axis that measures what each action axis commands, int64 [A], -1 where there is none.

    Arm axes are matched by name, or by place where state and action have as many axes; so are axes without a kind
    where state and action have as many. Grippers and bases have none: their commands are no positions to hold.
    """
    same_size = spec.state_dim == spec.action_dim
    place = {axis.name: index for index, axis in enumerate(spec.state)}
    matched = [
        place.get(axis.name, index if same_size else -1)
        if axis.kind == "arm" or (axis.kind == "other" and same_size)
        else -1
        for index, axis in enumerate(spec.action)
    ]
    return np.array(matched, np.int64)
