"""``postclick prepare``: what it says of work that was cut off."""

from __future__ import annotations

import json

import numpy as np
import pytest

from postclick import files
from postclick.cli.main import call
from postclick.data.log import ExposureLog
from postclick.data.partial import open_partial, partial_folder


@pytest.fixture
def cut_off(pipeline, tmp_path, monkeypatch, capsys):
    """A preparation that was interrupted after the rows were staged; returns the arguments."""
    arguments = ["prepare", str(pipeline.world), "--out", str(tmp_path / "log"), "--min-count", "2"]

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare.find_duplicates", interrupted)
        assert call(arguments) == 130
    captured = capsys.readouterr()
    assert "run again with --resume" in captured.err
    assert "interrupted" in captured.err
    return arguments


def test_resume_goes_on_and_gives_the_same_log(cut_off, pipeline, tmp_path, capsys):
    left = partial_folder(tmp_path / "log")
    assert list((left / "staged").glob("piece-*.json"))
    assert call([*cut_off, "--resume", "--json"]) == 0
    captured = capsys.readouterr()
    assert f"going on with {left}" in captured.err
    assert json.loads(captured.out)["hash"] == files.read_manifest(pipeline.log).hash
    assert not left.exists()
    assert call([*cut_off, "--resume", "--quiet"]) == 0  # nothing is left to do
    assert call([*cut_off, "--quiet"]) == 73


def test_without_resume_it_says_that_it_starts_again(cut_off, pipeline, tmp_path, capsys):
    assert call([*cut_off, "--json"]) == 0
    captured = capsys.readouterr()
    assert "is done anew; see --resume" in captured.err
    assert json.loads(captured.out)["hash"] == files.read_manifest(pipeline.log).hash


def test_two_at_a_time_are_refused(pipeline, tmp_path, capsys):
    with open_partial(tmp_path / "log", resume=False):
        assert call(["prepare", str(pipeline.world), "--out", str(tmp_path / "log")]) == 75
    assert "lock.held another process works on this folder (pid" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_a_propensity_of_ratings_is_logged(tmp_path, capsys):
    random = np.random.default_rng(0)
    for name in ("user.txt", "random.txt"):
        lines = np.unique(random.integers(1, (21, 21, 6), (200, 3)), axis=0)
        (tmp_path / name).write_text("\n".join(",".join(map(str, line)) for line in lines))
    arguments = ["prepare", str(tmp_path), "--source", "yahoo-r3", "--out", str(tmp_path / "log"), "--json"]
    assert call([*arguments, "--propensity", "naive-bayes"]) == 0
    audit = json.loads(capsys.readouterr().out)["audit"]
    assert any("propensity is P(rated) by naive-bayes" in verdict["text"] for verdict in audit["verdicts"])
    propensity = ExposureLog(tmp_path / "log").split("train").labels().propensity
    assert len(np.unique(propensity)) > 2
    assert call([*arguments, "--propensity", "guess"]) == 64
