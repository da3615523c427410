"""Where damages are remembered: one interface, in this process (Qdrant Edge) or on a Qdrant server."""

from .edge import EdgeIndex
from .interface import Candidate, Copy, DamageIndex, collection_name
from .qdrant import QdrantIndex

__all__ = ["Candidate", "Copy", "DamageIndex", "EdgeIndex", "QdrantIndex", "collection_name"]
