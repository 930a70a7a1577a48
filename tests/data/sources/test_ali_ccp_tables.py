"""Common features on disk: the same tables as those that are read into memory."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.data.sources import ali_ccp_text
from postclick.data.sources.ali_ccp_common import Common, common_parts, read_common
from postclick.data.sources.ali_ccp_tables import load_tables, write_part, write_tables

SINGLE, LISTS = ("101", "121"), (("109_14", 3), ("110_14", 50))


def line(key, values):
    text = "\x01".join(f"{field}\x02{value}\x03{weight}" for field, value, weight in values)
    return f"{key},{len(values)},{text}\n".encode()


def write_file(path, largest, again=True):
    """Write 300 keys; every tenth field occurs twice, the last lines repeat some keys."""
    rng = np.random.default_rng(0)
    lines = []
    for key in range(300):
        values = [("101", key, 1.0)] + ([("101", key + 1, 1.0)] if key % 10 == 0 else [])
        values += [("109_14", int(rng.integers(0, largest)), round(rng.random(), 4)) for _ in range(key % 6)]
        values += [("110_14", int(rng.integers(0, 99)), 0.5)] * (key % 2)
        lines.append((f"{key:032x}", values))
    lines += [(f"{key:032x}", [("101", 7_000 + key, 1.0)]) for key in range(20 if again else 0)]
    path.write_bytes(b"".join(line(*each) for each in lines))
    return [len(line(*each)) for each in lines]


def same(left: Common, right: Common):
    for name in ("keys", "checks", "order", "single"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.replaced_keys == right.replaced_keys
    assert (left.replaced is None) == (right.replaced is None)
    if left.replaced is not None:
        np.testing.assert_array_equal(left.replaced, right.replaced)
    for mine, theirs in zip(left.lists, right.lists, strict=True):
        for name in ("values", "weights", "offsets", "cut"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("largest", [99, 2**40])
@pytest.mark.parametrize("cuts", [[], [100], [1, 2, 250]])
def test_pieces_put_together_are_the_file(tmp_path, monkeypatch, largest, cuts):
    monkeypatch.setattr(ali_ccp_text, "_CHUNK_BYTES", 5_000)
    path = tmp_path / "common_features_train.csv"
    sizes = write_file(path, largest)
    ends = np.cumsum([0, *sizes])
    parts = []
    for first, last in zip([0, *cuts], [*cuts, len(sizes)], strict=True):
        parts.append(tmp_path / f"part-{first}.arrow")
        write_part(parts[-1], common_parts(path, SINGLE, LISTS, ends[first], ends[last], first))
    folder = tmp_path / "tables"
    folder.mkdir()
    write_tables(parts, folder, len(SINGLE), len(LISTS))
    found, wanted = load_tables(folder), read_common(path, SINGLE, LISTS)
    same(found, wanted)
    assert found.replaced_keys == 20
    assert found.lists[0].values.dtype == (np.int32 if largest < 2**31 else np.int64)
    assert not found.single.flags.writeable  # a view of the file, which processes share


def test_without_fields_and_without_lines(tmp_path):
    path = tmp_path / "common_features_train.csv"
    path.write_bytes(b"")
    part, folder = tmp_path / "part.arrow", tmp_path / "tables"
    write_part(part, common_parts(path, SINGLE, LISTS, 0, 0, 0))
    assert not part.exists()
    folder.mkdir()
    write_tables([part], folder, len(SINGLE), len(LISTS))
    empty = load_tables(folder)
    assert len(empty.keys) == 0
    words = np.zeros(3, np.uint64)
    rows = empty.find(words, words)
    assert rows.tolist() == [-1] * 3
    assert len(empty.lists[0].take(rows).values) == 0
    write_file(path, 9, again=False)
    (tmp_path / "second").mkdir()
    write_part(part, common_parts(path, (), LISTS, 0, path.stat().st_size, 0))
    write_tables([part], tmp_path / "second", 0, len(LISTS))
    same(load_tables(tmp_path / "second"), read_common(path, (), LISTS))
