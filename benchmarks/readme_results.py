"""Run the demo through its library path and rewrite the generated block of README.md.

python benchmarks/readme_results.py            # runs the demo, two minutes
python benchmarks/readme_results.py --from postclick-demo    # takes the numbers of a demo that ran
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from postclick.cli.demo_steps import CAPTION, COLUMNS, EXPOSURES, NAMES, build, cell

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"


def block(results: dict[str, Any], words: list[str]) -> str:
    """Return the Markdown between the marks: the table, what it is, what it says."""
    lines = [
        f"`postclick demo`, {EXPOSURES:,} exposures a world, seed 0:",
        "",
        "| world | CVR of | " + " | ".join(f"`{name}`" for name in COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for world in sorted(results, reverse=True):
        for who, name in NAMES.items():
            cells = (cell(results[world][who], column) for column in COLUMNS)
            lines.append(f"| {world} | {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *CAPTION.splitlines(), "", *(f"- {word}" for word in words)])


def rewrite(text: str, inside: str) -> str:
    """Return the README with the block replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{inside}\n{END}{after}"


def main() -> None:
    """Run, or read a demo's numbers, and rewrite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, help="a folder that `postclick demo` made")
    folder = parser.parse_args().folder
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            results, words = build(Path(scratch) / "demo", lambda text: print(text, file=sys.stderr))
    else:
        body = json.loads((folder / "demo.json").read_text("utf-8"))
        results, words = body["worlds"], body["sentences"]
    README.write_text(rewrite(README.read_text("utf-8"), block(dict(results), words)), "utf-8")
    print(f"rewrote the block of {README.name}")


if __name__ == "__main__":
    main()
