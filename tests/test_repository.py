"""The repository's own promises: the file map, the names, the texts that must follow the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "postclick"
README = (ROOT / "README.md").read_text("utf-8")
IGNORED = {"__pycache__", ".git"}


def tracked() -> list[str]:
    """Every path of the project; what git ignores is not part of it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: what belongs to the project cannot be told from what was built")
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def sources() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts]


# --- the file map ---------------------------------------------------------------------------------------------------


def mapped() -> set[str]:
    table = README.split("## Where things are")[1].split("\n\n")[1]
    return {line.split("`")[1].rstrip("/") for line in table.splitlines()[2:]}


def test_every_top_level_path_is_in_the_file_map() -> None:
    top = {name.split("/")[0] for name in tracked()} - {"src"}
    assert top - mapped() == set()


def test_every_part_of_the_package_is_in_the_file_map() -> None:
    parts = {f"src/postclick/{path.name}" for path in PACKAGE.iterdir() if path.name not in IGNORED}
    assert parts - mapped() == set()


def test_the_file_map_names_nothing_that_is_gone() -> None:
    assert {name for name in mapped() if not (ROOT / name).exists()} == set()


# --- names and proportions ------------------------------------------------------------------------------------------


def test_there_is_no_dumping_ground() -> None:
    banned = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [path for path in sources() if path.stem in banned or path.parent.name in banned] == []


def test_no_source_file_is_over_400_lines() -> None:
    long = {path.name: count for path in sources() if (count := len(path.read_text("utf-8").splitlines())) > 400}
    assert long == {}


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code from the first statement after the docstring to the end."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return node.end_lineno - body[0].lineno + 1 if body and node.end_lineno else 0


def test_functions_are_short() -> None:
    lengths = sorted((body_lines(node), f"{path.name}:{node.name}") for path in sources() for node in functions(path))
    assert [entry for entry in lengths if entry[0] > 60] == []
    assert lengths[len(lengths) // 2][0] < 10


def test_nothing_is_left_undone_in_the_source() -> None:
    marks = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|\bNotImplementedError\b|except:\s")
    assert [path.name for path in sources() if marks.search(path.read_text("utf-8"))] == []


def test_nothing_is_unpickled_or_evaluated() -> None:
    banned = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
    calls = {"eval", "exec", "__import__"}
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names} & banned
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module.split(".")[0]} & banned
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id} & calls
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                dotted = ast.unparse(node.func)
                names = {dotted} & {"torch.load", "pd.read_pickle", "pandas.read_pickle"}
            found += [f"{path.name}: {name}" for name in names]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        path.relative_to(PACKAGE).as_posix()
        for path in sources()
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize(
    "pattern", [r"/work/", r"/root/", r"/home/\w", r"https?://(pypi|files\.pythonhosted|download\.pytorch)"]
)
def test_no_machine_and_no_registry_is_named(pattern: str) -> None:
    found = []
    for name in tracked():
        if name == "tests/test_repository.py" or Path(name).suffix not in {".py", ".md", ".toml", ".yml", ".txt", ""}:
            continue
        if re.search(pattern, (ROOT / name).read_text("utf-8", errors="replace")):
            found.append(name)
    assert found == []


# --- texts that follow the code -------------------------------------------------------------------------------------


def codes_used() -> set[str]:
    """Every code that a `Finding` is made with, as a literal."""
    codes = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Finding") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    codes.add(first.value)
    return codes


def codes_documented() -> set[str]:
    table = (ROOT / "docs" / "errors.md").read_text("utf-8").split("## Codes")[1]
    return set(re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE))


def test_every_error_code_is_documented() -> None:
    assert codes_used() - codes_documented() == set()


def test_every_documented_code_is_in_the_source() -> None:
    text = "\n".join(path.read_text("utf-8") for path in sources())
    assert {code for code in codes_documented() if f'"{code}' not in text} == set()


def commands() -> dict[str, Any]:
    from postclick.cli.main import app

    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_command_and_flag_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for name, command in commands().items():
        section = re.split(r"^## ", page, flags=re.MULTILINE)
        text = next((part for part in section if part.startswith(name + "\n")), None)
        assert text is not None, f"docs/cli.md has no section {name}"
        for parameter in command.params:
            for flag in parameter.opts:
                if flag.startswith("--") and flag not in ("--help", "--json", "--quiet", "--force"):
                    assert f"`{flag}" in text, f"docs/cli.md: {name} lacks {flag}"


def test_every_training_setting_is_documented() -> None:
    from postclick.binding import parameters
    from postclick.training.config import TrainingConfig

    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    for name, entry in parameters(TrainingConfig).items():
        default = "off" if entry.default is None else str(entry.default)
        assert re.search(rf"^\| `{name}` \| `{re.escape(default)}` \|", page, re.MULTILINE), f"{name} = {default}"


def test_every_system_has_the_page_of_its_paper() -> None:
    from postclick.models.systems import MODELS

    pages = {path.stem for path in (ROOT / "docs" / "systems").glob("*.md")}
    assert pages == {system.__module__.rpartition(".")[2].replace("_", "-") for system in MODELS.values()}


def system_pages() -> Any:
    """The script that writes the tables of arguments."""
    spec = importlib.util.spec_from_file_location("system_pages", ROOT / "benchmarks" / "system_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_system_page_has_the_five_headings_with_something_under_each() -> None:
    script = system_pages()
    for path in script.PAGES.glob("*.md"):
        page = path.read_text("utf-8")
        assert script.headings(page) == script.HEADINGS, path.name
        empty = [part.splitlines()[0] for part in page.split("\n## ")[1:] if not part.partition("\n")[2].strip()]
        assert empty == [], path.name
        assert re.findall(r"@[A-Z]+@", page) == [], path.name


def test_the_arguments_on_the_pages_are_those_of_the_signatures() -> None:
    script = system_pages()
    for name, entries in script.pages().items():
        path = script.PAGES / f"{name}.md"
        page = path.read_text("utf-8") if path.exists() else ""  # that it is missing is another test's business
        assert not page or script.made(page, entries) == page, (
            f"run benchmarks/system_pages.py: {name}.md is out of date"
        )


def test_a_page_out_of_date_is_told_and_mended() -> None:
    script = system_pages()
    page, entries = (script.PAGES / "esmm.md").read_text("utf-8"), script.pages()["esmm"]
    for then, now in (("`[128, 64, 32]`", "`[64]`"), ("| `embedding_size` |", "| `size` |")):
        stale = page.replace(then, now)
        assert stale != page
        assert script.made(stale, entries) == page
    fresh = re.sub(r"<!-- arguments:begin -->.*<!-- arguments:end -->\n", "", page, flags=re.DOTALL)
    assert "| `embedding_size` |" in script.made(fresh, entries)


def test_the_argument_of_concepts_holds() -> None:
    """The numbers printed in docs/concepts.md come from the code printed there."""
    page = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    scope: dict[str, Any] = {}
    exec(compile(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], "concepts.md", "exec"), scope)
    table = {row[0]: [float(cell.strip("* ")) for cell in row[1:]] for row in rows_after(page, "| score |")}
    for shown, name in (("the true CVR", "true CVR"), ("the CTCVR", "CTCVR")):
        assert table[shown] == [pytest.approx(value, abs=6e-4) for value in scope["auc"][name]]
    convention = {name: values[0] for name, values in scope["auc"].items()}
    assert convention["CTCVR"] > convention["CTR alone"] > convention["true CVR"]
    for population in (1, 2):
        assert max(scope["auc"], key=lambda name: scope["auc"][name][population]) == "true CVR"


def rows_after(page: str, header: str) -> list[list[str]]:
    """The cells of a Markdown table."""
    lines = page[page.index(header) :].splitlines()[2:]
    end = next(index for index, line in enumerate(lines) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end]]


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert 5 <= len(example.splitlines()) <= 20
    exec(compile(example, "README.md", "exec"), {})


def test_the_readme_has_its_generated_block() -> None:
    begin, end = README.index("<!-- demo:begin -->"), README.index("<!-- demo:end -->")
    assert begin < end
