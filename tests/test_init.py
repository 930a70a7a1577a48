"""The root of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import postclick
from postclick.data.log import ExposureLog
from postclick.errors import ConfigError


def test_importing_it_brings_neither_torch_nor_anything_heavy():
    code = (
        "import sys, postclick; "
        "postclick.Schema, postclick.SparseFeature, postclick.__version__; "
        "heavy = {'torch', 'polars', 'pyarrow', 'numpy', 'pandas', 'rich', 'typer'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    assert all(getattr(postclick, name) is not None for name in postclick.__all__)
    assert set(postclick.__all__) <= set(dir(postclick))
    from importlib.metadata import version

    assert postclick.__version__ == version("postclick")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = postclick.nothing


def test_simulate_and_prepare_by_plain_paths(tmp_path):
    postclick.simulate(str(tmp_path / "world"), exposures=2_000, seed=1)
    log = postclick.prepare(str(tmp_path / "world"), str(tmp_path / "log"), split="random", min_count=2)
    assert isinstance(log, ExposureLog)
    assert log.truth("test") is not None
    assert sum(len(log.split(name)) for name in log.splits) == 2_000


def test_prepare_takes_roles_schema_files_and_a_vocabulary(tmp_path, raw_table, small_schema, small_log):
    (tmp_path / "schema.toml").write_text(small_schema.to_toml())
    schema = tmp_path / "schema.toml"
    log = postclick.prepare(test=raw_table, out=tmp_path / "log", schema=schema, vocabulary=str(small_log.path))
    assert log.splits == ("test",)
    assert log.schema == small_schema


def test_prepare_names_unknown_options(tmp_path, raw_table):
    with pytest.raises(ConfigError, match="did you mean 'min_count'"):
        postclick.prepare(raw_table, tmp_path / "log", min_counts=3)
