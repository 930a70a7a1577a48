"""Ratings with a randomised test: Coat, KuaiRec, Yahoo! R3, under the protocol of the debiasing literature.

Every user x item pair is an exposure; a rating seen in training is the click, a rating at or over the threshold the
conversion. The test is the ratings of items drawn at random: users were made to rate, so each of its rows is clicked,
and only what is said of the CVR holds there (``@random``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.sources.base import Piece, SourceBatch, SourceProtocol
from postclick.data.sources.exposure_space import ExposureSpace, Pairs
from postclick.data.sources.inputs import Inputs, only_paths
from postclick.data.sources.rating_files import (
    RATING_LAYOUTS,
    RatingFile,
    RatingLayout,
    Ratings,
    coat_sides,
    find_ratings,
    read_ratings,
)
from postclick.data.sources.rating_propensity import (
    PropensityName,
    RatingPropensity,
    logistic,
    naive_bayes,
    popularity,
    slice_users,
)
from postclick.errors import ConfigError, DataError, Finding, InputMissingError, nearest
from postclick.schema import Columns, Schema, SparseFeature

__all__ = ["RatingsSource"]

_IDS = (SparseFeature("user_id", "user"), SparseFeature("item_id", "item"))
_NAMES: tuple[PropensityName, ...] = get_args(PropensityName)
_AGAIN = "rated again later"
_SLICE = "random ratings kept for propensities"


@dataclass(frozen=True)
class _Content:
    """What the files hold: the exposures of training, and the test rows that stay."""

    space: ExposureSpace
    tests: Mapping[str, Ratings]
    left_out: Mapping[str, int]
    propensity: RatingPropensity | None


@dataclass(frozen=True)
class RatingsSource:
    """All pairs of users and items as exposures, and ratings of random items as the test.

    Parameters
    ----------
    protocol, schema
        As `Source`.
    files
        By role.
    propensity
        What the column ``propensity`` holds, or None.
    sides
        Column of the schema -> its value for each user or item number (Coat's decoded one-hot features).
    content
        What was read.
    """

    protocol: SourceProtocol
    schema: Schema
    files: tuple[RatingFile, ...]
    propensity: PropensityName | None
    sides: Mapping[str, pa.Array] = field(repr=False)
    content: _Content = field(repr=False, compare=False)

    @classmethod
    def open(
        cls,
        key: str,
        inputs: Inputs,
        *,
        schema: Schema | None = None,
        threshold: float | None = None,
        propensity: str | None = None,
    ) -> RatingsSource:
        """Find the files of a data set in its folder, or take files by role, and read them.

        Parameters
        ----------
        key
            ``coat``, ``kuairec`` or ``yahoo-r3``.
        inputs
            A folder, or files by role.
        schema
            None: user and item as features, and Coat's features of both.
        threshold
            None takes the literature's.
        propensity
            An estimate of P(rated) as the logged propensity: ``popularity``, ``logistic`` (user and item) or
            ``naive-bayes``. With any of them 5 % of the test users leave the test, whose ratings naive Bayes reads, so
            that logs with different propensities have the same test rows.

        Raises
        ------
        InputMissingError
            ``input.missing``: no such folder, or files that the data set consists of are not in it.
        ConfigError
            ``config.value``: a threshold that is no number, an unknown propensity. ``config.combination``: a propensity
            that the files do not give or the schema does not name.
        DataError
            What cannot be read.
        """
        layout = RATING_LAYOUTS[key]
        limit = layout.threshold if threshold is None else float(threshold)
        if not np.isfinite(limit):
            raise ConfigError(Finding("config.value", f"expected a number, got {limit}", "threshold"))
        problems: list[Finding] = []
        files = [file for role, path in only_paths(inputs, key) for file in find_ratings(path, role, layout, problems)]
        if problems:
            raise InputMissingError(*problems)
        name = _propensity_name(propensity, files, schema)
        sides = coat_sides(files[0].path.parent) if layout.matrix else {}
        content = _read(files, layout, sides, name, limit)
        features = (*_IDS, *(SparseFeature(side, "user" if side.startswith("user_") else "item") for side in sides))
        named = Columns(
            user_id="user_id",
            item_id="item_id",
            randomised="randomised",
            propensity=None if name is None else "propensity",
        )
        notes = (layout.note, f"a conversion is a rating of at least {limit:g}", *_notes(files, content, name))
        protocol = SourceProtocol(key, threshold=limit, provider_split=True, allow_overlap=True, notes=notes)
        return cls(protocol, schema or Schema(features, named), tuple(files), name, sides, content)

    def pieces(self) -> list[Piece]:
        """One piece a file."""
        return [Piece(file.path.name, str(file.path), file.role, 0, int(file.randomised)) for file in self.files]

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        """Yield all pairs of the space for a file of train, the ratings of a file of test in its order."""
        content, row = self.content, 0
        is_train = piece.role == "train"
        left = {_AGAIN: content.space.again} if is_train else {_SLICE: content.left_out[str(piece.path)]}
        left = {rule: count for rule, count in left.items() if count}
        blocks = content.space.blocks() if is_train else content.space.rated(content.tests[str(piece.path)]).parts()
        for pairs in blocks:
            yield SourceBatch(self._table(pairs, piece.payload), piece.label, row, {}, left)
            row, left = row + len(pairs), {}

    def _table(self, pairs: Pairs, randomised: int) -> pa.RecordBatch:
        space = self.content.space
        user, item = space.users[pairs.user], space.items[pairs.item]
        converted = pairs.value >= (self.protocol.threshold or 0.0)  # a missing rating is a missing label, not a 0
        columns: dict[str, Any] = {
            "click": pa.array(pairs.click.astype(np.int8)),
            "conversion": pa.array(converted.astype(np.int8), mask=pairs.click & np.isnan(pairs.value)),
            "user_id": pa.array(user),
            "item_id": pa.array(item),
            "randomised": pa.array(np.full(len(pairs), randomised, np.int8)),
        }
        if self.content.propensity is not None:
            columns["propensity"] = pa.array(self.content.propensity(pairs))
        for name, values in self.sides.items():
            columns[name] = values.take(pa.array(user if name.startswith("user_") else item))
        order = [name for name in self.schema.raw_columns() if name in columns]
        return pa.RecordBatch.from_arrays([columns[name] for name in order], names=order)


def _propensity_name(name: str | None, files: list[RatingFile], schema: Schema | None) -> PropensityName | None:
    """Check the name of a propensity against what there is to estimate it from."""
    if name is None:
        return None
    known: PropensityName | None = next((each for each in _NAMES if each == name), None)
    if known is None:
        near = nearest(name, _NAMES)
        fix = f"did you mean {near!r}?" if near else f"choose one of {', '.join(_NAMES)}"
        raise ConfigError(Finding("config.value", f"there is no propensity {name!r}", "propensity", fix=fix))
    roles = {file.role for file in files}
    what = None
    if "train" not in roles:
        what = "there are no ratings of train to estimate it from"
    elif known == "naive-bayes" and not any(file.randomised for file in files):
        what = "naive Bayes needs ratings of random items, and there is no test"
    elif schema is not None and schema.columns.propensity != "propensity":
        what = 'the schema does not name the column: columns.propensity = "propensity"'
    if what is not None:
        raise ConfigError(Finding("config.combination", what, "propensity"))
    return known


def _read(
    files: list[RatingFile],
    layout: RatingLayout,
    sides: Mapping[str, pa.Array],
    name: PropensityName | None,
    threshold: float,
) -> _Content:
    """Read all files; make the space, estimate the propensity, take its users out of the test."""
    found = {str(file.path): read_ratings(file.path, layout) for file in files}
    train = Ratings.join([found[str(file.path)] for file in files if file.role == "train"])
    tests = {str(file.path): found[str(file.path)] for file in files if file.role == "test"}
    extent = tuple(
        max((len(v) for k, v in sides.items() if k.startswith(side)), default=0) for side in ("user", "item")
    )
    space = ExposureSpace.of(train, list(tests.values()), (extent[0], extent[1]))
    if layout.matrix and (len(space.users), len(space.items)) != extent:
        what = (
            f"ratings of {len(space.users)} users and {len(space.items)} items, features of {extent[0]} and {extent[1]}"
        )
        raise DataError(Finding("data.csv", what, files[0].path.name))
    if name is None:
        return _Content(space, tests, dict.fromkeys(tests, 0), None)
    random = Ratings.join([found[str(file.path)] for file in files if file.randomised])
    held = slice_users(random.user)
    kept = {path: _without(ratings, held) for path, ratings in tests.items()}
    drawn = random.value[np.isin(random.user, held)]
    estimates = {"popularity": popularity, "logistic": logistic}
    estimate = naive_bayes(space, drawn, threshold) if name == "naive-bayes" else estimates[name](space)
    return _Content(space, kept, {path: len(tests[path]) - len(kept[path]) for path in tests}, estimate)


def _without(ratings: Ratings, users: NDArray[np.int64]) -> Ratings:
    keep = ~np.isin(ratings.user, users)
    return Ratings(ratings.user[keep], ratings.item[keep], ratings.value[keep])


def _notes(files: list[RatingFile], content: _Content, name: PropensityName | None) -> Iterator[str]:
    """Say what the splits are."""
    space = content.space
    if any(file.role == "train" for file in files):
        yield (
            f"train is every pair of {len(space.users):,} users and {len(space.items):,} items, "
            f"clicked where there is a rating: {len(space.pair):,} of {len(space):,}"
        )
    tested = space.rated(Ratings.join(list(content.tests.values())))
    if len(tested):
        both, same = space.shared(tested)
        yield (
            f"{both:,} of the {len(tested):,} test pairs are rated in train too, {same:,} with the same rating "
            f"(|new-pair leaves them out); the other {len(tested) - both:,} are exposures of train without a click"
        )
        yield "test rows were rated on demand, so all are clicked: ctr and ctcvr say nothing there, cvr is @random"
    if name is not None:
        yield (
            f"propensity is P(rated) by {name}; 5 % of the test users ({sum(content.left_out.values()):,} ratings) are "
            "not in the test, whatever the propensity"
        )
