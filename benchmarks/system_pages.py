"""Write into the pages of docs/systems what follows from elsewhere: arguments from signatures, the demo's figures.

    python benchmarks/system_pages.py            write
    python benchmarks/system_pages.py --check    exit 1 where a page says something else or lacks a heading

A page is the paper's: three systems of one file share one. A new page needs its five headings; the table goes under
``## Arguments``, and what else stands there stays. ``<!-- demo:begin -->`` stands before figures of the README's table,
``<!-- worlds:begin -->`` before those of `experiments/systems.toml`, read from ``docs/systems/leaderboard.json``: a
copy of the file that `postclick benchmark` leaves.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from postclick.models.catalog import describe
from postclick.models.systems import MODELS

PAGES = Path(__file__).resolve().parent.parent / "docs" / "systems"
README = PAGES.parent.parent / "README.md"
EXPERIMENT = README.parent / "experiments" / "systems.toml"
LEADERBOARD = PAGES / "leaderboard.json"
SIGNS = {"better": " +", "worse": " -", "cannot tell": " ="}
DEMO_COLUMNS = ("world", "CVR of", "`cvr/auc@world`", "`cvr/pcoc@world`")
HEADINGS = ("Idea", "Equations", "Where we depart from the paper and why", "Arguments", "Results")
COLUMNS = ("argument", "type", "default", "paper", "what it is")


def page_of(key: str) -> str:
    """Return the name of the page of a system: that of its file."""
    return MODELS[key].__module__.rpartition(".")[2].replace("_", "-")


def pages() -> dict[str, list[dict[str, Any]]]:
    """Return what `describe` says of the systems of each page."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in describe():
        found.setdefault(page_of(entry["key"]), []).append(entry)
    return found


def shown(value: Any) -> str:
    """Return a value as ``--set`` takes it; a component, whose parts follow, is left out."""
    if value is None or isinstance(value, dict):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def kinds(type_name: str) -> str:
    """Return a type without the bar that ends a cell of a table."""
    parts = [part.strip("'") for part in type_name.split(" | ")]
    named = ["`off`" if part == "None" else f"`{part}`" for part in parts]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}"


def table(entries: list[dict[str, Any]]) -> str:
    """Return the arguments of the systems of a page; equal ones of several systems take one line."""
    owners: dict[str, list[str]] = {}
    for entry in entries:
        for argument in entry["arguments"]:
            cells = [f"`{argument['name']}`", kinds(argument["type"]), shown(argument["default"])]
            cells += [shown(argument["paper_value"]), argument["doc"].replace("|", "/")]
            owners.setdefault(" | ".join(cells), []).append(entry["key"])
    keys = [entry["key"] for entry in entries]
    several = len(keys) > 1
    columns = (*COLUMNS, "of") if several else COLUMNS
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for cells, held in owners.items():
        of = "all" if held == keys else ", ".join(f"`{key}`" for key in held)
        lines.append(f"| {cells} | {of} |" if several else f"| {cells} |")
    return "\n".join(lines)


def headings(page: str) -> tuple[str, ...]:
    """Return the headings of a page's parts; a ``##`` within a block of code is none."""
    prose = page.split("```")[::2]
    return tuple(line[3:] for part in prose for line in part.splitlines() if line.startswith("## "))


def demo_table() -> str:
    """Return the CVR over all exposures on the worlds of the demo, as the README has it."""
    lines = [line for line in between(README.read_text("utf-8"), "demo").splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    places = [rows[0].index(name) for name in DEMO_COLUMNS]
    return "\n".join(f"| {' | '.join(row[place] for place in places)} |" for row in rows)


def worlds_table(keys: list[str]) -> str:
    """Return what the experiment of all systems found of these and of its baseline, a row a world and run."""
    board = json.loads(LEADERBOARD.read_text("utf-8"))
    runs = tomllib.loads(EXPERIMENT.read_text("utf-8"))["run"]
    labels = [run["label"] for run in runs if run["system"] in keys or run["label"] == board["baseline"]]
    lines = [f"| world | | {' | '.join(f'`{name}`' for name in board['metrics'])} |"]
    lines.append("|" + "---|" * (2 + len(board["metrics"])))
    for world, table in board["tables"].items():
        for label in labels:
            cells = [cell(table[label][name]) for name in board["metrics"]]
            lines.append(f"| {world} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(found: dict[str, Any]) -> str:
    """Return a mean with its deviation over seeds and the verdict against the baseline."""
    if found["value"] is None:
        return "undefined"
    digits = 3 if found["value"] >= 1.0 else 4
    spread = "" if found["seed_sd"] is None else f" ± {found['seed_sd']:.{digits}f}"
    sign = SIGNS.get(found["verdict"] or "", "")
    return f"{found['value']:.{digits}f}{spread}{sign}{'*' if found['derived'] else ''}"


def marks(name: str) -> tuple[str, str]:
    """Return the comments around what is written."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def between(page: str, name: str) -> str:
    """Return what stands between the marks of `name`."""
    begin, end = marks(name)
    return page.partition(begin)[2].partition(end)[0]


def put(page: str, name: str, text: str) -> str:
    """Return the page with `text` between the marks of `name`."""
    begin, end = marks(name)
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def made(page: str, entries: list[dict[str, Any]]) -> str:
    """Return the page with its tables as signatures and README have them."""
    begin, end = marks("arguments")
    if begin not in page:
        before, heading, after = page.partition("\n## Arguments\n")
        page = f"{before}{heading}\n{begin}{end}\n{after}"
    page = put(page, "arguments", table(entries))
    if marks("worlds")[0] in page:
        page = put(page, "worlds", worlds_table([entry["key"] for entry in entries]))
    return put(page, "demo", demo_table()) if marks("demo")[0] in page else page


def main() -> int:
    """Write the tables, or compare them."""
    wrong = []
    for name, entries in pages().items():
        path = PAGES / f"{name}.md"
        page = path.read_text("utf-8") if path.exists() else ""
        if headings(page) != HEADINGS:
            wrong.append(path.name)
            print(f"{path.name}: the headings are {', '.join(HEADINGS)}, not {', '.join(headings(page)) or 'none'}")
        elif (wanted := made(page, entries)) != page:
            wrong.append(path.name)
            if "--check" not in sys.argv[1:]:
                path.write_text(wanted, "utf-8")
    print(f"{len(pages())} pages; out of date: {', '.join(wrong) or 'none'}")
    return int(bool(wrong) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
