"""Trials: what damagewatch promises, tried on a real Kafka with the matcher as a process of its own.

`python -m trials <name>` runs one, prints what was found beside its bar, and exits 0 only if the bar is met.
"""
