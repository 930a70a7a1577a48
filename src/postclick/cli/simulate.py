"""``postclick simulate``: a log whose true probabilities are known."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from postclick.cli.options import Force, Json, Quiet, Seed, Set
from postclick.cli.output import Output

__all__ = ["simulate"]


class Layout(StrEnum):
    """How the exposures are laid out on disk."""

    PARQUET = "parquet"
    ALI_CCP = "ali-ccp"


_LAYOUTS: dict[Layout, Literal["parquet", "ali-ccp"]] = {Layout.PARQUET: "parquet", Layout.ALI_CCP: "ali-ccp"}


def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The WORLD folder to make.")],
    world: Annotated[
        str,
        typer.Option(
            help="`selection`, its control `no-bias`, `shop-path` (in-shop actions), `structure`, `contradiction`,"
            " `hidden-confounder`, `thin-overlap`, `delayed`, `ali-ccp-like`, `livestream-like`, `reward`."
        ),
    ] = "selection",
    assignments: Set = None,
    exposures: Annotated[int, typer.Option(help="Number of rows.")] = 200_000,
    seed: Seed = 0,
    layout: Annotated[Layout, typer.Option("--format", help="Parquet, or raw Ali-CCP files.")] = Layout.PARQUET,
    full_vocabulary: Annotated[bool, typer.Option(help="As many users and items as the real data set has.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a log with known truth: users, items, contexts, and the true CTR and CVR of every exposure.

    --set turns a knob of the world, such as selection=1.5 (how clicks and conversions go together) or ctr=0.04.

    Example: postclick simulate world --exposures 100000 --set selection=3

    Next: postclick prepare world --out log
    """
    from postclick.binding import parse_assignments
    from postclick.cli.world_report import world_form, world_parts
    from postclick.simulation import simulate as make

    output = Output(as_json, quiet)
    made = make(
        out,
        world=world,
        knobs=parse_assignments(assignments or []),
        exposures=exposures,
        seed=seed,
        layout=_LAYOUTS[layout],
        full_vocabulary=full_vocabulary,
        force=force,
    )
    form = world_form(made)
    output.result(form, *world_parts(form))
    source = "" if layout is Layout.PARQUET else " --source ali-ccp"
    output.note(f"wrote {out}; next: postclick prepare {out}{source} --out LOG")
