"""Which topics of a ROS bag are cameras, state and action: the map that `lapwing data convert --topics` reads."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lapwing.errors import ConfigError
from lapwing.robot.ros_messages import Channels, Kind
from lapwing.robot.sync import Choice
from lapwing.spec import Axis

Clock = Literal["header", "receive"]
BaseUse = Literal["action", "sensor"]

GRID = "grid"  # as reference: rows at even times, rate_hz of them a second
SHIPPED = ("cobot_magic",)
_FASTEST_HZ = 1000  # as for recording


@dataclass(frozen=True)
class Source:
    """One topic as a stream.

    name: what reports call it. choice: which message a row takes. clock: the sender's stamp in the header, or the
    time at which the bag received the message. optional: a bag without the topic is converted without the stream.
    channels: colour order of 8UC3 images. axes, joints: those of a JointState, see `joint_values`.
    """

    name: str
    kind: Kind
    topic: str
    choice: Choice = "nearest"
    clock: Clock = "header"
    optional: bool = False
    channels: Channels | None = None
    axes: tuple[Axis, ...] = ()
    joints: tuple[str, ...] = ()


@dataclass(frozen=True)
class TopicMap:
    """The streams of a robot by their part, and how rows are made of them.

    rate_hz: the control rate. reference: the stream whose messages make the rows, or "grid" for even times at the
    rate. max_skew: how far from a row a message may lie; max_disorder: how far stamps may go back; in seconds.
    base_use: whether the base's velocity is part of the action or a sensor alone. marks: std_msgs/Bool that start
    (true) and stop (false) an episode; None: a bag is one episode.
    """

    name: str
    rate_hz: float
    reference: str
    max_skew: float
    max_disorder: float
    cameras: Mapping[str, Source]
    depth: Mapping[str, Source]
    state: tuple[Source, ...]
    action: tuple[Source, ...]
    base: Source | None
    base_use: BaseUse
    marks: Source | None

    @property
    def sources(self) -> tuple[Source, ...]:
        """All that rows are made of."""
        base = () if self.base is None else (self.base,)
        return (*self.cameras.values(), *self.depth.values(), *self.state, *self.action, *base)

    @property
    def recorded(self) -> tuple[Source, ...]:
        """All that a bag is read for: the sources, and the marks."""
        return self.sources if self.marks is None else (*self.sources, self.marks)

    @property
    def digest(self) -> str:
        """What tells the map apart from one that says anything else."""
        return f"{self.name} {hashlib.sha256(repr(self).encode()).hexdigest()[:12]}"

    def without(self, absent: set[str]) -> TopicMap:
        """The map without the optional streams of these names."""
        depth = {camera: source for camera, source in self.depth.items() if source.name not in absent}
        return replace(self, depth=depth, base=None if self.base and self.base.name in absent else self.base)


def read_topics(name: str) -> TopicMap:
    """Read a map from a TOML file, or a shipped one by its name. Raises ConfigError naming file and field."""
    path = Path(__file__).with_name(f"{name}_topics.toml") if name in SHIPPED else Path(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: no such map of topics; give a TOML file or one of {', '.join(SHIPPED)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the map of topics: {error}") from error
    topics = _topic_map(str(path), data)
    _expect_sense(str(path), topics)
    return topics


# What may stand in a table: a type, or the words to choose from.
_TYPE_WORDS = {str: "text", bool: "true or false", list: "a list of names", dict: "a table"}
Keys = Mapping[str, type | tuple[str, ...]]
_TOPIC: Keys = {"topic": str, "clock": get_args(Clock)}
_IMAGE: Keys = {**_TOPIC, "choice": ("nearest", "previous")}
_JOINTS: Keys = {
    **_TOPIC,
    "choice": get_args(Choice),
    "axes": list,
    "joints": list,
    "unit": str,
    "grippers": list,
    "gripper_unit": str,
}
_KEYS: Mapping[Kind, Keys] = {
    "image": {**_IMAGE, "channels": get_args(Channels)},
    "depth": {**_IMAGE, "optional": bool},
    "joints": _JOINTS,
    "base": {**_TOPIC, "choice": get_args(Choice), "optional": bool, "use": get_args(BaseUse)},
    "mark": {"topic": str},
}
_SYNC: Keys = {"reference": str, "max_skew_ms": float, "max_disorder_ms": float}
_PARTS = ("sync", "cameras", "depth", "state", "action", "base", "episodes")
_ROOT: Keys = {"name": str, "rate_hz": float, **dict.fromkeys(_PARTS, dict)}


def _topic_map(where: str, data: Mapping[str, Any]) -> TopicMap:
    root = _checked(where, data, _ROOT, ("name", "rate_hz", "state", "action"))
    sync = _checked(f"{where}: [sync]", root.get("sync", {}), _SYNC)
    base, marks = root.get("base"), root.get("episodes")
    cameras = {name: _source(where, "cameras", "image", name, part) for name, part in root.get("cameras", {}).items()}
    return TopicMap(
        name=root["name"],
        rate_hz=root["rate_hz"],
        reference=sync.get("reference", next(iter(cameras), GRID)),
        max_skew=sync.get("max_skew_ms", 1000 / root["rate_hz"] if root["rate_hz"] else 0) / 1000,
        max_disorder=sync.get("max_disorder_ms", 0.0) / 1000,
        cameras=cameras,
        depth={name: _source(where, "depth", "depth", name, part) for name, part in root.get("depth", {}).items()},
        state=tuple(_source(where, "state", "joints", name, part) for name, part in root["state"].items()),
        action=tuple(_source(where, "action", "joints", name, part) for name, part in root["action"].items()),
        base=None if base is None else _source(where, "base", "base", "", base),
        base_use="action" if base is None else base.get("use", "action"),
        marks=None if marks is None else _source(where, "episodes", "mark", "", marks),
    )


def _source(where: str, part: str, kind: Kind, name: str, table: Any) -> Source:
    here = f"{where}: [{part}.{name}]" if name else f"{where}: [{part}]"
    fields = _checked(here, table, _KEYS[kind], ("topic", "axes") if kind == "joints" else ("topic",))
    fields.pop("use", None)
    if kind == "mark":
        fields["clock"] = "receive"  # std_msgs have no header
    if kind == "joints":
        fields["axes"] = _axes(here, fields)
        fields["joints"] = tuple(fields.get("joints", ()))
        if fields["joints"] and len(fields["joints"]) != len(fields["axes"]):
            raise ConfigError(
                f"{here}: joints: {len(fields['joints'])} names for {len(fields['axes'])} axes; give as many"
            )
        if len(set(fields["joints"])) < len(fields["joints"]):
            raise ConfigError(f"{here}: joints: {', '.join(fields['joints'])}; expected each name once")
    return Source(name=name if part == "cameras" else f"{part}_{name}".rstrip("_"), kind=kind, **fields)


def _axes(where: str, fields: dict[str, Any]) -> tuple[Axis, ...]:
    """Take what describes the axes out of `fields`."""
    names, grippers = fields.pop("axes"), fields.pop("grippers", [])
    units = (fields.pop("unit", "rad"), fields.pop("gripper_unit", ""))
    if unknown := [name for name in grippers if name not in names]:
        raise ConfigError(f"{where}: grippers: {unknown[0]!r} is not one of the axes {', '.join(names)}")
    return tuple(Axis(name, units[name in grippers], "gripper" if name in grippers else "arm") for name in names)


def _checked(where: str, table: Any, keys: Keys, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a table, all of them known and of their type. Raises ConfigError."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: {table!r}, expected a table with {', '.join(keys)}")
    if unknown := [key for key in table if key not in keys]:
        raise ConfigError(f"{where}: {unknown[0]}: unknown; known are {', '.join(keys)}")
    if missing := [key for key in required if key not in table]:
        raise ConfigError(f"{where}: {missing[0]}: missing; add it")
    return {key: _value(f"{where}: {key}", value, keys[key]) for key, value in table.items()}


def _value(where: str, value: Any, expected: type | tuple[str, ...]) -> Any:
    if not isinstance(expected, type):
        if value not in expected:
            raise ConfigError(f"{where}: {value!r}, expected one of {', '.join(expected)}")
    elif expected is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{where}: {value!r}, expected a number, 0 or more")
        return float(value)
    elif not isinstance(value, expected):
        raise ConfigError(f"{where}: {value!r}, expected {_TYPE_WORDS[expected]}")
    elif isinstance(value, list) and not (value and all(isinstance(name, str) for name in value)):
        raise ConfigError(f"{where}: {value!r}, expected {_TYPE_WORDS[list]}")
    return value


def _expect_sense(where: str, topics: TopicMap) -> None:
    if not 0 < topics.rate_hz <= _FASTEST_HZ:
        raise ConfigError(
            f"{where}: rate_hz: {topics.rate_hz:g}, expected the control rate in Hz, above 0 and at most {_FASTEST_HZ}"
        )
    _expect_axes(f"{where}: [state]", topics.state)
    _expect_axes(f"{where}: [action]", topics.action)
    names = [source.name for source in topics.recorded]
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: two streams share a name in {names}; rename a camera")
    if topics.reference == GRID:
        return
    sources = {source.name: source for source in topics.sources}
    if topics.reference not in sources or sources[topics.reference].optional:
        known = ", ".join(name for name, source in sources.items() if not source.optional)
        raise ConfigError(f"{where}: sync.reference: {topics.reference!r}, expected {GRID} or one of {known}")


def _expect_axes(where: str, sources: tuple[Source, ...]) -> None:
    axes = [axis.name for source in sources for axis in source.axes]
    if not axes or len(set(axes)) < len(axes):
        raise ConfigError(f"{where}: axes are {axes}; expected at least one, each name once")
