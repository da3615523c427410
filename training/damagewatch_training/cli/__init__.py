"""`damagewatch-train`: from photos to the folder of models that the service loads. One module a group of commands."""


def main() -> None:
    """Runs the command line."""
    from damagewatch_training.cli.app import main as run  # all of it needs torch, its modules alone do not

    run()
