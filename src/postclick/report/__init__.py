"""The report: RUNs and BENCHMARKs as one self-contained HTML file that a person in a hurry can read."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from postclick.errors import ConfigError, Finding
from postclick.report.facts import Figures

__all__ = ["installed", "write_report"]
_NEEDED = ("altair", "jinja2", "vl_convert")


def write_report(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    logs: Sequence[str | Path] = (),
    by: Sequence[str] = (),
    force: bool = False,
) -> Figures:
    """Write the report of RUNs and BENCHMARKs to one HTML file and return the facts it shows.

    The file asks nothing of any network, runs no script and carries every number it draws as CSV.

    Parameters
    ----------
    paths
        RUN and BENCHMARK folders; RUNs of one LOG are compared with each other.
    out
        The HTML file.
    logs
        LOGs that the runs were trained on: adds the ledger, calibration curves and paired verdicts of RUNs.
    by
        Columns whose values get calibration curves of their own; needs their LOG.
    force
        Replace an existing file.

    Raises
    ------
    InputMissingError
        A folder of another kind.
    DataError
        A file in one of them is not what postclick writes.
    StorageError
        `out` exists and `force` is off.
    ConfigError
        The extra ``report`` (Altair, vl-convert, Jinja) is not installed, or a column in `by` that a LOG has not.
    """
    from postclick import files
    from postclick.report.collect import collect
    from postclick.report.page import page
    from postclick.report.sections import sections

    _check_installed()
    target = Path(out)
    files.check_free(target, force=force)
    figures = collect([Path(path) for path in paths], [Path(path) for path in logs], by)
    files.write_text(target, page(figures, sections(figures)))
    return figures


def installed() -> bool:
    """Return whether what draws and lays out the page is there (the extra ``report``)."""
    return not _absent()


def _absent() -> list[str]:
    return [name for name in _NEEDED if find_spec(name) is None]


def _check_installed() -> None:
    absent = _absent()
    if absent:
        fix = "pip install 'postclick[report]'"
        raise ConfigError(Finding("config.value", f"not installed: {', '.join(absent)}", "postclick report", fix=fix))
