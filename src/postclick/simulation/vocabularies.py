"""How many values each id has: long vocabularies that grow with the log, or Ali-CCP's own sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

from postclick.simulation.presets import Knobs

__all__ = ["ALI_CCP_SIZES", "Vocabularies", "sizes"]

# AITM's 18 fields and their vocabulary sizes after its preparation (SYSTEMS 13.2)
ALI_CCP_SIZES: dict[str, int] = {
    "101": 238_635,
    "121": 98,
    "122": 14,
    "124": 3,
    "125": 8,
    "126": 4,
    "127": 4,
    "128": 3,
    "129": 5,
    "205": 467_298,
    "206": 6_929,
    "207": 263_942,
    "216": 106_399,
    "508": 5_888,
    "509": 104_830,
    "702": 51_878,
    "853": 37_148,
    "301": 4,
}
_ITEM_SIDE = ("206", "207", "216", "508", "509", "702", "853")
_EXPOSURES_PER_USER, _EXPOSURES_PER_ITEM = 25, 65


@dataclass(frozen=True)
class Vocabularies:
    """Numbers of values.

    Parameters
    ----------
    users, items
        Entities that can be exposed.
    fields
        Ali-CCP field -> number of its values; those of the item side shrink in proportion to the items.
    """

    users: int
    items: int
    fields: dict[str, int] = field(default_factory=dict)

    @property
    def categories(self) -> int:
        """Values of the item category (field 206)."""
        return self.fields["206"]

    @property
    def brands(self) -> int:
        """Values of the item brand (field 216)."""
        return self.fields["216"]


def sizes(knobs: Knobs, exposures: int, *, full: bool) -> Vocabularies:
    """Return the sizes for a log of `exposures` rows; `full` takes Ali-CCP's whatever the number of rows.

    A user has 25 exposures on average and an item 65, unless the knobs `users` and `items` say otherwise.
    """
    default_users = ALI_CCP_SIZES["101"] if full else max(50, exposures // _EXPOSURES_PER_USER)
    default_items = ALI_CCP_SIZES["205"] if full else max(50, exposures // _EXPOSURES_PER_ITEM)
    users, items = knobs.users or default_users, knobs.items or default_items
    scale = 1.0 if full else items / ALI_CCP_SIZES["205"]
    fields = dict(ALI_CCP_SIZES)
    for name in _ITEM_SIDE:
        fields[name] = max(3 * knobs.groups, round(scale * ALI_CCP_SIZES[name]))
    fields["101"], fields["205"] = users, items
    return Vocabularies(users, items, fields)
