"""``postclick systems``: the systems that can be trained, and their arguments."""

from __future__ import annotations

from postclick.cli.options import Json, Quiet
from postclick.cli.output import Output, table

__all__ = ["systems"]


def systems(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the systems: key, title, paper, heads; with --json also every argument, its default and the paper's value.

    A head is "head" where the system is trained for it, "derived" where it is computed from others (a CVR from
    CTCVR / CTR), which is reported as such and never called best.

    Example: postclick systems --json

    Next: postclick train LOG --system esmm --out RUN
    """
    from postclick.models.catalog import describe

    out = Output(as_json, quiet)
    entries = describe()
    rows = [
        (
            entry["key"],
            entry["title"],
            entry["year"],
            ", ".join(f"{head} ({kind})" if kind == "derived" else head for head, kind in entry["heads"].items()),
        )
        for entry in entries
    ]
    out.result(entries, table("Systems", ("key", "title", "year", "heads"), rows, texts=4, longest=200))
    out.note("next: postclick train LOG --system KEY --out RUN; arguments and defaults: postclick systems --json")
