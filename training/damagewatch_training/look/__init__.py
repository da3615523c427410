"""Looking into an embedder: where in a picture it looks, and what it puts beside what."""
