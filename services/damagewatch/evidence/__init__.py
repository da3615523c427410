"""Where the crops are kept that show an investigator what was matched: a folder or an object store."""

from damagewatch.evidence.store import EvidenceStore

__all__ = ["EvidenceStore"]
