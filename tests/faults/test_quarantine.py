"""Both sides of --max-reject-ratio for the faults of rows (D01-D03, D11, D16, D17), and what stands in the rejects."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from planted import ROW_FAULTS, Fault
from postclick.data.ledger import Ledger

CASES = [pytest.param(fault, id=fault.name) for fault in ROW_FAULTS]


@pytest.mark.parametrize("fault", CASES)
def test_the_ratio_decides(fault: Fault, tmp_path: Path, say) -> None:
    argv = fault.plant(tmp_path, "parquet")
    count = fault.count
    assert count is not None
    total = pq.read_metadata(tmp_path / "rows.parquet").num_rows
    stopped = say(*argv, "--max-reject-ratio", (count - 0.5) / total, "--json")
    assert stopped.code == 65
    assert stopped.findings[0]["code"] == fault.code
    assert not (tmp_path / "log").exists()
    passed = say(*argv, "--max-reject-ratio", count / total, "--json")
    assert passed.code == 0, passed.err
    ledger = Ledger.from_dict(passed.json["ledger"])
    ledger.check()
    assert ledger.rejected == {fault.code: count}
    assert ledger.read == total == ledger.kept_rows + count
    tables = [pq.read_table(path) for path in (tmp_path / "log.rejects").glob("*.parquet")]
    rejected = [row for table in tables for row in table.select(["reason", "file", "row"]).to_pylist()]
    assert {(row["reason"], row["file"]) for row in rejected} == {(fault.code, "rows.parquet")}
    assert len({row["row"] for row in rejected}) == count


def test_several_faults_are_reported_together_in_trusts_order(tmp_path: Path, say) -> None:
    from planted import changed

    argv = changed(price=([5, 6], float("inf")), click=([9], None), conversion=([11], 3), ts=([13], None))(
        tmp_path, "csv"
    )
    said = say(*argv, "--json")
    assert [finding["code"] for finding in said.findings] == [
        "data.label_missing",
        "data.label_domain",
        "data.non_finite",
        "data.time_order",
    ]
    assert [finding["count"] for finding in said.findings] == [1, 1, 2, 1]
    assert len(said.err.splitlines()) >= 4


@pytest.mark.parametrize(("policy", "kept"), [("set_click", 2_000), ("view_through", 2_000), ("reject", 1_996)])
def test_a_named_policy_takes_conversions_without_click(policy: str, kept: int, tmp_path: Path, say) -> None:
    from planted import orphans

    argv = orphans(tmp_path, "csv")
    said = say(*argv, "--orphan-conversions", policy, "--max-reject-ratio", 0.002, "--json")
    assert said.code == 0
    assert said.json["ledger"]["rows"]["kept"] == kept
    words = [verdict["text"] for verdict in said.json["audit"]["verdicts"]]
    assert f"4 conversions came without a click; policy: {policy}." in words


def test_copies_with_equal_and_with_other_labels_are_told_apart(tmp_path: Path, say) -> None:
    from planted import copies

    said = say(*copies(tmp_path, "csv"))
    assert "2 later copies with equal labels, 1 with other labels" in said.err
