"""`damagewatch-train`: from photos to the folder of models that the service loads. One module a group of commands."""

from damagewatch_training.cli.app import main

__all__ = ["main"]
