"""``postclick neighbours``: who is like a user or an item, in the graph that a run was trained with."""

from __future__ import annotations

from typing import Annotated

import typer

from postclick.cli.options import Json, Quiet, Trained
from postclick.cli.output import Output, number, table

__all__ = ["neighbours"]


def neighbours(
    trained: Trained,
    item: Annotated[str | None, typer.Option(metavar="ID", help="The item, by its id in the raw data.")] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="The user, by its id in the raw data.")] = None,
    k: Annotated[int, typer.Option("--k", help="How many neighbours, at most as many as the graph holds.")] = 8,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the users or items nearest to one, with their similarity and features, as the RUN's structure mining found.

    The similarity is the cosine of the entities' embeddings, side by side, in the click network that was trained
    beforehand. Only systems that mine structure have a graph (cstwa with its migrator).

    Example: postclick neighbours run --item 123

    Next: postclick evaluate run log
    """
    from postclick.errors import Finding, UsageError
    from postclick.run.neighbours import entity_neighbours

    if (item is None) == (user is None):
        what = "name either --item ID or --user ID"
        raise UsageError(Finding("usage", what, "postclick neighbours", fix="see: postclick neighbours --help"))
    output = Output(as_json, quiet)
    value = item if item is not None else str(user)
    found = entity_neighbours(trained, "user" if item is None else "item", value, k=k)
    names = tuple(found.entity.features)
    rows = [
        (
            str(one.id),
            *("-" if feature is None else str(feature) for feature in one.features.values()),
            "" if one.similarity is None else number(one.similarity),
        )
        for one in (found.entity, *found.neighbours)
    ]
    title = f"{found.side} {found.entity.id} and its {len(found.neighbours)} nearest {found.side}s"
    output.result(found.to_dict(), table(title, ("id", *names, "similarity"), rows, texts=1 + len(names)))
    if k > found.held:
        output.note(f"the graph holds {found.held} neighbours each")
