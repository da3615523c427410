"""What the embedder learns by: from a teacher, and from which views show one damage.

The metric losses are pytorch-metric-learning's where that is right. Its SmoothAP (2.9.0) is wrong unless there are as
many identities as views of each, so the listwise average precision is ours.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from pytorch_metric_learning import distances, losses, miners
from torch import Tensor, nn
from torch.nn import functional

MetricLoss = Literal[
    "none", "triplet", "contrastive", "multi_similarity", "supcon", "arcface", "average_precision"
]
WITH_MEMORY = ("triplet", "contrastive", "multi_similarity", "supcon")


def distillation(
    student: Tensor,
    window: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    relational: float,
    alike: float,
) -> Tensor:
    """Regression + half the contrast against all windows + relations within the batch.

    After Budnik and Avrithis (arXiv 2103.13680, regression and teacher-anchored contrast) and Park et al. (CVPR
    2019, relations).

    Args:
        student: float (B, D), of unit length.
        window: int64 (B,), which window each is a view of.
        teacher: float (W, D), of unit length. Windows that the teacher finds as alike as `alike` are no negatives
            of each other: they overlap or show one car.
        temperature: of the contrast.
        relational: weight of the mean squared difference of the pairwise similarities.
        alike: cosine of the teacher.
    """
    target = teacher[window]
    regression = (1 - (student * target).sum(1)).mean()
    similar = target @ teacher.T > alike
    similar[torch.arange(len(window)), window] = False
    scores = (student @ teacher.T / temperature).masked_fill(similar, -torch.inf)
    contrast = functional.cross_entropy(scores, window)
    relations = functional.mse_loss(student @ student.T, target @ target.T)
    return regression + 0.5 * contrast + relational * relations


class Metric(nn.Module):
    """A metric loss over a batch of some views of each of some identities, by name.

    Args:
        name: one of `MetricLoss`.
        identities: how many there are in the data; ArcFace learns a centre for each.
        dimension: of the embeddings.
        memory: embeddings of earlier batches that the batch is compared with as well (cross-batch memory, Wang et
            al., arXiv 1912.06798); 0: none.

    Raises:
        ValueError: the loss cannot use a memory.
    """

    def __init__(self, name: MetricLoss, identities: int, dimension: int, memory: int = 0) -> None:
        super().__init__()
        if memory and name not in WITH_MEMORY:
            raise ValueError(f"loss {name} uses no memory: {', '.join(WITH_MEMORY)} do")
        cosine = distances.CosineSimilarity()
        self.miner: nn.Module | None = None
        if name == "triplet":
            self.loss: nn.Module = losses.TripletMarginLoss(margin=0.2, distance=cosine)
            self.miner = miners.BatchHardMiner(distance=cosine)
        elif name == "contrastive":
            self.loss = losses.ContrastiveLoss(pos_margin=1.0, neg_margin=0.4, distance=cosine)
        elif name == "multi_similarity":
            self.loss = losses.MultiSimilarityLoss(alpha=2.0, beta=50.0, base=0.5)
            self.miner = miners.MultiSimilarityMiner(epsilon=0.1)
        elif name == "supcon":
            self.loss = losses.SupConLoss(temperature=0.1)
        elif name == "arcface":
            self.loss = losses.ArcFaceLoss(identities, dimension, margin=28.6, scale=32)
        elif name == "average_precision":
            self.loss = AveragePrecision()
        else:
            raise ValueError(f"no metric loss {name!r}: there are {', '.join(get_args(MetricLoss))}")
        self.memory = (
            losses.CrossBatchMemory(self.loss, dimension, memory_size=memory, miner=self.miner)
            if memory
            else None
        )

    def forward(self, embeddings: Tensor, identity: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: float (B, D), of unit length.
            identity: int64 (B,).
        """
        if self.memory is not None:
            loss: Tensor = self.memory(embeddings, identity)
        elif self.miner is not None:
            loss = self.loss(embeddings, identity, self.miner(embeddings, identity))
        else:
            loss = self.loss(embeddings, identity)
        return loss


class AveragePrecision(nn.Module):
    """1 - the mean average precision of a batch, each view asking for the others (Revaud et al., arXiv 1906.07589).

    Ranks are made soft by sorting similarities into bins with triangular edges, so that there is a gradient. The
    bins span -1 to 1; a view without another of its identity counts for nothing.
    """

    def __init__(self, bins: int = 40) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(1, -1, bins), persistent=False)
        self.width = 2 / (bins - 1)

    def forward(self, embeddings: Tensor, identity: Tensor) -> Tensor:
        """float (B, D) of unit length and int64 (B,) to a scalar."""
        others = ~torch.eye(len(identity), dtype=torch.bool, device=identity.device)
        right = (identity[:, None] == identity[None]) & others
        asked = right.any(1)
        if not asked.any():
            return embeddings.sum() * 0
        similarity = (embeddings @ embeddings.T).clamp(-1, 1)[asked]
        share = (1 - (similarity[:, None] - self.centres[None, :, None]).abs() / self.width).clamp(min=0)
        share = share * others[asked][:, None]
        found = (share * right[asked][:, None]).sum(2)
        precision = found.cumsum(1) / share.sum(2).cumsum(1).clamp(min=1e-9)
        return 1 - (precision * found / found.sum(1, keepdim=True)).sum(1).mean()
