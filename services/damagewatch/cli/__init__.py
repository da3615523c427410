"""The command line: `damagewatch <command>`. Exit codes: 0 good, 1 failed, 2 wrong usage."""

from damagewatch.cli.app import main

__all__ = ["main"]
