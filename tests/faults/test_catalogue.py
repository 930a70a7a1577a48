"""Each planted fault, as CSV and as Parquet: exit code, code, place, count, fix; no traceback, nothing half-written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planted import FAULTS, Fault
from postclick.data.ledger import Ledger

CASES = [pytest.param(fault, form, id=f"{fault.name} ({form})") for fault in FAULTS for form in fault.formats]


@pytest.mark.parametrize(("fault", "form"), CASES)
def test_a_fault_is_named_with_its_place_and_its_fix(fault: Fault, form: str, tmp_path: Path, say) -> None:
    argv = fault.plant(tmp_path, form)
    before = {path.name for path in tmp_path.iterdir()}
    said = say(*argv, "--json")
    assert said.code == fault.exit_code, said.err
    left = {path.name for path in tmp_path.iterdir()} - before
    if fault.exit_code == 0:
        verdicts = said.json["audit"]["verdicts"]
        assert any(verdict["code"] == fault.code and verdict["level"] == "warning" for verdict in verdicts)
        ledger = Ledger.from_dict(said.json["ledger"])
        ledger.check()
        assert ledger.read == ledger.kept_rows + ledger.rejected_rows
        return
    first = said.findings[0]
    assert first["code"] == fault.code
    assert re.search(fault.where, first["where"]), first["where"]
    assert first["fix"]
    if fault.count is not None:
        assert first["count"] == fault.count
    if fault.code in said.err:
        assert said.err.splitlines()[0].startswith(fault.code) or f"\n{fault.code}" in said.err
    # rejected rows are published for a look at them; work on a file that can be replaced waits for --resume
    allowed = {"log.rejects"} | ({".log.partial"} if fault.code == "data.corrupt_file" else set())
    assert left <= allowed
    assert not list(tmp_path.rglob("*.tmp"))


def test_every_case_of_the_catalogue_has_its_fault() -> None:
    elsewhere = {"D05", "D08", "D12"}  # test_trained.py, test_changing_files.py
    assert {fault.case for fault in FAULTS} | elsewhere == {f"D{number:02d}" for number in range(1, 25)}


def test_the_page_of_errors_shows_every_planted_fault() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text("utf-8")
    part = page.partition("<!-- faults:begin -->")[2].partition("<!-- faults:end -->")[0]
    for fault in FAULTS:
        said = part.partition(f"**{fault.case}** {fault.title} (")[2].partition("\n**")[0]
        assert said, f"run benchmarks/collect_errors.py: {fault.name} is not on the page"
        assert fault.exit_code == 0 or f"\n{fault.code} " in said
