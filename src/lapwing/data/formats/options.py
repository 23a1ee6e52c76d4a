"""What a reader has to be told where a file does not say it itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lapwing.data.formats.hdf5 import ImageLayout
from lapwing.data.formats.serl_modes import SetupMode

Base = Literal["auto", "off", "action", "both"]


@dataclass(frozen=True)
class ReadOptions:
    """How to read a recording.

    image_layout: order of the axes of images, where the shape does not tell. base: what becomes of a recorded
    `base_action` [N, 2]: appended to the action ("action"), to the state as well ("both"), kept as a sensor alone
    ("off"); "auto" appends it to the action unless it never moves. skip_damaged: leave out the episodes of a folder
    that cannot be read, and say which in the recording's notes. mode: which axes of the action are arms and which are
    grippers, where the file does not name them. image_keys: the cameras of transition files, by default every key
    whose values are images.
    """

    image_layout: ImageLayout = "auto"
    base: Base = "auto"
    skip_damaged: bool = False
    mode: SetupMode | None = None
    image_keys: tuple[str, ...] = ()
