"""The recording loop: any world, any source of actions, at a set rate or as fast as the world goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lapwing.data.record import EpisodeWriter
from lapwing.env import ActionSource, Env, Info
from lapwing.episode import Array, Meta, Observation
from lapwing.errors import ConfigError
from lapwing.run.operator import Key, Operator
from lapwing.run.pace import Pace, Pacer

Ending = Literal["world", "source", "limit", "overrun", "stopped", "stop", "discard", "success", "failure", "finish"]
Verdict = Literal["kept", "discarded", "failed", "too slow", "empty"]


@dataclass(frozen=True)
class RecordOptions:
    """How episodes are recorded, and which are kept.

    rate_hz: control steps a second; None: as fast as the world goes, stamped by its own clock. max_steps: longest
    episode; None: the world's own. slowest: an episode whose mean rate is below this share of `rate_hz` ran too slow
    (ALOHA's rule: 42 of 50 Hz) and is marked or discarded, as `too_slow` says. keep_failures: whether an episode
    without success is kept. Raises ConfigError.
    """

    rate_hz: float | None = None
    max_steps: int | None = None
    too_slow: Literal["mark", "discard"] = "mark"
    slowest: float = 0.84
    keep_failures: bool = True

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not 0 < self.rate_hz <= 1000:
            raise ConfigError(f"--rate-hz is {self.rate_hz}, expected above 0 and at most 1000")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"--max-steps is {self.max_steps}, expected at least 1")
        if not 0 <= self.slowest <= 1:
            raise ConfigError(f"--slowest is {self.slowest}, expected a share of the rate, 0 to 1")

    def is_too_slow(self, pace: Pace) -> bool:
        """Whether an episode at this pace ran too slow for `rate_hz`."""
        return self.rate_hz is not None and pace.mean_hz < self.slowest * self.rate_hz


@dataclass(frozen=True)
class Take:
    """What became of one attempt. `path`: its file, None where it was not kept; `verdict` says why.

    success: None where nobody can tell. lost: steps the disk was too slow for. intervened: steps of a takeover.
    """

    path: Path | None
    verdict: Verdict
    ending: Ending
    success: bool | None
    pace: Pace
    lost: int
    intervened: int


class Actor(Protocol):
    """A policy as `load_policy` gives it."""

    def reset(self) -> None: ...

    def __call__(self, observation: Observation, /) -> Array: ...


class PolicySource:
    """A policy as a source of actions."""

    def __init__(self, policy: Actor) -> None:
        self._policy = policy

    def reset(self, seed: int) -> Meta:
        self._policy.reset()
        return {}

    def __call__(self, observation: Observation, /) -> Array:
        return self._policy(observation)


class Takeover:
    """A source that another one can take over from: on a key, or `after` so many steps. A second key hands back.

    Both begin anew when it becomes theirs. `intervening` says whose the last action was.
    """

    def __init__(self, first: ActionSource, other: ActionSource, after: int | None = None) -> None:
        self._sources = (first, other)
        self._after = after

    def reset(self, seed: int) -> Meta:
        self._seed, self._steps, self.intervening = seed, 0, False
        return self._sources[0].reset(seed)

    def switch(self) -> None:
        self.intervening = not self.intervening
        self._sources[self.intervening].reset(self._seed)

    def __call__(self, observation: Observation, /) -> Array | None:
        if self._steps == self._after and not self.intervening:
            self.switch()
        self._steps += 1
        return self._sources[self.intervening](observation)


def record(
    env: Env,
    source: ActionSource,
    writer: EpisodeWriter,
    seed: int,
    options: RecordOptions,
    operator: Operator,
    meta: Meta | None = None,
) -> Take:
    """Record one episode of `source` acting in `env`, until the world, the source, the operator or the limit ends it.

    Raises what the world, the source and the writer raise; the episode then stays recoverable.
    """
    attempt = _Attempt(env, source, writer, options, operator)
    attempt.begin(seed, meta or {})
    ending = attempt.run()
    return attempt.end(ending)


class _Attempt:
    """One episode on its way."""

    def __init__(
        self, env: Env, source: ActionSource, writer: EpisodeWriter, options: RecordOptions, operator: Operator
    ) -> None:
        self._env, self._source, self._writer = env, source, writer
        self._options, self._operator = options, operator
        self._steps = self._intervened = 0
        self._terminated, self._info = False, Info()

    def begin(self, seed: int, meta: Meta) -> None:
        self._observation = self._env.reset(seed)
        facts = self._source.reset(seed)
        self._pacer = Pacer(self._options.rate_hz)
        self._writer.begin(self._observation, self._time(), {**meta, "seed": seed, **facts})

    def run(self) -> Ending:
        while True:
            action = self._source(self._observation)
            if action is None:
                return "source"
            self._observation, reward, terminated, truncated, self._info = self._env.step(action)
            if self._info.get("stopped"):  # a robot's gate stopped it: nothing was observed
                return "stopped"
            self._terminated = terminated
            self._hand_over(action, reward)
            self._pacer.tick()
            ending = self._ending(terminated or truncated)
            if ending is not None:
                return ending

    def _hand_over(self, action: Array, reward: float) -> None:
        self._steps += 1
        intervened = isinstance(self._source, Takeover) and self._source.intervening
        self._intervened += intervened
        self._writer.step(
            action,
            self._observation,
            reward,
            self._time(),
            intervened,
            wait=self._options.rate_hz is None,  # nothing is hurried, so nothing needs to be lost
            grasp_penalty=self._info.get("grasp_penalty"),
        )

    def _time(self) -> float | None:
        """When the observation was made, in s: its latest stream's stamp, else the loop's tick or the world's own."""
        stamps = [value for name, value in self._observation.sensors.items() if name.startswith("stamp_")]
        if stamps:
            return float(max(stamps))
        if self._options.rate_hz is not None:
            return self._pacer.due if self._steps else 0.0
        return self._steps / self._env.spec.rate_hz if self._env.spec.rate_hz else None

    def _ending(self, world_ended: bool) -> Ending | None:
        if self._writer.lost:
            return "overrun"
        if world_ended:
            return "world"
        return "limit" if self._steps == self._options.max_steps else self._obey()

    def _obey(self) -> Ending | None:
        """Do what the operator's keys say; the ending if one is asked for."""
        key = self._operator.pressed()
        if key != "take over":
            return key
        if isinstance(self._source, Takeover):
            self._source.switch()
        return None

    def end(self, ending: Ending) -> Take:
        """Judge the attempt; keep it or not."""
        pace = self._pacer.report()
        lost = self._writer.lost
        key = self._judge(ending)
        success = _success(key, self._info) if not lost else None
        verdict = self._verdict(key, success, pace)
        path = None
        if verdict == "kept":
            path = self._writer.keep(key == "success" or self._terminated, success, self._facts(pace))
        else:
            self._writer.discard()
        return Take(path, verdict, ending, success, pace, lost, self._intervened)

    def _judge(self, ending: Ending) -> Ending | Key | None:
        """What the operator says of the episode: by the key that ended it, or asked where the world cannot tell."""
        if ending in ("discard", "success", "failure") or "success" in self._info or self._steps == 0:
            return ending
        return self._operator.ask("success? y yes, n no, d discard:", "success", "failure", "discard")

    def _verdict(self, key: Ending | Key | None, success: bool | None, pace: Pace) -> Verdict:
        if self._steps == 0:
            return "empty"
        if key == "discard":
            return "discarded"
        if self._options.too_slow == "discard" and self._options.is_too_slow(pace):
            return "too slow"
        return "kept" if success or self._options.keep_failures else "failed"

    def _facts(self, pace: Pace) -> Meta:
        """What the file says of how it was recorded."""
        facts: dict[str, str | int | float | bool] = {}
        if self._options.rate_hz is not None:
            facts |= {"mean_rate_hz": round(pace.mean_hz, 3), "missed_ticks": pace.missed}
            facts |= {"worst_delay_s": round(pace.latest, 6), "too_slow": self._options.is_too_slow(pace)}
        return facts


def _success(key: Ending | Key | None, info: Info) -> bool | None:
    if key in ("success", "failure"):
        return key == "success"
    return bool(info["success"]) if "success" in info else None
