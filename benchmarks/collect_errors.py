"""Run each planted fault through the command line, as CSV and as Parquet, and write what it says into docs/errors.md.

    python benchmarks/collect_errors.py            write
    python benchmarks/collect_errors.py --check    exit 1 where the page says something else

Equal code gives equal text: no path of this machine, no clock.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

from planted import FAULTS, Fault
from postclick.cli.main import call

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"


def message(fault: Fault, form: str) -> str:
    """Return what the command line says of a fault, paths shortened to names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.redirect_stdout(io.StringIO()):
            argv = fault.plant(folder, form)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call([*argv, "--json"])
        if code != fault.exit_code:
            raise SystemExit(
                f"{fault.name} ({form}): expected exit code {fault.exit_code}, got {code}\n{err.getvalue()}"
            )
        if code:
            lines = err.getvalue().splitlines()
        else:
            verdicts = json.loads(out.getvalue())["audit"]["verdicts"]
            lines = [f"{item['level']}: {item['text']}" for item in verdicts if item["code"] == fault.code]
        return "\n".join(line.replace(f"{folder}/", "") for line in lines)


def section(fault: Fault) -> str:
    """Return the part of the page on one fault."""
    said = {form: message(fault, form) for form in fault.formats}
    ends = "exit 0, a warning of the audit" if fault.exit_code == 0 else f"exit {fault.exit_code}"
    parts = [f"**{fault.case}** {fault.title} ({ends})\n"]
    same = len(said) == 2 and said["csv"].replace("rows.csv", "rows.parquet") == said["parquet"]
    for form, text in said.items():
        if same and form == "parquet":
            parts.append("As Parquet: the same.\n")
        else:
            parts.append(f"```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"{PAGE} has no {BEGIN} ... {END}")
    body = "\n".join(section(fault) for fault in FAULTS)
    made = f"{before}{BEGIN}\n\n{body}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        return int(made != page)
    PAGE.write_text(made, "utf-8")
    print(f"{sum(len(fault.formats) for fault in FAULTS)} messages of {len(FAULTS)} faults in {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
