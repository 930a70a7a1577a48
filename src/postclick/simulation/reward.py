r"""The world of a reward model: a precomputed vector a row, annotated where somebody chose to, preferred or not.

**Rows.** x ~ N(0, I) in `size` dimensions, as an encoder would leave it, in float32; it is all that the log shows.
u, v, w = x . a, x . b, x . c along orthonormal directions that nobody logs. u is quality, v the length of an answer:
the shorter the better below the average, all alike above it. With k = `bend`, and h(v) = (max(-v, 0) - m) / s where m
and s are its mean and sd::

    f_i         = sqrt(1 - k) u_i + sqrt(k) h(v_i)                              mean 0, variance 1
    preferred_i ~ Bernoulli(cvr_i)     cvr_i = sigmoid(b + spread f_i)
    annotated_i ~ Bernoulli(ctr_i)     ctr_i = sigmoid(a + selection (u_i + v_i) / sqrt(2) + neutral w_i)
    the log says preferred_i where annotated_i, else nothing (0)

a and b are solved for: mean ctr = `annotation_rate`, sum(ctr cvr) / sum(ctr) = `preference_rate`.

**What is in it.** Annotation is a click and preference a conversion: everything that moves both is a function of x, so
``cvr_do`` = ``cvr_click``. A linear head on x holds the propensity and not the preference: h is flat among most
annotated rows (their v is high) and falls over the others. Weighting by the propensity finds the best linear head over
all rows, the fit on annotated rows a flatter one. A network with hidden layers can hold h, and there the two differ by
what few rows can tell.

**Positive-unlabelled.** With `positive_unlabelled` only preferred rows are ever annotated, the protocol of CausalRM
(SYSTEMS 13.6)::

    annotated_i = preferred_i m_i,    m_i ~ Bernoulli(pi_i),    pi_i as ctr_i above

so ctr_i = pi_i cvr_i and every annotated row is preferred: the indicator is the label, seen through pi. ``cvr_do`` is
cvr_i, ``cvr_click`` is 1, the column `propensity` holds pi_i = P(annotated | preferred, x), and a = mean pi, b = mean
cvr are solved for over all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from postclick.binding import Argument, plain
from postclick.data.scores import probability
from postclick.errors import ConfigError, Finding
from postclick.simulation.bisection import rising_root

__all__ = ["REWARD", "Ratings", "RewardKnobs", "draw_ratings"]

Floats = NDArray[np.float64]

REWARD = "reward"
_ROWS = 16_384  # fixed: each chunk has its own random stream, so this number is part of the world
_DIRECTIONS, _CHUNKS = 12, 13  # streams of random numbers, beside those of the other worlds
_CALIBRATION_CHUNKS = 16
_MEAN, _SD = (2.0 * np.pi) ** -0.5, (0.5 - 0.5 / np.pi) ** 0.5  # of max(-v, 0), v standard normal
_START, _SECONDS = 1_735_689_600, 604_800  # a week from 2025-01-01 00:00 UTC


@dataclass(frozen=True)
class RewardKnobs:
    """What can be turned in the world `reward`; the equations are in `postclick.simulation.reward`.

    Raises
    ------
    ConfigError
        Where a value is out of its range; all of them together.
    """

    action_rate: ClassVar[float] = 0.0
    """There are no in-shop actions, as in other worlds with a rate of 0."""

    annotation_rate: Annotated[float, Argument("mean true P(annotated) over rows")] = 0.2
    preference_rate: Annotated[float, Argument("mean true P(preferred) over annotated rows")] = 0.5
    selection: Annotated[float, Argument("weight, in the annotation logit, of what moves the preference; 0: none")] = (
        1.5
    )
    bend: Annotated[
        float, Argument("share, in [0, 1], of the preference's variance in the bent part, not linear in x")
    ] = 0.6
    spread: Annotated[float, Argument("sd of the preference logit")] = 2.0
    neutral: Annotated[float, Argument("sd of the part of the annotation logit that the preference does not know")] = (
        0.5
    )
    size: Annotated[int, Argument("length of the vector, at least 3")] = 32
    logged_propensity: Annotated[bool, Argument("the log has the true propensity as a column")] = False
    positive_unlabelled: Annotated[bool, Argument("only preferred rows are annotated; logs the propensity")] = False

    def __post_init__(self) -> None:
        ranges = {
            "annotation_rate": 0.0 < self.annotation_rate < 1.0,
            "preference_rate": 0.0 < self.preference_rate < 1.0,
            "selection": 0.0 <= self.selection <= 10.0,
            "bend": 0.0 <= self.bend <= 1.0,
            "spread": 0.0 <= self.spread <= 10.0,
            "neutral": 0.0 <= self.neutral <= 10.0,
            "size": 3 <= self.size <= 65_536,
        }
        wrong = [
            Finding("config.value", f"{getattr(self, name)!r} is out of range", f"set.{name}")
            for name, fits in ranges.items()
            if not fits
        ]
        if wrong:
            raise ConfigError(*wrong)

    @property
    def has_propensity(self) -> bool:
        """Whether the log has the column `propensity`."""
        return self.logged_propensity or self.positive_unlabelled

    def to_dict(self) -> dict[str, Any]:
        """Return the knobs as JSON can hold them."""
        form: dict[str, Any] = plain(self)
        return form


@dataclass(frozen=True)
class Ratings:
    """Consecutive rows with truth and labels.

    Parameters
    ----------
    first
        Number of the first row; exposure ids are number + 1.
    vector
        float32 [B, V].
    time
        Seconds since 1970 (UTC), rising.
    ctr, cvr_do, cvr_click, propensity
        True P(annotated | x), P(preferred | x), P(preferred | annotated, x), and what annotation is divided by: ctr, or
        P(annotated | preferred, x) where only preferred rows are annotated.
    click, conversion
        Annotated, and annotated and preferred.
    """

    first: int
    vector: NDArray[np.float32]
    time: NDArray[np.int64]
    ctr: Floats
    cvr_do: Floats
    cvr_click: Floats
    propensity: Floats
    click: NDArray[np.int8]
    conversion: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.vector)

    @property
    def exposure_id(self) -> NDArray[np.int64]:
        """Ids from 1."""
        return np.arange(self.first + 1, self.first + 1 + len(self), dtype=np.int64)

    @property
    def ctcvr(self) -> Floats:
        """True P(annotated and preferred | x)."""
        return self.ctr * self.cvr_click


@dataclass(frozen=True)
class _Logits:
    """Vectors of one chunk and both logits up to their intercepts."""

    vector: NDArray[np.float32]
    annotation: Floats
    preference: Floats
    rng: np.random.Generator


def _logits(knobs: RewardKnobs, seed: int, index: int, count: int) -> _Logits:
    # three orthonormal directions; a QR of Gaussians is uniform over them
    axes = np.linalg.qr(np.random.default_rng([seed, _DIRECTIONS]).standard_normal((knobs.size, 3)))[0]
    rng = np.random.default_rng([seed, _CHUNKS, index])
    vector = rng.standard_normal((count, knobs.size), dtype=np.float32)
    u, v, w = (vector.astype(np.float64) @ axes).T
    bent = (np.maximum(-v, 0.0) - _MEAN) / _SD
    preference = np.sqrt(1.0 - knobs.bend) * u + np.sqrt(knobs.bend) * bent
    annotation = knobs.selection * (u + v) / np.sqrt(2.0) + knobs.neutral * w
    return _Logits(vector, annotation, knobs.spread * preference, rng)


def _sizes(rows: int) -> list[int]:
    return [min(_ROWS, rows - first) for first in range(0, rows, _ROWS)]


def _intercepts(knobs: RewardKnobs, seed: int, rows: int) -> tuple[float, float]:
    """Return a and b, exact over the rows of a world of up to 262,144, over the first so many of a larger one."""
    sizes = _sizes(rows)[:_CALIBRATION_CHUNKS]
    parts = [_logits(knobs, seed, index, count) for index, count in enumerate(sizes)]
    annotation = np.concatenate([part.annotation for part in parts])
    preference = np.concatenate([part.preference for part in parts])
    first = rising_root(lambda shift: float(probability(annotation + shift).mean()) - knobs.annotation_rate)
    share = np.ones(len(annotation)) if knobs.positive_unlabelled else probability(annotation + first)
    share /= share.sum()
    second = rising_root(lambda shift: float(share @ probability(preference + shift)) - knobs.preference_rate)
    return first, second


def draw_ratings(knobs: RewardKnobs, seed: int, rows: int) -> Iterator[Ratings]:
    """Yield the rows of a world, chunk by chunk; equal arguments give equal rows."""
    first, second = _intercepts(knobs, seed, rows)
    for index, count in enumerate(_sizes(rows)):
        drawn = _logits(knobs, seed, index, count)
        propensity, cvr = probability(drawn.annotation + first), probability(drawn.preference + second)
        noticed, preferred = (drawn.rng.random(count) < chance for chance in (propensity, cvr))
        ctr, given, click = propensity, cvr, noticed
        if knobs.positive_unlabelled:
            ctr, given, click = propensity * cvr, np.ones(count), noticed & preferred
        place = index * _ROWS + np.arange(count)
        yield Ratings(
            index * _ROWS,
            drawn.vector,
            _START + (_SECONDS * place) // rows,
            ctr,
            cvr,
            given,
            propensity,
            click.astype(np.int8),
            (click & preferred).astype(np.int8),
        )
