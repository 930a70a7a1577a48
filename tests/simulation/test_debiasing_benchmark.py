"""The benchmark of debiasing: its worlds and classes, its effective share and judgement, and that a cut run goes on."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from postclick.data.arrays import Labels
from postclick.data.log import LogSpec
from postclick.evaluation.comparison import Difference
from postclick.models.catalog import build
from postclick.schema import Columns, Schema, SparseFeature
from postclick.simulation.presets import Knobs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SPEC = LogSpec(
    Schema((SparseFeature("user"), SparseFeature("item")), Columns(propensity="p")), 40, 1_000.0, 200.0, 32.0
)


@pytest.fixture(scope="module")
def worlds():
    sys.path.insert(0, str(BENCHMARKS))
    import debiasing_worlds

    yield debiasing_worlds
    sys.path.remove(str(BENCHMARKS))


def test_every_world_can_be_drawn_and_has_its_baseline(worlds):
    for cell in worlds.CELLS:
        assert Knobs(**{**worlds.KNOBS, **cell.knobs}).logged_propensity
        assert worlds.BASELINE in cell.systems
        assert set(cell.systems) <= set(worlds.SYSTEMS)
    assert len({cell.name for cell in worlds.CELLS}) == len(worlds.CELLS)
    assert {cell.knobs["selection"] for cell in worlds.CELLS if cell.judged == "gain"} == set(worlds.GAIN)
    assert [cell.knobs["selection"] for cell in worlds.CELLS if cell.judged == "no loss"] == [0.0]


@pytest.mark.parametrize("system", ["mlp", "esmm", "multi-dr", "escm2-ips", "dr-jl", "dcmt", "ddpo", "nise", "chorus"])
def test_the_small_class_has_no_hidden_layer_and_every_training_is_stopped_by_something(worlds, system):
    piece = worlds.Piece(Path(), worlds.CELLS[0], system, 0, worlds.Setting())
    model = build(worlds.SYSTEMS[system][0], SPEC, piece.arguments())
    small = {name for name, parameter in model.named_parameters() if parameter.ndim == 2 and "table" not in name}
    assert all(parameter.shape[0] == 1 for name, parameter in model.named_parameters() if name in small)
    head = worlds.watched(system, model).split("/")[0]
    assert head == (
        "ctr" if system == "nise" else "ctcvr" if system in ("esmm", "escm2-ips", "dcmt", "ddpo", "chorus") else "cvr"
    )
    large = replace(piece, cell=replace(piece.cell, small=False))
    assert sum(p.numel() for p in build(worlds.SYSTEMS[system][0], SPEC, large.arguments()).parameters()) > sum(
        p.numel() for p in model.parameters()
    )


def test_the_effective_share_by_hand(worlds):
    click, p = np.array([1, 1, 0], np.int8), np.array([0.5, 0.1, 0.01])
    labels = Labels(click, click, propensity=p)
    assert worlds.effective_share(labels) == pytest.approx((2 + 10) ** 2 / (4 + 100) / 2)
    assert worlds.effective_share(labels, floor=0.25) == pytest.approx((2 + 4) ** 2 / (4 + 16) / 2)


def difference(low: float, high: float, verdict: str) -> Difference:
    return Difference(
        "cvr/logloss@world", "x", "mlp", verdict, (low + high) / 2, low, high, reference=0.4, seeds=(5, 5)
    )


def test_what_counts_as_a_gain_and_as_a_loss(worlds):
    import debiasing

    assert debiasing.gains(difference(-0.01, -0.001, "better"))
    assert not debiasing.gains(difference(-0.01, 0.001, "cannot tell"))
    assert not debiasing.gains(difference(-0.01, -0.001, "cannot tell"))  # Holm took it away
    assert not debiasing.gains(None)
    assert not debiasing.loses(difference(-0.001, 0.0019, "cannot tell"))
    assert debiasing.loses(difference(-0.001, 0.0021, "cannot tell"))
    assert debiasing.relative(difference(-0.002, 0.002, "cannot tell")) == pytest.approx((0.0, -0.5, 0.5))


def test_a_run_goes_on_where_it_was_cut_off(worlds, tmp_path, monkeypatch, capsys):
    import debiasing

    command = ["debiasing.py", "--out", str(tmp_path), "--worlds", "confounder", "selection-1.5", "large-class"]
    command += ["--exposures", "5000", "--jobs", "1", "--max-epochs", "1", "--seeds", "2", "--systems", "mlp"]

    def run(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*command, "multi-ipw", *more])
        debiasing.main()
        return capsys.readouterr().out

    first = run()
    kept = sorted(tmp_path.rglob("*.npz"))
    assert [path.name for path in kept] == ["mlp-10.npz", "mlp-11.npz", "multi-ipw-10.npz", "multi-ipw-11.npz"] * 3
    assert not (tmp_path / "large-class" / "world").exists()
    before = {path: path.stat().st_mtime_ns for path in kept}
    kept[0].unlink()
    assert run() == first
    assert {path for path, time in before.items() if path.stat().st_mtime_ns != time} == {kept[0]}
    for row in (
        "| oracle |",
        "| P(conversion, given a click and x), exact |",
        "| mlp |",
        "| multi-ipw |",
        "Bar, gain:",
    ):
        assert row in first
    assert first.count("exact |") == 1
    with pytest.raises(SystemExit, match="another setting"):
        run("--batch-size", "500")
