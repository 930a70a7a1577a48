from postclick.simulation.presets import Knobs
from postclick.simulation.vocabularies import ALI_CCP_SIZES, sizes


def test_vocabularies_grow_with_the_log():
    small, large = sizes(Knobs(), 200_000, full=False), sizes(Knobs(), 2_000_000, full=False)
    assert (small.users, small.items) == (8_000, 3_076)
    assert (large.users, large.items) == (80_000, 30_769)
    assert large.brands > 5 * small.brands
    assert all(small.fields[name] <= size for name, size in ALI_CCP_SIZES.items())


def test_full_vocabularies_are_ali_ccps_whatever_the_rows():
    assert sizes(Knobs(), 1_000, full=True).fields == ALI_CCP_SIZES


def test_knobs_have_the_last_word():
    found = sizes(Knobs(users=77, items=88), 1_000_000, full=True)
    assert (found.users, found.items, found.fields["101"], found.fields["205"]) == (77, 88, 77, 88)


def test_user_profile_fields_keep_their_sizes_in_a_small_log():
    found = sizes(Knobs(), 1_000, full=False).fields
    assert {name: found[name] for name in ("121", "122", "125", "301")} == {"121": 98, "122": 14, "125": 8, "301": 4}
