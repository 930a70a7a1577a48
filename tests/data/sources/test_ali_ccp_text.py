from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.sources import ali_ccp_text
from postclick.data.sources.ali_ccp_text import Lines, line_chunks
from postclick.errors import DataError

FIELDS = ["205", "109_14", "7", "12345678"]
features = st.lists(
    st.tuples(
        st.sampled_from([*FIELDS, "999", "2055", "123456789", "09_14"]),
        st.integers(0, 2**63 - 1),
        st.floats(0, 1e6, width=32) | st.sampled_from([1.0, 0.5, 1e-7, 2.39790]),
    ),
    max_size=6,
)
rows = st.lists(
    st.tuples(st.integers(0, 2**63 - 1), st.text("abcdef0123456789", min_size=1, max_size=40), features), min_size=1
)


def line(cells, values) -> str:
    string = "\x01".join(f"{field}\x02{value}\x03{weight}" for field, value, weight in values)
    return ",".join([*map(str, cells), string]) + "\n"


@given(rows, st.sampled_from(["\n", "\r\n"]))
def test_equals_a_plain_reader(given_rows, ending):
    text = "".join(line([number, key, len(values)], values) for number, key, values in given_rows)
    lines = Lines(text.replace("\n", ending).encode(), 3, "x", 0)
    found = lines.features(FIELDS, weights=True)
    wanted = [
        (row, FIELDS.index(field), value, np.float32(weight))
        for row, (_, _, values) in enumerate(given_rows)
        for field, value, weight in values
        if field in FIELDS
    ]
    assert list(zip(found.line, found.field, found.value, found.weight, strict=True)) == wanted
    assert lines.integers(0).tolist() == [number for number, _, _ in given_rows]
    assert lines.integers(2).tolist() == [len(values) for _, _, values in given_rows]
    keys = [key for _, key, _ in given_rows]
    digests = list(zip(*lines.digests(1), strict=True))
    assert len(set(digests)) == len(set(keys))
    assert len(set(zip(keys, digests, strict=True))) == len(set(keys))


def test_a_key_has_the_same_digest_beside_longer_neighbours():
    alone = Lines(b"abc,1,\n", 2, "x", 0).digests(0)
    beside = Lines(b"abc,1,\n" + b"f" * 40 + b",1,\n", 2, "x", 0).digests(0)
    assert [part[0] for part in alone] == [part[0] for part in beside]


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("1,0,key", "expected 4 cells"),
        ("1,0,key,2,205\x027\x031.0\x01206", "not field"),
        ("1,0,key,1,205\x037\x021.0", "not field"),
        ("1,0,key,1,205\x027\x031.0\x02216", "not field"),
        ("1,0,key,1,2,05\x027\x031.0", "not field"),
        ("1,0,key,1,205\x027,8\x031.0", "not field"),
        ("1,0,key,1,205\x02x7\x031.0", "a value id is no whole number: 'x7'"),
        ("1,0,key,1,205\x02\x031.0", "a value id is no whole number: ''"),
        ("1,0,key,1,205\x0299999999999999999999\x031.0", "a value id is no whole number"),
        ("1,0,key,1,205\x029223372036854775808\x031.0", "a value id is no whole number"),
        ("1,0,key,1,205\x027\x03heavy", "a weight is no number: 'heavy'"),
        ("1,0,key,1,205\x027\x03", "a weight is no number: ''"),
        ("1x,0,key,1,205\x027\x031.0", "cell 1 is no whole number: '1x'"),
        ("", "expected 4 cells"),
        ("1,0,key,1,text", "not field"),
    ],
)
def test_a_malformed_line_is_named(bad, what):
    good = line([1, 0, "key", 1], [("205", 7, 1.0)])

    def parse() -> None:
        lines = Lines((good + good + bad + "\n" + good).encode(), 4, "skeleton.csv", 100)
        lines.integers(0)
        lines.features(["205"], weights=True)

    with pytest.raises(DataError, match=rf"data\.csv .*{re.escape(what)}.* \| skeleton\.csv:103 ") as error:
        parse()
    assert error.value.code == "data.csv"


def test_no_features_at_all():
    lines = Lines(b"1,a,\n2,b,\n", 2, "x", 0)
    assert len(lines) == 2
    assert len(lines.features(["1"], weights=True).value) == 0


@given(st.lists(st.binary(max_size=30).map(lambda part: part.replace(b"\n", b"")), max_size=8), st.integers(1, 12))
def test_chunks_are_whole_lines(tmp_path_factory, parts, size):
    path = tmp_path_factory.mktemp("chunks") / "x"
    path.write_bytes(b"\n".join(parts))
    before = ali_ccp_text._CHUNK_BYTES
    ali_ccp_text._CHUNK_BYTES = size
    try:
        chunks = list(line_chunks(path, 0, path.stat().st_size))
    finally:
        ali_ccp_text._CHUNK_BYTES = before
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    data = b"".join(chunks)
    whole = path.read_bytes()
    assert data == (whole if whole.endswith(b"\n") or not whole else whole + b"\n")
