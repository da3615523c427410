"""Where a training runs: on the CPU, on a GPU, or on several through torchrun, by Lightning Fabric."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric

Precision = Literal["auto", "32-true", "bf16-mixed"]


def fabric(precision: Precision = "auto") -> Fabric:
    """This process's part of the training, ready to use.

    One process on its own takes the first GPU where there is one. Processes that torchrun started
    (``torchrun --nproc-per-node 4 --no-python -- damagewatch-train train ...``) take one GPU each, or share the CPU.

    Args:
        precision: `bf16-mixed` computes in bfloat16 what can be, `auto` does so on GPUs alone: CPUs that do not know
            bfloat16 take twelve times as long, and depthwise convolutions are slower on those that do, too.
    """
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    made = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=max(world // local, 1),
        strategy="ddp" if world > 1 else "auto",
        precision=_here(precision),
    )
    made.launch()
    return made


def seed(*parts: int) -> None:
    """Seeds torch by where a training stands: who goes on draws what would have been drawn without a stop."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]))


def _here(precision: Precision) -> Literal["32-true", "bf16-mixed"]:
    if precision != "auto":
        return precision
    return "bf16-mixed" if torch.cuda.is_available() else "32-true"
