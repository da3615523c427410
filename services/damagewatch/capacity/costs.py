"""What one photo and one damage cost, and where each figure comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _figure(value: float, source: str) -> Any:
    return field(default=value, metadata={"source": source})


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Defaults are what was measured (2 cores AMD EPYC Zen 4, AVX-512, no GPU), or what was assumed."""

    cpu_ms: float = _figure(112, "CPU ms a photo in the matcher, `make bench` on 300 real photos")
    judging: float = _figure(
        0.36, "share of it after the models: searching, verifying, writing; the same bench"
    )
    damages: float = _figure(
        3, "points a photo, the photo as a whole included; 2.1 to 3.3 on three sets of real photos"
    )
    photo_kb: float = _figure(1000, "kB a photo in Kafka; assumed, for phones whose app scales down")
    crop_kb: float = _figure(92, "kB a damage in the evidence store, photos large enough for crops of 768 px")
    disk_kb: float = _figure(
        56.4, "kB a damage on disk: payload 53.9, exact vector 2.05, codes and indexes 0.4"
    )
    memory_kb: float = _figure(
        0.72, "kB a damage in memory: codes, ids, keyword indexes; 40,000 damages reopened"
    )
    scan_ns: float = _figure(
        12, "core-ns a damage that one query scans; 400,000 damages, 4-bit codes, rescored"
    )
    graph_ms: float = _figure(
        0.44, "core-ms a query of an HNSW graph of 50,000 damages, ef 256; larger: assumed"
    )
    graph_kb: float = _figure(0.15, "kB a damage for the HNSW graph, m=16, by Qdrant's formula; not measured")
    commit_ms: float = _figure(15, "ms a batch waits for its transaction; assumed for three brokers")


def sources() -> list[tuple[str, float, str]]:
    """Name, default and source of every figure."""
    return [(each.name, float(each.default), each.metadata["source"]) for each in fields(Costs)]  # type: ignore[arg-type]
