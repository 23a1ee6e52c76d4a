"""A robot as a TOML file: its arms and axes, cameras, limits, and how its streams are joined."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lapwing.errors import ConfigError
from lapwing.robot.limits import Limits, make_bounds
from lapwing.robot.sync import Stream, SyncOptions
from lapwing.spec import Axis, AxisKind, Camera, RobotSpec, Sensor

SHIPPED = ("aloha",)
BASE = "base"

Table = Mapping[str, Any]


@dataclass(frozen=True)
class Description:
    """All that a station needs to know of a robot.

    parts: the axes of each arm by its name, in the order of the state, and last those of the base, if there is one,
    as "base". The action is all of them; the state those of the arms alone. Each part and each camera is a stream of
    `sync`: a camera by its name, an arm as "state_<name>", the base as "base".
    """

    spec: RobotSpec
    parts: Mapping[str, tuple[Axis, ...]]
    limits: Limits
    sync: SyncOptions


def stream_of(part: str) -> str:
    """The name of the stream of an arm, or of the base."""
    return part if part == BASE else f"state_{part}"


def read_description(name: str) -> Description:
    """Read a TOML file, or a shipped description by its name. Raises ConfigError naming file and field."""
    path = Path(__file__).with_name(f"{name}.toml") if name in SHIPPED else Path(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: no such robot; give a TOML file or one of {', '.join(SHIPPED)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the robot: {error}") from error
    try:
        return _description(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _description(data: Table) -> Description:
    known = ("name", "rate_hz", "sensors", "arms", BASE, "cameras", "sync", "limits")
    _expect(data, "robot", known, required=("name", "rate_hz", "arms", "cameras", "sync", "limits"))
    parts = {name: _axes(arm, f"arms.{name}", f"{name}_") for name, arm in _tables(data, "arms")}
    if BASE in parts:
        raise ConfigError(f"arms.{BASE}: an arm cannot be called so; rename it, or make it [{BASE}]")
    state = tuple(axis for axes in parts.values() for axis in axes)
    if BASE in data:
        parts[BASE] = _axes(_table(data[BASE], BASE), BASE, f"{BASE}_", kind="base")
    cameras = tuple(_camera(name, camera) for name, camera in _tables(data, "cameras"))
    streams = [*(camera.name for camera in cameras), *map(stream_of, parts)]
    sync = _sync(_table(data["sync"], "sync"), streams)
    limits = _limits(_table(data["limits"], "limits"))
    action = tuple(axis for axes in parts.values() for axis in axes)
    make_bounds(action, limits)
    spec = RobotSpec(
        name=_typed(data, "name", "robot", str, "a text"),
        cameras=cameras,
        state=state,
        action=action,
        rate_hz=_number(data, "rate_hz", "robot"),
        sensors=_sensors(data.get("sensors", []), len(state), len(action) - len(state), streams),
    )
    return Description(spec, parts, limits, sync)


def _axes(part: Table, where: str, prefix: str, kind: AxisKind | None = None) -> tuple[Axis, ...]:
    """The axes of an arm, each with a kind of its own, or those of the base."""
    fields = ("name", "unit", "low", "high") if kind else ("name", "unit", "kind", "low", "high")
    kinds = [one for one in get_args(AxisKind) if one != "base"]  # a velocity: a stop would take it to 0
    _expect(part, where, ("axes",), required=("axes",))
    axes = []
    for index, value in enumerate(_typed(part, "axes", where, list, "a list of axes")):
        axis, here = _table(value, f"{where}.axes[{index}]"), f"{where}.axes[{index}]"
        _expect(axis, here, fields, required=fields)
        if kind is None and axis["kind"] not in kinds:
            raise ConfigError(f"{here}: kind is {axis['kind']!r}, expected one of {', '.join(kinds)}")
        own_name, unit = (_typed(axis, key, here, str, "a text") for key in ("name", "unit"))
        low, high = _number(axis, "low", here, above=None), _number(axis, "high", here, above=None)
        axes.append(Axis(f"{prefix}{own_name}", unit, kind or axis["kind"], low, high))
    names = [axis.name for axis in axes]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{where}.axes: names are {names}, expected at least one, each name once")
    return tuple(axes)


def _camera(name: str, camera: Table) -> Camera:
    _expect(camera, f"cameras.{name}", ("height", "width"), required=("height", "width"))
    size = {key: _typed(camera, key, f"cameras.{name}", int, "pixels") for key in ("height", "width")}
    if min(size.values()) < 1:
        raise ConfigError(f"cameras.{name}: {size['height']} x {size['width']} pixels, expected at least 1 x 1")
    return Camera(name, **size)


def _sensors(named: Any, state_dim: int, base_dim: int, streams: list[str]) -> tuple[Sensor, ...]:
    """Those that the arms measure, the base's velocity, and the stamps of all streams."""
    if not isinstance(named, list) or not all(one in ("velocity", "effort") for one in named):
        raise ConfigError(f"robot: sensors is {named!r}, expected a list of velocity, effort, or none")
    arms = [Sensor(name, (state_dim,)) for name in ("velocity", "effort") if name in named]
    base = [Sensor("base_velocity", (base_dim,))] if base_dim else []
    return (*arms, *base, *(Sensor(f"stamp_{stream}", (), "s", "float64") for stream in streams))


def _sync(sync: Table, streams: list[str]) -> SyncOptions:
    _expect(sync, "sync", ("reference", "max_skew_ms", "max_disorder_ms", "patience_ms", "choice"), ("reference",))
    choices = _table(sync.get("choice", {}), "sync.choice")
    _expect(choices, "sync.choice", streams)
    max_skew = _number(sync, "max_skew_ms", "sync", default=20.0) / 1000
    return SyncOptions(
        streams=tuple(Stream(name, choices.get(name, "nearest"), max_skew) for name in streams),
        reference=sync["reference"] if isinstance(sync["reference"], str) else _number(sync, "reference", "sync"),
        disorder=_number(sync, "max_disorder_ms", "sync", above=None, default=0.0) / 1000,
        patience=_number(sync, "patience_ms", "sync", default=200.0) / 1000,
    )


def _limits(limits: Table) -> Limits:
    known = ("max_age_ms", "watchdog_ms", "speed", "acceleration")
    _expect(limits, "limits", known, required=("speed", "acceleration"))
    by_axis = {}
    for field in ("speed", "acceleration"):
        table = _table(limits[field], f"limits.{field}")
        by_axis[field] = {key: _number(table, key, f"limits.{field}") for key in table}
    return Limits(
        **by_axis,
        max_age=_number(limits, "max_age_ms", "limits", default=200.0) / 1000,
        watchdog=_number(limits, "watchdog_ms", "limits", default=200.0) / 1000,
    )


def _tables(data: Table, key: str) -> list[tuple[str, Table]]:
    """The tables within a table, by name; at least one."""
    named = _table(data[key], key)
    if not named:
        raise ConfigError(f"{key}: none, expected at least one")
    return [(name, _table(value, f"{key}.{name}")) for name, value in named.items()]


def _table(value: Any, where: str) -> Table:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {value!r}, expected a table")
    return value


def _expect(table: Table, where: str, known: Any, required: tuple[str, ...] = ()) -> None:
    if unknown := [key for key in table if key not in known]:
        raise ConfigError(f"{where}: {unknown[0]} is unknown; known are {', '.join(known)}")
    if missing := [key for key in required if key not in table]:
        raise ConfigError(f"{where}: {missing[0]} is missing; add it")


def _typed(table: Table, key: str, where: str, kind: type, expected: str) -> Any:
    if type(table[key]) is not kind:
        raise ConfigError(f"{where}: {key} is {table[key]!r}, expected {expected}")
    return table[key]


def _number(table: Table, key: str, where: str, above: float | None = 0.0, default: float | None = None) -> float:
    """A number, above `above` if that is given."""
    value = table.get(key, default)
    if type(value) not in (int, float) or not abs(value) < float("inf") or (above is not None and value <= above):
        raise ConfigError(
            f"{where}: {key} is {value!r}, expected a number{'' if above is None else f' above {above:g}'}"
        )
    return float(value)
