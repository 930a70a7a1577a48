"""The plain form of the tables."""

from postclick.evaluation.tables import CalibrationTables, ReliabilityBin, SliceRatio

TABLES = CalibrationTables(
    {"cvr@click": (ReliabilityBin(100, 0.1, 0.12, 0.08, 0.2),)},
    {"cvr@click|shop": (SliceRatio("a", 9, 1.5, 1.0, 1.5, None, None, None, 1.1, 0.8, 1.4),)},
    {"cvr@click|shop": 0.25},
    {"cvr@click": 0},
    0.9,
    ("cvr@click: no slice",),
)


def test_two_keys_and_back():
    form = TABLES.to_dict()
    assert set(form) == {"reliability", "slices"}
    assert form["slices"]["ratios"]["cvr@click|shop"][0]["value"] == "a"
    assert form["slices"]["level"] == 0.9
    assert CalibrationTables.from_dict(form) == TABLES
