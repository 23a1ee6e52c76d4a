"""What a recording lends to judging policies it was not made by: transitions, starts and possible values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lapwing.agent import Chunks, Scaling, Transitions
from lapwing.batch import Obs
from lapwing.data.axes import corresponding_axes
from lapwing.data.dataset import Dataset
from lapwing.data.frames import resize
from lapwing.data.normalize import Normalizer
from lapwing.episode import Array, Episode, Observation, returns_to_go
from lapwing.errors import DataError
from lapwing.run.fitted_q import Evidence
from lapwing.run.training_data import TrainingData, expect_rewards_in_transitions

BLOCK = 1024  # observations at once
THUMBNAIL = 16  # pixels; what is kept of a frame before its principal components are taken
COMPONENTS = 64  # of the thumbnails of all cameras together
FITTED_ON = 4096  # observations that the components are taken from
WIDER = 0.1  # share of the range of returns that values may lie outside it, as LAPO has it


def for_values(data: TrainingData) -> Dataset:
    """The training episodes as values are fed them, whatever the candidates were: relative to the state where axes
    correspond, or a small motion would hardly show in a large range of positions."""
    chosen = [data.recording.episodes[index] for index in data.split.train]
    relative = bool((corresponding_axes(data.spec) >= 0).any())
    normalizer = Normalizer.fit(chosen, data.recording.spec, relative, Scaling())
    return data.train.part(data.split.train, normalizer)


def gather(train: Dataset, features: Features, discount: float, limit: int, chunk: int = 1) -> Evidence:
    """The transitions of the training episodes over `chunk` actions each, `limit` of them evenly spread."""
    parts, rows = [], []
    for batch, where in train.ordered(Transitions(chunk, discount, chunk), BLOCK, limit):
        assert batch.next_obs is not None  # promised by Transitions
        seen, after = features.of(batch.obs), features.of(batch.next_obs)
        parts.append((seen, batch.action.flatten(1), batch.reward, batch.discount, after))
        rows.append(where)
    if not rows:
        raise DataError(
            f"{train.recording.path}: no step of some episodes has an observation after it, expected some to "
            "learn from; record longer episodes"
        )
    feature, action, reward, left, next_feature = (torch.cat(column) for column in zip(*parts, strict=True))
    _, episode = np.unique(train.episode_of(np.concatenate(rows)), return_inverse=True)
    bounds = value_bounds(train.recording.episodes, discount)
    return Evidence(feature, action, reward, left, next_feature, torch.from_numpy(episode), bounds)


def starts(data: TrainingData, episodes: Sequence[int]) -> Observation:
    """The first observations of episodes, frames at the size of the data's spec."""
    chosen = [data.recording.episodes[index] for index in episodes]
    images = {
        camera.name: np.concatenate(
            [resize(np.asarray(one.images[camera.name][:1]), camera.height, camera.width) for one in chosen]
        )
        for camera in data.spec.cameras
    }
    return Observation(images, np.stack([one.state[0] for one in chosen]))


def observation(obs: Obs, normalizer: Normalizer) -> Observation:
    """What a policy is shown, in physical units."""
    state = obs.state.numpy() * normalizer.state_scale + normalizer.state_offset
    return Observation({name: frames.numpy() for name, frames in obs.images.items()}, state)


class Features:
    """Observations as values see them: the normalised state and, with cameras, the principal components of small
    pictures. They owe nothing to any candidate, so that none is judged by its own eyes."""

    def __init__(self, train: Dataset) -> None:
        self._normalizer, self._cameras = train.normalizer, train.spec.camera_names
        if self._cameras:
            seen = [batch.obs.images for batch, _ in train.ordered(Chunks(), BLOCK, FITTED_ON)]
            self._mean, self._axes = _components(np.concatenate([_thumbnails(one, self._cameras) for one in seen]))

    def of(self, obs: Obs) -> Tensor:
        """Features float32 [B, F] of observations at the scale of the training episodes."""
        if not self._cameras:
            return obs.state
        seen = (_thumbnails(obs.images, self._cameras) - self._mean) @ self._axes
        return torch.cat([obs.state, torch.from_numpy(seen.astype(np.float32))], -1)

    def at(self, seen: Observation) -> Tensor:
        """Features of observations in physical units."""
        images = {name: torch.from_numpy(frames) for name, frames in seen.images.items()}
        return self.of(Obs(images, torch.from_numpy(self._normalizer.encode_state(seen.state))))


def _thumbnails(images: Mapping[str, Tensor], cameras: Sequence[str]) -> Array:
    """Small frames of all cameras side by side, float64 [B, 768 C] from 0 to 1."""
    small = [resize(images[name].numpy(), THUMBNAIL, THUMBNAIL).reshape(len(images[name]), -1) for name in cameras]
    joined: Array = np.concatenate(small, 1) / 255.0
    return joined


def _components(pixels: Array) -> tuple[Array, Array]:
    """The mean [D] of pictures [N, D], and the axes [D, K] that make the rest K numbers of variance 1."""
    mean = pixels.mean(0)
    _, size, axes = np.linalg.svd(pixels - mean, full_matrices=False)
    kept = min(COMPONENTS, int((size > 1e-3 * size[0]).sum())) if size[0] > 0 else 0
    return mean, axes[:kept].T * (len(pixels) ** 0.5 / size[:kept])


def value_bounds(episodes: Sequence[Episode], discount: float) -> tuple[float, float]:
    """Lowest and highest value that is possible, 0 included.

    Where reward comes with the end of an episode alone, what the recorded returns span, a tenth wider. Where it comes
    on the way, a policy may go on earning: lowest and highest reward / (1 - discount), or without a discount as often
    as the longest episode has steps.
    """
    rewards = [episode.transition_reward for episode in episodes if episode.transition_reward is not None]
    if not any(reward[:-1].any() for reward in rewards):
        low, high = return_range(episodes, discount)
        return low - WIDER * (high - low) * (low < 0), high + WIDER * (high - low) * (high > 0)
    joined, longest = np.concatenate(rewards), max(map(len, rewards))
    horizon = longest if discount == 1 else 1 / (1 - discount)
    return min(0.0, float(joined.min())) * horizon, max(0.0, float(joined.max())) * horizon


def return_range(episodes: Sequence[Episode], discount: float) -> tuple[float, float]:
    """Lowest and highest discounted return to the last step that can be learned from, 0 included."""
    rewards = [episode.transition_reward for episode in episodes if episode.transition_reward is not None]
    returns = np.concatenate([np.zeros(1), *(returns_to_go(reward, discount) for reward in rewards)])
    return float(returns.min()), float(returns.max())


def spread(count: int, most: int) -> Array:
    """`most` of `count` places, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def start_returns(episodes: Sequence[Episode], discount: float) -> Array:
    """What recorded episodes with rewards went on to earn, discounted, float64 [S]."""
    return np.array([returns_to_go(one.reward, discount)[0] for one in episodes if one.reward is not None])


def expect_rewards(data: TrainingData) -> None:
    """Raise DataError where nothing tells a good step from a bad one, or where no episode can be held out."""
    path, episodes = data.recording.path, data.recording.episodes
    advice = "label it (`lapwing data label`, or `lapwing data convert --reward`)"
    if not data.split.valid:
        raise DataError(f"{path}: one episode, expected two at least, one of them held out; record more")
    for index, episode in enumerate(episodes):
        if episode.reward is None:
            raise DataError(f"{path}: no rewards in episode {index}, expected some to judge policies by; {advice}")
    expect_rewards_in_transitions(path, episodes, "", advice)
