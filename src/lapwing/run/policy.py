"""A trained agent as a robot sees it: an observation in, a physical action out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapwing.agent import Agent
from lapwing.batch import Obs
from lapwing.data.frames import resize
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Observation
from lapwing.errors import ConfigError, SpecError
from lapwing.run.checkpoint import Which, find_checkpoint, load_acting
from lapwing.run.device import open_device
from lapwing.run.execution import Execution, make_player
from lapwing.spec import Camera, RobotSpec


class Policy:
    """Acts deterministically. How the chunks of an agent that predicts K actions are used, `execution` says.

    Call `reset` where an episode begins. `spec` says what observations must look like, `mode` how the agent acts.
    """

    def __init__(
        self,
        agent: Agent,
        spec: RobotSpec,
        normalizer: Normalizer,
        mode: str | None = None,
        device: str | torch.device = "cpu",
        execution: Execution | None = None,
    ) -> None:
        if mode is not None and mode not in agent.modes:
            raise ConfigError(f"mode {mode!r} does not exist here; choose one of {', '.join(agent.modes)}")
        self.spec = spec
        self.mode = mode or agent.modes[0]
        self._agent, self._normalizer, self._device = agent, normalizer, torch.device(device)
        self._player = make_player(execution or Execution())

    def reset(self) -> None:
        """Forget what was predicted for the steps ahead."""
        self._player.reset()

    def __call__(self, observation: Observation | Mapping[str, Any], /) -> Array:
        """Physical action float32 [A], or [B, A] for a batch of observations.

        A mapping has "images" (camera -> uint8 [H, W, 3]) and "state" [S]. Frames of another size than the policy was
        trained at are resized exactly as for training with --image-size, each side scaled by itself: let the camera
        show what it showed in the recording. Raises SpecError naming what does not fit the spec.
        """
        if not isinstance(observation, Observation):
            observation = _from_mapping(observation)
        single = _ndim(observation.state) == 1
        state, images = self._checked(observation, single)
        action = self._player.next(len(state), lambda: self._decide(state, images))
        return action[0] if single else action

    @torch.inference_mode()
    def _decide(self, state: Array, images: Mapping[str, Array]) -> Array:
        """Physical actions [B, K, A]."""
        obs = Obs(
            {name: torch.from_numpy(frames) for name, frames in images.items()},
            torch.from_numpy(self._normalizer.encode_state(state)),
        )
        encoded = self._agent.act(obs.to(self._device), self.mode).float().cpu().numpy()
        actions = self._normalizer.decode_action(encoded, state)
        broken = ~(np.isfinite(encoded) & np.isfinite(actions))  # an infinity is decoded to the end of the range
        if broken.any():
            axis = self.spec.action[int(np.argwhere(broken)[0][-1])]
            raise SpecError(
                f"action: axis {axis.name!r} came out as no finite number, expected one to send; check the state "
                f"({state.min():.3g} to {state.max():.3g}), or choose another checkpoint"
            )
        return actions

    def _checked(self, observation: Observation, single: bool) -> tuple[Array, dict[str, Array]]:
        """State [B, S] and images [B, H, W, 3] in the spec's order."""
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is found below
                state = np.asarray(observation.state, np.float32)
        except (TypeError, ValueError) as error:
            raise SpecError(f"state: not numbers ({error}), expected {self.spec.state_dim} values") from error
        state = state[None] if single else state
        if state.ndim != 2 or state.shape[1] != self.spec.state_dim:
            got = state.shape[1:] if single else state.shape
            raise SpecError(f"state: shape {list(got)}, expected {self.spec.state_dim} values; {self._robot()}")
        if not np.isfinite(state).all():
            axis = self.spec.state[int(np.argwhere(~np.isfinite(state))[0][1])]
            raise SpecError(f"state: axis {axis.name!r} is not a finite number; check the sensor")
        if set(observation.images) != set(self.spec.camera_names):
            got_names = ", ".join(sorted(map(str, observation.images))) or "none"
            wanted = ", ".join(self.spec.camera_names) or "none"
            raise SpecError(f"images: cameras {got_names}, expected {wanted}; {self._robot()}")
        images = {}
        for camera in self.spec.cameras:
            frames = np.asarray(observation.images[camera.name])
            images[camera.name] = fitted(camera, frames[None] if single else frames, len(state), single)
        return state, images

    def _robot(self) -> str:
        return f"the policy was trained on robot {self.spec.name!r}"


def load_policy(
    run: str | Path,
    which: Which = "best",
    mode: str | None = None,
    device: str | torch.device = "cpu",
    execution: Execution | None = None,
) -> Policy:
    """The policy of a run, or of a checkpoint directory; its dataset is not needed.

    Raises CheckpointError, or ConfigError for a device that is not there.
    """
    device = open_device(device)
    agent, spec, normalizer, _ = load_acting(find_checkpoint(Path(run), which), device)
    return Policy(agent, spec, normalizer, mode, device, execution)


def fitted(camera: Camera, frames: Array, batch: int, single: bool) -> Array:
    """Frames [B, any size, 3] at the camera's size, contiguous. Raises SpecError, of one frame where `single`."""
    if frames.dtype != np.uint8:
        raise SpecError(f"images: camera {camera.name!r} is {frames.dtype}, expected uint8 RGB in 0..255")
    if frames.ndim != 4 or len(frames) != batch or frames.shape[3] != 3 or 0 in frames.shape:
        raise SpecError(
            f"images: camera {camera.name!r} has shape {list(frames.shape[1 if single else 0 :])}, expected "
            f"{'' if single else f'{batch} x '}{camera.height} x {camera.width} x 3, or another height and width"
        )
    resized = resize(frames, camera.height, camera.width)
    return np.require(resized, requirements=["C", "W"])  # PyTorch warns of memory that may not be written


def _ndim(state: Any) -> int:
    try:
        return np.ndim(state)
    except ValueError:  # rows of several lengths, which the check of the state names
        return 1


def _from_mapping(observation: Any) -> Observation:
    if not isinstance(observation, Mapping):
        raise SpecError(f"observation: a {type(observation).__name__}, expected a mapping with 'images' and 'state'")
    missing = {"images", "state"} - set(observation)
    if missing:
        raise SpecError(f"observation: {', '.join(sorted(missing))} missing; expected 'images' and 'state'")
    images = observation["images"]
    if not isinstance(images, Mapping):
        raise SpecError(f"images: a {type(images).__name__}, expected a mapping of camera names to uint8 [H, W, 3]")
    return Observation(images, observation["state"])
