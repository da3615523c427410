"""Which precisions may be shipped."""

import math

import pytest

from damagewatch_training.export.comparison import Measured, unfit


def measured(cosine: float = 0.99, **quality: float) -> Measured:
    return Measured("int8", 1.0, cosine, cosine, quality, {1: 1.0, 2: 1.0})


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (measured(0.96, mAP=0.8), None),
        (measured(0.99, mAP=0.77), None),
        (measured(0.19, mAP=0.9), "cosine to torch is 0.190"),
        (measured(math.nan, mAP=0.8), "cosine to torch is nan"),
        (measured(0.99, mAP=0.75), "mAP falls from 0.8000 to 0.7500"),
    ],
)
def test_what_differs_from_torch_or_is_worse_is_not_shipped(found: Measured, named: str | None) -> None:
    reason = unfit(found, measured(1.0, mAP=0.8))
    assert reason is None if named is None else named in str(reason)
