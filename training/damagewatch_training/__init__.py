"""Trains, measures and exports the models that damagewatch ships. The only part of the project that needs torch."""
