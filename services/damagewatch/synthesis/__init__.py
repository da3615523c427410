"""Made photos: a second photograph of a real one, and drawn photos of damaged cars."""
