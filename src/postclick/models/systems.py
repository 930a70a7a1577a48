"""The systems by key: a literal table, and a test walks the folder."""

from __future__ import annotations

from postclick.models.base import ConversionModel
from postclick.models.esmm import ESMM
from postclick.models.mlp import MLP

__all__ = ["MODELS"]

MODELS: dict[str, type[ConversionModel]] = {
    "mlp": MLP,
    "esmm": ESMM,
}
