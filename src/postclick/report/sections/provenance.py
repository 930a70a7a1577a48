"""How it was made: hashes, seeds, versions, seconds, and every setting."""

from __future__ import annotations

from collections.abc import Iterator

from postclick.report.blocks import Figure, Part, Table
from postclick.report.facts import Study
from postclick.report.words import setting

__all__ = ["provenance"]


def provenance(study: Study) -> Part:
    """Return where a study's numbers come from."""
    runs = [(entry, entry.run) for entry in study.contestants if entry.run is not None]
    if not runs:
        return Part()
    rows = []
    for entry, run in runs:
        versions = ", ".join(f"{name} {value}" for name, value in dict(run.record.get("versions", {})).items())
        seconds = run.record.get("seconds")
        seconds = float(seconds) if isinstance(seconds, int | float) else None
        device = str(run.record.get("device", ""))
        hashes = (run.bundle[:12], run.log[:12])
        rows.append((entry.label, run.system, run.name, run.seed, *hashes, device, seconds, versions))
    columns = [
        ("row", "text"),
        ("system", "text"),
        ("run", "text"),
        ("seed", "count"),
        ("bundle", "text"),
        ("log", "text"),
    ]
    columns += [("device", "text"), ("seconds", "number"), ("versions", "text")]
    made = Figure("Runs", "", Table.of(f"{study.name} runs", columns, rows))
    return Part(tables=(made, *_settings(study)))


def _settings(study: Study) -> Iterator[Figure]:
    """Yield every setting of every shown run, those that differ first."""
    runs = [(entry.label, entry.run.config) for entry in study.contestants if entry.run is not None]
    names = sorted({name for _, config in runs for name in config})
    rows = []
    for name in names:
        values = [setting(config[name]) if name in config else "–" for _, config in runs]
        rows.append((len(set(values)) == 1, name, values))
    rows.sort(key=lambda row: row[:2])
    columns = [("setting", "text"), *((label, "text") for label, _ in runs)]
    table = Table.of(f"{study.name} settings", columns, [(name, *values) for _, name, values in rows])
    yield Figure("Every setting, those that differ first", "", table)
