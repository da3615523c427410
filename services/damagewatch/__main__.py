"""`python -m damagewatch`: the command line."""

from damagewatch.cli import main

main()
