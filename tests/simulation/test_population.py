import numpy as np
import pytest

from postclick.simulation.population import populate
from postclick.simulation.presets import Knobs
from postclick.simulation.vocabularies import sizes


def people(groups: int = 12, seed: int = 0):
    knobs = Knobs(users=40_000, items=20_000, groups=groups)
    return populate(knobs, sizes(knobs, 1_000_000, full=False), seed)


@pytest.mark.parametrize("groups", [3, 12, 14])
def test_latents_have_unit_variance_and_conversion_is_independent_of_click(groups):
    population = people(groups)
    for entities in (population.users, population.items):
        for latent in (entities.conversion, entities.click, entities.neutral):
            assert latent.mean() == pytest.approx(0, abs=0.12)
            assert latent.std() == pytest.approx(1, abs=0.06)
        assert np.corrcoef(entities.conversion, entities.click)[0, 1] == pytest.approx(0, abs=0.03)


def test_interactions_are_double_centred_with_unit_variance():
    for table in (people().affinity, people().attraction):
        np.testing.assert_allclose(table.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(table.mean(1), 0, atol=1e-12)
        assert table.std() == pytest.approx(1)


def test_observed_segment_and_category_tell_the_group_with_noise():
    population = people()
    shown = 0.4 + 0.6 / 12
    assert np.mean(population.users.segment == population.users.group) == pytest.approx(shown, abs=0.02)
    categories = population.items.category.max() + 1
    assert categories > 3 * 12
    assert np.mean(population.items.category % 12 == population.items.group) == pytest.approx(shown, abs=0.05)


def test_shares_of_exposure_are_long_tailed_and_sum_to_one():
    share = np.diff(people().items.share, prepend=0.0)
    share = np.sort(share)[::-1]
    assert people().items.share[-1] == 1.0
    assert share[: len(share) // 10].sum() > 0.5
    assert share.min() > 0


def test_a_population_is_a_function_of_its_seed():
    first, again, other = people(seed=5), people(seed=5), people(seed=6)
    np.testing.assert_array_equal(first.users.conversion, again.users.conversion)
    assert not np.array_equal(first.users.conversion, other.users.conversion)
