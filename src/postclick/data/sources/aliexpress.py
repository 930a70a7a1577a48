"""AliExpress in the layout of MTReclib and FuxiCTR: search_id, 16 categories, 63 numbers, two labels in any order."""

from __future__ import annotations

from pathlib import Path

from postclick.data.sources.base import SourceProtocol
from postclick.data.sources.inputs import Inputs
from postclick.data.sources.tabular import TabularSource
from postclick.schema import DenseFeature, Schema, SparseFeature
from postclick.schema.sampling import raw_files

__all__ = ["aliexpress_schema", "open_aliexpress"]

_CATEGORIES, _NUMBERS = 16, 63
_NOTES = ("search_id is the session of a search: neither a feature nor a user id",)


def aliexpress_schema() -> Schema:
    """Return the schema: sides are unknown (the columns are anonymous), so every feature is of the context."""
    categories = tuple(SparseFeature(f"categorical_{number}") for number in range(1, _CATEGORIES + 1))
    numbers = tuple(DenseFeature(f"numerical_{number}") for number in range(1, _NUMBERS + 1))
    return Schema((*categories, *numbers))


def open_aliexpress(inputs: Inputs, *, schema: Schema | None = None, labels: bool = True) -> TabularSource:
    """Open files of a country; a folder whose files are named after train and test is split that way.

    Labels are found by the names in the header: some files hold ``conversion,click`` at the end, some
    ``click,conversion``.

    Raises
    ------
    InputMissingError, DataError
        As `TabularSource.open`.
    """
    if len(inputs.src) == 1 and not inputs.has_roles and isinstance(inputs.src[0], str | Path):
        files = raw_files(inputs.src[0])
        train = tuple(file for file in files if "train" in file.name)
        test = tuple(file for file in files if "test" in file.name)
        if train and test and len(train) + len(test) == len(files):
            inputs = Inputs(train=train, test=test)
    protocol = SourceProtocol("aliexpress", notes=_NOTES)
    return TabularSource.open(inputs, schema=schema or aliexpress_schema(), labels=labels, protocol=protocol)
