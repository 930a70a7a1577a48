"""Raw data: one file a format; `SOURCES` is the table of them, `opening.open_source` the door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from postclick.data.sources.ali_ccp import AliCcpSource
from postclick.data.sources.aliexpress import open_aliexpress
from postclick.data.sources.base import Piece, Source, SourceBatch, SourceProtocol, ValueCounts
from postclick.data.sources.inputs import Inputs
from postclick.data.sources.ratings import RatingsSource
from postclick.data.sources.rees46 import Rees46Source
from postclick.data.sources.tabular import TabularSource
from postclick.schema import Schema

__all__ = ["SOURCES", "Options", "Piece", "Source", "SourceBatch", "SourceProtocol", "ValueCounts"]


@dataclass(frozen=True)
class Options:
    """What a caller may say about raw data; a source takes what concerns it.

    Parameters
    ----------
    schema
        None: the source's own, or an inferred one.
    fields
        ``aitm`` or ``full``, for raw Ali-CCP.
    threshold
        A rating at or over it is a conversion, for ratings.
    labels
        False: funnel columns may be missing (scoring).
    propensity
        Which estimate of P(rated) is the logged propensity, for ratings; None logs none.
    """

    schema: Schema | None = None
    fields: str = "aitm"
    threshold: float | None = None
    labels: bool = True
    propensity: str | None = None


Opener: TypeAlias = Callable[[Inputs, Options], Source]


def _tabular(inputs: Inputs, options: Options) -> Source:
    return TabularSource.open(inputs, schema=options.schema, labels=options.labels)


def _ali_ccp(inputs: Inputs, options: Options) -> Source:
    return AliCcpSource.open(inputs, schema=options.schema, fields=options.fields)


def _aliexpress(inputs: Inputs, options: Options) -> Source:
    return open_aliexpress(inputs, schema=options.schema, labels=options.labels)


def _ratings(key: str, inputs: Inputs, options: Options) -> Source:
    return RatingsSource.open(
        key, inputs, schema=options.schema, threshold=options.threshold, propensity=options.propensity
    )


def _rees46(inputs: Inputs, options: Options) -> Source:
    return Rees46Source.open(inputs, schema=options.schema)


SOURCES: dict[str, Opener] = {
    "tabular": _tabular,
    "ali-ccp": _ali_ccp,
    "aliexpress": _aliexpress,
    "coat": partial(_ratings, "coat"),
    "kuairec": partial(_ratings, "kuairec"),
    "yahoo-r3": partial(_ratings, "yahoo-r3"),
    "rees46": _rees46,
}
