"""Sensors in ALOHA files: those that the dialects know, and any other that a spec names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lapwing.data.formats.aloha_images import depth_images, stored_rows
from lapwing.data.formats.aloha_source import EpisodeSource
from lapwing.episode import Array, Frames
from lapwing.errors import DataError
from lapwing.spec import RobotSpec, Sensor

DEPTH_GROUPS = ("images_depth", "depths")  # cobot_magic's, and its older variant's

_UNITS = {"velocity": "rad/s", "base_velocity": "m/s, rad/s"}


def found_sensors(source: EpisodeSource, base_action: Array | None) -> dict[str, Frames]:
    """What a foreign file has measured. Its `base_action` is the measured velocity of the base."""
    sensors: dict[str, Frames] = {}
    for name, key in (("velocity", "qvel"), ("effort", "effort")):
        if source.find(f"observations/{key}") is not None:
            sensors[name] = source.observed_vectors(key)
    if base_action is not None and not source.observes_end:
        sensors["base_velocity"] = base_action
    for group in DEPTH_GROUPS:
        for camera in source.names(group):
            depth = depth_images(*source.observed(f"{group}/{camera}"))
            if depth is not None:
                sensors[f"depth_{camera}"] = depth
    return sensors


def sensor_specs(sensors: Mapping[str, Any]) -> tuple[Sensor, ...]:
    """A description of each, by what its readings are."""
    return tuple(
        Sensor(
            name,
            tuple(values.shape[1:]),
            "mm" if values.dtype == np.uint16 else _UNITS.get(name, ""),
            str(values.dtype),
        )
        for name, values in sensors.items()
    )


def sensor_key(sensor: Sensor) -> str:
    """Where in `observations` a sensor is stored: where the ALOHA dialects have one like it, else in `sensors`."""
    if sensor.name in ("velocity", "effort") and len(sensor.shape) == 1:
        return {"velocity": "qvel", "effort": "effort"}[sensor.name]
    prefix, _, camera = sensor.name.partition("_")
    if prefix == "depth" and storable(camera) and len(sensor.shape) == 2 and sensor.dtype == "uint16":
        return f"images_depth/{camera}"
    return f"sensors/{sensor.name}"


def storable(name: str) -> bool:
    """Whether HDF5 can store a name as it is."""
    if name in ("", ".") or set("/\0") & set(name):
        return False
    try:
        return bool(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def declared_sensors(source: EpisodeSource, spec: RobotSpec) -> dict[str, Frames]:
    """The sensors that the spec in a file names. Raises DataError for one that is missing or of another shape."""
    return {sensor.name: _readings(source, sensor) for sensor in spec.sensors}


def _readings(source: EpisodeSource, sensor: Sensor) -> Frames:
    """Large readings stay in the file, small ones come into memory."""
    dataset, last = source.observed(sensor_key(sensor))
    if dataset.shape[1:] != sensor.shape:
        raise DataError(
            f"{source.path}: '{dataset.name[1:]}' has readings of shape {dataset.shape[1:]}, expected {sensor.shape} "
            "as attribute 'lapwing' says; record it again or delete the attribute"
        )
    rows = stored_rows(dataset, last)
    return rows if len(sensor.shape) > 1 else rows[:].astype(sensor.dtype)
