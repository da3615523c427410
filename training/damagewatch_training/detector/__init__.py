"""The detector: its networks, its examples, its training."""
