"""Ratings with a randomised test: Coat, KuaiRec, Yahoo! R3. A row is a rating, a conversion one over a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from postclick.data.sources.base import Piece, SourceBatch, SourceProtocol, SplitRole
from postclick.data.sources.inputs import Inputs, only_paths
from postclick.errors import ConfigError, DataError, Finding, InputMissingError
from postclick.schema import Columns, Schema, SparseFeature
from postclick.schema.csv_text import csv_error, csv_layout

__all__ = ["RATING_LAYOUTS", "RatingLayout", "RatingsSource"]

_BATCH_ROWS = 65_536
_COLUMNS = Columns(user_id="user_id", item_id="item_id", randomised="randomised")
_IDS = (SparseFeature("user_id", "user"), SparseFeature("item_id", "item"))


@dataclass(frozen=True)
class RatingLayout:
    """What the files of a data set are called and how its papers read it.

    Parameters
    ----------
    train, test
        File names, the first that is there counts; the test file holds randomised ratings.
    threshold
        A rating at or over it is a conversion in the debiasing literature.
    note
        Where it comes from.
    needs
        Roles that a folder must hold.
    matrix
        Users x items with 0 for no rating, instead of a line a rating.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    threshold: float
    note: str
    needs: tuple[SplitRole, ...]
    matrix: bool = False


RATING_LAYOUTS: dict[str, RatingLayout] = {
    "coat": RatingLayout(
        ("train.ascii",),
        ("test.ascii",),
        3.0,
        "Coat shopping (Schnabel et al., ICML 2016): train holds self-selected ratings, test ratings of random items",
        ("train", "test"),
        matrix=True,
    ),
    "kuairec": RatingLayout(
        ("user.txt", "user.txt.gz"),
        ("random.txt", "random.txt.gz"),
        1.0,
        "KuaiRec (Gao et al., CIKM 2022): random.txt holds watch ratios of the fully exposed users and items",
        ("test",),
    ),
    "yahoo-r3": RatingLayout(
        ("ydata-ymusic-rating-study-v1_0-train.txt", "user.txt", "user.txt.gz"),
        ("ydata-ymusic-rating-study-v1_0-test.txt", "random.txt", "random.txt.gz"),
        3.0,
        "Yahoo! R3 (Marlin and Zemel, RecSys 2009): train holds self-selected ratings, test ratings of random songs",
        ("train", "test"),
    ),
}


@dataclass(frozen=True)
class _RatingFile:
    """A file of ratings and whether its items were drawn at random."""

    path: Path
    role: SplitRole
    randomised: bool


@dataclass(frozen=True)
class RatingsSource:
    """Ratings as exposures that were all clicked (`population` is ``click``).

    Parameters
    ----------
    protocol, schema
        As `Source`.
    files
        By role.
    matrix
        As `RatingLayout`.
    sides
        Column of the schema -> its value for each user or item number (Coat's decoded one-hot features).
    """

    protocol: SourceProtocol
    schema: Schema
    files: tuple[_RatingFile, ...]
    matrix: bool = False
    sides: Mapping[str, pa.Array] = field(default_factory=dict)

    @classmethod
    def open(
        cls, key: str, inputs: Inputs, *, schema: Schema | None = None, threshold: float | None = None
    ) -> RatingsSource:
        """Find the files of a data set in its folder, or take files by role.

        Raises
        ------
        InputMissingError
            ``input.missing``: no such folder, or files that the data set consists of are not in it.
        ConfigError
            ``config.value``: a threshold that is no number.
        """
        layout = RATING_LAYOUTS[key]
        limit = layout.threshold if threshold is None else float(threshold)
        if not np.isfinite(limit):
            raise ConfigError(Finding("config.value", f"expected a number, got {limit}", "threshold"))
        problems: list[Finding] = []
        files = [file for role, path in only_paths(inputs, key) for file in _find(path, role, layout, problems)]
        if problems:
            raise InputMissingError(*problems)
        sides = _coat_sides(files[0].path.parent) if layout.matrix else {}
        features = (*_IDS, *(SparseFeature(name, "user" if name.startswith("user_") else "item") for name in sides))
        own = Schema(features, _COLUMNS, "click")
        notes = (layout.note, f"a conversion is a rating of at least {limit:g}")
        protocol = SourceProtocol(key, threshold=limit, provider_split=True, allow_overlap=True, notes=notes)
        return cls(protocol, schema or own, tuple(files), layout.matrix, sides)

    def pieces(self) -> list[Piece]:
        """One piece a file."""
        return [Piece(file.path.name, str(file.path), file.role, 0, int(file.randomised)) for file in self.files]

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        """Yield the ratings of a file in its order, for a matrix row by row."""
        assert piece.path is not None
        path, row = Path(piece.path), 0
        for user, item, rating in _matrix(path) if self.matrix else _triples(path):
            for start in range(0, len(user), _BATCH_ROWS):
                part = slice(start, start + _BATCH_ROWS)
                table = self._table(user[part], item[part], rating[part], piece.payload)
                yield SourceBatch(table, piece.label, row)
                row += table.num_rows

    def _table(
        self, user: NDArray[np.int64], item: NDArray[np.int64], rating: NDArray[np.float64], randomised: int
    ) -> pa.RecordBatch:
        columns: dict[str, Any] = {
            "click": pa.array(np.ones(len(user), np.int8)),
            # a missing rating is a missing label, not a 0
            "conversion": pa.array((rating >= (self.protocol.threshold or 0.0)).astype(np.int8), mask=np.isnan(rating)),
            "user_id": pa.array(user),
            "item_id": pa.array(item),
            "randomised": pa.array(np.full(len(user), randomised, np.int8)),
        }
        for name, values in self.sides.items():
            columns[name] = values.take(pa.array(user if name.startswith("user_") else item))
        order = [name for name in self.schema.raw_columns() if name in columns]
        return pa.RecordBatch.from_arrays([columns[name] for name in order], names=order)


def _find(path: Path, role: SplitRole | None, layout: RatingLayout, problems: list[Finding]) -> list[_RatingFile]:
    """Return the files of a folder by the names of the layout, or the one file that was given."""
    names: dict[SplitRole, tuple[str, ...]] = {"train": layout.train, "test": layout.test}
    if path.is_file():
        known = next((key for key, files in names.items() if path.name in files), role)
        if known is None:
            what = f"expected one of {', '.join(layout.train + layout.test)}, or a role for the file"
            problems.append(Finding("input.wrong_kind", what, str(path), fix="pass it with --train or --test"))
            return []
        return [_RatingFile(path, role or known, known == "test")]
    found = []
    for key in names if role is None else [role]:
        file = next((path / name for name in names.get(key, ()) if (path / name).is_file()), None)
        if file is not None:
            found.append(_RatingFile(file, key, key == "test"))
        elif key in layout.needs or role is not None:
            what = f"the folder holds no {' or '.join(names.get(key, (key,)))}"
            problems.append(Finding("input.missing", what, str(path), fix="pass the folder of the data set"))
    return found


def _triples(path: Path) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Stream lines of user, item, rating, cut at commas or tabs."""
    layout = csv_layout(path)
    if layout.names and len(layout.names) != 3:
        what = f"expected user, item and rating a line, found {len(layout.names)} cells"
        raise DataError(Finding("data.csv", what, f"{path.name}:1", examples=layout.names[:4]))
    if not layout.names:
        return
    types = {"user": pa.int64(), "item": pa.int64(), "rating": pa.float64()}
    read = arrow_csv.ReadOptions(use_threads=False, column_names=list(types), block_size=4 << 20)
    convert = arrow_csv.ConvertOptions(column_types=types)
    parse = arrow_csv.ParseOptions(delimiter=layout.delimiter)
    try:
        with arrow_csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                user, item, rating = batch.columns
                yield np.asarray(user), np.asarray(item), rating.to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise csv_error(error, path.name) from error
    except OSError as error:
        raise DataError(Finding("data.corrupt_file", str(error), path.name, fix="replace the file")) from error


def _numbers(path: Path) -> NDArray[np.int64]:
    try:
        return np.loadtxt(path, np.int64, ndmin=2)
    except FileNotFoundError as error:
        raise InputMissingError(Finding("input.missing", f"Coat needs {path.name}", str(path.parent))) from error
    except (OSError, ValueError) as error:
        raise DataError(Finding("data.csv", " ".join(str(error).split()), path.name)) from error


def _matrix(path: Path) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield the ratings that are not 0 (290 x 300 numbers: small enough to be read at once)."""
    ratings = _numbers(path)
    user, item = np.nonzero(ratings)
    yield user, item, ratings[user, item].astype(np.float64)


def _coat_sides(folder: Path) -> dict[str, pa.Array]:
    """Decode the one-hot features of users and items to one text a group; no or several ones are missing."""
    sides: dict[str, pa.Array] = {}
    for side in ("user", "item"):
        hot = _numbers(folder / f"{side}_features.ascii")
        names = folder / f"{side}_features_map.txt"
        if not names.is_file():
            raise InputMissingError(Finding("input.missing", f"Coat needs {names.name}", str(folder)))
        pairs = [line.partition(":")[::2] for line in names.read_text("utf-8").splitlines() if line]
        if len(pairs) != hot.shape[1]:
            what = f"{len(pairs)} names for {hot.shape[1]} columns of {side}_features.ascii"
            raise DataError(Finding("data.csv", what, names.name))
        for group in dict.fromkeys(group for group, _ in pairs):
            places = [place for place, (name, _) in enumerate(pairs) if name == group]
            words = np.array([pairs[place][1] for place in places])
            chosen = hot[:, places]
            sides[f"{side}_{group}"] = pa.array(words[chosen.argmax(axis=1)], mask=chosen.sum(axis=1) != 1)
    return sides
