"""The embedder: what it learns from, its networks, its losses, its training."""
