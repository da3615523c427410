"""Local features: XFeat, fine-tuned on photos taken again."""
