"""The options that several commands share, with the one help text each has everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = [
    "Config",
    "FieldChoice",
    "FieldSet",
    "Force",
    "Json",
    "LogFolder",
    "Quiet",
    "SchemaFile",
    "Seed",
    "Set",
    "SourceKey",
    "Split",
    "SplitName",
    "Threshold",
    "Trained",
]


class SplitName(StrEnum):
    """The splits of a LOG."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class FieldSet(StrEnum):
    """Which columns of Ali-CCP."""

    AITM = "aitm"
    FULL = "full"


Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout; all else goes to stderr.")]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", help="No progress, no hints: the result or the error alone.")
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace an output that exists; refused otherwise.")]
Seed: TypeAlias = Annotated[int, typer.Option(help="Equal seeds and inputs give equal bytes on CPU.")]
Set: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Set one value; TOML, a bare word is text, `off` is none. Repeat."
    ),
]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="TOML with system, seed and the tables arguments, training, calibration; flags win."
    ),
]
LogFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="LOG", help="A LOG folder, as `postclick prepare` writes.")
]
Trained: TypeAlias = Annotated[
    Path, typer.Argument(metavar="RUN|BUNDLE", help="A RUN folder, as `postclick train` writes, or a BUNDLE.")
]
Split: TypeAlias = Annotated[SplitName, typer.Option(help="Which split of the LOG.")]
SourceKey: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="`tabular` (CSV, Parquet, Arrow), `ali-ccp`, `aliexpress`, `coat`, `kuairec`, `yahoo-r3`, `rees46`; "
        "else found out.",
    ),
]
FieldChoice: TypeAlias = Annotated[FieldSet, typer.Option(help="Ali-CCP's 18 single-valued columns, or all fields.")]
Threshold: TypeAlias = Annotated[
    float | None, typer.Option(help="A rating at or over it is a conversion; else the source's own.")
]
SchemaFile: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Schema in TOML; else the world's, the source's own, or inferred.")
]
