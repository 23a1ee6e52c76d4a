"""From transitions to episodes: where they end, how, and which observation follows each step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lapwing.data.formats.serl_fields import STATE, flags_of, frames_of, numbers_of, vectors_of
from lapwing.data.formats.serl_table import META, OBSERVED, SPEC, Table
from lapwing.episode import Array, Episode
from lapwing.errors import DataError

_NEXT = "next_observations"


@dataclass(frozen=True)
class Observations:
    """What was seen at each transition. state: float32 [N, S]; frames: camera -> N arrays uint8 [H, W, 3]."""

    state: Array
    frames: Mapping[str, Sequence[Array]]


@dataclass(frozen=True)
class Stretch:
    """The transitions from `start` to `stop` as an episode, images apart: those of the steps, and of the row after
    the last where that was observed."""

    start: int
    stop: int
    episode: Episode


def observations_of(table: Table, cameras: Sequence[str], group: str = "observations") -> Observations:
    """Raises DataError where there is neither an image nor a state, or a transition lacks one."""
    if not cameras and STATE not in table.part(group):
        found = ", ".join(table.part(group)) or "nothing"
        raise DataError(
            f"{table.path}: {group!r} hold {found}, expected images uint8 [H, W, 3] or a 'state': nothing to act upon; "
            "store one of them"
        )
    has_state = STATE in table.part("observations")
    state = vectors_of(table, f"{group}/{STATE}") if has_state else np.zeros((table.length, 0), np.float32)
    return Observations(state, {camera: frames_of(table, camera, group) for camera in cameras})


def following_of(table: Table, now: Observations) -> Observations:
    """The observation after each transition: its own where it has one, otherwise that of the next transition."""
    if table.part(_NEXT):
        following = observations_of(table, tuple(now.frames), _NEXT)
        _expect_same_sizes(table, now, following)
        return following
    if not any(name in table.columns for name in ("dones", "masks", "truncations")):
        raise DataError(
            f"{table.path}: no {_NEXT!r} and no 'dones' in any transition, expected one of them to tell where episodes "
            "end; add them"
        )
    table.note(f"no {_NEXT!r}: the observation of the next transition stands for it, and episodes lack the last one")
    shifted = {camera: [*frames[1:], frames[-1]] for camera, frames in now.frames.items()}
    return Observations(np.concatenate([now.state[1:], now.state[-1:]]), shifted)


def _expect_same_sizes(table: Table, now: Observations, following: Observations) -> None:
    for name, first, other in (
        (STATE, now.state[0], following.state[0]),
        *((camera, now.frames[camera][0], following.frames[camera][0]) for camera in now.frames),
    ):
        if first.shape != other.shape:
            raise DataError(
                f"{table.path}: '{_NEXT}/{name}' has shape {list(other.shape)}, expected {list(first.shape)} as "
                f"'observations/{name}' has; record both alike"
            )


def stretches_of(table: Table, now: Observations, following: Observations) -> list[Stretch]:
    """The episodes: they end where a transition says so, and where the next one does not go on from it."""
    ends, terminated = _endings(table)
    gaps = _gaps(now, following) & ~ends[:-1]
    if gaps.any():
        table.note(
            f"{int(gaps.sum())} of {table.length} transitions are not followed by the next one in the file: "
            "episodes are cut there"
        )
        ends[:-1] |= gaps
    if not ends[-1]:
        rest = table.length - 1 - int(np.flatnonzero(ends)[-1]) if ends.any() else table.length
        table.note(f"the last {rest} transitions follow the final end: read as an episode that was cut")
        ends[-1] = True
    action, intervened = _actions(table)
    observed = _observed(table, ends)
    stops = [int(end) + 1 for end in np.flatnonzero(ends)]
    return [
        Stretch(
            start, stop, _episode(table, slice(start, stop), now, following, action, intervened, observed, terminated)
        )
        for start, stop in zip([0, *stops[:-1]], stops, strict=True)
    ]


def _endings(table: Table) -> tuple[Array, Array]:
    """Whether an episode ends at each transition, and whether the task ended there, bool [N] each."""
    done, mask, cut = (flags_of(table, name) for name in ("dones", "masks", "truncations"))
    none = np.zeros(table.length, bool)
    if done is None and mask is None:
        table.note("no 'dones' and no 'masks': no episode counts as terminated")
    terminated = ~mask if mask is not None else none if done is None else done
    cut = none if cut is None else cut
    if (terminated & cut).any():
        table.note(
            f"{int((terminated & cut).sum())} transitions are marked as the end and as cut: taken as cut by the time "
            "limit"
        )
    ends = terminated | cut if done is None else terminated | cut | done
    return ends, terminated & ~cut


def _gaps(now: Observations, following: Observations) -> Array:
    """Whether the next transition begins elsewhere than where each ends, bool [N - 1]."""
    begins, ends = now.state[1:], following.state[:-1]
    gaps: Array = ((begins != ends) & ~(np.isnan(begins) & np.isnan(ends))).any(1)
    for camera, frames in now.frames.items():
        ahead = following.frames[camera]
        for step in np.flatnonzero(~gaps).tolist():
            gaps[step] = ahead[step] is not frames[step + 1] and not np.array_equal(ahead[step], frames[step + 1])
    return gaps


def _actions(table: Table) -> tuple[Array, Array | None]:
    """The actions taken, float32 [N, A], and whether a human took them, bool [N] or None where nothing tells."""
    action, marked = vectors_of(table, "actions"), table.columns.get("infos/intervene_action")
    if marked is None or SPEC in table.columns:  # our own writer says it of every step
        return action, None
    given = np.array([value is not None for value in marked])
    if not given.any():
        return action, None
    columns = {"infos/intervene_action": [value for value in marked if value is not None]}
    corrected = vectors_of(Table(table.path, int(given.sum()), columns), "infos/intervene_action")
    if corrected.shape[1] != action.shape[1]:
        raise DataError(
            f"{table.path}: 'infos/intervene_action' has {corrected.shape[1]} axes, expected {action.shape[1]} as "
            "'actions' has; record both alike"
        )
    action[given] = corrected
    return action, given


def _observed(table: Table, ends: Array) -> Array:
    """Whether the observation after each transition is in the file, bool [N]."""
    if not table.part(_NEXT):
        return ~ends
    told = table.columns.get(OBSERVED, [None] * table.length)
    return np.array([not (isinstance(value, bool | np.bool_) and not value) for value in told])


def _episode(
    table: Table,
    rows: slice,
    now: Observations,
    following: Observations,
    action: Array,
    intervened: Array | None,
    observed: Array,
    terminated: Array,
) -> Episode:
    last = rows.stop - 1
    state = now.state[rows]
    if observed[last]:
        state = np.concatenate([state, following.state[last : rows.stop]])
    marks = numbers_of(table, "intervened", rows)
    if marks is None and intervened is not None:
        marks = intervened[rows]
    reward = numbers_of(table, "rewards", rows)
    success = numbers_of(table, "infos/succeed", slice(last, last + 1))
    return Episode(
        images={},
        state=state,
        action=action[rows],
        reward=None if reward is None else reward.astype(np.float32),
        terminated=bool(terminated[last]),
        success=None if success is None else bool(success[0]),
        meta=_meta(table, rows.start),
        intervened=None if marks is None else marks.astype(bool),
        grasp_penalty=_grasp_penalty(table, rows),
    )


def _grasp_penalty(table: Table, rows: slice) -> Array | None:
    """Costs, float32 [n], 0 where a transition has none; None where no transition has any."""
    filled: dict[str, Sequence[Any]] = {}
    for name in ("grasp_penalty", "infos/grasp_penalty"):
        column = table.columns.get(name)
        if column is not None and not filled and any(value is not None for value in column[rows]):
            filled["grasp_penalty"] = [0.0 if value is None else value for value in column]
    penalty = numbers_of(Table(table.path, table.length, filled), "grasp_penalty", rows)
    if penalty is None:
        return None
    if (penalty > 0).any():
        step = rows.start + int(np.flatnonzero(penalty > 0)[0])
        raise DataError(
            f"{table.path}: 'grasp_penalty' of transition {step} is {penalty[step - rows.start]:g}, expected 0 or "
            "below, for it is added to the reward; negate it"
        )
    return penalty.astype(np.float32)


def _meta(table: Table, first: int) -> dict[str, Any]:
    """What our own writer noted of the episode that begins here."""
    text = table.columns[META][first] if META in table.columns else None
    if text is None:
        return {}
    try:
        meta = json.loads(str(text))
        if isinstance(meta, dict):
            return meta
    except ValueError:
        pass
    raise DataError(f"{table.path}: {META!r} of transition {first} is not the JSON our writer makes; delete the key")
