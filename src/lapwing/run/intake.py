"""What actors tell, into buffers: everything to the online one, what a human did to the demonstrations as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lapwing.data.replay import ReplayBuffer
from lapwing.env import Info
from lapwing.episode import Observation
from lapwing.run.collect import Began, Event, Share


@dataclass(frozen=True)
class Collected:
    """One episode that an actor brought to its end. env_step: steps of all actors when it ended; success: None where
    the world does not say; intervened: steps chosen by another than the policy; true_success: what the world says where
    a classifier tells success, else None."""

    actor: int
    env_step: int
    length: int
    reward: float
    success: bool | None
    intervened: int
    true_success: bool | None = None


@dataclass
class Counts:
    """Since the run began. ended: episodes; intervened, interventions: steps and stretches; shares: by actor."""

    env_steps: int = 0
    ended: int = 0
    intervened: int = 0
    interventions: int = 0
    shares: dict[int, Share] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Counts:
        """Raises KeyError, TypeError or ValueError for what `to_dict` does not make."""
        counts = Counts(**{**data, "shares": {int(actor): Share(**one) for actor, one in data["shares"].items()}})
        for one in (counts, *counts.shares.values()):
            for name, number in vars(one).items():
                if name != "shares" and (type(number) is not int or number < 0):
                    raise ValueError(f"{name} is {number!r}, expected a count")
        return counts


@dataclass
class _Running:
    observation: Observation
    length: int = 0
    reward: float = 0.0
    intervened: int = 0
    in_stretch: bool = False


class Intake:
    """Sorts events into `online` and `demo` and counts. For one thread; the buffers may be drawn from meanwhile."""

    def __init__(self, online: ReplayBuffer, demo: ReplayBuffer, counts: Counts) -> None:
        self.counts = counts
        self._online, self._demo = online, demo
        self._running: dict[int, _Running] = {}
        self._ended: list[Collected] = []

    def take(self, actor: int, event: Event) -> None:
        """Raises SpecError or DataError for what does not belong into a buffer.

        An episode that begins while the actor is in another cuts that one off; nothing leads from the one to the other.
        """
        if isinstance(event, Began):
            self._online.begin(event.observation, actor)
            self._running[actor] = _Running(event.observation)
            self.counts.shares.setdefault(actor, Share()).count(event)
            return
        running = self._running[actor]
        penalty = float(event.info.get("grasp_penalty", 0.0))
        step = (event.action, event.reward, event.terminated, event.truncated, event.observation, event.intervened)
        self._online.add(*step, grasp_penalty=penalty, actor=actor)
        if event.intervened:
            if not running.in_stretch:
                self._demo.begin(running.observation, actor)
                self.counts.interventions += 1
            self._demo.add(*step, grasp_penalty=penalty, actor=actor)
            running.intervened += 1
            self.counts.intervened += 1
        running.in_stretch = event.intervened
        running.observation = event.observation
        running.length += 1
        running.reward += event.reward
        self.counts.env_steps += 1
        self.counts.shares[actor].count(event)
        if event.terminated or event.truncated:
            self._end(actor, self._running.pop(actor), event.info)

    def _end(self, actor: int, running: _Running, info: Info) -> None:
        success, true = (bool(info[name]) if name in info else None for name in ("success", "true_success"))
        self.counts.ended += 1
        self._ended.append(
            Collected(actor, self.counts.env_steps, running.length, running.reward, success, running.intervened, true)
        )

    def ended(self) -> Iterator[Collected]:
        """The episodes that ended since it was last asked."""
        ended, self._ended = self._ended, []
        yield from ended
