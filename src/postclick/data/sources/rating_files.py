"""Files of ratings: what they are called, and how their lines or matrices become arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from postclick.data.sources.base import SplitRole
from postclick.errors import DataError, Finding, InputMissingError
from postclick.schema.csv_text import csv_error, csv_layout

__all__ = ["RATING_LAYOUTS", "RatingFile", "RatingLayout", "Ratings", "coat_sides", "find_ratings", "read_ratings"]


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
    named
        Columns of user, item and rating where the file has a header.
    matrix
        Users x items with 0 for no rating, instead of a line a rating.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    threshold: float
    note: str
    needs: tuple[SplitRole, ...]
    named: tuple[str, str, str] | None = None
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
        ("user.txt", "user.txt.gz", "big_matrix.csv"),
        ("random.txt", "random.txt.gz", "small_matrix.csv"),
        1.0,
        "KuaiRec (Gao et al., CIKM 2022): the test holds watch ratios of the fully exposed users and items",
        ("test",),
        named=("user_id", "video_id", "watch_ratio"),
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
class RatingFile:
    """A file of ratings and whether its items were drawn at random."""

    path: Path
    role: SplitRole
    randomised: bool


@dataclass(frozen=True)
class Ratings:
    """Ratings in the order of their file, N of them.

    Parameters
    ----------
    user, item
        Ids as the file has them.
    value
        NaN where the line has no rating.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def join(cls, parts: Sequence[Ratings]) -> Ratings:
        """Return all of them, one part after the other."""
        columns = ([getattr(part, name) for part in parts] for name in ("user", "item", "value"))
        empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        return cls(*(np.concatenate([none, *column]) for none, column in zip(empty, columns, strict=True)))


def find_ratings(path: Path, role: SplitRole | None, layout: RatingLayout, problems: list[Finding]) -> list[RatingFile]:
    """Return the files of a folder by the names of the layout, or the one file that was given."""
    if role == "valid":
        what = "ratings have no valid file: it is a tenth of the exposures of train"
        problems.append(Finding("input.wrong_kind", what, str(path), fix="leave --valid out"))
        return []
    names: dict[SplitRole, tuple[str, ...]] = {"train": layout.train, "test": layout.test}
    if path.is_file():
        known = next((key for key, files in names.items() if path.name in files), role)
        if known is None:
            what = f"expected one of {', '.join(layout.train + layout.test)}, or a role for the file"
            problems.append(Finding("input.wrong_kind", what, str(path), fix="pass it with --train or --test"))
            return []
        return [RatingFile(path, role or known, known == "test")]
    found = []
    for key in names if role is None else [role]:
        file = next((path / name for name in names[key] if (path / name).is_file()), None)
        if file is not None:
            found.append(RatingFile(file, key, key == "test"))
        elif key in layout.needs or role is not None:
            what = f"the folder holds no {' or '.join(names[key])}"
            problems.append(Finding("input.missing", what, str(path), fix="pass the folder of the data set"))
    return found


def read_ratings(path: Path, layout: RatingLayout) -> Ratings:
    """Read a file: a matrix, or lines of user, item and rating cut at commas or tabs, with a header or without.

    Raises
    ------
    DataError
        ``data.csv``, ``data.text``, ``data.corrupt_file``.
    """
    if layout.matrix:
        matrix = _numbers(path)
        user, item = np.nonzero(matrix)
        return Ratings(user, item, matrix[user, item].astype(np.float64))
    found = csv_layout(path, layout.named or ())
    if not found.names:
        return Ratings.join([])
    named = layout.named is not None and set(layout.named).issubset(found.names)
    if not named and len(found.names) != 3:
        what = f"expected user, item and rating a line, found {len(found.names)} cells"
        raise DataError(Finding("data.csv", what, f"{path.name}:1", examples=found.names[:4]))
    columns = layout.named if named and layout.named else ("user", "item", "rating")
    kinds = dict(zip(columns, (pa.int64(), pa.int64(), pa.float64()), strict=True))
    read = arrow_csv.ReadOptions(use_threads=False, column_names=None if named else list(columns), block_size=4 << 20)
    convert = arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(columns))
    parse = arrow_csv.ParseOptions(delimiter=found.delimiter)
    try:
        with arrow_csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
            return Ratings.join([_part(batch) for batch in reader])
    except pa.ArrowInvalid as error:
        raise csv_error(error, path.name) from error
    except OSError as error:
        raise DataError(Finding("data.corrupt_file", str(error), path.name, fix="replace the file")) from error


def _part(batch: pa.RecordBatch) -> Ratings:
    user, item, rating = batch.columns
    if user.null_count or item.null_count:
        raise pa.ArrowInvalid("a line without a user or an item")
    return Ratings(np.asarray(user), np.asarray(item), rating.to_numpy(zero_copy_only=False))


def _numbers(path: Path) -> NDArray[np.int64]:
    try:
        return np.loadtxt(path, np.int64, ndmin=2)
    except FileNotFoundError as error:
        raise InputMissingError(Finding("input.missing", f"Coat needs {path.name}", str(path.parent))) from error
    except (OSError, ValueError) as error:
        raise DataError(Finding("data.csv", " ".join(str(error).split()), path.name)) from error


def coat_sides(folder: Path) -> dict[str, pa.Array]:
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
