r"""A world's exposures as raw Ali-CCP files: two skeletons and the features that the exposures of a user share.

A skeleton row is ``sample id,click,buy,common key,number of features,features``; a common row
``common key,number of features,features``. Features are joined by ``\x01``, each is ``field\x02value\x03weight``.
The first half of the exposures in time is the train file, the rest the test file, as the provider cut the real log.

==============================  ====================================================================================
field                           holds
==============================  ====================================================================================
101                             user
121, 122, 125, 126              segment x age band, segment, age band, pairs of age bands
124, 127, 128, 129              user profile without any effect
205, 206, 207, 216              item, category, shop, brand
508, 509, 702, 853              segment x category, shop, brand, price band; weighted, often absent, 1 in 100 twice
301                             device x top or lower place: position and hour move the CTR alone, so what 301 leaves
                                out hides no confounder
109_14, 110_14, 127_14, 150_14  the user's history of categories, shops, brands, price bands; weighted
210                             one to three keywords of the item
==============================  ====================================================================================
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.data.hashing import stable_hash
from postclick.schema import Columns, Schema, SparseFeature
from postclick.simulation.chunks import Chunk, Outcomes, Plan

if TYPE_CHECKING:
    import polars as pl

__all__ = ["AliCcpLayout"]

Ints = NDArray[np.int64]

_USER = ("101", "121", "122", "124", "125", "126", "127", "128", "129")
_ITEM = ("205", "206", "207", "216")
_COMBINATIONS = {"508": 0.55, "509": 0.5, "702": 0.5, "853": 0.75}  # field -> how often it is present
_COMBINED = {"508": "206", "509": "207", "702": "216", "853": "price"}
_HISTORIES = {"109_14": "206", "110_14": "207", "127_14": "216", "150_14": "price"}
_LONGEST = 8
_TWICE = 0.01
_BLOCK_USERS = 65_536
_ATTRIBUTES, _ROWS, _HISTORY = 5, 6, 7  # streams of random numbers
_PRICE_BANDS = 64


class AliCcpLayout:
    """Writes ``sample_skeleton_{train,test}.csv`` and ``common_features_{train,test}.csv``.

    Parameters
    ----------
    story
        The world's plan.
    folder
        The WORLD folder.
    """

    schema = Schema(
        (
            *(SparseFeature(name, "user") for name in _USER),
            *(SparseFeature(name, "item") for name in _ITEM),
            *(SparseFeature(name, "context") for name in (*_COMBINATIONS, "301")),
        ),
        Columns(exposure_id="exposure_id", user_id="101", item_id="205"),
    )

    def __init__(self, story: Plan, folder: Path) -> None:
        self._story = story
        self._folder = folder
        self._stack = ExitStack()
        self._cut = story.exposures // 2
        self._seen = {name: np.zeros(story.vocabularies.users, bool) for name in ("train", "test")}
        self._skeletons: dict[str, IO[bytes]] = {}
        rng = np.random.default_rng([story.seed, _ATTRIBUTES])
        self._attributes = _item_attributes(story, rng)
        self._items = _item_strings(story, self._attributes, rng)

    def __enter__(self) -> AliCcpLayout:
        for name in self._seen:
            path = self._folder / f"sample_skeleton_{name}.csv"
            self._skeletons[name] = self._stack.enter_context(files.create(path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            self._write_common()

    def write(self, index: int, chunk: Chunk, outcomes: Outcomes) -> None:
        """Append chunk `index` to the skeletons."""
        frame = _skeleton(self._story, index, chunk, outcomes, self._attributes, self._items)
        first = int(np.clip(self._cut - chunk.first, 0, len(chunk)))
        for name, part, users in (
            ("train", frame[:first], chunk.user[:first]),
            ("test", frame[first:], chunk.user[first:]),
        ):
            _append(part, self._skeletons[name])
            self._seen[name][users] = True

    def _write_common(self) -> None:
        with ExitStack() as stack:
            handles = {
                name: stack.enter_context(files.create(self._folder / f"common_features_{name}.csv"))
                for name in self._seen
            }
            for block in range(-(-self._story.vocabularies.users // _BLOCK_USERS)):
                seen = {name: mask[block * _BLOCK_USERS :][:_BLOCK_USERS] for name, mask in self._seen.items()}
                either = seen["train"] | seen["test"]
                frame = _common(self._story, block, self._attributes, either)
                for name, mask in seen.items():
                    _append(frame.filter(mask[either]), handles[name])


def _append(frame: pl.DataFrame, handle: IO[bytes]) -> None:
    # quoting is off: the real files are not quoted, and no field holds a comma
    frame.write_csv(handle, include_header=False, quote_style="never")


def _item_attributes(story: Plan, rng: np.random.Generator) -> dict[str, Ints]:
    """Return item field -> value of each item, from 1, and its price band."""
    items, fields = story.population.items, story.vocabularies.fields
    count = len(items.group)
    shop = np.minimum((fields["207"] * rng.random(count) ** 2).astype(np.int64), fields["207"] - 1)
    edges = np.quantile(items.price, np.arange(1, _PRICE_BANDS) / _PRICE_BANDS)
    return {
        "205": np.arange(1, count + 1),
        "206": items.category + 1,
        "207": shop + 1,
        "216": items.brand + 1,
        "price": np.searchsorted(edges, items.price) + 1,
    }


def _token(field: str, value: str, weight: str | None = None) -> pl.Expr:
    r"""Return ``field\x02value\x03weight`` from the columns `value` and `weight`; null where the value is null."""
    import polars as pl

    shown = pl.col(weight).cast(pl.String) if weight else pl.lit("1.0")
    return pl.concat_str([pl.lit(f"{field}\x02"), pl.col(value).cast(pl.String), pl.lit("\x03"), shown])


def _weights(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return positive weights with four decimals, 0.8 on average."""
    return np.maximum(np.round(rng.gamma(2.0, 0.4, count), 4), 1e-4)


def _item_strings(story: Plan, attributes: dict[str, Ints], rng: np.random.Generator) -> pl.DataFrame:
    """Return each item's own features: `text`, `count`."""
    import polars as pl

    count = len(attributes["205"])
    keywords = 2 * story.vocabularies.categories
    several = rng.integers(1, 4, count)
    columns = dict(attributes)
    # neighbouring keywords of one base: distinct within an item, shared within a category
    base = 2 * story.population.items.category + rng.integers(0, 2, count)
    for place in range(3):
        columns[f"keyword{place}"] = (base + 7 * place) % keywords + 1
    frame = pl.DataFrame({**columns, "several": several})
    tokens = [_token(field, field) for field in _ITEM]
    tokens += [pl.when(pl.col("several") > place).then(_token("210", f"keyword{place}")) for place in range(3)]
    text = pl.concat_str(tokens, separator="\x01", ignore_nulls=True)
    return frame.select(text=text, count=pl.col("several") + len(_ITEM))


def _skeleton(
    story: Plan, index: int, chunk: Chunk, outcomes: Outcomes, attributes: dict[str, Ints], items: pl.DataFrame
) -> pl.DataFrame:
    """Return the skeleton rows of a chunk, one text column each."""
    import polars as pl

    rng = np.random.default_rng([story.seed, _ROWS, index])
    shown = items[chunk.item]
    columns: dict[str, Any] = {
        "id": chunk.exposure_id,
        "click": outcomes.click,
        "conversion": outcomes.conversion,
        "key": _keys(chunk.user),
        "item": shown["text"],
        "context": 1 + 2 * (chunk.position > 3) + chunk.web,
    }
    number = shown["count"].to_numpy() + 1
    absent: dict[str, NDArray[np.bool_]] = {}
    segment = story.population.users.segment[chunk.user]
    for field, often in _COMBINATIONS.items():
        size = story.vocabularies.fields[field]
        attribute = attributes[_COMBINED[field]]
        present = rng.random(len(chunk)) < often
        twice = present & (rng.random(len(chunk)) < _TWICE)
        columns[field] = (segment * int(attribute.max()) + attribute[chunk.item]) % size + 1
        columns[f"{field} weight"] = _weights(rng, len(chunk))
        columns[f"{field} before"] = rng.integers(1, size + 1, len(chunk))
        absent |= {field: ~present, f"{field} before": ~twice}
        number = number + present + twice
    frame = pl.DataFrame({**columns, "number": number})
    tokens = [pl.col("item")]
    for field in _COMBINATIONS:  # the reader keeps the last of two, so the true value comes last
        for name in (f"{field} before", field):
            tokens.append(pl.when(pl.Series(~absent[name])).then(_token(field, name, f"{field} weight")))
    text = pl.concat_str([*tokens, _token("301", "context")], separator="\x01", ignore_nulls=True)
    return frame.select("id", "click", "conversion", "key", "number", text=text)


def _keys(users: Ints) -> pl.Series:
    """Return the common-feature key of each user: 32 hexadecimal digits."""
    import polars as pl

    words = np.stack([stable_hash(users, 1), stable_hash(users, 2)], axis=1)
    digits = np.frombuffer(words.astype(">u8").tobytes().hex().encode("ascii"), "S32")
    return pl.Series(digits.astype("U32").tolist(), dtype=pl.String)


def _common(story: Plan, block: int, attributes: dict[str, Ints], seen: NDArray[np.bool_]) -> pl.DataFrame:
    """Return the common features of the `seen` users of one block: key, number, text.

    Numbers are drawn for every user of the block, so a user's features do not depend on who else is seen.
    """
    import polars as pl

    population, fields = story.population, story.vocabularies.fields
    first = block * _BLOCK_USERS
    user = np.arange(first, min(first + _BLOCK_USERS, story.vocabularies.users))
    rng = np.random.default_rng([story.seed, _HISTORY, block])
    segment, age = population.users.segment[user], population.users.age_band[user]
    columns: dict[str, Any] = {
        "101": user + 1,
        "121": (segment * 8 + age) % fields["121"] + 1,
        "122": segment + 1,
        "125": age + 1,
        "126": age // 2 + 1,
    }
    for field in ("124", "127", "128", "129"):
        columns[field] = rng.integers(1, fields[field] + 1, len(user))
    columns = {field: values[seen] for field, values in columns.items()}
    tokens = [_token(field, field) for field in _USER]
    number = np.full(int(seen.sum()), len(_USER))
    for field, source in _HISTORIES.items():
        length = rng.integers(1, _LONGEST + 1, len(user))
        item = np.searchsorted(population.items.share, rng.random(int(length.sum())), side="right")
        weights, shown = _weights(rng, len(item)), np.repeat(seen, length)
        columns[field] = _history(field, length[seen], attributes[source][item[shown]], weights[shown])
        tokens.append(pl.col(field))
        number = number + length[seen]
    frame = pl.DataFrame({**columns, "key": _keys(user[seen]), "number": number})
    return frame.select("key", "number", text=pl.concat_str(tokens, separator="\x01"))


def _history(field: str, length: Ints, values: Ints, weights: NDArray[np.float64]) -> pl.Series:
    """Return each user's history of one field as text; `length` of the values belong to each user in turn."""
    import polars as pl

    owner = np.repeat(np.arange(len(length)), length)
    frame = pl.DataFrame({"owner": owner, "value": values, "weight": weights})
    tokens = frame.select("owner", token=_token(field, "value", "weight"))
    return tokens.group_by("owner", maintain_order=True).agg(pl.col("token").str.join("\x01"))["token"]
