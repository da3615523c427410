"""How good a method is: metrics, one protocol for all, reports."""
