"""Trains, measures and exports the models that damagewatch ships. The only part of the project that needs torch."""

import damagewatch  # noqa: F401 - sets what libraries read when they are first imported
