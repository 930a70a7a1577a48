"""Communities: their tables, their share of the latents, contradiction measured on the truth, and who can be found."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.simulation import World, simulate
from postclick.simulation.chunks import CHUNK_ROWS, draw, draw_outcomes, plan, solve
from postclick.simulation.communities import communities
from postclick.simulation.presets import PRESETS, Knobs
from postclick.simulation.vocabularies import sizes

BASE = Knobs(ctr=0.2, cvr=0.16, selection=1.0, structure=0.8, users=800, items=800)


def drawn(knobs: Knobs, exposures: int = 40_000, seed: int = 1):
    story = plan(knobs, exposures, seed)
    chunk = draw(story, 0)
    return story, chunk, draw_outcomes(story, solve(story), chunk)


def logit(p):
    return np.log(p) - np.log1p(-p)


def correlation(one, other):
    return np.corrcoef(one, other)[0, 1]


def test_the_logits_are_those_of_the_documented_equations():
    knobs = replace(BASE, structure=0.3, contradiction=0.5, underspecification=0.3, correlation=0.4, user_effect=0.7)
    story, chunk, _ = drawn(knobs, 500)
    users, items, common = story.population.users, story.population.items, story.communities
    signs = set()
    for i in range(0, 500, 25):
        u, v, web = chunk.user[i], chunk.item[i], chunk.web[i]
        g, h, k, l = users.group[u], items.group[v], common.user[u], common.item[v]  # noqa: E741 (as in the equations)
        linear = 0.45**0.5 * (users.conversion[u] + items.conversion[v])
        linear += 0.06**0.5 * (3.5 - np.log(items.price[v])) / 0.9 + 0.04**0.5 * (web - 0.3) / (0.3 * 0.7) ** 0.5
        c = 0.7**0.5 * linear + 0.3**0.5 * story.population.affinity[g, h]
        m = 0.4**0.5 * (users.click[u] + items.click[v]) + 0.2**0.5 * story.population.attraction[g, h]
        c = 0.7**0.5 * c + 0.3**0.5 * common.conversion[k, l]
        m = 0.7**0.5 * m + 0.3**0.5 * common.click[k, l]
        hour = chunk.time[i] % 86_400 // 3600
        place = -0.3 * np.log(chunk.position[i]) + 0.15 * np.sin(2 * np.pi * (hour - 14) / 24)
        n = 0.7 * 0.5**0.5 * (users.neutral[u] + items.neutral[v]) + place + 0.7 * users.own_click[u]
        signs.add(common.sign[l])
        click = common.sign[l] * 0.4 * c + (1 - 0.4**2) ** 0.5 * m + n
        assert chunk.click_logit[i] == pytest.approx(click)
        assert chunk.conversion_logit[i] == pytest.approx(1.1 * c + 0.7 * users.own_conversion[u])
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize("count", [3, 40, 200])
def test_tables_have_unit_variance_and_those_of_click_and_conversion_are_uncorrelated(count):
    knobs = replace(BASE, communities=count, users=5_000, items=5_000)
    made = communities(knobs, sizes(knobs, 100_000, full=False), 3)
    for table in (made.conversion, made.click):
        assert table.shape == (count, count)
        assert table.mean() == pytest.approx(0.0, abs=1e-12)
        assert table.std() == pytest.approx(1.0, abs=1e-9)
        shares = {"users": table.mean(1).var(), "items": table.mean(0).var()}
        assert shares["users"] == pytest.approx(0.4 if table is made.conversion else 0.3, abs=1e-9)
        assert shares["items"] == pytest.approx(shares["users"], abs=1e-9)
    assert correlation(made.conversion.ravel(), made.click.ravel()) == pytest.approx(0.0, abs=1e-9)
    assert np.bincount(made.user, minlength=count).min() > 0


def test_the_rest_of_the_world_is_what_it_is_without_communities():
    alone, chunk, _ = drawn(Knobs(users=800, items=800))
    story, same, _ = drawn(Knobs(users=800, items=800, structure=1.0, contradiction=0.5))
    assert alone.communities is None
    for name in ("user", "item", "time", "position", "web"):
        np.testing.assert_array_equal(getattr(chunk, name), getattr(same, name))
    np.testing.assert_array_equal(alone.population.users.conversion, story.population.users.conversion)


def test_contradiction_alone_turns_the_signs_and_nothing_else():
    story, chunk, found = drawn(replace(BASE, structure=0.0))
    turned, other, again = drawn(replace(BASE, structure=0.0, contradiction=0.5))
    np.testing.assert_array_equal(chunk.conversion_logit, other.conversion_logit)
    straight = turned.communities.signs(other.item) == 1
    assert 0.2 < straight.mean() < 0.8
    np.testing.assert_array_equal(chunk.click_logit[straight], other.click_logit[straight])
    assert not np.array_equal(chunk.click_logit[~straight], other.click_logit[~straight])
    assert not np.array_equal(found.ctr, again.ctr)
    assert story.communities is None


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_the_rates_are_hit_whatever_is_turned(structure, contradiction, seed):
    knobs = replace(BASE, structure=structure, contradiction=contradiction, conversion_scale=0.5)
    _, _, found = drawn(knobs, 5_000, seed)
    assert found.ctr.mean() == pytest.approx(0.2, rel=1e-6)
    assert found.ctcvr.sum() / found.ctr.sum() == pytest.approx(0.08, rel=1e-6)


def test_communities_are_as_much_of_the_latents_as_the_knob_says():
    shares = {}
    for structure in (0.0, 0.4, 1.0):
        knobs = replace(BASE, structure=structure, contradiction=0.025, users=20_000, items=20_000, tail=0.0)
        story, chunk, _ = drawn(knobs, CHUNK_ROWS)
        common = story.communities
        latent = chunk.conversion_logit
        cell = common.user[chunk.user] * knobs.communities + common.item[chunk.item]
        mean = np.bincount(cell, latent) / np.maximum(np.bincount(cell), 1)
        within = np.mean((latent - mean[cell]) ** 2) / latent.var()
        shares[structure] = 1.0 - within
    for structure, share in shares.items():
        assert share == pytest.approx(structure, abs=0.07)
    assert shares[1.0] == pytest.approx(1.0, abs=1e-12)


def shown(users, items):
    """What a log shows of an entity, beside its id."""
    return {
        "user": (users.segment, users.age_band),
        "item": (items.category, items.brand, np.digitize(items.price, np.quantile(items.price, [0.25, 0.5, 0.75]))),
    }


def test_no_side_feature_tells_of_a_community():
    knobs = replace(BASE, users=40_000, items=40_000, communities=8)
    story = plan(knobs, 1_000, 2)
    common = story.communities
    for side, columns in shown(story.population.users, story.population.items).items():
        member = getattr(common, side)
        for column in columns:
            value = column % 8  # as many cells whatever the feature
            table = np.histogram2d(value, member, bins=(np.arange(9), np.arange(9)))[0]
            expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
            statistic = ((table - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
            assert statistic < 49 + 4 * np.sqrt(98)  # chi-square, 49 degrees of freedom


def agreement(one, other):
    """Correlation of the two true logits."""
    return correlation(logit(one), logit(other))


def test_contradiction_turns_the_correlation_of_what_is_clicked_with_what_is_bought():
    found = {}
    for share in (0.0, 0.25, 0.5, 1.0):
        knobs = replace(BASE, contradiction=share, users=20_000, items=20_000, tail=0.0)
        _, _, outcomes = drawn(knobs, CHUNK_ROWS)
        found[share] = agreement(outcomes.ctr, outcomes.cvr_do)
    rising = list(found.values())
    assert rising == sorted(rising, reverse=True)
    assert found[0.0] > 0.5
    assert found[1.0] == pytest.approx(-found[0.0], abs=0.05)
    assert abs(found[0.5]) < 0.15


@pytest.mark.parametrize("structure", [0.0, 0.8])
def test_at_a_half_both_kinds_of_items_hold_their_own_sign(structure):
    knobs = replace(BASE, contradiction=0.5, structure=structure, users=20_000, items=20_000, tail=0.0)
    story, chunk, outcomes = drawn(knobs, CHUNK_ROWS)
    against = story.communities.signs(chunk.item) == -1
    assert against.mean() == pytest.approx(0.5, abs=0.05)
    assert agreement(outcomes.ctr[~against], outcomes.cvr_do[~against]) > 0.4
    assert agreement(outcomes.ctr[against], outcomes.cvr_do[against]) < -0.4
    # high CTR and no purchase, low CTR and purchase: the samples of the curse
    likely = outcomes.ctr > np.quantile(outcomes.ctr, 0.9)
    bought = outcomes.cvr_do
    assert bought[likely & against].mean() < bought[against].mean() < bought[~likely & against].mean() * 1.2
    assert bought[likely & ~against].mean() > 1.3 * bought[~against].mean()


def purity(story, side, vectors, neighbours=8):
    """Share of an entity's nearest neighbours, by cosine, that are of its community."""
    member = getattr(story.communities, side)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2.0)
    nearest = np.argpartition(-similarity, neighbours, axis=1)[:, :neighbours]
    return (member[nearest] == member[:, None]).mean()


def click_profiles(story, chunks, side):
    """Smoothed click residual of every entity against every community of the other side: what clicks show of it."""
    other = "item" if side == "user" else "user"
    count, width = len(getattr(story.communities, side)), story.knobs.communities
    clicks, shows = np.zeros((count, width)), np.zeros((count, width))
    for chunk, click in chunks:
        cell = getattr(chunk, side), getattr(story.communities, other)[getattr(chunk, other)]
        np.add.at(clicks, cell, click - 0.2)
        np.add.at(shows, cell, 1.0)
    return clicks / (shows + 5.0)


def test_clicks_find_the_communities_of_ids_where_there_are_any_and_not_where_there_are_none():
    found = {}
    for structure in (0.8, 0.0):
        knobs = replace(BASE, structure=structure, contradiction=0.1, communities=10, users=400, items=400, tail=0.0)
        story = plan(knobs, CHUNK_ROWS, 5)
        intercepts, chunk = solve(story), draw(story, 0)
        click = draw_outcomes(story, intercepts, chunk).click
        found[structure] = [
            purity(story, side, click_profiles(story, [(chunk, click)], side)) for side in ("user", "item")
        ]
    assert min(found[0.8]) > 2.0 * 0.1
    assert max(found[0.0]) < 1.4 * 0.1


def test_communities_are_a_function_of_the_seed_and_contradiction_nests():
    size = sizes(BASE, 10_000, full=False)
    first, again, other = (communities(BASE, size, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.conversion, again.conversion)
    np.testing.assert_array_equal(first.user, again.user)
    assert not np.array_equal(first.user, other.user)
    few, many = (communities(replace(BASE, contradiction=share), size, 5) for share in (0.25, 0.5))
    np.testing.assert_array_equal(few.click, first.click)
    assert (few.sign == -1).sum() == 10
    assert (many.sign == -1).sum() == 20
    assert set(np.flatnonzero(few.sign == -1)) < set(np.flatnonzero(many.sign == -1))


def test_without_selection_clicks_tell_nothing_of_communities():
    _, chunk, _ = drawn(replace(BASE, selection=0.0, contradiction=0.5))
    _, plain, _ = drawn(replace(BASE, selection=0.0, structure=0.0))
    np.testing.assert_array_equal(chunk.click_logit, plain.click_logit)


def test_the_presets_of_communities_turn_them():
    assert PRESETS["structure"].structure > 0
    assert PRESETS["structure"].contradiction == 0
    assert replace(PRESETS["contradiction"], contradiction=0.0) == PRESETS["structure"]


@pytest.mark.parametrize("layout", ["parquet", "ali-ccp"])
def test_a_world_states_its_communities_and_is_a_function_of_its_arguments(tmp_path, layout):
    made = [
        simulate(tmp_path / str(place), world="contradiction", exposures=2_000, seed=1, layout=layout, knobs=knobs)
        for place, knobs in enumerate(({}, {}, {"contradiction": 0.25}, {"communities": 20}))
    ]
    assert made[0].hash == made[1].hash
    assert len({world.hash for world in made}) == 3
    assert World.open(made[0].path) == made[0]
    assert made[0].knobs == PRESETS["contradiction"]
    truth = made[0].truth()
    assert made[0].rates["cvr_click"] == pytest.approx(truth.ctcvr.sum() / truth.ctr.sum(), rel=1e-12)
    np.testing.assert_array_equal(truth.cvr_do, truth.cvr_click)
