"""From the signals of a pair to the probability that it is one damage."""
