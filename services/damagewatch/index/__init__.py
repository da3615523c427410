"""Where damages are remembered: one interface, in this process (Qdrant Edge) or on a Qdrant server.

The adapters are `index.edge.EdgeIndex` and `index.qdrant.QdrantIndex`; each is imported where it is used, since
each brings an engine or a client of its own.
"""

from damagewatch.index.interface import (
    ActiveCollection,
    Candidate,
    Copy,
    DamageIndex,
    Entry,
    RebuildableIndex,
    collection_name,
)

__all__ = [
    "ActiveCollection",
    "Candidate",
    "Copy",
    "DamageIndex",
    "Entry",
    "RebuildableIndex",
    "collection_name",
]
