"""The benchmark of behaviour paths: its worlds, its exact chains, its interval, and that a cut run goes on."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from postclick.data.arrays import Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.simulation import Behaviour, Knobs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def worlds():
    sys.path.insert(0, str(BENCHMARKS))
    import behaviour_worlds

    yield behaviour_worlds
    sys.path.remove(str(BENCHMARKS))


def constant_split(worlds, rows: int):
    ctr, action, after, other, any_action = (np.full(rows, p) for p in (0.2, 0.4, 0.25, 0.05, 0.1))
    paths = Behaviour(action, ctr * action, after, other, any_action, after)
    return worlds.Split(Truth(ctr, paths.cvr, paths.cvr, ctr * paths.cvr), paths)


def scored(*ctcvr: float) -> list[np.ndarray]:
    return [np.array([p]) for p in ctcvr]


def test_every_world_can_be_drawn(worlds):
    cells = [worlds.Cell(without, outside) for outside in (0.0, 0.3) for without in (0.0, 0.3, 0.6)]
    knobs = [Knobs(**cell.knobs()) for cell in cells]
    assert len({cell.name for cell in cells}) == len(set(knobs)) == 6
    assert {entry.orphan_actions for entry in knobs[:3]} == {0.0}
    assert worlds.Cell(0.3, 0.0).systems(list(worlds.SYSTEMS)) == list(worlds.SYSTEMS)[:-1]
    assert worlds.Cell(0.3, 0.3).systems(list(worlds.SYSTEMS)) == list(worlds.SYSTEMS)


def test_the_exact_chain_by_hand(worlds):
    split = constant_split(worlds, 2)
    np.testing.assert_allclose(split.chain_scores("chain").probability("ctcvr"), 0.02)
    np.testing.assert_allclose(split.chain_scores("chain, cart log").probability("ctcvr"), 0.008)
    np.testing.assert_allclose(split.chain_scores("chain").probability("cvr"), 0.1)


def test_the_interval_of_the_bias_by_hand(worlds):
    # 1,000 training rows: 20 conversions after an action, 6 others; true CTCVR .026, the chain's .020
    split = constant_split(worlds, 1_000)
    found = worlds.chain_bias("chain", scored(0.019, 0.021), None, split, split)
    assert (found.formula, found.value) == (pytest.approx(-6 / 26), pytest.approx(-6 / 26))
    seed, label = (0.002 / 0.026) ** 2 / 4, 20 / 26**2
    df = (seed + label) ** 2 / (seed**2 / 1)
    assert found.high - found.value == pytest.approx(student(df) * (seed + label) ** 0.5, rel=1e-6)
    assert found.holds

    beside = worlds.chain_bias("chain", scored(0.019, 0.021), scored(0.025, 0.027), split, split)
    assert beside.value == pytest.approx(-6 / 26)
    assert beside.high - beside.value == pytest.approx(1.959964 * (6 / 26**2) ** 0.5, rel=1e-5)

    cart = worlds.chain_bias("chain, cart log", scored(0.008, 0.008), scored(0.026, 0.026), split, split)
    assert cart.formula == pytest.approx(-18 / 26)
    variance = ((8 - 20) ** 2 / 20 + 6) / 26**2
    assert cart.high - cart.value == pytest.approx(1.959964 * variance**0.5, rel=1e-5)
    assert not worlds.chain_bias("chain", scored(0.026, 0.026), scored(0.026, 0.026), split, replace(split)).holds


def test_an_offset_puts_the_mean_right(worlds):
    rng = np.random.default_rng(0)
    odds, label = rng.normal(-1.0, 2.0, 500), (rng.random(500) < 0.6).astype(np.int8)
    moved = 1.0 / (1.0 + np.exp(-(odds + worlds.offset(odds, label))))
    assert moved.mean() == pytest.approx(label.mean(), abs=1e-9)


@pytest.mark.parametrize(("system", "last"), [("chain", 2 / 4), ("chain, cart log", 2 / 5)])
def test_each_factor_is_centred_on_its_own_rows(worlds, system, last):
    # 10 exposures: 6 clicks, 4 of them act, 2 of the 4 convert, and a click without action converts; 1 action elsewhere
    click = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], np.int8)
    action = np.array([1, 1, 1, 1, 0, 0, 1, 0, 0, 0], np.int8)
    conversion = np.array([1, 1, 0, 0, 1, 0, 0, 0, 0, 0], np.int8)
    said = {"ctr": 0.5, "action": 0.25, "cvr": 0.05}
    scores = Scores({head: np.full(10, np.log(p) - np.log1p(-p)) for head, p in said.items()}, {})
    piece = worlds.Piece(None, worlds.Cell(0.3, 0.3), system, 0, worlds.Setting())
    found = worlds.centred(scores, scores, Labels(click, conversion, action=action), piece)
    np.testing.assert_allclose(found, 0.6 * (4 / 6) * last, rtol=1e-9)


def student(df: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, df))


def test_a_run_goes_on_where_it_was_cut_off(worlds, tmp_path, monkeypatch, capsys):
    import behaviour_path

    command = ["behaviour_path.py", "--out", str(tmp_path), "--worlds", "0.3,0.3", "--exposures", "4000", "--jobs", "1"]
    command += ["--max-epochs", "1", "--seeds", "2", "--first-seed", "0", "--systems", "esm2", "chain"]

    def run(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*command, *more])
        behaviour_path.main()
        return capsys.readouterr().out

    first = run()
    kept = sorted(tmp_path.rglob("*.npz"))
    assert [path.name for path in kept] == ["chain-0.npz", "chain-1.npz", "esm2-0.npz", "esm2-1.npz"]
    before = {path: path.stat().st_mtime_ns for path in kept}
    kept[0].unlink()
    assert run() == first
    assert {path for path, time in before.items() if path.stat().st_mtime_ns != time} == {kept[0]}
    for row in ("| oracle |", "| chain, exact |", "| esm2 |", "| chain |", "| 0.3 / 0.3 | chain |"):
        assert row in first
    with pytest.raises(SystemExit, match="another setting"):
        run("--batch-size", "500")
