"""The truth of kept exposures: all of it, in its own order, in bounded memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.data import truth as module
from postclick.data.ipc import BlockWriter, read_table
from postclick.data.truth import write_truth
from postclick.errors import DataError, InputMissingError


@pytest.fixture(params=["whole numbers", "text"])
def log(request, tmp_path):
    """Write a log of ids alone and a truth of more, shuffled; returns folder, truth, kept ids."""
    rng = np.random.default_rng(0)
    every = rng.permutation(5_000)
    kept = rng.choice(every, 1_200, replace=False)
    name = (lambda values: values.tolist()) if request.param == "whole numbers" else (lambda v: [f"é{n}" for n in v])
    folder = tmp_path / "log"
    for split, part in zip(("train", "valid", "test"), np.split(kept, [800, 1_000]), strict=True):
        (folder / split).mkdir(parents=True)
        ids = pa.array(name(part))
        with BlockWriter(folder / split / "part-00000.arrow") as writer:
            for start in range(0, len(ids), 150):
                cut = ids.slice(start, 150)
                kind = pa.large_string() if pa.types.is_string(ids.type) else pa.int64()
                writer.write(pa.RecordBatch.from_pydict({"label:exposure_id": cut.cast(kind)}))
    columns = dict.fromkeys(("ctr", "cvr_do", "cvr_click", "ctcvr"), every / 5000)
    table = pa.table({"exposure_id": name(every), **columns})
    pq.write_table(table, tmp_path / "truth.parquet", row_group_size=700)
    return folder, tmp_path / "truth.parquet", set(name(kept))


@pytest.mark.parametrize("rows", [8_000_000, 250])
def test_kept_exposures_in_the_order_of_the_truth(log, monkeypatch, rows):
    folder, path, kept = log
    monkeypatch.setattr(module, "_PARTITION_ROWS", rows)
    write_truth(path, folder)
    wanted = [row for row in pq.read_table(path).to_pylist() if row["exposure_id"] in kept]
    assert read_table(folder / "truth.arrow").to_pylist() == wanted
    assert len(wanted) == 1_200


def test_what_a_world_with_actions_knows_comes_along(log):
    folder, path, kept = log
    table = pq.read_table(path)
    known = table.column("ctr")
    table = table.append_column("action", known).append_column("ctar", known).append_column("more", known)
    pq.write_table(table, path)
    write_truth(path, folder)
    written = read_table(folder / "truth.arrow")
    assert written.column_names == ["exposure_id", "ctr", "cvr_do", "cvr_click", "ctcvr", "action", "ctar"]
    assert written.column("action").equals(written.column("ctr"))
    assert len(written) == len(kept)


@pytest.mark.parametrize("rows", [8_000_000, 250])
def test_exposures_without_truth_are_named(log, monkeypatch, rows):
    folder, path, kept = log
    monkeypatch.setattr(module, "_PARTITION_ROWS", rows)
    table = pq.read_table(path)
    gone = set(sorted(kept, key=str)[:2])
    pq.write_table(table.filter(pa.array([row not in gone for row in table.column(0).to_pylist()])), path)
    with pytest.raises(DataError, match=r"exposures without truth \| truth.parquet") as caught:
        write_truth(path, folder)
    (finding,) = caught.value.findings
    assert set(finding.examples) <= {str(key) for key in gone}
    assert 1 <= finding.count <= 2
    assert not (folder / "truth.arrow").exists()


def test_what_is_no_truth(log):
    folder, path, _ = log
    pq.write_table(pq.read_table(path).drop_columns(["ctr", "cvr_do"]), path)
    with pytest.raises(DataError, match="the truth lacks ctr, cvr_do"):
        write_truth(path, folder)
    path.write_text("no Parquet")
    with pytest.raises(DataError, match=r"data\.corrupt_file"):
        write_truth(path, folder)
    with pytest.raises(InputMissingError):
        write_truth(folder / "none", folder)
