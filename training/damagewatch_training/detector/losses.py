"""What the detector learns from. Losses of pixels take logits and targets (0 to 1) of one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

UNLABELLED = 255

PixelLoss = Callable[[Tensor, Tensor], Tensor]
LossName = Literal["dice", "tversky", "bce", "focal", "sized"]

_LARGE = 256
"""Pixels of the logits: a damage of so many or more weighs by its area."""
_HEAVIEST = 6.0
_AROUND = np.ones((5, 5), np.uint8)
"""What lies so near a damage weighs as it does: where a small one ends matters as much as where it is."""


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice over all pixels of the batch together, so that a photo without damage has a say too."""
    return tversky(logits, target, false_positives=0.5, false_negatives=0.5)


def tversky(
    logits: Tensor,
    target: Tensor,
    false_positives: float = 0.3,
    false_negatives: float = 0.7,
) -> Tensor:
    """1 - the Tversky index (Salehi et al., 2017) over the batch: as Dice, but what is missed costs more."""
    probability = torch.sigmoid(logits)
    common = (probability * target).sum()
    wrong = (probability * (1 - target)).sum()
    missed = ((1 - probability) * target).sum()
    return 1 - (common + 0.5) / (common + false_positives * wrong + false_negatives * missed + 0.5)


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy."""
    return functional.binary_cross_entropy_with_logits(logits, target)


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017): cross entropy times (1 - probability of the truth) ** gamma."""
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((1 - torch.exp(-loss)) ** gamma * loss).mean()


def sized(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy in which small damages weigh by the root of their area, not by their area.

    In between of counting pixels and of counting damages (Shirokikh et al., MICCAI 2020).
    """
    weight = torch.from_numpy(np.stack([_weight(one) for one in target[:, 0].cpu().numpy() > 0]))
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * weight[:, None].to(loss)).mean()


def _weight(damaged: NDArray[np.bool_]) -> NDArray[np.float32]:
    """float32 (h, w), 1 away from damages that are small."""
    _, labels, found, _ = cv2.connectedComponentsWithStats(damaged.astype(np.uint8), connectivity=8)
    heavy = np.sqrt(_LARGE / found[:, cv2.CC_STAT_AREA].clip(1)).clip(1, _HEAVIEST).astype(np.float32)
    heavy[0] = 1
    return np.asarray(cv2.dilate(heavy[labels], _AROUND), np.float32)


PIXEL_LOSSES: dict[LossName, PixelLoss] = {
    "dice": dice,
    "tversky": tversky,
    "bce": bce,
    "focal": focal,
    "sized": sized,
}


def damage(logits: Tensor, labels: Tensor, losses: Sequence[LossName]) -> Tensor:
    """Loss of the damaged pixels, and of their type and severity.

    Args:
        logits: float (N, 7, h, w).
        labels: uint8 (N, 3, k h, k w), as `examples.label_map` makes them.
        losses: names in PIXEL_LOSSES; their sum is taken.
    """
    stride = labels.shape[-1] // logits.shape[-1]
    target = functional.avg_pool2d(labels[:, :1].float() / 255, stride)
    loss = torch.stack([PIXEL_LOSSES[name](logits[:, :1], target) for name in losses]).sum()
    middle = slice(stride // 2, None, stride)
    for channel, kinds in ((1, logits[:, 1:4]), (2, logits[:, 4:7])):
        truth = labels[:, channel, middle, middle].long()
        if bool((truth != UNLABELLED).any()):
            loss = loss + 0.2 * functional.cross_entropy(kinds, truth, ignore_index=UNLABELLED)
    return loss


def somewhere(logits: Tensor, regions: Tensor, share: float = 0.3) -> Tensor:
    """Weak labels: within a region there is damage, nobody says where; away from all regions there is little.

    The most damaged `share` of the pixels in the regions of each photo is to be damage (multiple instances), and
    all pixels outside are to be none.

    Args:
        logits: float (N, 1, h, w) of damage.
        regions: uint8 (N, k h, k w), 255 within a region.
        share: of the pixels of the regions, 0 to 1.
    """
    stride = regions.shape[-1] // logits.shape[-1]
    inside = functional.avg_pool2d(regions[:, None].float() / 255, stride) > 0.5
    loss = logits.new_zeros(())
    for one, within in zip(logits, inside, strict=True):
        if bool(within.any()):
            values = one[within]
            most = values.topk(max(1, int(share * len(values)))).values
            loss = loss + functional.softplus(-most).mean()
    outside = ~inside
    if bool(outside.any()):
        loss = loss + len(logits) * functional.softplus(logits[outside]).mean()
    return loss / len(logits)
