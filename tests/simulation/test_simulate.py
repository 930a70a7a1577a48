import hashlib

import numpy as np
import pyarrow.dataset as ds
import pytest

from postclick import files
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError, StorageError
from postclick.evaluation import oracle
from postclick.simulation import World, psc_gap, simulate


def labels(world):
    table = ds.dataset(world.path / "exposures").to_table(["click", "conversion"])
    return table.column("click").to_numpy(), table.column("conversion").to_numpy()


@pytest.mark.parametrize("which", ["selection", "no_bias"])
def test_draws_agree_with_the_truth_within_binomial_error(which, request):
    world = request.getfixturevalue(which)
    truth, (click, conversion) = world.truth(), labels(world)
    tenth = len(click) // 10
    for drawn, p, rows in (
        (click, truth.ctr, np.argsort(truth.ctr)),
        (conversion, truth.ctcvr, np.argsort(truth.ctcvr)),
        (conversion[click == 1], truth.cvr_click[click == 1], np.argsort(truth.cvr_click[click == 1])),
    ):
        for part in np.array_split(rows, max(1, len(rows) // tenth)):
            error = np.sqrt((p[part] * (1 - p[part])).sum())
            assert abs(drawn[part].sum() - p[part].sum()) < 4 * error


def test_base_rates_are_hit_and_counted(selection):
    truth, (click, conversion) = selection.truth(), labels(selection)
    assert truth.ctr.mean() == pytest.approx(0.1, abs=1e-9)
    assert truth.ctcvr.sum() / truth.ctr.sum() == pytest.approx(0.1, abs=1e-9)
    assert selection.rates == pytest.approx(
        {"ctr": 0.1, "cvr_click": 0.1, "ctcvr": 0.01, "cvr_do": truth.cvr_do.mean()}, rel=1e-9
    )
    assert selection.counts["clicks"] == click.sum()
    assert selection.counts["conversions"] == conversion.sum()
    assert selection.counts["orphan_conversions"] == 0
    assert 2_500 < selection.counts["users"] <= 3_200
    assert 1_000 < selection.counts["items"] <= 1_230


def test_clicked_exposures_are_like_all_in_no_bias_and_not_in_selection(selection, no_bias):
    def ratio(world):
        cvr, click = world.truth().cvr_do, labels(world)[0]
        return cvr[click == 1].mean() / cvr.mean()

    assert ratio(no_bias) == pytest.approx(1, abs=0.07)
    assert ratio(selection) > 1.6


@pytest.mark.parametrize(
    ("world", "digest"),
    [
        ("selection", "d154660edf305de3"),
        ("no-bias", "7371c631eead8028"),
    ],
)
def test_a_world_without_actions_is_what_it_was_before_there_were_any(tmp_path, world, digest):
    made = simulate(tmp_path / "w", world=world, exposures=20_000, seed=3)
    found = hashlib.sha256(b"".join(label.astype("i1").tobytes() for label in labels(made)))
    assert found.hexdigest()[:16] == digest
    assert set(made.counts) == {"clicks", "conversions", "orphan_conversions", "users", "items"}
    assert set(made.rates) == {"ctr", "cvr_do", "cvr_click", "ctcvr"}


def test_a_world_with_actions_logs_and_counts_them(acting):
    table = ds.dataset(acting.path / "exposures").to_table(["click", "action", "conversion"])
    click, action, conversion = (table.column(name).to_numpy() == 1 for name in table.column_names)
    assert acting.schema.columns.action == "action"
    assert acting.counts["actions"] == (click & action).sum()
    assert acting.counts["orphan_actions"] == (~click & action).sum() > 0
    assert acting.counts["conversions_without_action"] == (click & conversion & ~action).sum()
    truth, true = acting.truth(), acting.behaviour()
    assert acting.rates["cvr_click"] == pytest.approx(0.1, abs=1e-9)
    assert acting.rates["action"] == pytest.approx(0.4 * 0.7, abs=1e-9)
    assert acting.rates["ctar"] == pytest.approx(true.ctar.mean(), rel=1e-12)
    # 30 of 100 conversions have no action, and 30 of 100 actions of the other 70 are logged elsewhere
    assert acting.rates["without_action"] == pytest.approx(0.3 + 0.7 * 0.3, abs=1e-9)
    assert acting.rates["without_action"] == pytest.approx(
        psc_gap(truth.ctr, true).total.sum() / truth.ctcvr.sum(), rel=1e-9
    )


def test_a_world_with_actions_is_a_function_of_its_arguments(tmp_path):
    made = [
        simulate(tmp_path / str(place), world="behaviour", exposures=2_000, seed=seed, knobs=knobs).hash
        for place, (seed, knobs) in enumerate(((1, {}), (1, {}), (2, {}), (1, {"action_outside_window": 0.1})))
    ]
    assert made[0] == made[1]
    assert len(set(made)) == 3


def test_the_files_of_ali_ccp_have_no_actions(tmp_path):
    with pytest.raises(ConfigError, match="no column for in-shop actions") as caught:
        simulate(tmp_path / "w", world="behaviour", layout="ali-ccp")
    assert [finding.where for finding in caught.value.findings] == ["format"]
    with pytest.raises(ConfigError, match="no column for a logged propensity"):
        simulate(tmp_path / "w", knobs={"logged_propensity": True}, layout="ali-ccp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("world", "layout", "digest"),
    [
        ("selection", "parquet", "efbf64c14b19c06d"),
        ("no-bias", "parquet", "9f93c43c3a2651f9"),
        ("behaviour", "parquet", "8d4a8f896cf125be"),
        ("selection", "ali-ccp", "2f5bc34276db87a4"),
        ("no-bias", "ali-ccp", "8c0209212653d74d"),
    ],
)
def test_every_preset_is_what_it_was_before_the_knobs_of_faults(tmp_path, world, layout, digest):
    made = simulate(tmp_path / "w", world=world, exposures=3_000, seed=5, layout=layout)
    assert made.hash[:16] == digest


FAULTS = {
    "unobserved_confounder": 1.0,
    "support_violation": 0.2,
    "thin_overlap": 0.2,
    "logged_propensity": True,
    "propensity_misspecification": 0.5,
}


def test_a_world_with_faults_states_them_and_prepares(tmp_path):
    knobs = {"ctr": 0.3, "cvr": 0.3, **FAULTS}
    made = simulate(tmp_path / "w", exposures=4_000, seed=1, knobs=knobs)
    assert made.schema.columns.propensity == "propensity"
    assert {name: getattr(made.knobs, name) for name in FAULTS} == FAULTS
    assert World.open(made.path) == made
    assert made.rates["cvr_click"] == pytest.approx(0.3, abs=1e-9)
    assert made.rates["cvr_do"] < 0.25
    again = simulate(tmp_path / "again", exposures=4_000, seed=1, knobs=knobs)
    assert again.hash == made.hash
    other = simulate(tmp_path / "other", exposures=4_000, seed=1, knobs={**knobs, "thin_overlap": 0.1})
    assert other.hash != made.hash
    log = prepare(open_source(made.path), tmp_path / "log", truth=made.path / "truth.parquet", jobs=1)
    labels, truth = log.split("train").labels(), log.truth("train")
    assert labels.propensity is not None
    assert sum(len(log.split(name)) for name in log.splits) == 4_000  # a propensity of 0 would be a row fault
    assert (labels.propensity[truth.ctr == 0] == 1e-9).all()
    possible = truth.ctr > 0
    assert np.corrcoef(labels.propensity[possible], truth.ctr[possible])[0, 1] > 0.8
    found = oracle(log.split("test").labels(), log.truth("test"), metrics=("cvr/pcoc@world", "ctr/logloss@world"))
    assert found["cvr/pcoc@world"].value == pytest.approx(1.0)
    assert np.isfinite(found["ctr/logloss@world"].value)


@pytest.mark.parametrize("layout", ["parquet", "ali-ccp"])
def test_equal_arguments_give_equal_hashes_and_another_seed_another(tmp_path, layout):
    hashes = [
        simulate(tmp_path / f"{place}", exposures=3_000, seed=seed, layout=layout).hash
        for place, seed in enumerate((7, 7, 8))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_layouts_tell_the_same_story(tmp_path):
    one = simulate(tmp_path / "one", exposures=3_000, seed=1)
    other = simulate(tmp_path / "other", exposures=3_000, seed=1, layout="ali-ccp")
    assert one.counts == other.counts
    np.testing.assert_array_equal(one.truth().ctr, other.truth().ctr)


def test_one_exposure_is_enough(tmp_path):
    for layout in ("parquet", "ali-ccp"):
        world = simulate(tmp_path / layout, exposures=1, layout=layout)
        assert world.rates["ctr"] == pytest.approx(0.1)


def test_wrong_arguments_are_reported_together_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigError) as caught:
        simulate(tmp_path / "w", exposures=0, seed=-1, layout="ali-cpp")
    assert [finding.where for finding in caught.value.findings] == ["exposures", "seed", "format"]
    assert "did you mean 'ali-ccp'?" in str(caught.value)
    with pytest.raises(ConfigError, match="did you mean 'user_effect'"):
        simulate(tmp_path / "w", knobs={"user_efect": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_replaced_only_by_force(tmp_path):
    first = simulate(tmp_path / "w", exposures=100)
    with pytest.raises(StorageError, match="exists already"):
        simulate(tmp_path / "w", exposures=100, seed=1)
    assert files.read_manifest(first.path).hash == first.hash
    assert simulate(tmp_path / "w", exposures=100, seed=1, force=True).hash != first.hash


def test_every_file_is_vouched_for(selection, raw):
    for world, names in (
        (selection, {"exposures/part-00000.parquet"}),
        (
            raw,
            {f"{kind}_{split}.csv" for kind in ("sample_skeleton", "common_features") for split in ("train", "test")},
        ),
    ):
        manifest = files.read_manifest(world.path, "world")
        assert set(manifest.files) == names | {"schema.toml", "truth.parquet", "world.json"}
        files.verify(world.path, manifest)
