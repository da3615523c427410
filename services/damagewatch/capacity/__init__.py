"""How many machines a stream of photos needs: a plan from measured costs, and a simulation of it.

Nothing of the service is in here, and nothing of this runs in the service: Kafka's groups and Qdrant's shards
do the scaling; this says how many of each.
"""
