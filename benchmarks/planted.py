"""The faults of TRUST's catalogue D01 to D24, planted in small files: what the tests and docs/errors.md are made of.

Each fault writes its files into an empty folder and returns the command line that meets it.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature

ROWS = 2_000
START = 1_700_000_000

FEATURES = (
    SparseFeature("user", "user"),
    SparseFeature("item", "item"),
    SparseFeature("shop", "item"),
    DenseFeature("price", "item"),
)
COLUMNS = {"exposure_id": "id", "user_id": "user", "item_id": "item", "time": "ts"}


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Parameters
    ----------
    case
        Of the catalogue, for instance ``D01``.
    title
        What is planted.
    plant
        (empty folder, ``csv`` or ``parquet``) -> command line.
    code, exit_code
        What it must end with; with exit code 0 the code is that of a verdict of the audit.
    where
        What the place in the message must hold (a regular expression).
    count
        How many times, where the message counts.
    formats
        In which formats it is planted.
    """

    case: str
    title: str
    plant: Callable[[Path, str], list[str]]
    code: str
    where: str = ""
    count: int | None = None
    exit_code: int = 65
    formats: tuple[str, ...] = ("csv", "parquet")

    @property
    def name(self) -> str:
        """Its name in the names of tests."""
        return f"{self.case} {self.title}"


def rows(count: int = ROWS, seed: int = 0, start: int = 0) -> dict[str, Any]:
    """Return sound rows: an id, a user, an item, a shop, a price, a time and two labels."""
    rng = np.random.default_rng(seed)
    click = rng.random(count) < 0.4
    return {
        "id": np.arange(start, start + count),
        "user": rng.integers(0, 60, count),
        "item": rng.integers(100, 160, count),
        "shop": rng.choice(["north", "south", "east"], count),
        "price": rng.lognormal(0, 1, count).round(3),
        "ts": START + np.arange(start, start + count) * 60,
        "click": click.astype(np.int64),
        "conversion": (click & (rng.random(count) < 0.4)).astype(np.int64),
    }


def write(folder: Path, name: str, columns: dict[str, Any], form: str, *, coded: bool = True) -> Path:
    """Write columns as ``NAME.csv`` or ``NAME.parquet``, the latter with dictionaries where `coded`."""
    table = pa.table({key: value if isinstance(value, pa.Array) else pa.array(value) for key, value in columns.items()})
    path = folder / f"{name}.{form}"
    if form == "csv":
        arrow_csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=800, write_page_checksum=True, use_dictionary=coded)
    return path


def prepare(
    folder: Path, *sources: str | Path, features: Any = FEATURES, split: str = "random", **named: Any
) -> list[str]:
    """Return the command line that prepares files; `named` are further roles and settings of the columns."""
    schema = Schema(tuple(features), Columns(**{**COLUMNS, **named}))
    (folder / "schema.toml").write_text(schema.to_toml(), "utf-8")
    common = ["--schema", str(folder / "schema.toml"), "--min-count", "1", "--out", str(folder / "log")]
    roles = [] if "--train" in sources else ["--split", split]
    return ["prepare", *map(str, sources), *common, *roles]


def changed(**columns: Any) -> Callable[[Path, str], list[str]]:
    """Plant a value: NAME = (positions, value) replaces those of a column, a function makes the column anew."""

    def plant(folder: Path, form: str) -> list[str]:
        body = rows()
        settings = {key: columns[key] for key in columns if key.startswith("with_")}
        for name, change in columns.items():
            if name not in settings:
                body[name] = change(body) if callable(change) else _replaced(body[name], *change)
        named = {key.removeprefix("with_"): value for key, value in settings.items()}
        return prepare(folder, write(folder, "rows", body, form), **named)

    return plant


def _replaced(values: Any, places: list[int], value: Any) -> pa.Array:
    plain = values.tolist()
    for place in places:
        plain[place] = value
    return pa.array(plain)


def orphans(folder: Path, form: str) -> list[str]:
    """Conversions without click."""
    body = rows()
    places = np.flatnonzero(body["click"] == 0)[:4]
    body["conversion"][places] = 1
    return prepare(folder, write(folder, "rows", body, form))


def no_conversion(folder: Path, form: str) -> list[str]:
    """A training split without a conversion; the log is prepared, training is refused."""
    from postclick.cli.main import call

    body = rows()
    body["conversion"][:] = 0
    assert call([*prepare(folder, write(folder, "rows", body, form)), "--quiet"]) == 0
    return ["train", str(folder / "log"), "--system", "esmm", "--out", str(folder / "run"), "--max-epochs", "1"]


def empty(folder: Path, form: str) -> list[str]:
    """A header and no row."""
    body = {name: values[:0] for name, values in rows().items()}
    return prepare(folder, write(folder, "rows", body, form))


def truncated(folder: Path, form: str) -> list[str]:
    """The second half is missing: of a Parquet file with its footer, of a compressed CSV."""
    path = write(folder, "rows", rows(), form)
    if form == "csv":
        packed = folder / "rows.csv.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        path = packed
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return prepare(folder, path)


def flipped(folder: Path, form: str) -> list[str]:
    """One bit of a page of the second row group."""
    path = write(folder, "rows", rows(), form)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(4)
    place = chunk.data_page_offset + chunk.total_compressed_size // 2
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    return prepare(folder, path)


def missing_column(folder: Path, form: str) -> list[str]:
    """The second file calls a column otherwise, so one is missing."""
    body = rows(500)
    write(folder, "a", body, form)
    write(folder, "b", {"price_eur" if name == "price" else name: value for name, value in body.items()}, form)
    return prepare(folder, folder / f"*.{form}")


def retyped_column(folder: Path, form: str) -> list[str]:
    """The second file holds other ids: text among numbers, or numbers that a CSV cannot be read as."""
    body = rows(500)
    write(folder, "a", body, form)
    if form == "csv":
        body["price"] = np.asarray([f"EUR {value}" for value in body["price"]])
    else:
        body["user"] = np.asarray([f"u{value}" for value in body["user"]])
    write(folder, "b", body, form)
    return prepare(folder, folder / f"*.{form}")


def lossy(folder: Path, form: str) -> list[str]:
    """Ids of 18 digits that went through floating point."""
    body = rows()
    ids = 1e17 + body["user"] * 16.0
    body["user"] = ids if form == "parquet" else np.asarray([f"{value:.6e}" for value in ids])
    return prepare(folder, write(folder, "rows", body, form))


def too_many_values(folder: Path, form: str) -> list[str]:
    """A request id where some twenty items are expected."""
    body = rows()
    body["item"] = body["id"]
    features = [SparseFeature("item", expected_values=20) if item.name == "item" else item for item in FEATURES]
    return prepare(folder, write(folder, "rows", body, form), features=features)


def row_ids(folder: Path, form: str) -> list[str]:
    """A feature that numbers the rows."""
    body = {**rows(), "request": np.arange(ROWS) * 7}
    return prepare(folder, write(folder, "rows", body, form), features=(*FEATURES, SparseFeature("request")))


def leaking(name: str, kind: Any = DenseFeature) -> Callable[[Path, str], list[str]]:
    """Plant a feature of this name that is above zero after a click only."""

    def plant(folder: Path, form: str) -> list[str]:
        body = rows()
        body[name] = body["click"] * np.random.default_rng(1).integers(1, 9, ROWS)
        return prepare(folder, write(folder, "rows", body, form), features=(*FEATURES, kind(name)))

    return plant


def label_feature(folder: Path, form: str) -> list[str]:
    """The conversion itself among the features."""
    argv = prepare(folder, write(folder, "rows", rows(), form))
    path = folder / "schema.toml"
    path.write_text(path.read_text("utf-8") + '\n[[feature]]\nname = "conversion"\nkind = "sparse"\n', "utf-8")
    return argv


def copies(folder: Path, form: str) -> list[str]:
    """Three exposures a second time, one of them with another label."""
    body = rows()
    again = {name: values[:3].copy() for name, values in body.items()}
    again["click"][0] = 1 - again["click"][0]
    again["conversion"][0] = 0
    body = {name: np.concatenate([values, again[name]]) for name, values in body.items()}
    return prepare(folder, write(folder, "rows", body, form))


def clicks_before(body: dict[str, Any], places: int = 3, gap: int = -90) -> Any:
    """Return click times a minute after the exposure, the first few clicks before it."""
    times = body["ts"] + 60
    first = np.flatnonzero(body["click"] == 1)[:places]
    times[first] = body["ts"][first] + gap
    return times


def sales_before(body: dict[str, Any]) -> Any:
    """Return conversion times an hour after the exposure, the first few conversions before it."""
    times = body["ts"] + 3_600
    first = np.flatnonzero(body["conversion"] == 1)[:3]
    times[first] = body["ts"][first] - 600
    return times


def overlapping(same_ids: bool) -> Callable[[Path, str], list[str]]:
    """Plant a test file that shares ids, or times, with the training file."""

    def plant(folder: Path, form: str) -> list[str]:
        train, test = rows(1_000), rows(400, seed=1, start=900 if same_ids else 1_000)
        test["ts"] = START + 60 * (np.arange(400) + (1_000 if same_ids else 500))
        paths = write(folder, "train", train, form), write(folder, "test", test, form)
        return prepare(folder, "--train", paths[0], "--test", paths[1])

    return plant


def immature(folder: Path, form: str) -> list[str]:
    """Clicks whose day had not passed when the log was closed."""
    body = rows()
    body["until"] = np.full(ROWS, START + 60 * ROWS)
    argv = prepare(folder, write(folder, "rows", body, form), observed_until="until", attribution_window=86_400.0)
    return argv


def sequences(separator: str | None, values: Callable[[int], Any], **more: Any) -> Callable[[Path, str], list[str]]:
    """Plant a column of several values; in Parquet the same text."""

    def plant(folder: Path, form: str) -> list[str]:
        body = {**rows(), "tags": pa.array([values(row) for row in range(ROWS)])}
        feature = SequenceFeature("tags", separator=separator, max_length=3, **more)
        if more:
            body["w"] = pa.array(["1|2" if row == 5 else "|".join("1" * (row % 3 + 1)) for row in range(ROWS)])
        return prepare(folder, write(folder, "rows", body, form), features=(*FEATURES, feature))

    return plant


def odd_text(value: bytes) -> Callable[[Path, str], list[str]]:
    """Plant these bytes as the shop of row 17."""

    def plant(folder: Path, form: str) -> list[str]:
        body = rows()
        if form == "parquet":
            shops = [shop.encode() for shop in body["shop"]]
            shops[17] = value
            body["shop"] = pa.array(shops, pa.binary()).view(pa.string())
            # in a dictionary a text this long is a bomb (D24), for every row could be it
            return prepare(folder, write(folder, "rows", body, form, coded=len(value) < 1_000))
        body["shop"] = _replaced(body["shop"], [17], "PLANTED")
        path = write(folder, "rows", body, form)
        path.write_bytes(path.read_bytes().replace(b"PLANTED", value))
        return prepare(folder, path)

    return plant


def edited(edit: Callable[[bytes], bytes]) -> Callable[[Path, str], list[str]]:
    """Plant a change of a CSV's bytes."""

    def plant(folder: Path, form: str) -> list[str]:
        path = write(folder, "rows", rows(), form)
        path.write_bytes(edit(path.read_bytes()))
        return prepare(folder, path)

    return plant


def _line(number: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        lines = data.split(b"\n")
        lines[number - 1] = change(lines[number - 1])
        return b"\n".join(lines)

    return edit


def bomb(folder: Path, form: str) -> list[str]:
    """Forty kilobytes that unpack to fifty megabytes, or a text that every row repeats."""
    body = rows()
    if form == "parquet":
        body["shop"] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(ROWS, np.int32)), pa.array(["x" * 2_000_000]))
        return prepare(folder, write(folder, "rows", body, form))
    path = write(folder, "rows", rows(1), form)
    header, row = path.read_bytes().split(b"\n")[:2]
    path.unlink()
    packed = folder / "rows.csv.gz"
    with gzip.open(packed, "wb", compresslevel=9) as handle:
        handle.write(header + b"\n")
        block = (
            row.replace(b'"north"', b'"' + b"n" * 900 + b'"').replace(b'"south"', b'"' + b"n" * 900 + b'"') + b"\n"
        ) * 1_000
        for _ in range(50):
            handle.write(block)
    return prepare(folder, packed)


def with_column(
    name: str, role: str, places: list[int], value: Any, usual: Any = 1.0
) -> Callable[[Path, str], list[str]]:
    """Plant values in a column of this role."""

    def plant(folder: Path, form: str) -> list[str]:
        body = {**rows(), name: _replaced(np.full(ROWS, usual), places, value)}
        return prepare(folder, write(folder, "rows", body, form), **{role: name})

    return plant


CSV, PARQUET = ("csv",), ("parquet",)
THREE = [17, 400, 1_300]
FAULTS = (
    Fault("D01", "a label is null", changed(click=(THREE, None)), "data.label_missing", r"rows\.\w+:17:click", 3),
    Fault("D01", "a label is NaN", changed(conversion=(THREE, float("nan"))), "data.label_missing", r":17:conv", 3),
    Fault("D02", "a label is 2", changed(conversion=(THREE, 2)), "data.label_domain", r"rows\.\w+:17:conversion", 3),
    Fault("D02", "a label is a half", changed(click=(THREE, 0.5)), "data.label_domain", r"rows\.\w+:17:click", 3),
    Fault(
        "D02",
        "a label is a word",
        changed(click=lambda b: _replaced(b["click"].astype(str), THREE, "yes")),
        "data.label_domain",
        r"rows\.\w+:17:click",
        3,
    ),
    Fault(
        "D03", "a conversion without click", orphans, "data.conversion_without_click", r"rows\.\w+:\d+:conversion", 4
    ),
    Fault("D04", "no conversion to train on", no_conversion, "data.single_class", r"train:conversion"),
    Fault("D06", "no row", empty, "data.empty", r"rows\.", None, 66),
    Fault("D07", "a file is cut short", truncated, "data.corrupt_file", r"rows\."),
    Fault("D07", "a bit is flipped", flipped, "data.corrupt_file", r"rows\.parquet:row group 1", formats=PARQUET),
    Fault("D09", "a column is called otherwise", missing_column, "data.schema_mismatch", r"b\.\w+"),
    Fault("D09", "a column changes its type", retyped_column, "data.schema_mismatch", r"b\.\w+:(user|price)"),
    Fault("D10", "ids lost their digits", lossy, "data.lossy_cast", r"rows\.\w+:0:user"),
    Fault("D11", "a number is infinite", changed(price=(THREE, float("inf"))), "data.non_finite", r":17:price", 3),
    Fault("D13", "a hundred times the values", too_many_values, "data.cardinality", "item"),
    Fault("D14", "a feature numbers the rows", row_ids, "data.id_like", exit_code=0),
    Fault("D15", "an outcome by its name", leaking("purchase_time"), "data.leakage", "purchase_time"),
    Fault("D15", "an outcome by what it does", leaking("seconds_on_page"), "data.leakage", "seconds_on_page"),
    Fault("D15", "a category that tells the click", leaking("exit_page", SparseFeature), "data.leakage", "exit_page"),
    Fault("D15", "the label itself", label_feature, "data.leakage", "schema.feature"),
    Fault("D16", "exposures occur twice", copies, "data.duplicate_key", r"rows\.\w+:2000:id", 3),
    Fault("D16", "an exposure id is missing", changed(id=(THREE, None)), "data.duplicate_key", r":17:id", 3),
    Fault(
        "D17",
        "clicks before their exposure",
        changed(at=clicks_before, with_click_time="at"),
        "data.time_order",
        r"rows\.\w+:\d+:at",
        3,
    ),
    Fault(
        "D17",
        "conversions before their exposure",
        changed(sold=sales_before, with_conversion_time="sold"),
        "data.time_order",
        r"rows\.\w+:\d+:sold",
        3,
    ),
    Fault("D17", "times of the next century", changed(ts=(THREE, 5_000_000_000)), "data.time_order", r":17:ts", 3),
    Fault("D17", "milliseconds among seconds", changed(ts=(THREE, START * 1_000)), "data.time_order", r":17:ts", 3),
    Fault(
        "D17",
        "seconds among milliseconds",
        changed(ts=lambda b: _replaced(b["ts"] * 1_000, THREE, START), with_time_unit="ms"),
        "data.time_order",
        r":17:ts",
        3,
    ),
    Fault(
        "D17", "a clock seven years ahead", changed(ts=(THREE, START + 7 * 365 * 86_400)), "data.time_order", ":17:", 3
    ),
    Fault("D17", "an exposure without time", changed(ts=(THREE, None)), "data.time_order", r":17:ts", 3),
    Fault("D18", "ids in train and test", overlapping(same_ids=True), "data.split_leak", "", 100),
    Fault("D18", "times of train and test overlap", overlapping(same_ids=False), "data.split_leak"),
    Fault("D19", "windows still open", immature, "data.immature_labels", r"rows\.\w+:\d+:until"),
    Fault(
        "D20",
        "too many values and empty ones",
        sequences("|", lambda row: "|".join(["a"] * (row % 6)) + "|" * (row == 9)),
        "data.multivalue",
        exit_code=0,
    ),
    Fault(
        "D20",
        "the separator never occurs",
        sequences(";", lambda row: "|".join("ab"[: row % 2 + 1])),
        "data.multivalue",
        exit_code=0,
    ),
    Fault(
        "D20",
        "a weight is missing",
        sequences("|", lambda row: "|".join("a" * (row % 3 + 1)), weights="w"),
        "data.multivalue",
        r"rows\.\w+:5:w",
        1,
    ),
    Fault("D21", "text that is not UTF-8", odd_text(b"caf\xe9"), "data.text", r"rows\.(csv:19|parquet:17:shop)"),
    Fault("D21", "a NUL in a text", odd_text(b"no\x00rth"), "data.text", r"rows\.\w+:17:shop", 1),
    Fault(
        "D21", "a text of ten megabytes", odd_text(b"x" * 10_000_000), "data.text", r"rows\.(csv:19|parquet:17:shop)"
    ),
    Fault(
        "D22", "a ragged row", edited(_line(700, lambda line: line + b",7")), "data.csv", r"rows\.csv:700", formats=CSV
    ),
    Fault(
        "D22",
        "an unknown delimiter",
        edited(lambda data: data.replace(b",", b"^")),
        "data.csv",
        r"rows\.csv:1",
        formats=CSV,
    ),
    Fault(
        "D22",
        "a quote that is not closed",
        edited(_line(700, lambda line: line.replace(b'th"', b"th").replace(b'st"', b"st"))),
        "data.csv",
        r"rows\.csv:70[01]",
        formats=CSV,
    ),
    Fault(
        "D22",
        "the delimiter changes",
        edited(_line(700, lambda line: line.replace(b",", b";"))),
        "data.csv",
        r"rows\.csv:700",
        formats=CSV,
    ),
    Fault(
        "D23",
        "a weight below zero",
        with_column("w", "sample_weight", THREE, -1.0),
        "data.weights",
        r"rows\.\w+:17:w",
        3,
    ),
    Fault(
        "D23",
        "a weight that is NaN",
        with_column("w", "sample_weight", THREE, float("nan")),
        "data.weights",
        r":17:w",
        3,
    ),
    Fault("D23", "a weight of 1e12", with_column("w", "sample_weight", THREE, 1e12), "data.weights", r":17:w", 3),
    Fault("D23", "a propensity over one", with_column("p", "propensity", THREE, 1.5, 0.5), "data.weights", r":17:p", 3),
    Fault("D24", "a file that swells", bomb, "data.bomb", r"rows\.(csv\.gz|parquet:row group 0:shop)"),
)
"""In the order of the catalogue; D05, D08 and D12 need a trained system or a file that changes: tests alone."""

ROW_FAULTS = tuple(fault for fault in FAULTS if fault.case in ("D01", "D02", "D03", "D11", "D16", "D17"))
