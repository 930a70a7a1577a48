"""Which rows train, validate and test: by the provider's files, by time, by user or at random; no row in two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import Labels
from postclick.data.hashing import unit_interval
from postclick.data.log import SPLITS
from postclick.data.sources.base import SplitRole
from postclick.errors import ConfigError, DataError, Finding
from postclick.schema import Schema

__all__ = ["SplitKind", "SplitPlan", "choose_split", "order_statistic", "time_plan"]

SplitKind = Literal["provider", "time", "user", "random"]
_VALID_SEED, _USER_SEED, _RANDOM_SEED = 0x7A11D, 0x05E12, 0x4A4D0
_VALID_SHARE = 0.1
_BOUNDS = (0.8, 0.9)
_BINS = 1 << 16
_NEEDED = {"time": "time", "user": "user_id"}


@dataclass(frozen=True)
class SplitPlan:
    """How a row finds its split; survives pickling.

    Parameters
    ----------
    kind
        ``provider``: the piece's role. ``time``: first 80 % of the rows by time, next 10, last 10; equal times stay
        together. ``user``, ``random``: 80/10/10 by a hash of the user's or the exposure's id.
    valid_from, test_from
        First microsecond of valid and test, for ``time``.
    carve_valid
        With ``provider``: no file is the valid one, so 10 % of train by a hash of the exposure id are.
    """

    kind: SplitKind
    valid_from: int | None = None
    test_from: int | None = None
    carve_valid: bool = False

    def assign(self, labels: Labels, role: SplitRole | None) -> NDArray[np.int8]:
        """Return a split a row: 0 train, 1 valid, 2 test.

        Parameters
        ----------
        labels
            B rows.
        role
            The provider's word on their file.
        """
        if self.kind == "provider":
            assert role is not None
            codes = np.full(len(labels), SPLITS.index(role), np.int8)
            if self.carve_valid and role == "train":
                assert labels.exposure_id is not None
                codes[unit_interval(labels.exposure_id, _VALID_SEED) < _VALID_SHARE] = 1
            return codes
        if self.kind == "time":
            assert labels.time is not None
            assert self.valid_from is not None
            assert self.test_from is not None
            # a row belongs to as many later splits as it has reached the start of
            return (labels.time >= self.valid_from).astype(np.int8) + (labels.time >= self.test_from)
        keys, seed = (labels.user_id, _USER_SEED) if self.kind == "user" else (labels.exposure_id, _RANDOM_SEED)
        assert keys is not None
        place = unit_interval(keys, seed)
        return (place >= _BOUNDS[0]).astype(np.int8) + (place >= _BOUNDS[1])

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form that the audit holds."""
        body: dict[str, Any] = {"kind": self.kind}
        if self.kind == "time":
            body |= {"valid_from_us": self.valid_from, "test_from_us": self.test_from}
        if self.kind == "provider":
            body |= {"valid": "10 % of train by a hash of the exposure id" if self.carve_valid else "as provided"}
        return body


def choose_split(requested: str | None, roles: Sequence[SplitRole | None], schema: Schema) -> SplitKind:
    """Return the kind of split: the one asked for, else the provider's files, else time.

    Raises
    ------
    ConfigError
        ``config.split`` (exit 78) where it cannot be done, or where there is no default and one must be named.
    """
    named = schema.columns.named()
    provided = [role for role in roles if role is not None]
    if requested is None:
        if provided and len(provided) == len(roles):
            return "provider"
        if "time" in named and not provided:
            return "time"
        what = "some files have a role and some have none" if provided else "no role of a file and no time column"
        fix = "name one: --split user (needs user_id) or --split random"
        raise ConfigError(Finding("config.split", f"there is no default split: {what}", "--split", fix=fix))
    if requested not in get_args(SplitKind):
        fix = f"choose one of {', '.join(get_args(SplitKind))}"
        raise ConfigError(Finding("config.split", f"there is no split {requested!r}", "--split", fix=fix))
    needed = _NEEDED.get(requested)
    if needed is not None and needed not in named:
        fix = f"name the column in the schema: columns.{needed}"
        raise ConfigError(Finding("config.split", f"--split {requested} needs {needed}", "--split", fix=fix))
    if requested == "provider" and len(provided) < len(roles):
        fix = "give the files their roles: --train, --valid, --test"
        raise ConfigError(Finding("config.split", "--split provider needs a role a file", "--split", fix=fix))
    return cast(SplitKind, requested)


def order_statistic(parts: Callable[[], Iterable[NDArray[np.int64]]], rank: int) -> int:
    """Return the number of this rank (from 0) in ascending order, in bounded memory: a few passes over `parts`."""
    low, high = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for part in parts():
        if len(part):
            low, high = min(low, int(part.min())), max(high, int(part.max()))
    first, last, below = int(low), int(high), 0
    while first < last:
        width = -(-(last - first + 1) // _BINS)
        histogram = np.zeros(_BINS, np.int64)
        for part in parts():
            inside = part[(part >= first) & (part <= last)]
            histogram += np.bincount(((inside - first) // width).astype(np.int64), minlength=_BINS)
        reached = below + np.cumsum(histogram)
        place = int(np.searchsorted(reached, rank, side="right"))
        below = int(reached[place] - histogram[place])
        first, last = first + place * width, min(last, first + (place + 1) * width - 1)
    return first


def time_plan(parts: Callable[[], Iterable[NDArray[np.int64]]], rows: int) -> SplitPlan:
    """Return the split by time 80/10/10.

    Parameters
    ----------
    parts
        Gives the times of all kept rows, each time it is called.
    rows
        Their number.

    Raises
    ------
    DataError
        Where the times are too few to leave a train split.
    """
    valid_from, test_from = (order_statistic(parts, min(int(bound * rows), rows - 1)) for bound in _BOUNDS)
    first = order_statistic(parts, 0)
    if first >= valid_from:
        what = "the earliest time holds more than 80 % of the rows, so no split by time leaves rows to train on"
        raise DataError(Finding("data.split", what, "time", fix="choose --split user or --split random"))
    return SplitPlan("time", valid_from, test_from)
