"""Beta calibration (Kull, Silva Filho and Flach 2017): log-odds are a log p - b log(1 - p) + c, with a, b > 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.calibration.odds import log_pair
from postclick.calibration.platt import SLOPES, log_loss, newton

__all__ = ["Beta", "fit_beta"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Beta:
    """The map ``a log p - b log(1 - p) + c``: strictly increasing, slope a in the low tail and b in the high one.

    With a = b it is Platt scaling of the log-odds; (1, 1, 0) leaves them as they are.

    Parameters
    ----------
    a, b
        Above 0.
    c
        Any number.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __call__(self, odds: Array) -> Array:
        """Return calibrated log-odds, [B]."""
        log_p, log_not_p = log_pair(odds)
        return self.a * log_p - self.b * log_not_p + self.c

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"a": self.a, "b": self.b, "c": self.c}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> Beta:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        a, b, c = (float(form[name]) for name in ("a", "b", "c"))
        if not (a > 0.0 and b > 0.0 and np.isfinite([a, b, c]).all()):
            raise ValueError(f"a {a}, b {b}, c {c}")
        return cls(a, b, c)


def fit_beta(odds: Array, label: Array, weight: Array) -> Beta:
    """Minimise the weighted log-loss over a, b in `SLOPES` and c.

    The loss is convex. Where the free minimum leaves the box, the faces of the box are tried with the rest free and
    the best point inside wins, which is the minimum over the box. Kull et al. ask for a, b >= 0; above 0 the map is
    strictly increasing, so no two scores become one. Where both slopes end on the border the score ranks nearly at
    random or separates the classes: a = b = 1, and c alone is fitted.

    Parameters
    ----------
    odds
        Log-odds, [B].
    label
        0 or 1, [B]; both must occur.
    weight
        Sample weights > 0, [B].
    """
    log_p, log_not_p = log_pair(odds)
    design = np.stack([log_p, -log_not_p, np.ones_like(odds)], axis=1)
    best = newton(design, np.zeros_like(odds), np.array([1.0, 1.0, 0.0]), label, weight)
    if not _inside(best[:2]):
        held: list[tuple[float | None, float | None]] = [
            (a, b) for a, b in product((None, *SLOPES), repeat=2) if a or b
        ]
        faces = [_on_face(design, each, label, weight) for each in held]
        inside = [point for point in faces if _inside(point[:2])]
        best = min(inside, key=lambda point: log_loss(design @ point, label, weight))
        if all(slope in SLOPES for slope in best[:2]):
            best = _on_face(design, (1.0, 1.0), label, weight)
    return Beta(*best.tolist())


def _inside(slopes: Iterable[float]) -> bool:
    return all(SLOPES[0] <= slope <= SLOPES[1] for slope in slopes)


def _on_face(design: Array, held: tuple[float | None, float | None], label: Array, weight: Array) -> Array:
    """Return the minimum with the slopes in `held` fixed."""
    point = np.array([1.0 if slope is None else slope for slope in held] + [0.0])
    free = [place for place, slope in enumerate((*held, None)) if slope is None]
    fixed = [place for place in range(3) if place not in free]
    point[free] = newton(design[:, free], design[:, fixed] @ point[fixed], point[free], label, weight)
    return point
