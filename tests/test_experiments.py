"""Every experiment file parses, its settings bind, and each of its systems can be built with them."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch

from postclick.benchmark import Experiment
from postclick.data.log import LogSpec
from postclick.errors import ConfigError
from postclick.models.catalog import build
from postclick.models.systems import MODELS
from postclick.schema import Columns, EmbeddingFeature, Schema, SparseFeature

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))
SCHEMA = Schema(
    (SparseFeature("user", "user"), SparseFeature("item", "item"), EmbeddingFeature("text", 4)),
    Columns(user_id="user", item_id="item", action="action", propensity="propensity"),
)
SPEC = LogSpec(SCHEMA, table_rows=50, rows=100.0, clicks=20.0, conversions=5.0, actions=8.0)


def build_all(experiment):
    """Build the system of every run with every setting of its grid; yields each run with what was built."""
    for run in experiment.runs:
        for setting in experiment.grid.settings(run.grid):
            config = experiment.config(run, setting, seed=0)
            with torch.device("meta"):
                yield run, build(config.system, SPEC, config.arguments)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_setting_of_every_run_binds_and_builds_its_system(path):
    experiment = Experiment.from_toml(path)
    built = {run.label for run, model in build_all(experiment) if isinstance(model, MODELS[run.system])}
    assert built == {run.label for run in experiment.runs}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("planted", ["training.learning_rat", "embeding_size"])
def test_a_misspelt_setting_is_refused(path, planted, tmp_path):
    form = tomllib.loads(path.read_text("utf-8"))
    form["run"][0].setdefault("set", {})[planted] = 4
    (tmp_path / path.name).write_text(tomli_w.dumps(form), "utf-8")
    with pytest.raises(ConfigError, match=planted.rpartition(".")[2]):
        list(build_all(Experiment.from_toml(tmp_path / path.name)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_measures_with_a_baseline_and_five_seeds(path):
    experiment = Experiment.from_toml(path)
    assert path.read_text("utf-8").startswith("# ")
    assert experiment.table.baseline is not None
    # the demo has to end in ten minutes and says that its seeds are too few
    assert len(experiment.seeds.values) >= (3 if path.stem == "demo" else 5)
    assert experiment.table.split == "test"


def test_the_table_of_the_comparison_methods_has_its_fourteen_rows():
    runs = Experiment.from_toml(next(path for path in FILES if path.stem == "multi_ipw_dr")).runs
    assert {run.label for run in runs} >= {
        *("Base", "AMAN", "Oversampling", "Unbias", "Division", "ESMM-NS", "ESMM", "Naive Imputation", "Naive IPW"),
        *("Heuristic DR", "DR-JL", "MTL-IMP", "Multi-IPW", "Multi-DR"),
    }
