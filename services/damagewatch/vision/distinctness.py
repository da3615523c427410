"""How telling matched features are: wheels, lamps and one background agree between different cars as well.

Learned from the matches themselves: those of photos and their rephotographs, against those that look-alike photos
of different cars happen to have.
"""

from __future__ import annotations

import base64
import binascii
from functools import cached_property
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

DIMENSION = 64
"""Of a descriptor."""

_INDIFFERENT = 0.5

Weights = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]


class Distinctness(BaseModel):
    """A network of one hidden layer: a descriptor to the odds that such a match is of one car.

    `weights` is base64 of little-endian float16: (64, hidden) and (hidden,) of the hidden layer, (hidden,) and one
    of the output. Without a hidden layer, the default, every match is as telling as any other.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    hidden: Annotated[int, Field(ge=0, le=256)] = 0
    weights: Annotated[str, Field(max_length=100_000)] = ""

    @classmethod
    def of(
        cls,
        hidden: NDArray[np.float64],
        hidden_bias: NDArray[np.float64],
        output: NDArray[np.float64],
        bias: float,
    ) -> Self:
        """From the layers of a trained network, of shapes (64, H), (H,) and (H,)."""
        flat = np.concatenate([hidden.ravel(), hidden_bias, output, [bias]]).astype("<f2")
        return cls(hidden=len(output), weights=base64.b64encode(flat.tobytes()).decode("ascii"))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden:
            wanted = 2 * (DIMENSION * self.hidden + 2 * self.hidden + 1)
            try:
                content = base64.b64decode(self.weights, validate=True)
            except binascii.Error as error:
                raise ValueError(f"weights are not base64: {error}") from None
            if len(content) != wanted:
                raise ValueError(
                    f"weights hold {len(content)} bytes, {self.hidden} hidden units want {wanted}"
                )
            if not np.isfinite(np.frombuffer(content, "<f2")).all():
                raise ValueError("weights with a value that is not finite")
        return self

    @cached_property
    def _layers(self) -> Weights:
        flat = np.frombuffer(base64.b64decode(self.weights), "<f2").astype(np.float32)
        hidden, rest = flat[: DIMENSION * self.hidden], flat[DIMENSION * self.hidden :]
        return (
            hidden.reshape(DIMENSION, self.hidden),
            rest[: self.hidden],
            rest[self.hidden : -1],
            float(rest[-1]),
        )

    def each(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of each match, 0 to 1.

        Args:
            descriptors: float32 (N, 64), the mean of the two unit-length descriptors of each match.
        """
        if not self.hidden:
            return np.full(len(descriptors), _INDIFFERENT, np.float32)
        hidden, hidden_bias, output, bias = self._layers
        # einsum and not @: OpenBLAS would spread a product of this size over all cores.
        units = np.maximum(np.einsum("nd,dh->nh", descriptors, hidden) + hidden_bias, 0)
        logits = np.clip(np.einsum("nh,h->n", units, output) + np.float32(bias), -30, 30)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)

    def mean(self, descriptors: NDArray[np.float32]) -> float:
        """Of all matches of a pair, 0 to 1; 0 where there are none."""
        return float(self.each(descriptors).mean()) if len(descriptors) else 0.0
