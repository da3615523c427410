"""Photos, labels and pairs: where they come from, how they are split, cut, and photographed again."""
