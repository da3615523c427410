"""From the signals of a pair to the probability that both show one damage: a logistic regression."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from damagewatch.domain import Signals
from damagewatch.vision.distinctness import Distinctness

FEATURES = (
    "cosine",
    "log1p_inliers",
    "log1p_focus_inliers",
    "inlier_ratio",
    "alignment",
    "overlap",
    "hash_distance",
    "distinctness",
)
"""Names of the values that `features` returns, in this order."""

Probability = Annotated[float, Field(gt=0, lt=1)]


def features(signals: Signals) -> tuple[float, ...]:
    """The numbers that the logistic takes, in the order of `FEATURES`; the hash distance over its 64 bits."""
    return (
        signals.cosine,
        math.log1p(signals.inliers),
        math.log1p(signals.focus_inliers),
        signals.inlier_ratio,
        signals.alignment,
        signals.overlap,
        signals.hash_distance / 64,
        signals.distinctness,
    )


class DuplicateThresholds(BaseModel):
    """Two photos are one picture where they agree in detail, by hardly more than a crop, scaling or rotation.

    Measured on 120 real copies and 126 rephotographs: the perspective is 0.009 at most in 95% of the copies, and
    0.03 at least in 95% of the rephotographs; 95% of the copies align by 0.9 or more.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    alignment: Annotated[float, Field(gt=0, le=1)] = 0.85
    overlap: Annotated[float, Field(gt=0, le=1)] = 0.25
    perspective: Annotated[float, Field(ge=0, le=1)] = 0.02


class Thresholds(BaseModel):
    """From which values on a pair is an alert."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    same_damage: Probability = 0.5
    """Probability of one damage."""
    duplicate_photo: DuplicateThresholds = DuplicateThresholds()
    """What makes two photos one picture."""
    mirrored_cosine: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """Cosine from which the mirrored query is tried: its local features cost ten milliseconds."""
    similar_damage: Annotated[float, Field(gt=0, le=1)] | None = None
    """Cosine from which a pair without geometry is SIMILAR_DAMAGE; None, the default: never."""


class Logistic(BaseModel):
    """A logistic regression over standardised features: intercept + sum of coefficient * (x - mean) / scale.

    The defaults were set by hand after real pairs, and serve until training fits better ones.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    mean: tuple[FiniteFloat, ...] = (0.0,) * 8
    scale: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = (1.0,) * 8
    coefficients: tuple[FiniteFloat, ...] = (0.0, 0.1, 0.15, 3.0, 6.0, 0.0, 0.0, 0.0)
    intercept: FiniteFloat = -6.6

    @model_validator(mode="after")
    def _of_all_features(self) -> Self:
        if {len(self.mean), len(self.scale), len(self.coefficients)} != {len(FEATURES)}:
            raise ValueError(f"mean, scale and coefficients want {len(FEATURES)} values each")
        return self

    def of(self, signals: Signals) -> float:
        """The probability, 0 to 1."""
        terms = zip(self.coefficients, features(signals), self.mean, self.scale, strict=True)
        logit = self.intercept + sum(c * (x - mean) / scale for c, x, mean, scale in terms)
        if logit < 0:
            return math.exp(max(logit, -700.0)) / (1 + math.exp(max(logit, -700.0)))
        return 1 / (1 + math.exp(-logit))


class Calibration(Logistic):
    """What makes a probability of the signals: itself for two detected damages, `whole` where one is a whole photo.

    Whole photos have a regression of their own (None: the same), since like cars in front of one background agree in
    more than like damages do. `base_rate` is the share of true pairs, among those on which the probability decides,
    for which both are fitted.
    """

    features: tuple[str, ...] = FEATURES
    whole: Logistic | None = None
    base_rate: Probability = 0.003
    thresholds: Thresholds = Thresholds()
    distinctness: Distinctness = Distinctness()

    @model_validator(mode="after")
    def _knows_the_features(self) -> Self:
        if self.features != FEATURES:
            raise ValueError(f"features must be {', '.join(FEATURES)}, in this order")
        return self

    @property
    def version(self) -> str:
        """Names these numbers and nothing but them."""
        return f"logistic-{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]}"

    def probability(self, signals: Signals) -> float:
        """That both show the same damage, 0 to 1."""
        return (self.whole if self.whole is not None and signals.whole else self).of(signals)
